"""A stand-in for the application 3D Slicer: its real scene with a GUI of PySide6 that behaves like PythonQt.

``boot`` starts it; then ``import slicer, qt, ctk`` work as in Slicer. See README.md beside this package's folder.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3] / "scene"))  # headless.py: scene and slice views without Qt

from slicerhost.errorrecord import errors
from slicerhost.host import boot, reset
from slicerhost.messages import dialogs
from slicerhost.modules import close_module, leave_module, load_module, open_module

__all__ = ["boot", "close_module", "dialogs", "errors", "leave_module", "load_module", "open_module", "reset"]
