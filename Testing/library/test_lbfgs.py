"""L-BFGS: known minima, known failures, and an early end."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ChangeMapJointLib.registration.deformable.lbfgs import minimise_lbfgs

Result = tuple[float, Tensor]


def rosenbrock(x: Tensor) -> Result:
    a, b = x[0], x[1]
    value = (1 - a) ** 2 + 100 * (b - a**2) ** 2
    gradient = torch.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)])
    return float(value), gradient


def test_rosenbrock_valley_is_followed_to_its_end() -> None:
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    found = minimise_lbfgs(rosenbrock, start, iterations=100, first_step=0.1)
    assert found.tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert start.tolist() == [-1.2, 1.0]


def test_a_quadratic_of_nine_unknowns_is_solved_in_few_evaluations() -> None:
    scale = torch.logspace(0, 3, 9, dtype=torch.float64).reshape(3, 3)
    wanted = torch.arange(9, dtype=torch.float64).reshape(3, 3)
    calls = []

    def bowl(x: Tensor) -> Result:
        calls.append(1)
        return float((scale * (x - wanted) ** 2).sum()), 2 * scale * (x - wanted)

    found = minimise_lbfgs(bowl, torch.zeros_like(wanted), iterations=60, first_step=1.0)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert len(calls) < 70


def test_no_step_ever_goes_up() -> None:
    seen = []

    def rough(x: Tensor) -> Result:
        value = float((x.square() + 3 * torch.sin(5 * x)).sum())
        return value, 2 * x + 15 * torch.cos(5 * x)

    start = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for count in range(12):
        seen.append(rough(minimise_lbfgs(rough, start, iterations=count, first_step=0.2))[0])
    assert all(later <= earlier for earlier, later in pairwise(seen))
    assert seen[-1] < seen[0] - 10


def test_no_point_that_was_seen_is_lower_than_the_one_returned() -> None:
    for seed in range(30):
        phase = torch.Generator().manual_seed(seed)
        shift, start = torch.rand(3, generator=phase).double() * 6, torch.randn(3, generator=phase).double() * 4
        seen: list[float] = []

        def rough(x: Tensor, shift: Tensor = shift, seen: list[float] = seen) -> Result:
            seen.append(float((0.1 * x.square() + torch.sin(3 * x + shift)).sum()))
            return seen[-1], 0.2 * x + 3 * torch.cos(3 * x + shift)

        found = minimise_lbfgs(rough, start, iterations=3, first_step=2.0)
        least = min(seen)
        assert rough(found)[0] == pytest.approx(least, abs=1e-9)


def test_a_gradient_of_next_to_nothing_is_nothing() -> None:
    start = torch.ones(3)
    assert minimise_lbfgs(lambda x: (0.0, torch.full_like(x, 1e-40)), start, iterations=3, first_step=1.0) is start


def test_a_minimum_is_left_alone() -> None:
    start = torch.tensor([1.0, 1.0], dtype=torch.float64)
    assert minimise_lbfgs(rosenbrock, start, iterations=10, first_step=1.0) is start


def test_values_that_are_no_numbers_end_the_search_at_the_last_good_point() -> None:
    def cliff(x: Tensor) -> Result:
        return (
            (float(-x.sum()), -torch.ones_like(x)) if float(x.max()) <= 1 else (math.nan, torch.full_like(x, math.nan))
        )

    found = minimise_lbfgs(cliff, torch.zeros(3), iterations=50, first_step=0.3)
    assert float(found.max()) == pytest.approx(1.0, abs=0.05)
    broken = minimise_lbfgs(
        lambda x: (math.nan, torch.full_like(x, math.nan)), torch.zeros(2), iterations=5, first_step=1
    )
    assert broken.tolist() == [0, 0]


def test_it_ends_when_little_is_gained() -> None:
    calls = []

    def slow(x: Tensor) -> Result:
        calls.append(1)
        return float(100 + x.pow(4).sum()), 4 * x.pow(3)

    minimise_lbfgs(slow, torch.ones(4), iterations=100, first_step=0.1, tolerance=0.01)
    few = len(calls)
    calls.clear()
    minimise_lbfgs(slow, torch.ones(4), iterations=100, first_step=0.1)
    assert few < 12 < len(calls)
