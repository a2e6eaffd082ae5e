"""Write the table of ``docs/gate.md`` from the gate's rules.

    python Testing/benchmarks/gate_table.py

The text round the table is kept; what each bar was measured on stands below.
"""

from __future__ import annotations

from pathlib import Path

from ChangeMapJointLib.volumes.gate import RULES, Rule

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
    "air_percent": "18 scans of 14 patients: 24 to 76",
    "soft_percent": "the same: 31 to 69; a child of 24 cm in 700 mm 36 (of the whole picture 3.5)",
    "bright_percent": "the same: 0",
    "soft_peak_high_hu": "the same: -108 to 58",
    "soft_peak_low_hu": "the same: -108 to 58",
    "patient": HEADERS,
    "same_images": DEFINED,
    "vessels": "`results/rigid_robustness.json`",
    "date_order": DEFINED,
    "same_day": DEFINED,
    "head_feet": "18 scans of 14 patients: 0.22 to 0.43 upright, -0.22 and less upside down",
    "front_back": "the same: 0.52 to 0.86 upright, -0.52 and less turned",
    "left_right": "the same: 0.6 to 2.6, mirrored -0.6 and less; not told for two with a lung below 60 % of the other",
    "overlap": "`results/rigid_robustness.json`",
    "coverage": "right pairs 97 and more; a prior without its lower third 20 to 50",
    "turned": "`results/rigid_robustness.json`",
    "reading": DEFINED,
    "voxel_mm": "5 mm slices: small nodules are missed (`results/registration.json`)",
    "gaps": "not measured; overlapping slices have less than 1",
    "thickness": "1.5 against 5 mm in `results/registration.json`",
    "kernel": HEADERS,
    "kv": "not measured; from 20 kV apart contrast agent and bone differ by a tenth and more",
    "contrast": HEADERS,
    "blood_hu": "without contrast agent 32 to 55 on eleven scans, with it 114 to 320 on six",
    "noise_hu": "5 to 15 in voxels of 1.3 mm and more, 28 in native 0.8 mm, 39 in a 4D CT; simulated 120",
    "noise_ratio": "one scan native and averaged to 1.5 mm: 3.5",
    "breathing": "BREATH",
    "one_lung": "pairs of lungs 55 (disease) to 100; a resected or filled lung 0",
    "fluid_percent": "FLUID",
    "dense_percent": "without it 0 to 1.6; the base of a lung filled with 40 HU 4 and more; known collapse 13",
    "gas_percent": "0 to 0.1, emphysema too; the front of a lung emptied 3 and more",
    "metal_ml": "0 to 0.6; dense contrast agent in a vein 2.9 to 5.6, a sphere of 10 mm radius 4.2",
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
