"""The report: well-formed, self-contained, escaped, honest, and saying what the findings say."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from export_samples import content, finding, findings, grown, quality
from test_pictures import decoded

from ChangeMapJointLib.core.errors import InputError
from ChangeMapJointLib.export import report
from ChangeMapJointLib.export.panels import Picture, lung_rows
from ChangeMapJointLib.export.pictures import WARNING
from ChangeMapJointLib.export.report import interval_words, render_report, write_report
from ChangeMapJointLib.export.wording import change, number, provenance_tables, quality_lines, signed
from ChangeMapJointLib.volumes.volume import Acquisition

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and gathers what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []  # tag, name, value
        self.images: list[dict[str, str]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.raw: dict[str, str] = {"style": "", "script": ""}
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]] += data
            return
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts))

    def table(self, heading: str) -> list[list[str]]:
        """Cells, blanks tidied, of the table with ``heading`` in its first row."""
        (found,) = [table for table in self.tables if heading in table[0]]
        return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in found]


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
    assert rows["Mean difference left in the lungs"][0] == "31 HU (rigid alone: 88 HU)"
    assert rows["Lung overlap (Dice)"] == ["0.992 (rigid alone: 0.941)", "0.97 or more"]
    assert rows["Error at matched keypoints"][0] == "not measured"
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
        (("2024-02-05", "2023-02-05"), "365 days between"),
        (("2023-02-05", "2023-02-07"), "Check the order: the template (2023-02-07) is dated 2 days after"),
        ((None, "2023-02-05"), "do not say both dates"),
        (("05.02.2024", "2023-02-05"), "do not say both dates"),
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


# -- honesty --------------------------------------------------------------------------------
def test_no_findings_are_said_in_words():
    page = Page(render_report(content()))
    assert "No findings" in page.text
    assert "no change reached 0.68 on the map" in page.text
    assert "means nothing" not in page.text


@pytest.mark.parametrize("verdict", ["look closely", "do not use"])
def test_no_findings_mean_nothing_where_the_registration_is_doubtful(verdict):
    page = Page(render_report(content(quality=quality(verdict, ("The lungs overlap by 0.61.",)))))
    assert "that means nothing here" in page.text
    assert "The lungs overlap by 0.61." in page.text
    assert "The registration can be used" not in page.text


def test_no_findings_mean_nothing_where_the_quality_is_unknown():
    page = Page(render_report(content(quality=None)))
    assert "Not measured" in page.text
    assert "that means nothing here" in page.text


def test_do_not_use_cannot_be_missed():
    made = content(finding(), quality=quality("do not use"))
    page = Page(render_report(made))
    assert page.text.index("DO NOT USE") < page.text.index("Change report: chest CT, current against prior Research")
    assert "These findings cannot be relied upon" in page.text
    marked = {image["data-role"] for image in page.images if "data-role" in image and has_band(image)}
    assert marked == {"warped", "overlay", "signed"}
    overview = [image for image in page.images if "data-role" not in image]
    assert len(overview) == 2
    assert all(has_band(image) for image in overview)


def has_band(image: dict[str, str]) -> bool:
    pixels = decoded(Picture("", "", image["src"], int(image["width"]), int(image["height"])))
    middle = pixels.shape[1] // 2
    return bool(np.abs(pixels[4, middle - 60 : middle + 60].astype(int) - WARNING).max(axis=-1).mean() < 40)


def test_a_good_page_has_no_warning_on_its_pictures():
    for row in lung_rows(content()):
        for picture in row.pictures:
            assert not has_band({"src": picture.uri, "width": str(picture.width), "height": str(picture.height)})


def test_findings_without_pictures_are_counted_in_words(monkeypatch):
    monkeypatch.setattr(report, "PICTURED", 1)
    made = content(finding(), grown(), finding(3))
    page = Page(render_report(replace(made, findings=replace(made.findings, dropped=17))))
    assert "Pictures follow for the first 1 of the 3 findings" in page.text
    assert "17 smaller regions of change were left out" in page.text
    assert len(page.table("Remark")) == 4
    assert "Finding 2:" not in page.text


def test_rigid_shows_both_scans_and_neither_map_nor_findings():
    made = content(method="rigid", change_map=None, signed_hu=None, findings=None, quality=None)
    page = Page(render_report(made))
    assert {image["data-role"] for image in page.images} == {"reference", "rigid"}
    assert "Both scans, rigidly aligned" in page.text
    assert "Overview" not in page.text
    assert not [table for table in page.tables if "Remark" in table[0]]


def test_joint_does_not_say_that_the_map_is_a_difference_in_hu():
    page = Page(render_report(content(method="joint")))
    assert "map 0.68" not in page.text
    assert "One network" in page.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "'magic'"),
        ({"change_map": None}, "change_map"),
        ({"warped_template": np.zeros((2, 2, 2), np.int16)}, "warped_template"),
    ],
)
def test_content_that_does_not_fit_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        content(**changes)


# -- hostile and unlucky input --------------------------------------------------------------
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
