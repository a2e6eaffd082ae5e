"""Write the table of ``docs/gate.md`` from the gate's rules.

    python Testing/benchmarks/gate_table.py

The text round the table is kept; what each bar was measured on stands below.
"""

from __future__ import annotations

from pathlib import Path

from ChangeMapJointLib.gate.rules import RULES, Rule

DOCUMENT = Path(__file__).parents[2] / "docs" / "gate.md"
START, END = "<!-- rules -->", "<!-- end of rules -->"
HEAD = ("rule", "measured", "look", "refuse", "what is said, and what to do", "measured on")
HEADERS = "headers: equal or not"
DEFINED = "by definition"
MEASURED = {
    "voxels": "not measured",
    "extent_mm": "not measured; a newborn's chest has 90",
    "modality": HEADERS,
    "finite": DEFINED,
    "air_percent": "19 scans of 16 patients: 24 to 76",
    "darkest_hu": (
        "22 scans of 17 patients: -1024 to -997; without the air around the body: to -833; halved HU: -512 to -481; "
        "inverted HU: -470"
    ),
    "gas_hu": (
        "22 scans of 17 patients, whole, without the air around the body, and their inner half: -1024 to -952; HU "
        "times 0.9: -922 to -857, times 0.8: -819 to -762"
    ),
    "fat_hu": (
        "the same 22 scans, one of which shows no fat: -112 to -82; HU times 1.5: -172 to -132, times 2: -227 to "
        "-177; a blanket drawn around the patient without fat: -248"
    ),
    "soft_percent": "the same 19 scans: 31 to 69; a child of 24 cm in 700 mm 36, of the whole picture 3.5",
    "only_lung_percent": (
        "six patients: 60 to 84; four of them with all but the lungs replaced by 0, -1024 or -2000: 1 to 9"
    ),
    "bright_percent": "the same: 0",
    "soft_peak_high_hu": "the same: -108 to 58",
    "soft_peak_low_hu": "the same: -108 to 58",
    "patient": HEADERS,
    "same_images": DEFINED,
    "vessels": "115 right pairs at least 0.57, 126 wrong ones at most 0.26 (`results/rigid_robustness.json`)",
    "date_order": DEFINED,
    "same_day": DEFINED,
    "head_feet": (
        "21 scans of 17 patients: 0.22 to 0.47; two thirds or half of their slices: -0.07 to 0.50; "
        "upside down: -0.22 and less"
    ),
    "front_back": "the same: 0.42 to 0.74; parts: 0.0 to 0.90; turned: -0.42 and less",
    "left_right": "the same: 0.05 to 2.6 (not told for four); 60 of 68 mirrored ones doubted, none of the others",
    "overlap": "`results/rigid_robustness.json`",
    "coverage": "right pairs: none below 90; a prior without its lower third: 51 to 65",
    "one_sided": "two scans of one lung: 0; two patients cropped to either lung, with 15 mm beside it: 0 to 12",
    "turned": "`results/rigid_robustness.json`",
    "reading": DEFINED,
    "voxel_mm": "5 mm slices: small nodules are missed (`results/registration.json`)",
    "pixel_mm": "patients of `ct15` at 7 to 10 mm: six wrong pairs agree by 0.50 to 0.59; at 5 mm by at most 0.29",
    "gaps": "not measured; overlapping slices have less than 1",
    "thickness": "1.5 against 5 mm in `results/registration.json`",
    "kernel": HEADERS,
    "kv": "not measured; contrast agent and bone differ from 20 kV on",
    "contrast": HEADERS,
    "blood_hu": "seven patients without contrast agent: 32 to 48; seven with it: 114 to 318",
    "lossy": (
        "headers. For reading by eye, a German consensus conference (Loose et al. 2009) accepts up to 8:1 for CT "
        "of the chest; maps subtract two scans, so that any loss is said"
    ),
    "noise_hu": "averaged to 1.3 mm and more: 5 to 21; native 0.8 mm: 28; a 4D CT: 39; simulated: 120",
    "noise_ratio": "one scan native and averaged to 1.5 mm: 3.5",
    "breathing": "a quiet breath: 1.05; 20 mm at the diaphragm: 1.09; 1.6 is taken from the reading of follow-ups",
    "one_lung": "with known disease 40, 50 and 67; else 74 to 98; a lung filled or resected: 0 to 4",
    "fluid_percent": (
        "below 2 in lungs without; 10 HU in the back quarter of a lung: 6.7 to 13; known effusion or tumour: 3.8 to 14"
    ),
    "dense_percent": "below 2 in lungs without; 40 HU in the lower quarter of a lung: 5.7 to 7.6; known collapse: 12",
    "gas_percent": "0 to 0.1, emphysema too; air in the front of a lung: 2.7 to 3.9",
    "metal_ml": "0 to 0.6, two scans 2.9 and 5.6; a sphere of 10 mm radius: 4.2",
}


def cell(text: object) -> str:
    """As a cell of a table in Markdown."""
    return str(text).replace("|", "\\|")


def bar(rule: Rule, value: float | None) -> str:
    """Where the answer turns."""
    return "" if value is None else f"{'above' if rule.rises else 'below'} {value:g}"


def row(rule: Rule) -> str:
    """A rule as a line of the table."""
    joint = "; " if rule.remedy[:1].islower() else " "
    said = f"{rule.sentence}{joint}{rule.remedy}".strip()
    cells = (f"`{rule.name}`", rule.quantity, bar(rule, rule.look), bar(rule, rule.refuse), said, MEASURED[rule.name])
    return f"| {' | '.join(cell(one) for one in cells)} |"


def table() -> str:
    """All rules, with a heading for each thing that is checked."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    last = ""
    for rule in RULES:
        if rule.checks != last:
            lines.append(f"| **{rule.checks}** |" + " |" * (len(HEAD) - 1))
            last = rule.checks
        lines.append(row(rule))
    return "\n".join(lines)


def main() -> None:
    text = DOCUMENT.read_text("utf-8")
    before, after = text.split(START)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{START}\n{table()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
