"""Files of weights: written, read again, and refused in one line where they are damaged or hostile."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_joint_network import ALONE, PAPER, SMALL, network

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.joint.checkpoint import read_checkpoint, write_checkpoint


def stored(folder: Path) -> Path:
    path = folder / "small.safetensors"
    write_checkpoint(path, network(SMALL, seed=5), {"data": "none: a test"})
    return path


def test_weights_come_back_as_they_were(tmp_path: Path) -> None:
    path = stored(tmp_path)
    found = read_checkpoint(path)
    assert found.card["data"] == "none: a test"
    assert found.card["sha256"] == found.sha256
    assert found.network.options == SMALL
    assert not found.network.training
    for name, value in network(SMALL, seed=5).state_dict().items():
        assert torch.equal(found.network.state_dict()[name], value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.json", "small.safetensors"]


def test_weights_with_kept_statistics_are_the_same_file_when_written_again(tmp_path: Path) -> None:
    made = network(replace(ALONE, kept_statistics=True))
    write_checkpoint(tmp_path / "a.safetensors", made, {})
    found = read_checkpoint(tmp_path / "a.safetensors")
    write_checkpoint(tmp_path / "b.safetensors", found.network, found.card)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_card_of_another_network_can_be_taken_over(tmp_path: Path) -> None:
    path = stored(tmp_path)
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, network(PAPER), read_checkpoint(path).card)
    found = read_checkpoint(other)
    assert found.network.options == PAPER
    assert found.card["data"] == "none: a test"


def test_a_card_that_asks_for_more_memory_than_there_is_costs_none(tmp_path: Path) -> None:
    path = stored(tmp_path)
    card = json.loads(path.with_suffix(".json").read_text())
    card["network"] = {
        "factors": [64, 32, 16, 8, 4, 2, 1],
        "channels": [256] * 7,
        "reach": [0] * 7,
        "depth": 5,
    }  # 170 GB
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="do not fit the network"):
        read_checkpoint(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    made = network(SMALL)
    with torch.no_grad():
        made.blocks[0].change.bias[0] = torch.nan  # type: ignore[union-attr,index]
    write_checkpoint(tmp_path / "bad.safetensors", made, {})
    with pytest.raises(InputError, match="NaN or infinite"):
        read_checkpoint(tmp_path / "bad.safetensors")


class Bomb:
    """A pickle that would leave a trace if anything unpickled it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.trace),)


def put(path: Path, content: bytes, *, honest: bool) -> None:
    """Exchange the weights; ``honest``: with their hash in the card."""
    import hashlib

    path.write_bytes(content)
    if honest:
        card = json.loads(path.with_suffix(".json").read_text())
        card["sha256"] = hashlib.sha256(content).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(card))


def test_wrong_files_are_one_clear_line_each(tmp_path: Path) -> None:
    path = stored(tmp_path)
    content = path.read_bytes()
    put(path, content[:-10], honest=False)
    with pytest.raises(InputError, match=r"SHA-256.*truncated or changed"):
        read_checkpoint(path)
    put(path, content[:200], honest=True)
    with pytest.raises(InputError, match="not safetensors"):
        read_checkpoint(path)
    put(path, b"", honest=True)
    with pytest.raises(InputError, match="not safetensors"):
        read_checkpoint(path)
    put(path, content, honest=True)
    renamed = path.rename(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.json: cannot be read"):
        read_checkpoint(renamed)
    path.with_suffix(".json").rename(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"is the card of 'small\.safetensors'"):
        read_checkpoint(renamed)
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path / "nowhere.safetensors")


def test_a_pickle_in_the_place_of_weights_is_not_opened(tmp_path: Path) -> None:
    path, trace = stored(tmp_path), tmp_path / "trace"
    put(path, pickle.dumps(Bomb(trace)), honest=True)
    with pytest.raises(InputError, match="not safetensors"):
        read_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "changemap-joint-9"}, "format is 'changemap-joint-9'"),
        ({"network": {"factors": [2, 1], "channels": [3, 3], "reach": [1, 0]}}, "do not fit the network"),
        (
            {"network": {"factors": [2, 1], "channels": [2, 2], "reach": [1, 0], "depth": 1, "layers": 4}},
            "unknown option 'layers'",
        ),
        ({"network": [1]}, "not an object of options"),
        ({"network": {"channels": [10**9, 1]}}, "channels"),
    ],
)
def test_cards_that_do_not_fit(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = stored(tmp_path)
    card = json.loads(path.with_suffix(".json").read_text()) | change
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=said):
        read_checkpoint(path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "[" * 100_000])
def test_cards_that_are_none(tmp_path: Path, content: str) -> None:
    path = stored(tmp_path)
    path.with_suffix(".json").write_text(content)
    with pytest.raises(InputError, match=r"small\.json"):
        read_checkpoint(path)
