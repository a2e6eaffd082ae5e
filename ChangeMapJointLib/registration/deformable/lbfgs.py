"""Limited-memory BFGS (Nocedal & Wright, Numerical Optimization, 2006, chapter 7) on tensors of any device.

torch's own brings in its compiler at the first step, which costs more than a whole registration at the coarse levels,
and scipy's would take every gradient from the device to double precision and back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Evaluate = Callable[[Tensor], tuple[float, Tensor]]

DECREASE, CURVATURE = 1e-4, 0.9  # of Wolfe's conditions
HISTORY = 8
LONGEST_SEARCH = 10
FLAT = 1e-30  # a gradient that is as small is 0


def minimise_lbfgs(
    evaluate: Evaluate,
    start: Tensor,
    *,
    iterations: int,
    first_step: float,
    tolerance: float = 0.0,
    patience: int = 3,
) -> Tensor:
    """Minimise from ``start``.

    Args:
        evaluate: value and gradient at a tensor of the shape of ``start``; each gradient a tensor of its own.
        start: any shape; stays as it is.
        iterations: at most so many; a line search rarely needs more than one evaluation.
        first_step: largest change of any element in the first step.
        tolerance: stop when :attr:`patience` iterations together lowered the value by less than this part of it.
        patience: see above.

    Returns:
        The best point that was found; ``start`` where it is a minimum already.
    """
    x, (value, gradient) = start, evaluate(start)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    values = [value]
    for _ in range(iterations):
        largest = float(gradient.abs().max())
        if not FLAT < largest < float("inf"):
            break
        direction = _direction(gradient, pairs)
        slope = float((direction * gradient).sum())
        if slope >= 0:  # rounding has spoilt the history
            pairs.clear()
            direction, slope = -gradient, -float(gradient.square().sum())
        step = 1.0 if pairs else first_step / largest
        found = _search(evaluate, x, direction, value, slope, step)
        if found is None:
            break
        new, new_value, new_gradient = found
        s, y = new - x, new_gradient - gradient
        curvature = (s * y).sum()
        if float(curvature) > 1e-10 * float(y.square().sum()):
            pairs.append((s, y, 1 / curvature))
        x, value, gradient = new, new_value, new_gradient
        values.append(value)
        if len(values) > patience and values[-1 - patience] - value < tolerance * abs(value):
            break
    return x


def _direction(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Minus the inverse Hessian's estimate times the gradient, by the two loops."""
    q, along = -gradient, []
    for s, y, rho in reversed(pairs):
        along.append(rho * (s * q).sum())
        q = q - along[-1] * y
    if pairs:
        _, y, rho = pairs[-1]
        q = q / (rho * y.square().sum())
    for (s, y, rho), a in zip(pairs, reversed(along), strict=True):
        q = q + (a - rho * (y * q).sum()) * s
    return q


def _search(
    evaluate: Evaluate, x: Tensor, direction: Tensor, value: float, slope: float, step: float
) -> tuple[Tensor, float, Tensor] | None:
    """The lowest point seen along ``direction`` on the way to one that meets Wolfe's weak conditions, by bracketing.

    None where none is lower.
    """
    low, high = 0.0, float("inf")
    best: tuple[Tensor, float, Tensor] | None = None
    for _ in range(LONGEST_SEARCH):
        point = torch.add(x, direction, alpha=step)
        there, gradient = evaluate(point)
        if there < (value if best is None else best[1]):
            best = (point, there, gradient)
        if not there <= value + DECREASE * step * slope:  # NaN is too far as well
            high = step
            bend = there - value - step * slope  # the parabola through both values and the slope here
            guess = -slope * step**2 / (2 * bend) if bend > 0 else 0.0
            step = min(max(guess, low + 0.1 * (high - low)), low + 0.5 * (high - low))
        elif float((direction * gradient).sum()) < CURVATURE * slope:
            low, step = step, (4 * step if high == float("inf") else 0.5 * (step + high))
        else:
            break
    return best
