"""``python -m ChangeMapJointLib`` is the command ``changemap``."""

from ChangeMapJointLib.app.cli import main

if __name__ == "__main__":
    main()
