"""Change maps, findings and their measurement."""
