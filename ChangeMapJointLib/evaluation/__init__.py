"""What was found of what is known to be there."""
