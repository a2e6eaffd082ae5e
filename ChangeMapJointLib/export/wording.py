"""Words and formatted numbers of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ChangeMapJointLib.change.kinds import DENSER_KINDS, KIND_WORDS
from ChangeMapJointLib.change.sections import SECTION_HINTS, SECTION_TITLES, Section, reason_sentence
from ChangeMapJointLib.export.content import ReportContent
from ChangeMapJointLib.export.list_words import (
    FOLDED,
    RIGID_ONLY,
    list_words,
    no_finding_words,
    operating_point_words,
)
from ChangeMapJointLib.export.nodule_words import doubling_words, nodule_words, place_words
from ChangeMapJointLib.gate.answer import FINE
from ChangeMapJointLib.registration.quality import CRITERIA, LOW_TRUST, surface_regions_p95
from ChangeMapJointLib.scan.volume import Volume

if TYPE_CHECKING:
    from ChangeMapJointLib.change.findings import Finding, LesionMeasure
    from ChangeMapJointLib.registration.quality import Quality

MINUS, DASH, UNKNOWN = "\u2212", "\u2013", "not stated"
KINDS = {kind: words.capitalize() for kind, words in KIND_WORDS.items()}
KIND_HINTS = {
    "new": "in the current scan only",
    "grown": "larger beyond measurement error",
    "shrunk": "smaller beyond measurement error",
    "resolved": "in the prior scan only",
    "increase": "denser now; kind cannot be determined",
    "decrease": "less dense now; kind cannot be determined",
}
GATES = {
    "fine": ("good", "\u2713", "Inputs: fine", FINE),
    "look": (
        "look",
        "!",
        "Inputs: look",
        "The scans were compared. Consider these points before you rely on the result.",
    ),
    "refuse": ("stop", "\u2715", "Inputs: refused", "The scans cannot be compared."),
}
VERDICTS = {
    "good": ("good", "\u2713", "Registration: good", "The registration can be used."),
    "look closely": ("look", "!", "Registration: look closely", "Check the registration wherever you rely on it."),
    "do not use": (
        "stop",
        "\u2715",
        "Registration: do not use",
        "The registration failed: the remaining differences are not changes of the patient, and no finding is listed.",
    ),
    "not measured": ("look", "?", "Registration: not measured", "The quality of the registration was not measured."),
}


# -- numbers --------------------------------------------------------------------------------
def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """Format a number with a true minus sign and its unit; a dash where it is unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)  # + 0.0 avoids "-0"
    return f"{text}\u00a0{unit}" if unit else text


def signed(value: float | None, digits: int = 0, unit: str = "") -> str:
    """As :func:`number`, with a plus sign where the value is not negative."""
    text = number(value, digits, unit)
    return text if text.startswith((MINUS, DASH)) else "+" + text


def volume_ml(value: float | None) -> str:
    """Format a volume in ml, with more decimals the smaller it is."""
    return number(value, 3 if value is not None and abs(value) < 0.1 else 2 if value is not None and value < 10 else 1)


# -- findings -------------------------------------------------------------------------------
def finding_line(finding: Finding) -> dict[str, object]:
    """The texts of one finding in the table, by name."""
    now, before = finding.lesion_reference, finding.lesion_template
    absent_now = "none" if finding.kind == "resolved" else "not measured"
    absent_before = "none" if finding.kind == "new" else "not measured"
    return {
        "id": finding.id,
        "kind": KINDS.get(finding.kind, finding.kind),
        "hint": KIND_HINTS.get(finding.kind, ""),
        "denser": finding.kind in DENSER_KINDS,
        "lung": finding.lung,
        "place": place_words(finding.lung, finding.third),
        "nodule_now": nodule(now),
        "nodule_before": nodule(before),
        "mass_now": number(now.mass_mg if now else None, 0, "mg"),
        "mass_before": number(before.mass_mg if before else None, 0, "mg"),
        "volume_now_interval": volume_interval_words(now),
        "volume_before_interval": volume_interval_words(before),
        "doubling": doubling_words(finding.doubling_time_days, finding.doubling_time_interval_days),
        "size_now": size(now) or absent_now,
        "size_before": size(before) or absent_before,
        "volume_now": volume_ml(now.volume_ml if now else None),
        "volume_before": volume_ml(before.volume_ml if before else None),
        "change": change(finding),
        "diameter_change": signed(finding.diameter_change_mm, 1, "mm"),
        "region": volume_ml(finding.volume_ml),
        "region_size": size(finding),
        "peak": number(finding.peak, 2),
        "peak_hu": signed(finding.peak_hu, 0, "HU"),
        "trust": trust_words(finding.trust),
        "trust_value": number(finding.trust, 2),
        "probability": probability(finding.probability),
        "reason": reason_sentence(finding.reason),
        "remark": finding.remark or "",
    }


def nodule(lesion: LesionMeasure | None) -> str:
    """What kind of nodule a lesion is; empty where there is none."""
    if lesion is None:
        return ""
    return nodule_words(lesion.texture, lesion.extent, calcified=lesion.calcified, juxtapleural=lesion.juxtapleural)


def volume_interval_words(lesion: LesionMeasure | None) -> str:
    """The interval of a lesion's volume in ml; empty where there is none."""
    return "" if lesion is None else " to ".join(volume_ml(end) for end in lesion.volume_interval_ml)


def probability(value: float | None) -> str:
    """A probability in percent, never 0 or 100 %, which nothing measured can be; a dash where unknown."""
    if value is None or not math.isfinite(value):
        return DASH
    percent = round(100 * value)
    return ">\u00a099\u00a0%" if percent > 99 else "<\u00a01\u00a0%" if percent < 1 else f"{percent}\u00a0%"


def section(content: ReportContent, name: Section) -> dict[str, object]:
    """Title, hint and table lines of a section beside the findings; without lines where it is empty."""
    lines = [{**finding_line(item), "slice": stored_slice(content, item)} for item in content.section(name)]
    if name == "stable":
        lines = [{**line, "kind": "Stable", "denser": None} for line in lines]
    return {"name": name, "title": SECTION_TITLES[name], "hint": SECTION_HINTS[name], "lines": lines}


def stored_slice(content: ReportContent, finding: Finding) -> str:
    """The slice of the current scan's file that holds the centre, counted from 1."""
    index = content.reference.grid.to_index(finding.centre_mm)
    return f"{round(float(index[2])) + 1} of {content.reference.grid.shape[0]}"


def operating_point(content: ReportContent) -> str:
    """A sentence on how probable a finding is; empty where nothing judged the changes."""
    return "" if content.findings is None else operating_point_words(content.findings.operating_point)


def about_list(content: ReportContent) -> tuple[str, ...]:
    """What is said of the list as a whole, one paragraph each."""
    if content.method == "rigid" or content.findings is None:
        return (RIGID_ONLY,)
    return list_words(
        content.verdict,
        listed=len(content.items),
        point=content.findings.operating_point,
        threshold=content.threshold,
        withheld=content.withheld,
        counts={name: len(content.section(name)) for name in FOLDED},
    )


def size(lesion: LesionMeasure | Finding | None) -> str:
    """Long and perpendicular axial diameter in mm of a lesion or region; empty where there is none."""
    if lesion is None:
        return ""
    return f"{number(lesion.long_diameter_mm)}\u00a0\u00d7\u00a0{number(lesion.perpendicular_diameter_mm)}"


def change(finding: Finding) -> str:
    """Change of volume in percent with its interval of measurement error."""
    text = signed(finding.volume_change_percent, 0, "%")
    interval = finding.volume_change_interval_percent
    if finding.volume_change_percent is None or interval is None:
        return text
    return f"{text} ({signed(interval[0])}\u00a0to\u00a0{signed(interval[1])})"


def trust_words(value: float | None) -> str:
    """A trust value in [0, 1] with its level in words."""
    if value is None or not math.isfinite(value):
        return "not measured"
    level = "high" if value >= 0.8 else "moderate" if value >= LOW_TRUST else "low: check by eye"
    return f"{number(value, 2)} ({level})"


def counts(items: Sequence[Finding]) -> list[dict[str, object]]:
    """The number of findings of every kind, zeros included."""
    kinds: list[str] = [finding.kind for finding in items]
    return [
        {"kind": words, "count": kinds.count(kind), "hint": KIND_HINTS[kind], "denser": kind in DENSER_KINDS}
        for kind, words in KINDS.items()
    ]


# -- verdict and quality --------------------------------------------------------------------
def verdict(content: ReportContent) -> dict[str, object]:
    """CSS class, symbol, words and reasons of the verdict, and the sentence for a page without findings."""
    css, symbol, words, sentence = VERDICTS[content.verdict]
    reasons = () if content.quality is None else content.quality.reasons
    no_findings = no_finding_words(
        content.verdict, judged=content.judged, threshold=content.threshold, withheld=content.withheld
    )
    return {
        "css": css,
        "symbol": symbol,
        "words": words,
        "sentence": sentence,
        "reasons": reasons,
        "no_findings": no_findings,
    }


def gate(content: ReportContent) -> dict[str, object] | None:
    """CSS class, symbol, words, sentence and reasons of the gate's answer; None where the gate did not run."""
    if content.gate is None:
        return None
    css, symbol, words, sentence = GATES[content.gate.answer]
    return {"css": css, "symbol": symbol, "words": words, "sentence": sentence, "reasons": content.gate.sentences}


def quality_lines(quality: Quality | None) -> list[tuple[str, str, str]]:
    """Name, value and usual value of each registration figure."""
    if quality is None:
        return []
    q = quality
    rigid = "rigid alone: "
    residual = f"{number(q.residual_hu, 0, 'HU')} ({rigid}{number(q.residual_rigid_hu, 0, 'HU')})"
    dice = f"{number(q.lung_dice, 3)} ({rigid}{number(q.lung_dice_rigid, 3)})"
    jacobian = f"{number(q.jacobian_min, 2)} to {number(q.jacobian_max, 2)}"
    mean = _measured(q.inverse_consistency_mm)
    tail = _measured(q.inverse_consistency_p95_mm)
    return [
        ("Mean remaining difference in the lungs", residual, "well below that of rigid alignment alone"),
        ("Lung overlap (Dice)", dice, _usual("lung_dice")),
        ("Distance of the lung surfaces, 95th percentile", _surface(q), _usual("surface_p95_mm", "mm")),
        (
            "Distance of the lung surfaces, mean; largest",
            f"{_measured(q.surface_mean_mm)}; {_measured(q.surface_max_mm)}",
            "about 0.5 mm on average; the registration drew them together",
        ),
        ("Inverse consistency error, mean", mean, _usual("inverse_consistency_mm", "mm")),
        ("Inverse consistency error, 95th percentile", tail, _usual("inverse_consistency_p95_mm", "mm")),
        (
            "Remaining distance of matched keypoints",
            _measured(q.keypoint_error_mm),
            "about 1 mm; the registration was fitted to them",
        ),
        ("Keypoints with a confirmed match", _confirmed(q), "most; fewer with thick slices"),
        ("Folding in the lungs", number(q.folding_percent, 3, "%"), "none; the mapping is not valid where it folds"),
        ("Local volume factor (Jacobian)", jacobian, "about 0.5 to 2 between two breath-holds"),
        ("SD of the logarithm of the Jacobian", number(q.sd_log_jacobian, 3), "smaller values mean a smoother mapping"),
        ("Lungs inside the template's field of view", number(100 * q.overlap, 0, "%"), _usual("overlap", "%", 100)),
        ("Lungs registered with confidence", number(q.trusted_percent, 0, "%"), _usual("trusted_percent", "%")),
    ]


def _confirmed(q: Quality) -> str:
    if q.keypoints_found is None or q.keypoints_dropped is None:
        return "not measured"
    return f"{q.keypoints_found - q.keypoints_dropped} of {q.keypoints_found}"


def _surface(q: Quality) -> str:
    """The distance of the lung surfaces, whole and by region."""
    parts = [f"{name} {number(value, 1)}" for name, value in surface_regions_p95(q).items()]
    return _measured(q.surface_p95_mm) + (f" ({', '.join(parts)})" if parts else "")


def _measured(value_mm: float | None) -> str:
    return "not measured" if value_mm is None else number(value_mm, 2, "mm")


def _usual(name: str, unit: str = "", scale: float = 1.0) -> str:
    """The usual value, from the limit at which the verdict changes, so that table and verdict agree."""
    (criterion,) = (criterion for criterion in CRITERIA if criterion.name == name)
    limit = f"{scale * criterion.look_closely:g}\u00a0{unit}".rstrip("\u00a0")
    return f"{limit} or {'less' if criterion.higher_is_worse else 'more'}"


# -- inputs and provenance ------------------------------------------------------------------
def inputs(content: ReportContent) -> list[tuple[str, str, str]]:
    """Label and values of reference and template, one line for each property."""
    reference = _describe(content.reference, content.reference_sha256)
    template = _describe(content.template, content.template_sha256)
    return [(label, reference[label], template[label]) for label in reference]


def _describe(volume: Volume, sha256: str) -> dict[str, str]:
    scan, grid = volume.acquisition, volume.grid
    return {
        "File or folder": volume.source.name or UNKNOWN,
        "Acquired": scan.date or UNKNOWN,
        "Slice thickness": UNKNOWN if scan.slice_thickness_mm is None else number(scan.slice_thickness_mm, 2, "mm"),
        "Kernel": scan.kernel or UNKNOWN,
        "Contrast": scan.contrast or UNKNOWN,
        "Manufacturer": scan.manufacturer or UNKNOWN,
        "Voxel size": " \u00d7 ".join(number(h, 2) for h in grid.spacing_mm) + "\u00a0mm",
        "Voxels": " \u00d7 ".join(str(n) for n in grid.size),
        "Notes on reading": " ".join(volume.notes) or "none",
        "SHA-256": sha256 or UNKNOWN,
    }


def provenance_tables(provenance: Mapping[str, object]) -> list[dict[str, object]]:
    """Format the provenance (see :class:`ReportContent`) as tables with title, columns and rows of text."""
    general: list[list[str]] = []
    tables: list[dict[str, object]] = []
    for name, value in provenance.items():
        title = _unit_words(name)
        if isinstance(value, Mapping):
            rows = [[str(key).replace("_", " "), _text(item)] for key, item in value.items()]
            tables.append({"title": title, "columns": (), "rows": rows})
        elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
            columns = list(dict.fromkeys(key for item in value for key in item))
            rows = [[_text(item.get(key)) for key in columns] for item in value]
            tables.append({"title": title, "columns": [_unit_words(key) for key in columns], "rows": rows})
        else:
            general.append([title, _text(value)])
    return [{"title": "General", "columns": (), "rows": general}, *tables] if general else tables


def _unit_words(name: str) -> str:
    """Turn a name such as ``time_s`` into "Time (s)"."""
    head, _, unit = name.rpartition("_")
    if head and unit in ("s", "mb", "gb", "mm", "hu", "ml", "percent"):
        symbol = {"mb": "MB", "gb": "GB", "hu": "HU", "percent": "%"}.get(unit, unit)
        name = f"{head} ({symbol})"
    return name[:1].upper() + name[1:].replace("_", " ")


def _text(value: object) -> str:
    if value is None:
        return DASH
    if isinstance(value, float):
        return number(value, 2)
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return str(value)
