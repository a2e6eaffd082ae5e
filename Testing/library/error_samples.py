"""Errors as the library raises them, with their words in Python, on the command line and in Slicer's panel."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ChangeMapJointLib.core.errors import Argument, InputError


class Sample(NamedTuple):
    """One error in the words of each who shows it."""

    error: InputError
    python: str
    command_line: str
    panel: str


def everywhere(error: InputError, text: str) -> Sample:
    """An error that names no argument has the same words for everybody."""
    return Sample(error, text, text, text)


SAMPLES = {
    "a choice, and another to take": Sample(
        InputError(
            "no CUDA device works here", field="device", value="cuda", remedy=("use ", Argument("device", "cpu"))
        ),
        "device='cuda': no CUDA device works here; use device='cpu'",
        "--device cuda: no CUDA device works here; use --device cpu",
        'Device "GPU (none found)": no CUDA device works here; use Device "CPU"',
    ),
    "a choice that does not exist": Sample(
        InputError(field="device", value="abacus", expected="auto, cpu or cuda"),
        "device='abacus': expected auto, cpu or cuda",
        "--device abacus: expected auto, cpu or cuda",
        'Device "abacus": expected auto, cpu or cuda',
    ),
    "a method": Sample(
        InputError("not enough memory", field="method", value="joint", remedy=("use ", Argument("method", "rigid"))),
        "method='joint': not enough memory; use method='rigid'",
        "--method joint: not enough memory; use --method rigid",
        'Method "Joint (network)": not enough memory; use Method "Rigid only (no map)"',
    ),
    "a folder, and a switch": Sample(
        InputError(
            "exists already",
            field="out",
            value=Path("a/result"),
            remedy=("give another folder, or ", Argument("overwrite", True), " to replace it"),
        ),
        "out='a/result': exists already; give another folder, or overwrite=True to replace it",
        "--out a/result: exists already; give another folder, or --overwrite to replace it",
        "The result: exists already; give another folder, or overwrite=True to replace it",
    ),
    "an option in a file": Sample(
        InputError(
            "found 99", field=(Argument("config", "a.json"), Argument("config.lungs.spacing_mm")), expected="1 to 6"
        ),
        "config='a.json': lungs.spacing_mm: found 99, expected 1 to 6",
        "--config a.json: lungs.spacing_mm: found 99, expected 1 to 6",
        'Options file "a.json": lungs.spacing_mm: found 99, expected 1 to 6',
    ),
    "an option without a control": Sample(
        InputError("found 99", field="config.lungs.spacing_mm", expected="1 to 6"),
        "config.lungs.spacing_mm: found 99, expected 1 to 6",
        "lungs.spacing_mm: found 99, expected 1 to 6",
        "Options file, lungs.spacing_mm: found 99, expected 1 to 6",
    ),
    "an option with a control": Sample(
        InputError("found 2", field="config.findings.threshold", expected="in (0, 1]"),
        "config.findings.threshold: found 2, expected in (0, 1]",
        "--threshold: found 2, expected in (0, 1]",
        "Threshold: found 2, expected in (0, 1]",
    ),
    "an option to change, with its value": Sample(
        InputError("too little lung", remedy=("set ", Argument("config.rigid.refuse_wall_below", 0), " if you know")),
        "too little lung; set config.rigid.refuse_wall_below=0 if you know",
        'too little lung; set {"rigid": {"refuse_wall_below": 0}} in --config if you know',
        "too little lung; set rigid.refuse_wall_below=0 (Options file) if you know",
    ),
    "an option to change": Sample(
        InputError("no lungs", field=Path("a.nrrd"), remedy=("lower ", Argument("config.lungs.minimum_ml"))),
        "a.nrrd: no lungs; lower config.lungs.minimum_ml",
        'a.nrrd: no lungs; lower {"lungs": {"minimum_ml": ...}} in --config',
        "a.nrrd: no lungs; lower lungs.minimum_ml (Options file)",
    ),
    "a group of options": Sample(
        InputError("no lungs", remedy=("change ", Argument("config.lungs"))),
        "no lungs; change config.lungs",
        'no lungs; change {"lungs": {...}} in --config',
        "no lungs; change lungs (Options file)",
    ),
    "a scan": Sample(
        InputError("50 ml of lung were found", field="reference", value="Thorax 1/2", expected="at least 100 ml"),
        "reference='Thorax 1/2': 50 ml of lung were found, expected at least 100 ml",
        "--reference Thorax 1/2: 50 ml of lung were found, expected at least 100 ml",
        'Reference (current) "Thorax 1/2": 50 ml of lung were found, expected at least 100 ml',
    ),
    "an option whose object was made in Python": Sample(
        InputError("found 0", field="FindingOptions.threshold", expected="in (0, 1]"),
        "FindingOptions.threshold: found 0, expected in (0, 1]",
        "--threshold: found 0, expected in (0, 1]",
        "FindingOptions.threshold: found 0, expected in (0, 1]",
    ),
    "another command's arguments": Sample(
        InputError("found no scan", field="sources", expected="at least one chest CT"),
        "sources: found no scan, expected at least one chest CT",
        "--scan: found no scan, expected at least one chest CT",
        "sources: found no scan, expected at least one chest CT",
    ),
    "a file that is called like an argument": everywhere(
        InputError("no such file", field=Path("device"), expected="a scan"), "device: no such file, expected a scan"
    ),
    "a file within a file": everywhere(
        InputError("damaged", field=(Path("a.zip"), Path("b/c.dcm")), remedy="export it again"),
        "a.zip: b/c.dcm: damaged; export it again",
    ),
    "braces and percent signs in names": everywhere(
        InputError("found '{0} %s {'", field=Path("{device}.nrrd")), "{device}.nrrd: found '{0} %s {'"
    ),
    "free text": everywhere(InputError("Choose two CT volumes."), "Choose two CT volumes."),
}
