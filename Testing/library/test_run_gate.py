"""A whole run says what the gate says, and lists nothing where its registration failed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_samples import finding
from job_samples import QUICK
from phantoms import Sphere, chest_phantom
from report_page import Page

from ChangeMapJointLib.change.findings import Findings
from ChangeMapJointLib.cli.main import ProgressStyle, print_result
from ChangeMapJointLib.comparison.config import config_from
from ChangeMapJointLib.comparison.result import Result
from ChangeMapJointLib.comparison.run import Label, Request, run
from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.io.write import write_nrrd
from ChangeMapJointLib.registration import quality
from ChangeMapJointLib.registration.quality import Figures, Quality, assess_quality
from ChangeMapJointLib.scan.volume import Acquisition

FEW = {"registration": {"iterations": [3, 2]}, "backward": {"iterations": [2]}}  # it is judged as failed anyway
WHY = "Forward and backward differ by 9.0 mm in the mean."


def request(folder: Path, **changes: object) -> Request:
    """The chest before, and moved and with a nodule now; the prior is dated later than the current scan."""
    now = chest_phantom(edge_mm=5.0, lesions=[Sphere((60.0, 0.0, 20.0), 12.0)])
    before = chest_phantom(edge_mm=5.0, moved=lambda points: points + np.array((4.0, 0.0, 4.0)))
    for name, volume in (("now", now), ("before", before)):
        write_nrrd(folder / f"{name}.nrrd", volume.array, volume.grid)
    plain = Request(
        folder / "now.nrrd",
        folder / "before.nrrd",
        folder / "out",
        config_from({**QUICK, **FEW}),
        "cpu",
        reference_label=Label("now", Acquisition(date="2023-01-02")),
        template_label=Label("before", Acquisition(date="2024-01-02")),
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A run whose registration is judged as failed."""

    def unusable(figures: Figures) -> Quality:
        return replace(assess_quality(figures), verdict="do not use", reasons=(WHY,))

    folder = tmp_path_factory.mktemp("failed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "assess_quality", unusable)
        return run(request(folder)), folder / "out"


def test_a_failed_registration_lists_no_findings_in_any_file(failed) -> None:
    result, out = failed
    assert result.findings is not None
    assert result.findings.withheld >= 1  # the nodule
    assert list(csv.DictReader((out / "findings.csv").open(newline=""))) == []
    for name in ("findings", "candidates"):
        found = json.loads((out / f"{name}.json").read_text())
        assert (found["findings"], found["why"]) == ([], [WHY])
        assert found["withheld"] >= 1
    page = Page((out / "report.html").read_text("utf-8"))
    assert "No findings" in page.text
    assert WHY in page.text
    assert "Both scans, rigidly aligned" in page.text
    assert {image["data-role"] for image in page.images} == {"reference", "rigid", "warped", "signed"}


def test_every_output_says_what_the_gate_says(failed, capsys) -> None:
    result, out = failed
    assert result.gate.answer == "look"
    found = json.loads((out / "quality.json").read_text())["gate"]
    assert found == json.loads((out / "run.json").read_text())["gate"]
    assert [one["rule"] for one in found["reasons"]] == [one.rule for one in result.gate.reasons]
    assert "date_order" in [one["rule"] for one in found["reasons"]]
    assert set(result.gate.sentences) <= set(json.loads((out / "run.json").read_text())["notes"])
    page = Page((out / "report.html").read_text("utf-8"))
    assert page.text.index("Inputs: look") < page.text.index("is newer than the current scan") < page.text.index(WHY)
    print_result(result, out, ProgressStyle.bar)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Inputs: look. WARNING: the prior scan, of 2024-01-02, is newer")
    assert f"{result.findings.withheld} withheld" in said[2]
    print_result(result, out, ProgressStyle.json)
    event = json.loads(capsys.readouterr().out)
    assert (event["findings"], event["withheld"]) == (0, result.findings.withheld)
    assert event["gate"]["answer"] == "look"


def test_the_console_counts_every_section(failed, capsys) -> None:
    result, out = failed
    others = (finding(2, section="explained", reason="wall"), finding(3, section="explained", reason="vessel"))
    listed = Findings((finding(1),), None, others=others, operating_point="standard")
    print_result(replace(result, findings=listed), out, ProgressStyle.bar)
    said = capsys.readouterr().out.splitlines()
    assert said[2:4] == ["Findings: 1", "Possible 0, explained 2, stable 0."]
    print_result(replace(result, findings=listed), out, ProgressStyle.json)
    event = json.loads(capsys.readouterr().out)
    assert event["sections"] == {"finding": 1, "possible": 0, "explained": 2, "stable": 0}


def test_what_the_gate_refuses_is_refused_before_any_work(tmp_path) -> None:
    label = Label("before", Acquisition(modality="MR"))
    with pytest.raises(InputError, match=r"prior scan before cannot be compared: Prior scan: .*MR, expected CT"):
        run(request(tmp_path, template_label=label))
    assert not (tmp_path / "out").exists()
