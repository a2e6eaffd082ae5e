"""Packages that only some parts need, in the extras of ``pyproject.toml``."""

from __future__ import annotations

from importlib.util import find_spec

from ChangeMapJointLib.core.errors import InputError


def require_packages(extra: str, *names: str) -> None:
    """Check that packages of an extra are installed, before anything is begun.

    Args:
        extra: of ``pyproject.toml``.
        names: of the modules, as they are imported.

    Raises:
        InputError: one is missing.
    """
    for name in names:
        if find_spec(name) is None:
            package = name.replace("_", "-")
            remedy = f'install it with: pip install "changemapjoint[{extra}]"'
            raise InputError(f"the Python package {package} is missing", remedy=remedy)
