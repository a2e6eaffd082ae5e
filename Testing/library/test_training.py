"""``changemap train`` on small pairs: weights, tables, pictures and TensorBoard, and what it refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_samples import phantom
from PIL import Image
from typer.testing import CliRunner

from ChangeMapJointLib.cli import train as training
from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.cli.train import TrainingRequest, pair_folders, processes, run_training, training_options
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.core.options import to_mapping
from ChangeMapJointLib.io.provenance import git_commit
from ChangeMapJointLib.joint.checkpoint import read_checkpoint
from ChangeMapJointLib.synthesis.draw import DrawOptions
from ChangeMapJointLib.synthesis.synthesize import SourceScan, synthesize
from ChangeMapJointLib.training.losses import AS_PRINTED, LossWeights
from ChangeMapJointLib.training.samples import PairDataset

pytestmark = pytest.mark.usefixtures("aligned_once")
COARSE = DrawOptions(
    lesions=(2, 2),
    kinds=(1, 0, 0, 1, 0),
    in_plane_mm=(4.0, 4.0),
    slice_mm=(4.0, 5.0),
    diaphragm_mm=(8.0, 10.0),
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two pairs of one patient, one of another."""
    volume, lungs, _ = phantom(edge_mm=4.0)
    out = tmp_path_factory.mktemp("data")
    synthesize([SourceScan("seen", volume, lungs)], out / "train", pairs=2, options=COARSE)
    synthesize([SourceScan("unseen", volume, lungs)], out / "held", pairs=1, seed=9, options=COARSE)
    return out / "train", out / "held"


@pytest.fixture(scope="module")
def trained(pairs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training") / "run"
    command = ["train", "--config", "smoke", "--pairs", str(pairs[0]), "--validation", str(pairs[1]), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--device", "cpu", "--progress", "none"])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == f"Weights: {out / 'network.safetensors'}"
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_card_says_what_the_weights_come_from(trained: Path) -> None:
    found = read_checkpoint(trained / "network.safetensors")
    card = found.card
    assert card["split"] == {"training": ["seen"], "validation": ["unseen"]}
    assert card["epochs"] == 2
    assert card["training"]["network"] == {
        "factors": [2, 1],
        "channels": [2, 2],
        "reach": [1, 0],
        "depth": 1,
        "kept_statistics": False,
        "match_density": False,
        "match_resolution": False,
        "temperature": 1.0,
        "checkpointing": False,
    }
    assert card["commit"] == git_commit()
    assert card["start"] is None
    assert card["validation"]["pairs"] == 1
    told = {"tre_before_mm", "tre_mm", "folding_percent", "dice"}
    told |= {f"recall_{name}_{n}" for name in ("difference", "learned", "combined") for n in (1, 4)}
    assert told <= set(card["validation"])


def test_tables_hold_every_step_and_the_validation_of_every_epoch(trained: Path) -> None:
    steps, epochs = rows(trained / "steps.csv"), rows(trained / "epochs.csv")
    assert [(row["step"], row["epoch"]) for row in steps] == [("1", "0"), ("2", "0"), ("3", "1"), ("4", "1")]
    assert all(float(row["peak_memory_mb"]) > 50 and float(row["seconds"]) > 0 for row in steps)
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert float(epochs[0]["tre_before_mm"]) > 1.0
    assert 0.5 < float(epochs[0]["dice"]) < 1.0


def test_validation_is_told_by_patient_as_well(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(pairs[0], tmp_path / "third")
    for path in (tmp_path / "third").glob("*/truth.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "source": "third"}))
    values = json.loads((Path(__file__).parents[2] / "Resources/Configurations/smoke.json").read_text())
    config = tmp_path / "short.json"
    asked = TrainingRequest((pairs[0],), tmp_path / "run", str(config), (pairs[1], tmp_path / "third"), device="cpu")
    for epochs in (1, 2):  # the second run goes on with the first one's tables
        config.write_text(json.dumps({**values, "epochs": epochs}))
        weights = run_training(asked)
    told = rows(tmp_path / "run" / "patients.csv")
    wanted = [("1", "third", "2"), ("1", "unseen", "1"), ("2", "third", "2"), ("2", "unseen", "1")]
    assert [(row["epoch"], row["patient"], row["pairs"]) for row in told] == wanted
    for epoch, row in enumerate(rows(tmp_path / "run" / "epochs.csv")):
        for name in ("tre_mm", "dice", "folding_percent"):
            third, unseen = (float(one[name]) for one in told[2 * epoch : 2 * epoch + 2])
            assert (2 * third + unseen) / 3 == pytest.approx(float(row[name]), abs=2e-4)
    by_patient = read_checkpoint(weights).card["validation"]["by_patient"]
    assert {name: str(figures["tre_mm"]) for name, figures in by_patient.items()} == {
        row["patient"]: row["tre_mm"] for row in told[2:]
    }


def test_pictures_and_events_are_there_for_a_reader(trained: Path) -> None:
    names = sorted(path.name for path in (trained / "pictures").iterdir())
    assert names == ["00009_unseen_0001.png", "00009_unseen_0002.png"]
    pixels = np.asarray(Image.open(trained / "pictures" / names[0]))
    assert pixels.ndim == 3
    assert pixels.std() > 20
    (events,) = (trained / "tensorboard").glob("events.out.tfevents.*")
    content = events.read_bytes()
    for tag in (b"step/keypoints", b"epoch/tre_mm", b"00009_unseen"):
        assert tag in content


def test_a_finished_run_is_left_as_it_is(pairs: tuple[Path, Path], trained: Path) -> None:
    before = (trained / "network.safetensors").read_bytes()
    asked = TrainingRequest((pairs[0],), trained, "smoke", (pairs[1],), device="cpu")
    assert run_training(asked) == trained / "network.safetensors"
    assert (trained / "network.safetensors").read_bytes() == before


def test_it_starts_from_coarser_weights_and_may_freeze_them(
    pairs: tuple[Path, Path], trained: Path, tmp_path: Path
) -> None:
    values = json.loads((Path(__file__).parents[2] / "Resources/Configurations/smoke.json").read_text())
    values |= {
        "network": {"factors": [4, 2, 1], "channels": [2, 2, 2], "reach": [1, 0, 0], "depth": 1},
        "frozen": 2,
        "epochs": 1,
    }
    values["shape"] = [16, 16, 32]
    config = tmp_path / "finer.json"
    config.write_text(json.dumps(values))
    start = trained / "network.safetensors"
    asked = TrainingRequest(
        (pairs[0],), tmp_path / "run", str(config), start=start, cache=tmp_path / "kept", device="cpu"
    )
    finer, coarse = read_checkpoint(run_training(asked)), read_checkpoint(start)
    for one, other in zip(finer.network.blocks[:2], coarse.network.blocks, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert finer.card["start"]["sha256"] == coarse.sha256
    assert finer.card["split"]["validation"] == []
    assert len(list((tmp_path / "kept").iterdir())) == 2
    config.write_text(
        json.dumps({**values, "network": {"factors": [1], "channels": [2], "reach": [1], "depth": 1}, "frozen": 0})
    )
    with pytest.raises(InputError, match=r"start: found .*channels=\(2, 2\)"):
        run_training(replace(asked, out=tmp_path / "other"))


def test_two_processes_by_torchrun_write_one_run(pairs: tuple[Path, Path], trained: Path, tmp_path: Path) -> None:
    values = json.loads((Path(__file__).parents[2] / "Resources/Configurations/smoke.json").read_text())
    config = tmp_path / "two.json"
    config.write_text(json.dumps({**values, "epochs": 1}))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = ["-m", "ChangeMapJointLib", "train", "--config", str(config), "--pairs", str(pairs[0])]
    command += ["--cache", str(trained / "samples")]
    done = subprocess.run(
        [*torchrun, *command, "--out", str(tmp_path / "run"), "--device", "cpu", "--progress", "none"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(rows(tmp_path / "run" / "steps.csv")) == 1
    assert read_checkpoint(tmp_path / "run" / "network.safetensors").card["training"]["batch"] == 2  # one a process
    config.write_text(json.dumps({**values, "batch": 2, "epochs": 1}))
    run_training(TrainingRequest((pairs[0],), tmp_path / "one", str(config), device="cpu"))
    one, two = (read_checkpoint(tmp_path / name / "network.safetensors").network for name in ("one", "run"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_processes_are_those_that_torchrun_or_srun_started() -> None:
    assert processes({}) == (1, 1)
    assert processes({"WORLD_SIZE": "", "SLURM_NTASKS": "4"}) == (1, 1)  # nobody started anything
    assert processes({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}) == (8, 4)
    slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4(x2)"}
    assert processes(slurm) == (8, 4)
    assert processes({**slurm, "SLURM_JOB_NAME": "bash"}) == (1, 1)  # an interactive shell
    for wrong in ("3", "4(x2),1", "0", ""):
        with pytest.raises(InputError, match="--ntasks-per-node"):
            processes({**slurm, "SLURM_NTASKS_PER_NODE": wrong})


def test_training_sees_scans_as_its_network_has_them(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    values = to_mapping(training_options("smoke"))
    values = {**values, "epochs": 1, "network": {**values["network"], "match_resolution": True}}
    (tmp_path / "own.json").write_text(json.dumps(values))
    cache = tmp_path / "cache"
    request = TrainingRequest((pairs[0],), tmp_path / "run", str(tmp_path / "own.json"), (pairs[1],), device="cpu")
    weights = run_training(replace(request, cache=cache))
    assert read_checkpoint(weights).network.options.match_resolution
    made = set(cache.iterdir())
    assert len(made) == 3
    folders = pair_folders(pairs, "pairs")
    for matched in (True, False):
        dataset = PairDataset(folders, (16, 16, 16), cache, match_resolution=matched)
        assert all(dataset[n].reference.shape == (16, 16, 16) for n in range(3))
        assert (set(cache.iterdir()) == made) == matched  # that a sample is there already says that training made it


@pytest.mark.parametrize("name", ["paper", "coarse", "default", "refined", "density", "smoke"])
def test_configurations_that_ship_can_be_read(name: str) -> None:
    options = training_options(name)
    assert (options.loss == AS_PRINTED) == (name in ("paper", "smoke"))
    if name == "paper":  # one U-Net of depth 2 at 256 x 256 x 128, Eq. (2) with nothing added
        assert (options.network.factors, options.network.depth, options.shape) == ((1,), 2, (128, 256, 256))
        assert options.network.reach == (0,)
        assert options.weights == LossWeights()


def test_coarse_weights_fit_the_default_network() -> None:
    coarse, default = training_options("coarse"), training_options("default")
    for name in ("channels", "reach"):
        assert getattr(default.network, name)[:2] == getattr(coarse.network, name)
    (finer,) = {b / a for a, b in zip(coarse.shape, default.shape, strict=True)}  # the same voxels a block
    assert tuple(finer * f for f in coarse.network.factors) == default.network.factors[: len(coarse.network.factors)]


def test_the_last_block_can_learn_where_eq_1_leaves_t(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    (first, _) = sorted(pairs[0].iterdir())  # Eq. (1) takes longest
    smoke = to_mapping(training_options("smoke"))
    coarse = {**smoke, "network": {"factors": [1], "channels": [2], "reach": [1], "depth": 1}, "shape": [8, 8, 8]}
    last = {
        **smoke,
        "network": {**smoke["network"], "kept_statistics": True},
        "frozen": 1,
        "crops": {"count": 1, "shape": [8, 8, 8], "registered": 1.0},
    }
    start = None
    for name, values in (("coarse", coarse), ("last", last)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**values, "epochs": 1}))
        asked = TrainingRequest((first,), tmp_path / name, str(tmp_path / f"{name}.json"), start=start, device="cpu")
        start = run_training(asked)
    (kept,) = (tmp_path / "last" / "samples").glob("*.pt")
    sample = torch.load(kept, weights_only=True)
    found, true = sample["registered_mm"], sample["true_mm"]  # y by Eq. (1), and not by the truth
    assert found.shape == true.shape
    assert 0 < float((found - true).norm(dim=0).mean()) < 0.7 * float(true.norm(dim=0).mean())
    (tmp_path / "wrong.json").write_text(json.dumps({**smoke, "crops": {"registered": 0.5}}))
    with pytest.raises(InputError, match="registered 0"):  # whole scans start where the coarse blocks say
        training_options(str(tmp_path / "wrong.json"))


def test_a_cpu_without_bfloat16_computes_in_float32_and_goes_on_from_one_that_has_it(
    pairs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched, computed = training.launched_fabric, []

    def launch(device: str, precision: str) -> object:
        computed.append(precision)
        return launched(device, precision)

    monkeypatch.setattr(training, "launched_fabric", launch)
    half = {**to_mapping(training_options("smoke")), "precision": "bf16-mixed"}
    for epochs, fast, used in ((1, True, "bf16-mixed"), (2, False, "32-true"), (3, True, "bf16-mixed")):
        monkeypatch.setattr(training, "bfloat16_is_fast", lambda fast=fast: fast)
        path = tmp_path / "half.json"
        path.write_text(json.dumps({**half, "epochs": epochs}))
        found = read_checkpoint(run_training(TrainingRequest((pairs[0],), tmp_path / "out", str(path), device="cpu")))
        assert computed.pop() == used
        assert found.card["training"]["precision"] == used
        assert len(rows(tmp_path / "out" / "epochs.csv")) == epochs


def test_what_makes_no_sense_is_refused(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is in the training pairs as well"):
        run_training(TrainingRequest((pairs[0],), tmp_path / "a", "smoke", (pairs[0],)))
    donor = tmp_path / "donor" / "00000_other"  # a pair of another scan, with a lesion cut from the validation's
    shutil.copytree(next(pairs[0].iterdir()), donor)
    truth = json.loads((donor / "truth.json").read_text())
    (donor / "truth.json").write_text(json.dumps({**truth, "source": "other", "cut_from": ["unseen"]}))
    with pytest.raises(InputError, match="scan unseen, or a lesion cut from it, is in the training pairs"):
        run_training(TrainingRequest((donor,), tmp_path / "b", "smoke", (pairs[1],)))
    with pytest.raises(InputError, match=r"pairs='.*nothing': found no pair"):
        pair_folders([tmp_path / "nothing"], "pairs")
    assert len(pair_folders([next(pairs[0].iterdir()), pairs[1]], "pairs")) == 2
    with pytest.raises(InputError, match=r"config='unknown': .*coarse, default, density, paper, refined, smoke"):
        training_options("unknown")
    wrong = tmp_path / "wrong.json"
    for content, message in (
        ("{", "not JSON"),
        ('{"epoch": 3}', "epoch"),
        ("[]", "expected an object"),
        ('{"shape": [3, 3, 3]}', "shape"),
    ):
        wrong.write_text(content)
        with pytest.raises(InputError, match=message):
            training_options(str(wrong))
