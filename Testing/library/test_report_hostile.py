"""The report of hostile or unlucky names, values and folders."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from export_samples import content, finding, findings, quality
from report_page import Page

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export.report import render_report, write_report
from ChangeMapJointLib.scan.volume import Acquisition

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>&amp;\"ü"


def test_text_from_files_cannot_become_markup():
    made = content(finding(remark=HOSTILE), notices=(HOSTILE,), attribution=(HOSTILE,))
    # a file name ends at its last slash, so the hostile one has none
    volume = replace(
        made.reference,
        source=Path("/x") / HOSTILE.replace("/", ""),
        acquisition=Acquisition(kernel=HOSTILE, manufacturer=HOSTILE),
        notes=(HOSTILE,),
    )
    made = replace(
        made,
        reference=volume,
        reference_sha256=HOSTILE,
        provenance={HOSTILE: HOSTILE, "versions": {HOSTILE: HOSTILE}, "stages": [{HOSTILE: HOSTILE}]},
        quality=quality("look closely", (HOSTILE,)),
    )
    page = Page(render_report(made))
    assert page.tags.count("script") == 1
    assert all(image["src"].startswith("data:") for image in page.images)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in page.text
    assert HOSTILE.replace("/", "") in page.text


def test_a_very_long_name_may_break_anywhere():
    made = content()
    volume = replace(made.reference, source=Path("x" * 250 + ".nii.gz"))
    page = Page(render_report(replace(made, reference=volume)))
    assert page.table("Property")[1][1] == "x" * 250 + ".nii.gz"
    assert ("table", "class", "plain wrap") in page.attributes
    assert re.search(r"\.wrap td[^{]*\{[^}]*overflow-wrap:\s*anywhere", page.raw["style"])


def test_a_file_name_that_is_no_text_does_not_cost_the_report(tmp_path):
    made = content()
    volume = replace(made.reference, source=Path("scan\udcff.nii"))  # as Python reads a stray byte in a name
    write_report(tmp_path / "report.html", replace(made, reference=volume))
    assert "scan?.nii" in (tmp_path / "report.html").read_text("utf-8")


def test_the_file_is_the_page(tmp_path):
    path = tmp_path / "Befund äöü 1.html"
    write_report(path, content())
    assert path.read_text("utf-8") == render_report(content())
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_one_clear_line_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"report\.html") as caught:
        write_report(tmp_path / "file" / "report.html", content())
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_findings_that_overlap_the_border_of_the_scan_still_get_their_pictures():
    corner = finding(centre_mm=(-64.0, -52.0, -58.0), centre_template_mm=(500.0, 0.0, 0.0))
    made = replace(content(corner), findings=findings(corner))
    page = Page(render_report(made))
    assert len([image for image in page.images if "finding 1" in image["alt"]]) == 12
