"""The browser viewer of finished runs, and reading sessions in it. Needs the extra ``view`` and no torch."""
