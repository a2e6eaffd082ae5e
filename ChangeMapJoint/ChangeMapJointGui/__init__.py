"""The panel of the ChangeMapJoint module (Qt); nothing numerical."""
