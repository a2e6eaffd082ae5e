"""Reader studies: the reading log that viewers write, and its statistics."""
