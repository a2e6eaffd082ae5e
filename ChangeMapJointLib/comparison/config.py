"""The configuration of a run: one options object per stage, and JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ChangeMapJointLib.change.findings import FindingOptions
from ChangeMapJointLib.change.method_table import METHODS
from ChangeMapJointLib.core.choices import DEFAULT_METHOD, DEFAULT_PRESET, DEVICES, Method, Preset
from ChangeMapJointLib.core.errors import Argument, InputError
from ChangeMapJointLib.core.options import from_mapping, read_json
from ChangeMapJointLib.joint.inference import JointOptions
from ChangeMapJointLib.lungs.segment import LungOptions
from ChangeMapJointLib.registration.deformable.presets import PRESETS
from ChangeMapJointLib.registration.deformable.register import RegistrationOptions
from ChangeMapJointLib.registration.keypoints.detect import KeypointOptions
from ChangeMapJointLib.registration.keypoints.match import MatchingOptions
from ChangeMapJointLib.registration.rigid.verdict import RigidOptions
from ChangeMapJointLib.registration.trust import TrustOptions


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result, apart from the two scans.

    Attributes:
        method: ``rigid`` (no map), ``sequential`` or ``joint``.
        preset: which of :data:`~ChangeMapJointLib.registration.deformable.presets.PRESETS` the registration started
            from.
        lungs: lung masks.
        rigid: pre-alignment.
        keypoints: how many, and where.
        matching: how their partners are found.
        joint: the network and what follows it, with method ``joint``.
        registration: Eq. (1), reference to template.
        backward: the same from template to reference; coarser, since it only serves as a check.
        trust: how the evidence becomes ``trust.nrrd``.
        findings: threshold and what counts as a finding.
    """

    method: Method = DEFAULT_METHOD
    preset: Preset = DEFAULT_PRESET
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
    findings: FindingOptions = field(default_factory=FindingOptions)


def read_config(path: Path | None, *, preset: str | None = None, method: str | None = None) -> RunConfig:
    """The configuration in a JSON file; what it does not name is as in the preset.

    Args:
        path: the file; None for none.
        preset: instead of the file's.
        method: likewise.

    Raises:
        InputError: missing, not JSON, an unknown name, or a value of the wrong type.
    """
    if path is None:
        return config_from({}, preset=preset, method=method)
    where = Argument("config", str(path))
    return config_from(read_json(path, where), where, preset=preset, method=method)


def config_from(
    values: Any, where: str | Argument = "config", *, preset: str | None = None, method: str | None = None
) -> RunConfig:
    """The configuration in JSON values; what they do not name is as in the preset, and as the method needs it.

    Args:
        values: names and values; ``preset`` among them chooses the registration that the others change.
        where: how errors call the place.
        preset: instead of theirs.
        method: likewise.

    Raises:
        InputError: an unknown name or preset, or a value of the wrong type.
    """
    if isinstance(values, Mapping):
        given = {"preset": preset, "method": method}
        values = {**values, **{name: value for name, value in given.items() if value is not None}}
    found = from_mapping(RunConfig, values, where)
    listed = FindingOptions(threshold=METHODS[found.method].threshold)
    base = RunConfig(preset=found.preset, registration=PRESETS[found.preset], findings=listed)
    return from_mapping(RunConfig, values, where, base=base)


def config_for(method: Method | None, config: RunConfig | None) -> RunConfig:
    """The options of a comparison: ``config`` with another method, or the method's own.

    Raises:
        InputError: an unknown method.
    """
    if config is None:
        return config_from({}, method=method)
    if method is None or method == config.method:
        return config
    return replace(config, method=method, findings=config_from({}, method=method).findings)


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu`` or ``cuda`` as a torch device that has been seen to work.

    A CUDA device counts only when a kernel really ran on it: builds without kernels for a new card
    call themselves available.

    Raises:
        InputError: for another name, or ``cuda`` where none works.
    """
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
