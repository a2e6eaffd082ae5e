"""Weights as safetensors with a JSON card beside them: nothing in either can run code.

The card (``NAME.json``) says what the network is, what it was trained on and how it did; it holds the SHA-256 of the
weights (``NAME.safetensors``), so that a file that was renamed, cut short or exchanged is refused before it is read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import from_mapping, to_mapping
from ChangeMapJointLib.io.write import atomic_path
from ChangeMapJointLib.joint.network import JointNetwork, NetworkOptions

FORMAT = "changemap-joint-1"
EXPECTED = "the card (JSON) and the weights (safetensors) of a network of this project"


@dataclass(frozen=True)
class Checkpoint:
    """A network that was read, and its card."""

    network: JointNetwork
    card: dict[str, Any]
    sha256: str


def write_checkpoint(path: Path, network: JointNetwork, card: dict[str, Any]) -> None:
    """Write ``path`` (``NAME.safetensors``) and its card ``NAME.json``; each appears whole.

    Args:
        path: of the weights.
        network: in any precision.
        card: what there is to say of it: data and licence, split, configuration, figures, limits.
    """
    from safetensors.torch import save

    weights = save({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()})
    told = {
        **card,
        "format": FORMAT,
        "weights": path.name,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "network": to_mapping(network.options),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as new_weights, atomic_path(path.with_suffix(".json")) as new_card:  # both, then both names
        new_weights.write_bytes(weights)
        new_card.write_text(json.dumps(told, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_checkpoint(path: Path) -> Checkpoint:
    """The network in ``path`` (``NAME.safetensors``), ready for inference on the CPU.

    Raises:
        InputError: a file is missing, is none of this project's, was cut short or changed, or does not fit its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    card = _card(path.with_suffix(".json"))
    if card.get("weights") != path.name:
        raise InputError(f"its weights are {card.get('weights')!r}, not {path.name!r}", field=path.with_suffix(".json"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, expected=EXPECTED) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card.get("sha256"):
        raise InputError(
            f"SHA-256 is {sha256[:12]}..., its card says {str(card.get('sha256'))[:12]}...: the file was cut short or "
            "changed",
            field=path,
            remedy="copy both files again from where they came",
        )
    options = from_mapping(NetworkOptions, card.get("network") or {}, (path.with_suffix(".json"), "network"))
    with torch.device("meta"):  # no memory before the shapes are known to fit
        network = JointNetwork(options)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"not safetensors ({error})", field=path, expected=EXPECTED) from error
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            shapes = f"found {found.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
            raise InputError(
                f"the weights do not fit the network of their card (tensor '{name}': {shapes})", field=path
            )
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    network.load_state_dict(floats, assign=True)
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise InputError(
            "holds values that are no numbers: the training of these weights failed", field=path, remedy="use others"
        )
    return Checkpoint(network.eval(), card, sha256)


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", field=path, expected=EXPECTED) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})", field=path, expected=EXPECTED) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise InputError(
            f"format is {found!r}", field=path, expected=f"{FORMAT!r}: weights of another version or program"
        )
    if not isinstance(card.get("network") or {}, dict):
        raise InputError("'network' is no object of options", field=path, expected=EXPECTED)
    return card
