"""Network weights as safetensors with a JSON card beside them; neither file can run code.

The card (``NAME.json``) describes the architecture, the training data and the results. It also holds the SHA-256 of the
weights (``NAME.safetensors``), so that a renamed, truncated or replaced file is refused before it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.lazy_torch import torch
from ChangeMapJointLib.core.options import from_mapping, to_mapping
from ChangeMapJointLib.io.write import atomic_path

if TYPE_CHECKING:
    from ChangeMapJointLib.joint.network import JointNetwork

FORMAT = "changemap-joint-1"
EXPECTED = "the card (JSON) and the weights (safetensors) of a ChangeMapJoint network"


@dataclass(frozen=True)
class Checkpoint:
    """A network read from disk.

    Attributes:
        network: in evaluation mode, float32, on the CPU.
        card: content of its JSON card.
        sha256: of the weights file.
    """

    network: JointNetwork
    card: dict[str, Any]
    sha256: str


def write_checkpoint(path: Path, network: JointNetwork, card: dict[str, Any]) -> None:
    """Write the weights and their card; each file appears whole or not at all.

    Args:
        path: ``NAME.safetensors``; the card becomes ``NAME.json``.
        network: in any precision.
        card: what users should know: data and licence, split, configuration, figures, limits. Format, file name,
            SHA-256 and architecture are added.

    Raises:
        InputError: a file cannot be written.
    """
    from safetensors.torch import save

    weights = save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()})
    complete_card = {
        **card,
        "format": FORMAT,
        "weights": path.name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "network": to_mapping(network.options),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_path(path) as new_weights,
        atomic_path(path.with_suffix(".json")) as new_card,
    ):  # neither is renamed before both are written
        new_weights.write_bytes(weights)
        new_card.write_text(json.dumps(complete_card, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a network for inference on the CPU.

    Args:
        path: ``NAME.safetensors``, with its card ``NAME.json`` beside it.

    Raises:
        InputError: a file is missing, has another format, was truncated or changed, or does not fit its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ChangeMapJointLib.joint.network import JointNetwork, NetworkOptions

    card = _card(path.with_suffix(".json"))
    if card.get("weights") != path.name:
        raise InputError(
            f"is the card of {card.get('weights')!r}, not of {path.name!r}", field=path.with_suffix(".json")
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, expected=EXPECTED) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card.get("sha256"):
        raise InputError(
            f"SHA-256 is {sha256[:12]}..., but its card says {str(card.get('sha256'))[:12]}...: the file was truncated "
            "or changed",
            field=path,
            remedy="copy both files from their source again",
        )
    options = from_mapping(NetworkOptions, card.get("network") or {}, (path.with_suffix(".json"), "network"))
    with torch.device("meta"):  # allocate nothing before the shapes are known to fit
        network = JointNetwork(options)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"not safetensors ({error})", field=path, expected=EXPECTED) from error
    expected_shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    file_shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected_shapes.keys() | file_shapes.keys()):
        if expected_shapes.get(name) != file_shapes.get(name):
            shapes = f"found {file_shapes.get(name, 'nothing')}, expected {expected_shapes.get(name, 'nothing')}"
            raise InputError(
                f"the weights do not fit the network in their card (tensor '{name}': {shapes})", field=path
            )
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    network.load_state_dict(floats, assign=True)
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise InputError(
            "holds NaN or infinite values: training of these weights failed",
            field=path,
            remedy="use other weights",
        )
    return Checkpoint(network.eval(), card, sha256)


def _card(path: Path) -> dict[str, Any]:
    """Read the card and check its format."""
    try:
        card = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, expected=EXPECTED) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", field=path, expected=EXPECTED) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        card_format = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise InputError(
            f"format is {card_format!r}: the weights are of another version or program",
            field=path,
            expected=repr(FORMAT),
        )
    if not isinstance(card.get("network") or {}, dict):
        raise InputError("'network' is not an object of options", field=path, expected=EXPECTED)
    return card
