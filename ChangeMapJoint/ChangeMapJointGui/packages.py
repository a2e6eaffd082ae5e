"""Install the Python packages that the background worker needs and this Slicer may not have.

The user is asked at the first Apply, and at the first export that needs more; nothing is installed without consent.
Packages are looked up without importing them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import slicer
from slicer.i18n import tr as _

try:
    from packaging.requirements import Requirement
except ImportError:  # it comes with pip in any case
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]

TITLE = "ChangeMapJoint"
FAST = "fast"  # marker of packages that only make the comparison faster
BUILT_IN = ("numpy", "pillow", "pydicom", "requests", "scipy", "SimpleITK")  # Slicer's own, which it uses itself


class PackagesDeclined(RuntimeError):
    """Packages are missing and were not installed; the message says which, why and what to do."""


def requirementsFile() -> Path:
    """Return the path of the module's requirements file, in the source tree or an installed extension."""
    return Path(__file__).resolve().parent.parent / "Resources" / "requirements.txt"


def requirements(path: Path | None = None, *, extra: str = "") -> list[Requirement]:
    """Return the requirements in the file that apply on this system.

    Args:
        path: of the requirements file; the module's own by default.
        extra: return those of an extra, ``fast``, ``dicom`` or ``pdf``, instead of what every comparison needs.
    """
    lines = [line.strip() for line in (path or requirementsFile()).read_text("utf-8").splitlines()]
    parsed = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return [requirement for requirement in parsed if _applies(requirement, extra)]


def _applies(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    always = requirement.marker.evaluate({"extra": ""})
    return requirement.marker.evaluate({"extra": extra}) and not always if extra else always


def installed(name: str) -> str | None:
    """Return the version of an installed package, or None; the package is not imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(path: Path | None = None, *, extra: str = "") -> list[Requirement]:
    """Return the requirements that are not installed or too old; arguments as of :func:`requirements`."""
    importlib.invalidate_caches()
    result = []
    for requirement in requirements(path, extra=extra):
        name, version = requirement.name, installed(requirement.name)
        if version is None and name in BUILT_IN and importlib.util.find_spec(name):
            continue  # part of Slicer's own build, which may not state a version
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            result.append(requirement)
    return result


def ensure(offlineFolder: str | Path = "", *, export: str = "") -> None:
    """Ask the user to install the missing packages, and install them.

    Args:
        offlineFolder: folder of wheels for computers without a network; empty for none.
        export: ``dicom`` or ``pdf`` for what such an export needs, instead of what a comparison needs.

    Raises:
        PackagesDeclined: a required package is still missing.
    """
    needed = missing(extra=export)
    if not needed:
        return
    if slicer.app.testingEnabled():
        raise PackagesDeclined(_sentence(needed, _("Nothing is installed while Slicer runs tests.")))
    outdated = [requirement for requirement in needed if requirement.name in BUILT_IN]
    if outdated:
        newer = _("Slicer 5.12") if export else _("Slicer 5.10")
        why = _("They are part of Slicer: use {version} or newer.").format(version=newer)
        raise PackagesDeclined(_sentence(outdated, why))
    fast = [] if export else missing(extra=FAST)
    try:
        if str(offlineFolder):
            _installOffline(Path(offlineFolder), needed, fast)
        else:
            _installTorch([requirement for requirement in needed if requirement.name == "torch"])
            _install([requirement for requirement in needed if requirement.name != "torch"], fast)
    except PackagesDeclined:
        raise
    except (CalledProcessError, RuntimeError) as error:
        why = _("The installation failed; see the Python console.")
        raise PackagesDeclined(_sentence(missing(extra=export), why)) from error
    remaining = missing(extra=export)
    if remaining:
        raise PackagesDeclined(_sentence(remaining, _("They were not installed.")))


def _installOffline(folder: Path, needed: list[Requirement], extra: list[Requirement]) -> None:
    if not folder.is_dir():
        raise PackagesDeclined(_sentence(needed, _("The folder of wheels {path} does not exist.").format(path=folder)))
    _ask(needed, extra, _("They are taken from {path}.").format(path=folder))
    source = ["--no-index", "--find-links", str(folder)]
    with constraints(needed) as pinned:
        slicer.util.pip_install([*source, "-c", str(pinned), *map(_plain, needed)])
        _try(lambda: slicer.util.pip_install([*source, "-c", str(pinned), *map(_plain, extra)]), extra)


def _installTorch(needed: list[Requirement]) -> None:
    """Install PyTorch through its extension, which chooses the build that fits the graphics card."""
    if not needed:
        return
    try:
        import PyTorchUtils
    except ImportError as error:
        advice = _("Install the extension PyTorch with the Extensions Manager and restart Slicer.")
        raise PackagesDeclined(_sentence(needed, advice)) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    with usualCursor():
        installed = logic.installTorch(askConfirmation=True, torchVersionRequirement=str(needed[0].specifier))
    if installed is None:
        raise PackagesDeclined(_sentence(needed, _("The installation was declined.")))


def _install(needed: list[Requirement], extra: list[Requirement]) -> None:
    try:
        from slicer import packaging
    except ImportError:  # before Slicer 5.12
        packaging = None
    if not needed:  # torch alone was missing, and its extension has asked; the rest is only for speed
        return
    _ask(needed, extra, "")
    with constraints(needed) as pinned:
        if packaging is not None:
            packaging.pip_install(list(map(_plain, needed)), constraints=pinned, requester=TITLE)
            quietly = {"constraints": pinned, "show_progress": False}  # else a failure would show an error box
            _try(lambda: packaging.pip_install(list(map(_plain, extra)), **quietly), extra)
        else:
            slicer.util.pip_install(["-c", str(pinned), *map(_plain, needed)])
            _try(lambda: slicer.util.pip_install(["-c", str(pinned), *map(_plain, extra)]), extra)


def _try(install: Any, extra: list[Requirement]) -> None:
    """Install the optional packages, which only add speed; a failure is logged."""
    if extra:
        try:
            install()
        except (CalledProcessError, RuntimeError):
            logging.warning("%s could not be installed: registration on the CPU takes longer", _names(extra))


def _ask(needed: list[Requirement], extra: list[Requirement], where: str) -> None:
    """Ask once for all packages, by name, with the usual cursor."""
    text = _("ChangeMapJoint needs Python packages that are missing in this Slicer: {names}. {where}")
    text = text.format(names=_names(needed), where=where).strip()
    if extra:
        speed = _("Also installed, for speed alone: {names}, which brings llvmlite along.")
        text += "\n\n" + speed.format(names=_names(extra))
    text += "\n\n" + _("What Slicer itself uses is not changed. Install them?")
    with usualCursor():
        agreed = slicer.util.confirmOkCancelDisplay(text, windowTitle=TITLE)
    if not agreed:
        raise PackagesDeclined(_sentence(needed, _("The installation was declined.")))


@contextmanager
def usualCursor() -> Iterator[None]:
    """Show the usual cursor inside the block: a question is open, and the program waits for the user."""
    shapes = []
    while slicer.app.overrideCursor() is not None:
        shapes.append(slicer.app.overrideCursor().shape())
        slicer.app.restoreOverrideCursor()
    try:
        yield
    finally:
        for shape in reversed(shapes):
            slicer.app.setOverrideCursor(shape)


@contextmanager
def constraints(needed: list[Requirement]) -> Iterator[Path]:
    """Yield a constraints file for pip that pins the packages that are installed, so that none of Slicer's changes."""
    wanted = {requirement.name.lower() for requirement in needed}
    lines = []
    for name in sorted({requirement.name for requirement in requirements()} | set(BUILT_IN)):
        version = installed(name)
        if version is not None and name.lower() not in wanted and name != "torch":
            lines.append(f"{name}=={version}\n")
    with tempfile.TemporaryDirectory(prefix="ChangeMapJoint") as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("".join(lines), "utf-8")
        yield path


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _names(needed: list[Requirement]) -> str:
    return ", ".join(map(_plain, needed))


def _sentence(needed: list[Requirement], why: str) -> str:
    text = _(
        "Python packages are missing in this Slicer: {names}. {why} Press Apply, or the button of the export, to be "
        "asked again; on a computer without a network, choose a folder of wheels under Advanced."
    )
    return text.format(names=_names(needed), why=why)
