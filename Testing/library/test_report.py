"""The report: well-formed, self-contained, and saying what the findings say."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from export_samples import content, finding, grown
from report_page import Page

from ChangeMapJointLib.export.reader_decisions import ReaderDecisions, ReaderLine
from ChangeMapJointLib.export.reading import BEGIN, END, write_reading
from ChangeMapJointLib.export.report import interval_words, render_report
from ChangeMapJointLib.export.wording import change, number, provenance_tables, quality_lines, signed
from ChangeMapJointLib.scan.volume import Acquisition


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(content(finding(), grown(), notices=("The second time point is synthetic.",)))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


# -- the page as such -----------------------------------------------------------------------
def test_the_page_is_whole_html_in_one_language(text, page):
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert ("html", "lang", "en") in page.attributes
    assert page.tags.count("h1") == 1


def test_nothing_is_asked_from_a_network(page):
    for _, name, value in page.attributes:
        if name in ("href", "src", "action", "data", "poster", "srcset", "xlink:href"):
            assert value.startswith(("data:", "#", "https://doi.org/")), value[:60]
        elif name != "content":
            assert "http:" not in value
            assert "https:" not in value
    assert "url(" not in page.raw["style"]
    assert "@import" not in page.raw["style"]
    assert not re.search(r"fetch|XMLHttpRequest|import\(|https?:", page.raw["script"])
    assert all(image["src"].startswith("data:image/") for image in page.images)


def test_the_security_policy_lets_only_this_style_and_script_run(page):
    (policy,) = [value for tag, name, value in page.attributes if name == "content" and "default-src" in value]
    assert "default-src 'none'" in policy
    assert "img-src data:;" in policy
    assert "unsafe-inline" not in policy
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
        assert page.tags.count(name) == 1
    assert not [value for _, name, value in page.attributes if name == "style" or name.startswith("on")]


def test_every_picture_has_words_and_a_size(page):
    assert len(page.images) == 2 + 2 * 12 + 5 * 3  # overview, two findings, five slices of both lungs
    assert all(image["alt"] and int(image["width"]) > 0 and int(image["height"]) > 0 for image in page.images)
    alts = [image["alt"] for image in page.images]
    assert len(set(alts)) == len(alts)


def test_every_link_has_its_place(page):
    places = {value for _, name, value in page.attributes if name == "id"}
    links = [value[1:] for tag, name, value in page.attributes if name == "href" and value.startswith("#")]
    assert {"finding-1", "finding-2"} <= set(links)
    assert set(links) <= places


def test_tables_have_headers_for_those_who_listen(page):
    assert page.tags.count("table") == 3  # findings, quality, inputs
    scopes = [value for tag, name, value in page.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == page.tags.count("th")


def test_same_content_gives_the_same_page(text):
    again = render_report(content(finding(), grown(), notices=("The second time point is synthetic.",)))
    assert again == text


def test_the_page_stays_light(text):
    # 12 pictures a finding: twenty findings must stay below 10 MB
    without = len(render_report(content(replace(finding(), id=1))))
    assert len(text) - without < 500_000


# -- what it says ---------------------------------------------------------------------------
def test_research_use_and_notices_come_before_everything_else(page):
    places = [
        page.text.index(words)
        for words in (
            "Research use, not a medical device",
            "The second time point is synthetic.",
            "The registration can be used.",
            "2 findings",
            "Overview",
            "Size now (mm)",
            "Finding 1:",
            "Quality of the registration",
            "SHA-256",
            "Method and versions",
        )
    ]
    assert places == sorted(places)


def test_the_table_says_what_the_findings_say(page):
    header, new, larger = page.table("Remark")
    assert dict(zip(header, new, strict=True)) == {
        "No.": "1",
        "Kind": "▲ New",
        "Lung": "right",
        "Size now (mm)": "17.2 × 16.0",
        "Size before (mm)": "none",
        "Volume now (ml)": "3.05",
        "Volume before (ml)": "–",
        "Change of volume": "–",
        "Changed region (ml)": "3.32",
        "Peak": "0.85 (+890 HU)",
        "Trust": "0.93 (high)",
        "Remark": "A nodule that the prior scan does not show.",
    }
    assert dict(zip(header, larger, strict=True)) == {
        "No.": "2",
        "Kind": "▲ Grown",
        "Lung": "left",
        "Size now (mm)": "15.5 × 14.9",
        "Size before (mm)": "11.7 × 11.7",
        "Volume now (ml)": "1.80",
        "Volume before (ml)": "0.72",
        "Change of volume": "+151 % (+81 to +258)",
        "Changed region (ml)": "0.046",
        "Peak": "0.85 (+890 HU)",
        "Trust": "0.41 (low: check by eye)",
        "Remark": "The registration is uncertain here.",
    }


def test_quality_figures_stand_beside_what_is_usual(page):
    rows = {row[0]: row[1:] for row in page.table("Usual")}
    assert rows["Mean remaining difference in the lungs"][0] == "31 HU (rigid alone: 88 HU)"
    assert rows["Lung overlap (Dice)"] == ["0.992 (rigid alone: 0.941)", "0.97 or more"]
    assert rows["Remaining distance of matched keypoints"][0] == "0.83 mm"
    assert rows["Keypoints with a confirmed match"][0] == "1438 of 1650"
    assert rows["Lungs inside the template's field of view"] == ["98 %", "98 % or more"]
    assert quality_lines(None) == []


def test_inputs_are_described_without_the_folders_above_them():
    made = content()
    volume = replace(made.reference, source=Path("/data/Mustermann_Max/scan ä.nii.gz"), notes=("Two slices.",))
    page = Page(render_report(replace(made, reference=volume, reference_sha256="ab12", attribution=("CC BY 3.0.",))))
    rows = {row[0]: row[1] for row in page.table("Property")}
    assert rows["File or folder"] == "scan ä.nii.gz"
    assert rows["Acquired"] == "2024-02-05"
    assert rows["Kernel"] == "B30f"
    assert rows["Voxel size"] == "3.00 × 3.00 × 3.00 mm"
    assert rows["SHA-256"] == "ab12"
    assert rows["Notes on reading"] == "Two slices."
    assert "Mustermann" not in page.text
    assert "CC BY 3.0." in page.text


def test_times_and_versions_are_shown():
    stages = [{"stage": "rigid", "time_s": 3.25}, {"stage": "maps", "time_s": 1.0, "peak_memory_mb": 812.0}]
    tables = provenance_tables({"device": "cpu", "versions": {"torch": "2.6"}, "stages": stages})
    assert tables == [
        {"title": "General", "columns": (), "rows": [["Device", "cpu"]]},
        {"title": "Versions", "columns": (), "rows": [["torch", "2.6"]]},
        {
            "title": "Stages",
            "columns": ["Stage", "Time (s)", "Peak memory (MB)"],
            "rows": [["rigid", "3.25", "–"], ["maps", "1.00", "812.00"]],
        },
    ]
    page = Page(render_report(content(provenance={"stages": stages})))
    assert page.table("Time (s)")[1:] == [["rigid", "3.25", "–"], ["maps", "1.00", "812.00"]]


@pytest.mark.parametrize(
    ("dates", "words"),
    [
        (("2024-02-05", "2023-02-05"), "365 days apart"),
        (
            ("2023-02-05", "2023-02-07"),
            "the prior scan (2023-02-07) is dated 2 days after the current one (2023-02-05)",
        ),
        ((None, "2023-02-05"), "do not state both dates"),
        (("05.02.2024", "2023-02-05"), "do not state both dates"),
    ],
)
def test_the_interval_is_stated_and_a_wrong_order_is_noticed(dates, words):
    made = content()
    now, before = (replace(made.reference, acquisition=Acquisition(date=date)) for date in dates)
    assert words in interval_words(now, before)


def test_numbers_have_a_real_minus_and_no_negative_zero():
    assert [number(v, 1) for v in (1.25, -0.04, -3.0, None, float("nan"))] == ["1.2", "0.0", "\u22123.0", "–", "–"]
    assert [signed(v) for v in (12.4, -12.4, 0.0, None)] == ["+12", "\u221212", "+0", "–"]
    assert change(finding()) == "–"


@pytest.mark.parametrize(("found", "words"), [((), "no findings"), ((1,), "1 finding"), ((1, 2), "2 findings")])
def test_the_overview_counts_in_words(found, words):
    page = Page(render_report(content(*(finding(number) for number in found))))
    alts = [image["alt"].lower() for image in page.images]
    assert any(f"coronal projection of the lungs, {words} numbered" in alt for alt in alts)


# -- what the reader decided ----------------------------------------------------------------
def test_decisions_made_later_stand_where_those_made_with_the_report_stand(tmp_path):
    of_panel = ReaderDecisions((ReaderLine("1, new, L 86", "rejected", "a <vessel>", 1),), "fine", 0.68, 2)
    path = tmp_path / "report.html"
    path.write_text(render_report(content(finding(), grown(), reading=of_panel)), "utf-8", newline="")
    before = path.read_text("utf-8")
    assert "0 of 2 findings accepted, 1 rejected, 1 not judged." in Page(before).text
    assert "a &lt;vessel&gt;" in before

    stamp = {"decision": {"at": "2026-05-06T10:30:00.123Z", "reader": "R<1>"}}
    entry = {"id": 2, "kind": "grown", "centre_mm": [1, -2.25, 3], "decision": "accepted", "stamps": stamp}
    stored = {"findings": {"7": entry, "8": {"id": 9, "decision": ""}}, "registration": {"verdict": "doubtful"}}
    assert write_reading(tmp_path, stored)
    after = path.read_text("utf-8")
    said = Page(after).text
    assert "a <vessel>" not in said
    assert "1 finding accepted, 0 rejected. Registration, as the reader judged it: doubtful." in said
    assert all(word in said for word in ("2, grown, at 1.0, -2.2, 3.0 mm LPS", "R<1>", "2026-05-06 10:30:00"))
    assert after.partition(BEGIN)[0] == before.partition(BEGIN)[0]
    assert after.partition(END)[2] == before.partition(END)[2]

    assert write_reading(tmp_path, {"findings": {}, "registration": {}})  # all was taken back
    assert path.read_text("utf-8") == render_report(content(finding(), grown()))
    assert not write_reading(tmp_path / "no-run", stored)
