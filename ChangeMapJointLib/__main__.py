"""``python -m ChangeMapJointLib`` is the command ``changemap``."""

import sys

if __name__ == "__main__":
    try:
        from ChangeMapJointLib.app.cli import main
    except KeyboardInterrupt:  # Ctrl-C while the packages load
        sys.exit(130)
    main()
