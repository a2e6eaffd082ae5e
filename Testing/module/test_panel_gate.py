"""The panel, the command line and Python give the same answers on the same scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import panel_samples
import pytest
from typer.testing import CliRunner

from ChangeMapJointLib.cli.main import app
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.gate.checks import check_ct, check_pair
from ChangeMapJointLib.io.read import read_volume
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.scene.volumes import grid_of, node_of

HU = panel_samples.chest()
LUNGS_ONLY = np.where(panel_samples.lungs() > 0, HU, np.int16(0))


def pair(folder: Path, current: np.ndarray, prior: np.ndarray):
    """Two nodes of the scene, and files of the same scans."""
    nodes, files = panel_samples.nodes(), []
    chosen = []
    for node, array in zip(nodes, (current, prior), strict=True):
        grid = grid_of(node)
        files.append(folder / f"{node.GetName()}.nrrd")
        write_nrrd(files[-1], array, grid)
        chosen.append(node_of(array, grid, node.GetName(), kind="scan"))
    return chosen, files


def asked(files: list[Path]):
    return check_pair(*(check_ct(read_volume(file)) for file in files))


@pytest.mark.parametrize("shift_hu", [0, 140])
def test_what_speaks_against_a_pair(widget, tmp_path, shift_hu):
    from ChangeMapJointGui.inputs import checkInWords, gateInWords

    nodes, files = pair(tmp_path, HU, (panel_samples.chest(panel_samples.GONE_MM) + shift_hu).astype(np.int16))
    answer = asked(files)
    _, text, usable = checkInWords(*nodes)
    assert usable == (answer.answer != "refuse")
    assert any(one.rule == "soft_peak_high_hu" for one in answer.reasons) == (shift_hu > 0)
    if answer.answer == "fine":  # the anatomy is checked by the run
        assert "nothing speaks against a comparison" in text
    else:
        assert text == gateInWords(answer.answer, answer.sentences)


@pytest.mark.parametrize(
    ("prior", "reason"),
    [
        ((HU + 1024).astype(np.int16), "they look like HU +1000 or +1024"),
        (LUNGS_ONLY, "all except the lungs seems to be removed"),
        ((panel_samples.lungs() > 0).astype(np.int16), "it looks like a label map or mask"),
    ],
)
def test_what_is_refused(widget, tmp_path, prior, reason):
    """The same words in all three, but for the name of the scan."""
    from ChangeMapJointGui.inputs import checkInWords

    nodes, files = pair(tmp_path, HU, prior)
    with pytest.raises(InputError) as caught:
        asked(files)
    words = str(caught.value).partition("nrrd: ")[2]
    assert reason in words
    _, text, usable = checkInWords(*nodes)
    assert text.endswith(f": {words}"), text
    assert not usable
    options = [
        "run",
        f"--reference={files[0]}",
        f"--template={files[1]}",
        "--method=rigid",
        f"--out={tmp_path / 'out'}",
    ]
    result = CliRunner().invoke(app, options, env={"COLUMNS": "1000"})
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
