"""The data terms for a GPU say what autograd says: in torch everywhere, in Triton where it is installed.

Without a CUDA device Triton's interpreter runs the same kernels on the CPU, so that their formulas are tested there.
"""

import importlib.util
import os

import numpy as np
import pytest
import torch
from autograd_terms import AutogradData

from ChangeMapJointLib.core import compiled
from ChangeMapJointLib.core.compiled import compiled_available
from ChangeMapJointLib.core.grid import Grid
from ChangeMapJointLib.registration.deformable import closed_form as fused
from ChangeMapJointLib.registration.deformable.bspline import ControlGrid
from ChangeMapJointLib.registration.deformable.closed_form import (
    ClosedFormData,
    FusedData,
    fastest_terms,
    fused_available,
)
from ChangeMapJointLib.registration.deformable.data_terms import CompiledData
from ChangeMapJointLib.registration.pyramid import ScanView

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which only FusedData does
# not in requirements-dev.txt: its LLVM and that of VTK crash one another in one process
NO_TRITON = "Triton is not in this environment: make test-triton runs this file with it"
KINDS = [
    ClosedFormData,
    pytest.param(FusedData, marks=pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason=NO_TRITON)),
]
PERMUTED = ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
Kind = type[ClosedFormData]


def picture(grid: Grid, seed: int, dtype: torch.dtype = torch.float64) -> ScanView:
    generator = torch.Generator().manual_seed(seed)
    image = 300 * torch.randn(grid.shape, generator=generator) - 400
    mask = torch.rand(grid.shape, generator=generator)
    return ScanView(image.to(DEVICE, dtype), mask.to(DEVICE, dtype), grid)


def some_of(grid: Grid, seed: int, share: float) -> torch.Tensor:
    inside = torch.rand(grid.shape, generator=torch.Generator().manual_seed(seed)) < share
    return inside.to(DEVICE, torch.float64)


def compare(
    kind: Kind,
    control: ControlGrid,
    template: ScanView,
    rigid: np.ndarray,
    weight: torch.Tensor,
    change_weight: torch.Tensor | None = None,
) -> None:
    r = picture(control.grid, 0)
    c = 2.0 * torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(2)).to(weight)
    given = {"edges": (30.0, 50.0), "weight": weight, "change_weight": change_weight}
    closed = kind(r, template, control, rigid, **given)  # type: ignore[arg-type]
    autograd = AutogradData(r, template, control, rigid, **given)  # type: ignore[arg-type]
    for attempt in range(2):  # the second evaluation uses the same buffers
        terms, gradient = closed.evaluate(c + attempt, 0.7, 0.3 + attempt)
        expected, expected_gradient = autograd.evaluate(c + attempt, 0.7, 0.3 + attempt)
        assert terms == pytest.approx(expected, rel=1e-9)
        scale = float(expected_gradient.abs().max())
        assert scale > 0
        assert float((gradient - expected_gradient).abs().max()) < 1e-9 * scale


def turned(centre: np.ndarray) -> np.ndarray:
    """Oblique about all three axes, and shifted."""
    a, b, c = 0.2, -0.15, 0.1
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    rigid = np.eye(4)
    rigid[:3, :3] = about_z @ about_y @ about_x
    rigid[:3, 3] = centre - rigid[:3, :3] @ centre + (0.4, -0.7, 0.9)
    return rigid


@pytest.mark.parametrize("kind", KINDS)
def test_on_skew_grids_turned_and_with_anisotropic_voxels(kind: Kind) -> None:
    control = ControlGrid(Grid((9, 11, 13), (1.0, 1.5, 2.5), (3.0, 4.0, 5.0), PERMUTED), (4.0, 3.5, 4.0))
    centre = np.asarray(control.grid.centre_mm)
    t = picture(Grid((12, 14, 15), (1.2, 1.4, 2.0), tuple(centre - (9, 9, 12))), 1)  # type: ignore[arg-type]
    compare(kind, control, t, turned(centre), torch.ones(control.grid.shape).to(t.image))


@pytest.mark.parametrize("kind", KINDS)
def test_with_weights_that_leave_most_of_the_box_out(kind: Kind) -> None:
    grid = Grid((12, 12, 16), (2.0, 2.0, 2.0))
    weight = some_of(grid, 3, 0.02)
    weight[3:7, 2:9, 4:6] = 1.0
    weight[0, 0, 0] = weight[-1, -1, -1] = 0.5  # corners of the box
    compare(kind, ControlGrid(grid, (4.0, 4.0, 3.0)), picture(grid, 1), np.eye(4), weight)


@pytest.mark.parametrize("kind", KINDS)
def test_where_some_voxels_have_no_partner(kind: Kind) -> None:
    grid = Grid((10, 11, 12), (2.0, 2.0, 2.0))
    change_weight = torch.rand(grid.shape, generator=torch.Generator().manual_seed(7)).to(DEVICE, torch.float64)
    change_weight[3:6] = 0.0
    compare(kind, ControlGrid(grid, (4.0, 4.0, 3.0)), picture(grid, 1), np.eye(4), some_of(grid, 8, 0.6), change_weight)


@pytest.mark.parametrize("kind", KINDS)
def test_when_the_template_lies_mostly_elsewhere(kind: Kind) -> None:
    """Beyond its border the template repeats itself and pulls no more."""
    grid = Grid((8, 8, 8), (2.0, 2.0, 2.0))
    away = np.eye(4)
    away[:3, 3] = (9.0, -9.0, 10.0)
    compare(kind, ControlGrid(grid, (4.0, 4.0, 4.0)), picture(grid, 1), away, some_of(grid, 4, 2.0))


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_single_slice(kind: Kind) -> None:
    grid = Grid((1, 9, 10), (2.0, 2.0, 2.0))
    compare(kind, ControlGrid(grid, (4.0, 4.0, 4.0)), picture(grid, 1), turned(np.zeros(3)), some_of(grid, 4, 2.0))


@pytest.mark.parametrize("kind", KINDS)
def test_no_lung_at_all_pulls_nowhere(kind: Kind) -> None:
    grid = Grid((6, 6, 6))
    control = ControlGrid(grid, (3.0, 3.0, 3.0))
    r, t = picture(grid, 0), picture(grid, 1)
    data = kind(r, t, control, np.eye(4), edges=(30.0, 30.0), weight=torch.zeros_like(r.image))
    terms, gradient = data.evaluate(torch.zeros(*control.shape, 3).to(r.image), 1.0, 1.0)
    assert terms == {"ngf": 0.0, "mask": 0.0}
    assert not gradient.any()


@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_the_same_input_gives_the_same_bytes(kind: Kind) -> None:
    grid = Grid((14, 15, 16), (2.0, 2.0, 2.0))
    control = ControlGrid(grid, (4.0, 4.0, 4.0))
    r, t = picture(grid, 0, torch.float32), picture(grid, 1, torch.float32)
    given = {"edges": (30.0, 30.0), "weight": torch.ones_like(r.image)}
    data, autograd = (k(r, t, control, np.eye(4), **given) for k in (kind, AutogradData))  # type: ignore[arg-type]
    c = torch.randn(*control.shape, 3, generator=torch.Generator().manual_seed(5)).to(DEVICE)
    first, again = data.evaluate(c, 1.0, 0.1), data.evaluate(c, 1.0, 0.1)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])
    terms, gradient = autograd.evaluate(c, 1.0, 0.1)
    assert first[0] == pytest.approx(terms, rel=1e-4)
    assert float((first[1] - gradient).abs().max()) < 2e-3 * float(gradient.abs().max())


def test_the_fused_kernels_are_for_cuda_devices_alone() -> None:
    assert not fused_available(torch.device("cpu"))


def test_what_is_installed_but_does_not_run_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton without a compiler, Numba beside a numpy that it refuses."""

    def broken(name: str) -> None:
        raise ImportError(f"{name} needs another numpy")

    monkeypatch.setattr(compiled.importlib, "import_module", broken)
    assert not compiled.compiled_available.__wrapped__()
    monkeypatch.setattr(fused, "FusedData", lambda *_, **__: broken("triton"))
    assert not fused._triton_runs.__wrapped__(torch.device("cpu"))


def test_the_fastest_terms_that_are_there_are_taken() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    slow = {fastest_terms(device, compiled=False) for device in (cpu, cuda)}
    assert slow == {ClosedFormData}
    assert fastest_terms(cpu, compiled=True) is (CompiledData if compiled_available() else ClosedFormData)
    here = FusedData if torch.cuda.is_available() and importlib.util.find_spec("triton") else ClosedFormData
    assert fastest_terms(cuda, compiled=True) is here
