"""The panel of the ChangeMapJoint module: Qt, and nothing numerical."""
