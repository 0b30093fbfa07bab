"""A curve against sparsity as one number a trial: its least-squares slope, and how straight it is. Pure functions on numpy arrays.

``OVER`` is the whole registry of how an operand of a claim makes one number of several conditions.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from bench.joins import Series, TrialValue, mean_of

Measure = Callable[[np.ndarray, np.ndarray], float]


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least-squares slope of y (k,) on x (k,); NaN where x does not vary."""
    dx = x - x.mean()
    return _ratio(dx @ y, dx @ dx)


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Share of y's variance (k,) that the least-squares line on x (k,) explains, 0 to 1; NaN where x or y does not vary."""
    dx, dy = x - x.mean(), y - y.mean()
    return _ratio((dx @ dy) ** 2, (dx @ dx) * (dy @ dy))


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else math.nan


def along(measure: Measure, points: Sequence[Series]) -> Series:
    """A measure of the values on the percentage pruned, trial by trial; a trial counts where every point has it.

    Percent pruned is 100 × (1 − measured density), of the weights that the protocol counts.
    """
    common = set.intersection(*(set(p) for p in points))
    return {t: _measured(measure, [p[t] for p in points]) for t in sorted(common)}


def _measured(measure: Measure, points: Sequence[TrialValue]) -> TrialValue:
    failed = {p.failed or "has no measured sparsity" for p in points if p.failed or p.density is None}
    value, resolution = (math.nan, 0.0) if failed else _with_resolution(measure, points)
    if math.isnan(value) and not failed:
        failed = {"has no such number: its curve does not vary"}
    draws = frozenset().union(*(p.draws for p in points))
    return TrialValue(value, resolution, any(p.censored for p in points), ", ".join(sorted(failed)), draws)


def _with_resolution(measure: Measure, points: Sequence[TrialValue]) -> tuple[float, float]:
    """The measure, and the most that it moves when one point moves by its own resolution."""
    x, y = np.array([100 * (1 - p.density) for p in points]), np.array([p.value for p in points])
    steps = np.diag([p.resolution for p in points])
    value = measure(x, y)
    return value, max(abs(measure(x, y + sign * step) - value) for step in steps for sign in (1, -1))


OVER: dict[str, Callable[[Sequence[Series]], Series]] = {
    "mean": mean_of, "slope": functools.partial(along, slope), "r-squared": functools.partial(along, r_squared),
}
