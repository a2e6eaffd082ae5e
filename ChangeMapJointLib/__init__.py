"""ChangeMapJoint: registration and change detection for follow-up chest CT.

The library runs without 3D Slicer. Sub-packages, from the bottom of the import order to the top: ``core``, ``scan``,
``io``, ``gate``, ``lungs``, ``registration``, ``lesions``, ``change``, ``joint``, ``synthesis``, ``training``,
``evaluation``, ``export``, ``comparison``, ``background``, ``cli``, ``scene``. A package may import only from those
before it.

Research use, not a medical device.
"""

__version__ = "0.1.0"
