"""The table of methods: titles and descriptions for users, thresholds and stages. Nothing else repeats these.

The command line, the panel, the scene, the report and the tests read this table. It imports nothing heavy, so that the
panel can show it before PyTorch is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ChangeMapJointLib.core.choices import DEFAULT_METHOD, Method
from ChangeMapJointLib.core.hu import CHANGE_WINDOW_HU, FULL_SCALE_HU

MOST_FINDINGS = 200  # only the largest are kept: nobody reads more
SMALLEST_REGION_VOX = 5  # of a finding: Kohlbrandt et al. 2024 drop smaller regions
# Beyond R's lungs, only parts of T(y)'s lungs that a ball of this radius fits into count. On synthetic change, 2 mm
# left most of the rim, which holds most false positives.
RIM_MM = 4.0

# for CM_seq, as a fraction of the full scale: 714 HU, the operating point of Kohlbrandt et al. 2024
_PAPER_THRESHOLD = 0.68
# ground glass shows from this value on; below it, noise and vessels begin
_PAPER_CANDIDATES = 0.4

_LOW, _HIGH = (f"{value:g}".replace("-", "\u2212") for value in CHANGE_WINDOW_HU)
_RIM = f"where only the warped template has lung, a rim of less than {2 * RIM_MM:g} mm is left out."
_PAPER = "Kohlbrandt et al., Joint Learning of Image Registration and Change Detection for Lung CT Images (BVM 2024)."

STAGE_TITLES = {
    "read": "Reading the scans",
    "lungs": "Finding the lungs",
    "rigid": "Rigid alignment",
    "gate": "Checking the pair",
    "network": "Running the network",
    "keypoints": "Matching keypoints",
    "register": "Registration",
    "check": "Checking the registration",
    "warp": "Warping the prior",
    "findings": "Measuring what changed",
    "write": "Writing the result",
}


@dataclass(frozen=True)
class Stage:
    """One step of a comparison.

    Attributes:
        name: its name in ``run.json`` and in progress events.
        title: what the panel shows while it runs.
        share: expected share of the time; the shares of a method need not sum to 1.
    """

    name: str
    title: str
    share: float


@dataclass(frozen=True)
class MethodEntry:
    """The fixed properties of one method.

    Attributes:
        name: its name on the command line and in files.
        title: its title in the panel's list.
        note: the sentence below that list.
        description: its description in the report.
        threshold: default threshold of the findings, in (0, 1].
        candidates: lower threshold down to which changes are measured for the threshold slider.
        stages: its stages in the order in which they run.
    """

    name: Method
    title: str
    note: str
    description: str
    threshold: float
    candidates: float
    stages: tuple[Stage, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Expected share of the time by stage name, in order."""
        return {stage.name: stage.share for stage in self.stages}


def _stages(**shares: float) -> tuple[Stage, ...]:
    """Stages by name, with their expected shares of the time."""
    return tuple(Stage(name, STAGE_TITLES[name], share) for name, share in shares.items())


METHODS: dict[Method, MethodEntry] = {
    entry.name: entry
    for entry in (
        MethodEntry(
            name="rigid",
            title="Rigid only (no map)",
            note="The prior is shifted and rotated onto the current scan; there is no map and there are no findings.",
            description=(
                "Rigid alignment only: the template was shifted and rotated as a whole and interpolated once. "
                "Breathing is not corrected, so there is no change map and no list of findings; both scans are shown "
                "side by side."
            ),
            threshold=_PAPER_THRESHOLD,  # there is no map: the value only appears in run.json
            candidates=_PAPER_CANDIDATES,
            stages=_stages(read=2, lungs=6, rigid=6, gate=1, warp=1, write=3),
        ),
        MethodEntry(
            name="sequential",
            title="Sequential (conventional registration)",
            note="Deformable registration, change map, findings and trust; about a minute on a CPU.",
            description=(
                "Rigid pre-alignment, then variational registration (normalised gradient fields, curvature "
                "regularisation, lung masks), then the difference of the reference and the warped template. Both are "
                f"clipped to {_LOW} to {_HIGH} HU; the change map is the absolute difference divided by "
                f"{FULL_SCALE_HU:g} HU, at most 1, inside the lungs; {_RIM} The pipeline is the conventional one in "
                f"{_PAPER}"
            ),
            threshold=_PAPER_THRESHOLD,
            candidates=_PAPER_CANDIDATES,
            stages=_stages(
                read=2, lungs=6, rigid=6, gate=1, keypoints=4, register=20, check=6, warp=1, findings=3, write=5
            ),
        ),
        MethodEntry(
            name="joint",
            title="Joint (network)",
            note="Network, then registration from its result; combined change map, findings and trust.",
            description=(
                "One network estimates the deformation and the learned change from both scans. Unless it was switched "
                "off, variational registration then improves the deformation, and the network estimates the change "
                "again from the aligned scans. The map shown is the learned change times the difference of the "
                f"reference and the warped template, inside the lungs; {_RIM} The method follows {_PAPER}"
            ),
            threshold=0.3,  # CM_comb is a product; here it has about as few false positives as CM_seq at its threshold
            candidates=0.15,
            stages=_stages(
                read=2,
                lungs=6,
                rigid=6,
                gate=1,
                network=8,
                keypoints=4,
                register=10,
                check=6,
                warp=1,
                findings=3,
                write=6,
            ),
        ),
    )
}
METHOD_NAMES: tuple[Method, ...] = get_args(Method)
DEFAULT_THRESHOLD = METHODS[DEFAULT_METHOD].threshold
