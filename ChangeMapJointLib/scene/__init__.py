"""Results in a 3D Slicer scene: nodes, overlay, layouts, findings. Imports ``slicer``, but neither Qt nor torch."""
