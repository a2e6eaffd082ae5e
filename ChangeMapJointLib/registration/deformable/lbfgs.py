"""Limited-memory BFGS (Nocedal & Wright, Numerical Optimization, 2006, chapter 7) on tensors of any device.

torch's own implementation loads its compiler at the first step, which takes longer than a whole registration on the
coarse levels, and SciPy's would copy every gradient to the CPU in double precision and back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ChangeMapJointLib.core.lazy_torch import Tensor, torch

Evaluate = Callable[[Tensor], tuple[float, Tensor]]

DECREASE, CURVATURE = 1e-4, 0.9  # constants of the Wolfe conditions
HISTORY = 8  # number of correction pairs
LONGEST_SEARCH = 10  # evaluations in one line search
FLAT = 1e-30  # a gradient as small as this counts as 0


def minimise_lbfgs(
    evaluate: Evaluate,
    start: Tensor,
    *,
    iterations: int,
    first_step: float,
    tolerance: float = 0.0,
    patience: int = 3,
) -> Tensor:
    """Minimise a function from ``start``.

    Args:
        evaluate: returns value and gradient at a tensor of the shape of ``start``; every call returns a new gradient.
        start: any shape; it is not modified.
        iterations: maximum number of iterations; a line search rarely needs more than one evaluation.
        first_step: largest change of any element in the first step.
        tolerance: stop when ``patience`` iterations together lower the value by less than this fraction of it.
        patience: number of iterations for ``tolerance``.

    Returns:
        The best point found; ``start`` where it is a minimum already.
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
        if slope >= 0:  # rounding errors have spoilt the history
            pairs.clear()
            direction, slope = -gradient, -float(gradient.square().sum())
        step = 1.0 if pairs else first_step / largest
        best = _line_search(evaluate, x, direction, value, slope, step)
        if best is None:
            break
        new, new_value, new_gradient = best
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
    """Minus the estimated inverse Hessian times the gradient, by the two-loop recursion."""
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


def _line_search(
    evaluate: Evaluate, x: Tensor, direction: Tensor, value: float, slope: float, step: float
) -> tuple[Tensor, float, Tensor] | None:
    """Bracket a point along ``direction`` that meets the weak Wolfe conditions.

    Returns:
        The lowest point seen, with its value and gradient; None where none is lower than the current value.
    """
    low, high = 0.0, float("inf")
    best: tuple[Tensor, float, Tensor] | None = None
    for _ in range(LONGEST_SEARCH):
        point = torch.add(x, direction, alpha=step)
        new_value, gradient = evaluate(point)
        if new_value < (value if best is None else best[1]):
            best = (point, new_value, gradient)
        if not new_value <= value + DECREASE * step * slope:  # NaN counts as too far
            high = step
            bend = new_value - value - step * slope  # of the parabola through both values and the slope at the start
            guess = -slope * step**2 / (2 * bend) if bend > 0 else 0.0
            step = min(max(guess, low + 0.1 * (high - low)), low + 0.5 * (high - low))
        elif float((direction * gradient).sum()) < CURVATURE * slope:
            low, step = step, (4 * step if high == float("inf") else 0.5 * (step + high))
        else:
            break
    return best
