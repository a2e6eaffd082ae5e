"""Python packages that the background worker needs and this Slicer may lack: asked for at the first Apply.

Nothing is imported to find out what is there, and nothing is installed without a yes.
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
OPTIONAL = {"extra": "fast"}
BUILT_IN = ("numpy", "SimpleITK")  # Slicer is linked against them: replaced, they keep it from starting


class PackagesDeclined(RuntimeError):
    """Packages are missing and were not installed; the text says which, why and what to do."""


def requirementsFile() -> Path:
    """Beside the module, in the source tree as well as where the extension is installed."""
    return Path(__file__).resolve().parent.parent / "Resources" / "requirements.txt"


def requirements(path: Path | None = None, *, optional: bool = False) -> list[Requirement]:
    """What the file asks for here.

    Args:
        path: of the requirements; the module's own by default.
        optional: those that only make it faster, instead of those that must be there.
    """
    lines = [line.strip() for line in (path or requirementsFile()).read_text("utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    return [one for one in found if _applies(one, optional=optional)]


def _applies(one: Requirement, *, optional: bool) -> bool:
    if one.marker is None:
        return not optional
    always, fast = one.marker.evaluate({"extra": ""}), one.marker.evaluate(OPTIONAL)
    return fast and not always if optional else always


def installed(name: str) -> str | None:
    """Version of an installed package, or None; it is not imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(path: Path | None = None, *, optional: bool = False) -> list[Requirement]:
    """What is not installed, or too old; see :func:`requirements`."""
    importlib.invalidate_caches()
    found = []
    for one in requirements(path, optional=optional):
        version = installed(one.name)
        if version is None and one.name in BUILT_IN and importlib.util.find_spec(one.name):
            continue  # of Slicer's own build, which may not say its version
        if version is None or not one.specifier.contains(version, prereleases=True):
            found.append(one)
    return found


def ensure(offlineFolder: str | Path = "") -> None:
    """Ask for what is missing, and install it.

    Args:
        offlineFolder: folder of wheels for computers without a network; empty for none.

    Raises:
        PackagesDeclined: something is still missing.
    """
    needed = missing()
    if not needed:
        return
    if slicer.app.testingEnabled():
        raise PackagesDeclined(_sentence(needed, _("Nothing is installed while Slicer runs tests.")))
    old = [one for one in needed if one.name in BUILT_IN and installed(one.name)]
    if old:
        raise PackagesDeclined(_sentence(old, _("They are part of Slicer: use Slicer 5.10 or newer.")))
    extra = missing(optional=True)
    try:
        if str(offlineFolder):
            _installOffline(Path(offlineFolder), needed, extra)
        else:
            _installTorch([one for one in needed if one.name == "torch"])
            _install([one for one in needed if one.name != "torch"], extra)
    except CalledProcessError as error:
        raise PackagesDeclined(
            _sentence(missing(), _("The installation failed; the Python console says why."))
        ) from error
    left = missing()
    if left:
        raise PackagesDeclined(_sentence(left, _("They were not installed.")))


def _installOffline(folder: Path, needed: list[Requirement], extra: list[Requirement]) -> None:
    if not folder.is_dir():
        raise PackagesDeclined(_sentence(needed, _("The folder of wheels {path} is not there.").format(path=folder)))
    _ask(needed, _("They are taken from {path}.").format(path=folder))
    source = ["--no-index", "--find-links", str(folder)]
    with constraints(needed) as pinned:
        slicer.util.pip_install([*source, "-c", str(pinned), *map(_plain, needed)])
        _try(lambda: slicer.util.pip_install([*source, "-c", str(pinned), *map(_plain, extra)]), extra)


def _installTorch(needed: list[Requirement]) -> None:
    """PyTorch comes through its extension, which knows which build fits the graphics card."""
    if not needed:
        return
    try:
        import PyTorchUtils
    except ImportError as error:
        advice = _("Install the extension PyTorch with the Extensions Manager and restart Slicer.")
        raise PackagesDeclined(_sentence(needed, advice)) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    if logic.installTorch(askConfirmation=True, torchVersionRequirement=str(needed[0].specifier)) is None:
        raise PackagesDeclined(_sentence(needed, _("The installation was declined.")))


def _install(needed: list[Requirement], extra: list[Requirement]) -> None:
    try:
        from slicer import packaging
    except ImportError:  # before Slicer 5.12
        packaging = None
    with constraints(needed) as pinned:
        if needed and packaging is not None:
            try:
                packaging.pip_ensure([_plain(one) for one in needed], constraints=pinned, requester=TITLE)
            except RuntimeError as error:
                raise PackagesDeclined(_sentence(needed, _("The installation was declined."))) from error
        elif needed:
            _ask(needed, "")
            slicer.util.pip_install(["-c", str(pinned), *map(_plain, needed)])
        _try(lambda: slicer.util.pip_install(["-c", str(pinned), *map(_plain, extra)]), extra)


def _try(install: Any, extra: list[Requirement]) -> None:
    """Install what is only good for speed; without it, everything works."""
    if extra:
        try:
            install()
        except CalledProcessError:
            logging.warning("%s was not installed: registration on the CPU takes longer", _names(extra))


def _ask(needed: list[Requirement], where: str) -> None:
    text = _("ChangeMapJoint needs these Python packages, which this Slicer lacks: {names}. {where}\n\nInstall them?")
    if not slicer.util.confirmOkCancelDisplay(text.format(names=_names(needed), where=where), windowTitle=TITLE):
        raise PackagesDeclined(_sentence(needed, _("The installation was declined.")))


@contextmanager
def constraints(needed: list[Requirement]) -> Iterator[Path]:
    """A file for pip that holds everything else to the version that is there, so that nothing of Slicer's changes."""
    wanted = {one.name.lower() for one in needed}
    lines = []
    for one in requirements():
        version = installed(one.name)
        if version is not None and one.name.lower() not in wanted and one.name != "torch":
            lines.append(f"{one.name}=={version}\n")
    with tempfile.TemporaryDirectory(prefix="ChangeMapJoint") as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("".join(lines), "utf-8")
        yield path


def _plain(one: Requirement) -> str:
    return f"{one.name}{one.specifier}"


def _names(needed: list[Requirement]) -> str:
    return ", ".join(_plain(one) for one in needed)


def _sentence(needed: list[Requirement], why: str) -> str:
    text = _(
        "The comparison (sequential method and rigid only) needs Python packages that this Slicer lacks: "
        "{names}. {why} Press Apply to be asked again; on a computer without a network, choose a folder of wheels "
        "under Advanced."
    )
    return text.format(names=_names(needed), why=why)
