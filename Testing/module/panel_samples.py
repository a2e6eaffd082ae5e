"""A small chest of closed form, current and prior, and the finished run that compares them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import slicer
from numpy.typing import NDArray

from ChangeMapJointLib.background.job import Job, JobInput, JobRequest
from ChangeMapJointLib.core.displacement import DisplacementField
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.io.write import write_displacement, write_nrrd, write_rigid
from ChangeMapJointLib.scene.volumes import node_of

GRID = Grid((66, 74, 84), (3.0, 3.0, 3.0), (-126.0, -110.0, -300.0))
SHIFT_MM = np.array([3.0, -5.0, 8.0])  # the prior lies there: y(x) = x + SHIFT_MM
NEW_MM, GONE_MM, WEAK_MM = (-60.0, 10.0, -200.0), (60.0, 20.0, -190.0), (62.0, 0.0, -240.0)
WALL_MM, STABLE_MM = (-60.0, -50.0, -200.0), (60.0, -20.0, -170.0)  # of changes that only a judged run lists
RADIUS_MM = 10.0
FIGURES = {
    "residual_hu": 20.0,
    "residual_rigid_hu": 80.0,
    "folding_percent": 0.0,
    "jacobian_min": 0.8,
    "jacobian_max": 1.4,
    "sd_log_jacobian": 0.1,
    "lung_dice": 0.99,
    "lung_dice_rigid": 0.9,
    "inverse_consistency_mm": None,
    "inverse_consistency_p95_mm": None,
    "keypoint_error_mm": None,
    "keypoints_found": None,
    "keypoints_dropped": None,
    "overlap": 1.0,
    "trusted_percent": None,
}


@cache
def points_mm() -> NDArray[np.float64]:
    """Of every voxel of :data:`GRID`."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij"), axis=-1)[..., ::-1]
    return GRID.to_physical(index.reshape(-1, 3)).reshape(*GRID.shape, 3)


@cache
def distance_mm(centre: tuple[float, float, float]) -> NDArray[np.float64]:
    """From every voxel of :data:`GRID` to a point."""
    return np.linalg.norm(points_mm() - centre, axis=-1)


def lungs() -> NDArray[np.uint8]:
    """Two ellipsoids, 1 the patient's right, 2 the left."""
    return _lungs().copy()


@cache
def _lungs() -> NDArray[np.uint8]:
    labels = np.zeros(GRID.shape, np.uint8)
    for label, x in ((1, -60.0), (2, 60.0)):
        labels[(((points_mm() - (x, 0.0, -205.0)) / (42.0, 70.0, 85.0)) ** 2).sum(axis=-1) < 1] = label
    return labels


def chest(*nodules_mm: tuple[float, float, float]) -> NDArray[np.int16]:
    """HU of the chest with a solid nodule at each point."""
    return _chest(*nodules_mm).copy()


@cache
def _chest(*nodules_mm: tuple[float, float, float]) -> NDArray[np.int16]:
    body = ((points_mm()[..., 0] / 120.0) ** 2 + (points_mm()[..., 1] / 100.0) ** 2) < 1
    hu = np.where(body, 40, -1000).astype(np.int16)
    hu[np.hypot(points_mm()[..., 0], points_mm()[..., 1]) < 6] = -1000  # a trachea
    hu[_lungs() > 0] = -850
    for centre in nodules_mm:
        hu[distance_mm(centre) <= RADIUS_MM] = 30
    return hu


def change() -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """The map and R - T(y): 0.84 at the new and at the resolved nodule, 0.5 at a weak increase."""
    signed = chest(NEW_MM).astype(int) - chest(GONE_MM)
    signed[distance_mm(WEAK_MM) <= RADIUS_MM] = 525
    return (np.abs(signed) / 1050).astype(np.float32), signed.astype(np.int16)


def nodes() -> tuple[Any, Any]:
    """Current and prior scan in the scene; the prior's frame is moved by :data:`SHIFT_MM`."""
    x, y, z = (np.add(GRID.origin_mm, SHIFT_MM)).tolist()
    moved = Grid(GRID.shape, GRID.spacing_mm, (x, y, z))
    current = node_of(chest(NEW_MM), GRID, "Current", kind="scan")
    return current, node_of(chest(GONE_MM), moved, "Prior", kind="scan")


def measured_at(point: tuple[float, float, float]) -> dict[str, Any]:
    """The other values of a lesion."""
    hu = {"mean_hu": 20.0, "peak_hu": 30.0, "lung_hu": -850.0}
    return {"centre_mm": list(point), "volume_error": 0.1, "voxels": 155, **hu}


def finding(number: int, kind: str, point: tuple[float, float, float], peak: float, **values: Any) -> dict[str, Any]:
    """An entry of findings.json."""
    lesion = {"volume_ml": 4.2, "long_diameter_mm": 20.0, "perpendicular_diameter_mm": 19.0, **measured_at(point)}
    at = GRID.to_physical(np.rint(GRID.to_index(point))).tolist()
    return {
        "id": number,
        "kind": kind,
        "centre_mm": list(point),
        "centre_template_mm": (np.array(point) + SHIFT_MM).tolist(),
        "peak_mm": at,
        "peak": peak,
        "volume_ml": 4.2,
        "volume_change_percent": None,
        "trust": 0.9,
        "remark": f"{kind} on purpose.",
        "lung": "right" if point[0] < 0 else "left",
        "voxels": 155,
        "peak_hu": 880.0,
        "long_diameter_mm": 20.0,
        "perpendicular_diameter_mm": 19.0,
        "elongation": 1.1,
        "volume_change_interval_percent": None,
        "diameter_change_mm": None,
        "partner": None,
        "lesion_reference": lesion if kind in ("new", "increase") else None,
        "lesion_template": lesion if kind == "resolved" else None,
        **values,
    }


def judged(number: int, kind: str, point: tuple[float, float, float], section: str, **values: Any) -> dict[str, Any]:
    """An entry of the files of a judged run."""
    plain = {"probability": 0.85, "reason": None}
    return finding(number, kind, point, values.pop("peak", 0.6), section=section, **{**plain, **values})


def judged_records() -> dict[str, dict[str, Any]]:
    """``findings.json`` and ``candidates.json`` of a judged run: two findings, and one change in each other section."""
    size = {"volume_ml": 3.0, "long_diameter_mm": 18.0, "perpendicular_diameter_mm": 17.0}
    grown = {**size, **measured_at(STABLE_MM)}
    found = [
        judged(1, "new", NEW_MM, "finding", peak=0.838),
        judged(2, "resolved", GONE_MM, "finding", peak=0.838, trust=0.2, probability=0.9999),
    ]
    others = [
        judged(3, "increase", WEAK_MM, "possible", peak=0.5, probability=0.31),
        judged(4, "decrease", WALL_MM, "explained", probability=0.002, reason="wall", remark="Flat."),
        judged(
            5,
            "increase",
            STABLE_MM,
            "stable",
            probability=0.08,
            lesion_template=grown,
            volume_change_percent=4.0,
            volume_change_interval_percent=[-18.0, 31.0],
        ),
    ]
    head = {"operating_point": "standard", "threshold": 0.68}
    points = {"sensitive": 0.25, "standard": 0.5, "specific": 0.95}
    return {
        "findings": {**head, "listed_from": points, "findings": found},
        "candidates": {**head, "threshold": 0.4, "findings": others},
    }


def write_run(folder: Path, *, verdict: str = "good", gate: tuple[str, ...] = (), is_judged: bool = False) -> Path:
    """The run that compares :func:`nodes`, as the worker would leave it.

    Args:
        folder: of the run.
        verdict: on the registration.
        gate: reasons to look.
        is_judged: whether its changes have sections; else it is as older versions wrote it.
    """
    folder.mkdir(parents=True)
    change_map, signed = change()
    write_nrrd(folder / "warped_template.nrrd", chest(GONE_MM), GRID, compress=False)
    write_nrrd(folder / "lungs_reference.nrrd", lungs(), GRID, compress=False)
    write_nrrd(folder / "change_map.nrrd", change_map, GRID, compress=False)
    write_nrrd(folder / "signed_change.nrrd", signed, GRID, compress=False)
    write_nrrd(folder / "jacobian.nrrd", np.full(GRID.shape, 1.3, np.float32), GRID, compress=False)
    trust = np.where(distance_mm(GONE_MM) < 30, 0.2, 0.9).astype(np.float32)
    write_nrrd(folder / "trust.nrrd", trust, GRID, compress=False)
    matrix = np.eye(4)
    matrix[:3, 3] = SHIFT_MM
    write_rigid(folder / "rigid.tfm", matrix)
    write_displacement(folder / "deformation.nrrd", DisplacementField.from_affine(matrix, GRID), compress=False)
    strong = [finding(1, "new", NEW_MM, 0.838), finding(2, "resolved", GONE_MM, 0.838, trust=0.2)]
    weak = finding(3, "increase", WEAK_MM, 0.5, volume_change_percent=31.0)
    quality = {**FIGURES, "verdict": verdict, "reasons": ["The lungs overlap by Dice 0.990.", "Nothing folds."]}
    for name, threshold, listed in (("findings", 0.68, strong), ("candidates", 0.4, [*strong, weak])):
        content: dict[str, Any] = {"threshold": threshold, "findings": listed}
        if verdict == "do not use":
            content = {"threshold": threshold, "findings": [], "withheld": len(listed), "why": quality["reasons"]}
        _write(folder / f"{name}.json", content)
    if is_judged:
        for name, content in judged_records().items():
            _write(folder / f"{name}.json", content)
    reasons = [
        {"rule": "breathing", "answer": "look", "sentence": text, "remedy": "", "value": 1.7, "scan": ""}
        for text in gate
    ]
    answer = {"answer": "look" if gate else "fine", "reasons": reasons}
    _write(folder / "quality.json", {"quality": quality, "gate": answer})
    (folder / "report.html").write_text("<html>report</html>")
    _write(folder / "run.json", {"schema": "changemap.run/1", "configuration": {"method": "sequential"}})
    return folder


def finished_job(root: Path, current: Any, prior: Any, **run: Any) -> Job:
    """A job of these nodes that the worker has finished; ``run`` as :func:`write_run` takes it."""
    inputs = [JobInput(node.GetName(), None, node.GetID()) for node in (current, prior)]
    job = Job.create(root, JobRequest(*inputs))
    for side, node in zip(("reference", "template"), (current, prior), strict=True):
        slicer.util.saveNode(node, str(job.input_file(side)))
    write_run(job.folder / "result", **run)
    job.write_state("finished", "Finished.")
    return job


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


def children() -> list[psutil.Process]:
    """Processes that the panel has started and that still run, with those below them.

    A test worker has some of its own, which tests of other files may have started: the server of ``warm_python`` and
    those of :mod:`multiprocessing` (``python -c "from multiprocessing.forkserver import main; ..."``).
    """
    panels = [one for one in psutil.Process().children() if not _is_test_server(one)]
    below = [one for child in panels for one in _below(child)]
    return [one for one in panels + below if _runs(one)]


def _is_test_server(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
        return any("from multiprocessing." in word or word.endswith("warm_python.py") for word in words)
    except psutil.NoSuchProcess:  # a zombie is one of these
        return False


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
