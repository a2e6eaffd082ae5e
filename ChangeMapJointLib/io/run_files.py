"""File names in the folder of a run: the output contract, used by everything that writes, loads or replaces them."""

from __future__ import annotations

from pathlib import Path

SCHEMA_NAME = "changemap.run/"
SCHEMA = f"{SCHEMA_NAME}1"  # of run.json

# -- records --------------------------------------------------------------------------------
RUN = "run.json"  # its presence marks the folder of a run
QUALITY = "quality.json"
FINDINGS = "findings.json"
FINDINGS_CSV = "findings.csv"
CANDIDATES = "candidates.json"
REPORT = "report.html"
READING = "reading.json"  # a reader's decisions, written later by a viewer

# -- maps on the reference's grid -----------------------------------------------------------
CHANGE_MAP = "change_map.nrrd"
CHANGE_DIFFERENCE = "change_difference.nrrd"
CHANGE_LEARNED = "change_learned.nrrd"
CHANGE_COMBINED = "change_combined.nrrd"
SIGNED_CHANGE = "signed_change.nrrd"
FINDING_LABELS = "finding_labels.nrrd"  # int16: the id of the change that a voxel belongs to, 0 elsewhere
WARPED_TEMPLATE = "warped_template.nrrd"

# -- geometry -------------------------------------------------------------------------------
DEFORMATION = "deformation.nrrd"
RIGID = "rigid.tfm"
JACOBIAN = "jacobian.nrrd"
TRUST = "trust.nrrd"
LUNGS_REFERENCE = "lungs_reference.nrrd"
LUNGS_TEMPLATE = "lungs_template.nrrd"

# Maps are rounded when they are written, to what is far below their noise: 0.13 HU, 0.2 % of volume, 0.4 % of trust.
MAP_STEP, JACOBIAN_STEP, TRUST_STEP = 2.0**-12, 2.0**-8, 2.0**-7

NEEDED_RECORDS = (RUN, QUALITY)
RECORDS = (*NEEDED_RECORDS, FINDINGS, CANDIDATES)
ALWAYS = frozenset({*NEEDED_RECORDS, REPORT, WARPED_TEMPLATE, RIGID, LUNGS_REFERENCE, LUNGS_TEMPLATE})
WITH_MAP = ALWAYS | {
    *(FINDINGS, FINDINGS_CSV, CANDIDATES, FINDING_LABELS, CHANGE_MAP, SIGNED_CHANGE),
    *(DEFORMATION, JACOBIAN, TRUST),
}
WITH_NETWORK = WITH_MAP | {CHANGE_DIFFERENCE, CHANGE_LEARNED, CHANGE_COMBINED}
FILES = WITH_NETWORK  # everything that a run may write
REPLACEABLE = FILES | {READING}  # a folder that holds anything else is never replaced
_OF_FILE_MANAGERS = frozenset({".ds_store", "thumbs.db", "desktop.ini"})  # in any folder that was looked at


def names_in(folder: Path) -> set[str]:
    """Return the names in a folder, without what file managers of macOS and Windows put into it.

    Raises:
        OSError: it cannot be listed.
    """
    names = {path.name for path in folder.iterdir()}
    return {name for name in names if name.casefold() not in _OF_FILE_MANAGERS and not name.startswith("._")}
