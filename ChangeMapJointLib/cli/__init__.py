"""The command ``changemap``: one file a command."""
