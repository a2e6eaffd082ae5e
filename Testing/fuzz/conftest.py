"""The samples of the library's tests are what is damaged here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "library"))
