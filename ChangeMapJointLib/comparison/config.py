"""The configuration of a run: one options object per stage, read from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any, cast

from ChangeMapJointLib.change.findings import FindingOptions
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.core.choices import DEFAULT_METHOD, DEVICES, Method
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.options import from_mapping, read_json, require
from ChangeMapJointLib.joint.inference import JointOptions
from ChangeMapJointLib.lungs.segment import LungOptions
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions
from ChangeMapJointLib.registration.keypoints.detect import KeypointOptions
from ChangeMapJointLib.registration.keypoints.match import MatchingOptions
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions
from ChangeMapJointLib.registration.trust import TrustOptions


@dataclass(frozen=True)
class RunConfig:
    """All options of a run; together with the two scans they determine the result.

    Attributes:
        method: ``rigid`` (no map), ``sequential`` or ``joint``.
        lungs: lung segmentation.
        rigid: rigid alignment.
        keypoints: keypoint detection in the reference.
        matching: keypoint matching in the template.
        joint: the network and the instance optimisation after it, for method ``joint``.
        registration: deformable registration (Eq. 1), reference to template.
        backward: deformable registration from template to reference; coarser, since it is only a check.
        trust: how the trust map is computed.
        findings: threshold and size from which a region counts as a finding; the method's threshold by default.

    Examples:
        >>> RunConfig(method="joint").findings.threshold
        0.3
    """

    method: Method = DEFAULT_METHOD
    lungs: LungOptions = field(default_factory=LungOptions)
    rigid: RigidOptions = field(default_factory=RigidOptions)
    keypoints: KeypointOptions = field(default_factory=KeypointOptions)
    matching: MatchingOptions = field(default_factory=MatchingOptions)
    joint: JointOptions = field(default_factory=JointOptions)
    registration: RegistrationOptions = field(default_factory=RegistrationOptions)
    backward: RegistrationOptions = field(
        default_factory=lambda: RegistrationOptions(iterations=(60, 40), working_mm=3.0)
    )
    trust: TrustOptions = field(default_factory=TrustOptions)
    findings: FindingOptions = field(default=cast("FindingOptions", None))

    def __post_init__(self) -> None:
        require(self, method=(self.method in METHODS, f"one of {', '.join(METHODS)}"))
        if cast("FindingOptions | None", self.findings) is None:
            object.__setattr__(self, "findings", FindingOptions(threshold=METHODS[self.method].threshold))


def read_config(path: Path | None, *, method: str | None = None) -> RunConfig:
    """Read a configuration from a JSON file; options that the file leaves out keep the method's defaults.

    Args:
        path: the file; None for the defaults.
        method: replaces the method in the file.

    Raises:
        InputError: the file is missing or is not JSON, or an option is unknown or has the wrong type.
    """
    if path is None:
        return config_from({}, method=method)
    where = Argument("config", str(path))
    return config_from(read_json(path, where), where, method=method)


def config_from(values: Any, where: str | Argument = "config", *, method: str | None = None) -> RunConfig:
    """Make a configuration from JSON values; options that are left out keep the method's defaults.

    Args:
        values: options by name, nested as in ``run.json``.
        where: the file or argument that error messages name.
        method: replaces the method in ``values``.

    Raises:
        InputError: an option is unknown, or a value has the wrong type.
    """
    if isinstance(values, Mapping) and method is not None:
        values = {**values, "method": method}
    choices = from_mapping(RunConfig, values, where)
    return from_mapping(RunConfig, values, where, base=RunConfig(choices.method))


def config_for(
    method: str | None = None,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    threshold: float | None = None,
) -> RunConfig:
    """Combine what a caller gives into one configuration.

    Args:
        method: replaces that of ``config``. A threshold that ``config`` leaves at its method's default becomes that of
            the new method.
        config: all options, or JSON values of some, or a file that holds them; None for the defaults.
        threshold: of the findings, replaces that of ``config``.

    Raises:
        InputError: an option is unknown or out of range.
    """
    if method is not None and (not isinstance(method, str) or method not in METHODS):
        raise InputError(field="method", value=str(method), expected=f"one of {', '.join(METHODS)}")
    if isinstance(config, (str, Path)):
        result = read_config(Path(config), method=method)
    elif config is None or isinstance(config, Mapping):
        result = config_from(config or {}, method=method)
    elif isinstance(config, RunConfig):
        result = _with_method(config, method)
    else:
        expected = "a RunConfig, a mapping of options, or a JSON file"
        raise InputError(f"found {type(config).__name__}", field="config", expected=expected)
    if threshold is None:
        return result
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 < threshold <= 1:
        raise InputError(f"found {threshold!r}", field="threshold", expected="a number in (0, 1]")
    return replace(result, findings=replace(result.findings, threshold=threshold))


def _with_method(config: RunConfig, method: str | None) -> RunConfig:
    """``config`` with another method, a known one."""
    if method is not None and method != config.method:
        known_method, findings = cast("Method", method), config.findings
        if findings.threshold == METHODS[config.method].threshold:
            findings = replace(findings, threshold=METHODS[known_method].threshold)
        config = replace(config, method=known_method, findings=findings)
    return config


def _working(device: torch.device) -> torch.device:
    """Return a device on which a small kernel runs.

    Raises:
        InputError: it does not run there.
    """
    try:
        float((torch.ones(8, device=device) * 2).sum())
    except (RuntimeError, AssertionError, ImportError) as error:
        first = str(error).splitlines()[0]
        remedy = ("use ", Argument("device", "cpu"))
        raise InputError(f"does not work here ({first})", field="device", value=str(device), remedy=remedy) from error
    return device


def choose_device(name: str | torch.device) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a torch device that works; a torch device is tried likewise.

    A small kernel is run on the GPU to find out: a torch build without kernels for a new card still reports CUDA as
    available.

    Raises:
        InputError: the name is unknown, or it is ``cuda`` and no CUDA device works.
    """
    if isinstance(name, torch.device):
        return _working(name)
    if name not in DEVICES:
        raise InputError(field="device", value=name, expected="auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    try:
        float((torch.ones(8, device="cuda") * 2).sum())
    except (RuntimeError, AssertionError) as error:
        if name == "auto":
            return torch.device("cpu")
        first = str(error).splitlines()[0]
        raise InputError(
            f"no CUDA device works here ({first})",
            field="device",
            value=name,
            remedy=("use ", Argument("device", "cpu")),
        ) from error
    return torch.device("cuda")
