"""The MRML layer: nodes, overlay, layouts, findings. It imports ``slicer`` and never Qt or torch."""
