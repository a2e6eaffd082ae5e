"""ChangeMapJoint: registration and change detection for follow-up chest CT.

The library runs without 3D Slicer. Sub-packages are listed from the bottom of the import
order to the top: ``core``, ``volumes``, ``registration``, ``change``, ``training``,
``evaluation``, ``export``, ``app``. A package may import only from those before it.

Research use, not a medical device.
"""

__version__ = "0.1.0"
