"""Training: it learns, goes on exactly after a kill at any step, and many processes give what one gives."""

import csv
import os
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from archive_samples import free_port
from job_samples import DEADLINE_S
from training_samples import KINDS, OPTIONS, Pairs, start
from warm_python import warm_python

from ChangeMapJointLib.core.errors import Cancelled, InputError
from ChangeMapJointLib.joint.network import JointNetwork
from ChangeMapJointLib.training.losses import Sample
from ChangeMapJointLib.training.trainer import LAST, TrainingOptions, epoch_order, learning_rate, train

STEPS = 9  # three epochs of five pairs, two a step
MEASURED = ("seconds", "peak_memory_mb")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def weights(network: JointNetwork) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JointNetwork]:
    out = tmp_path_factory.mktemp("whole")
    return out, train(Pairs(), OPTIONS, out)


def test_every_pair_is_seen_once_an_epoch_and_orders_differ() -> None:
    orders = [epoch_order(7, 3, epoch) for epoch in range(5)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert epoch_order(7, 3, 2) == orders[2] != epoch_order(7, 4, 2)


def test_it_learns_the_motion_and_the_change(tmp_path: Path) -> None:
    longer = replace(OPTIONS, epochs=40, checkpoint_steps=1000)
    network = train(Pairs(), longer, tmp_path).eval()
    table = rows(tmp_path / "steps.csv")
    first, last = table[:1], table[-3:]

    def mean(part: list[dict[str, str]], name: str) -> float:
        return sum(float(row[name]) for row in part) / len(part)

    assert mean(first, "keypoints") == pytest.approx(4.0, abs=0.3)  # 2 mm off, squared
    assert mean(last, "keypoints") < 0.5
    assert mean(last, "ngf") < 0.6 * mean(first, "ngf")
    assert mean(last, "recall") < 0.3 * mean(first, "recall")
    sample = Pairs()[1]
    with torch.no_grad():
        found = network(sample.reference[None, None], sample.template[None, None], sample.spacing_mm)
    lesion = sample.lesions_reference > 0
    assert float(found.change[0][lesion].mean()) > 0.5 > float(found.change[0][~lesion].mean())


def test_what_is_written_says_every_step_and_epoch(whole: tuple[Path, JointNetwork]) -> None:
    out, _ = whole
    table = rows(out / "steps.csv")
    assert [int(row["step"]) for row in table] == list(range(1, STEPS + 1))
    assert {"ngf", "curvature", "keypoints", "mask", "volume", "recall", "total", "seconds"} <= set(table[0])
    assert [row["epoch"] for row in rows(out / "epochs.csv")] == ["1", "2", "3"]
    row = table[0]
    counted = ("ngf", "curvature", "keypoints", "mask", "volume")  # the recall loss waits for its warm-up
    expected = sum(getattr(OPTIONS.weights, name) * float(row[name]) for name in counted)
    assert float(row["total"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("stop_at", range(1, STEPS))
def test_a_run_killed_at_any_step_goes_on_exactly(
    whole: tuple[Path, JointNetwork], tmp_path: Path, stop_at: int
) -> None:
    calls = []

    def stop(fraction: float, message: str = "") -> None:
        calls.append(fraction)
        if len(calls) == stop_at:
            raise Cancelled

    options = replace(OPTIONS, checkpoint_steps=2)  # some steps after the last checkpoint are lost
    with pytest.raises(Cancelled):
        train(Pairs(), options, tmp_path, progress=stop)
    (tmp_path / f".{LAST}.99.part").write_bytes(b"half a file")
    network = train(Pairs(), options, tmp_path)
    assert torch.equal(weights(network), weights(whole[1]))
    for name in ("steps.csv", "epochs.csv"):
        kept = [{k: v for k, v in row.items() if k not in MEASURED} for row in rows(tmp_path / name)]
        assert kept == [{k: v for k, v in row.items() if k not in MEASURED} for row in rows(whole[0] / name)]


def test_the_least_weight_of_a_class_is_that_of_the_options(tmp_path: Path) -> None:
    train(Pairs(), replace(OPTIONS, loss=replace(OPTIONS.loss, least_weight=1.0), epochs=1), tmp_path)
    (row,) = rows(tmp_path / "epochs.csv")
    assert row["weight_unchanged"] == row["weight_changed"] == "1.0"


def test_a_finished_run_is_not_trained_again(whole: tuple[Path, JointNetwork]) -> None:
    pairs = Pairs()
    network = train(pairs, OPTIONS, whole[0])
    assert not pairs.seen
    assert torch.equal(weights(network), weights(whole[1]))


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    short, long = replace(OPTIONS, epochs=1), replace(OPTIONS, epochs=2)
    train(Pairs(), short, tmp_path / "grown")
    grown = train(Pairs(), long, tmp_path / "grown")
    assert torch.equal(weights(grown), weights(train(Pairs(), long, tmp_path / "at once")))


def test_half_precision_learns_as_well(tmp_path: Path) -> None:
    train(Pairs(), replace(OPTIONS, epochs=30, checkpoint_steps=1000, precision="bf16-mixed"), tmp_path)
    table = rows(tmp_path / "steps.csv")
    assert float(table[-1]["keypoints"]) < 0.4 * float(table[0]["keypoints"])


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the trainings of :data:`KINDS` in two processes, with the variables that torchrun gives them.

    torchrun itself starts those of ``test_training.py``.
    """
    out = tmp_path_factory.mktemp("together")
    script = Path(__file__).parent / "training_samples.py"
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1"}
    group["MASTER_PORT"] = str(free_port())
    started = [
        subprocess.Popen(
            [warm_python(), str(script), str(out), "2", *KINDS],
            env={**os.environ, **group, "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=DEADLINE_S)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_what_one_gives(kind: str, together: Path, tmp_path: Path) -> None:
    options = KINDS[kind]
    single = train(Pairs(), options, tmp_path, start=start(options))
    shared = together / kind
    alone, both = rows(tmp_path / "steps.csv"), rows(shared / "steps.csv")
    assert len(both) == STEPS
    for one, other in zip(alone, both, strict=True):
        for name in ("total", "ngf", "keypoints", "recall", "volume"):
            assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-3, abs=1e-4)
    kept = torch.load(shared / LAST, weights_only=True)["network"]
    for name, value in single.state_dict().items():
        if name.endswith(("running_mean", "running_var")):  # the last pair of a step counts more in one process
            assert float((kept[name] - value).abs().max()) < 0.02 * float(value.abs().max())
    for one, other in zip(rows(tmp_path / "epochs.csv"), rows(shared / "epochs.csv"), strict=True):
        assert float(other["weight_changed"]) == pytest.approx(float(one["weight_changed"]), abs=0.05)
    seen = [(shared / f"seen_{rank}.txt").read_text().split() for rank in range(2)]
    # five pairs an epoch; the odd one leaves the second process one that it only pretends to learn from
    counts = Counter(map(int, seen[0]))
    orders = [epoch_order(5, OPTIONS.seed, epoch) for epoch in range(3)]
    assert counts == Counter(i for order in orders for i in order[::2])
    assert Counter(map(int, seen[1])) == Counter(i for order in orders for i in [*order[1::2], order[4]])


def test_a_checkpoint_from_before_an_option_existed_goes_on(tmp_path: Path) -> None:
    train(Pairs(2), replace(OPTIONS, epochs=1), tmp_path)
    kept = torch.load(tmp_path / LAST, weights_only=True)
    del kept["options"]["network"]["match_density"], kept["options"]["network"]["match_resolution"]
    del kept["options"]["crops"]
    torch.save(kept, tmp_path / LAST)
    train(Pairs(2), replace(OPTIONS, epochs=2), tmp_path)
    assert [row["step"] for row in rows(tmp_path / "steps.csv")] == ["1", "2"]
    kept["options"]["network"]["match_density"] = True
    torch.save(kept, tmp_path / LAST)
    with pytest.raises(InputError, match="other options"):
        train(Pairs(2), replace(OPTIONS, epochs=2), tmp_path)


def test_other_options_and_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    train(Pairs(2), replace(OPTIONS, epochs=1), tmp_path)
    with pytest.raises(InputError, match="other options"):
        train(Pairs(2), replace(OPTIONS, epochs=1, seed=5), tmp_path)
    with pytest.raises(InputError, match="another number of pairs"):
        train(Pairs(3), replace(OPTIONS, epochs=1), tmp_path)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:200])
    with pytest.raises(InputError, match=r"last\.ckpt: cannot be read"):
        train(Pairs(2), replace(OPTIONS, epochs=1), tmp_path)
    with pytest.raises(InputError, match="no pair"):
        train(Pairs(0), OPTIONS, tmp_path / "none")
    with pytest.raises(ValueError, match="multiples of 16"):
        TrainingOptions(shape=(24, 64, 64))
    with pytest.raises(ValueError, match="precision"):
        TrainingOptions(precision="16-mixed")
    with pytest.raises(ValueError, match="seed"):
        TrainingOptions(seed=10**14)
    with pytest.raises(ValueError, match="above 16"):
        TrainingOptions(shape=(16, 16, 16))


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    class Broken(Pairs):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return sample if index else replace(sample, partners_mm=torch.full_like(sample.partners_mm, torch.nan))

    with pytest.raises(InputError, match=r"the loss of pairs \[.*0.*\] is NaN or infinite"):
        train(Broken(), replace(OPTIONS, epochs=1), tmp_path)
    if (tmp_path / LAST).exists():
        kept = torch.load(tmp_path / LAST, weights_only=True)["network"]
        assert all(bool(value.isfinite().all()) for value in kept.values())


def test_the_learning_rate_falls_to_a_twentieth_along_a_cosine() -> None:
    falling = replace(OPTIONS, learning_rate=0.02, decay_epochs=10)
    expected = {0.0: 0.02, 5.0: 0.02 * (0.05 + 0.95 / 2), 10.0: 0.001, 15.0: 0.001}
    assert {epoch: learning_rate(falling, epoch) for epoch in expected} == pytest.approx(expected)
    assert learning_rate(replace(falling, decay_epochs=0), 7.0) == 0.02
