"""Curves against sparsity as one number a trial, on values whose lines can be fitted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bench import curves
from bench.joins import TrialValue, series
from bench.measurement import Measurement

X = np.array([0.0, 10.0, 20.0])
Y = np.array([30.0, 20.0, 22.0])  # deviations -10 0 10 and 6 -4 -2: sums of products -80, of squares 200 and 56


def at(value: float, density: float | None, resolution: float = 0.0, failed: str = "") -> TrialValue:
    return TrialValue(value, resolution, False, failed, frozenset({0}), density)


def test_slope_and_straightness_by_hand():
    assert curves.slope(X, Y) == pytest.approx(-80 / 200)
    assert curves.r_squared(X, Y) == pytest.approx(80**2 / (200 * 56))
    assert curves.slope(X, 5 - 0.3 * X) == pytest.approx(-0.3) and curves.r_squared(X, 5 - 0.3 * X) == pytest.approx(1.0)


def test_without_variation_there_is_no_number():
    level, point = np.full(3, 7.0), np.full(3, 50.0)
    assert curves.slope(X, level) == 0 and math.isnan(curves.r_squared(X, level))
    assert math.isnan(curves.slope(point, Y)) and math.isnan(curves.r_squared(point, Y))


@given(some.lists(some.integers(-50, 50), min_size=3, max_size=8, unique=True), some.data())
def test_they_are_those_of_numpys_fit(x, data):
    y = data.draw(some.lists(some.integers(-50, 50), min_size=len(x), max_size=len(x), unique=True))
    x, y = np.array(x, float), np.array(y, float)
    assert curves.slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-9)
    assert curves.r_squared(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=1e-9)


def test_a_curve_is_read_trial_by_trial_on_what_was_pruned():
    """Percent pruned is measured, 0, 10 and 20 here; one step of 0.5 at an end moves the slope by 10 / 200 of it."""
    points = [{t: at(y + t * x, 1 - x / 100, 0.5) for t in range(3)} for x, y in zip(X, Y)]
    del points[1][1]
    found = curves.OVER["slope"](points)
    assert {t: v.value for t, v in found.items()} == pytest.approx({0: -0.4, 2: 1.6})
    assert [v.resolution for v in found.values()] == pytest.approx([0.025, 0.025]) and not found[0].failed


def test_a_trial_that_failed_at_one_point_and_a_flat_curve_do_not_count():
    good = {t: at(3.0, 1.0) for t in range(3)}
    bad = {0: at(math.nan, 0.8, failed="diverged"), 1: at(3.0, 0.8), 2: at(2.0, None)}
    found = curves.OVER["r-squared"]([good, bad])
    assert [found[t].failed for t in range(3)] == ["diverged", "has no such number: its curve does not vary", "has no measured sparsity"]
    assert all(math.isnan(v.value) for v in found.values())
    assert curves.OVER["mean"]([good, {0: at(4.0, 0.8)}])[0].value == 3.5


def test_measurements_bring_their_density():
    one = Measurement("p", {"arm": "ticket", "level": 1}, {}, 4, 0, "bleu", "end", 20.0, 0.0, density=0.8)
    assert series([one])[4].density == 0.8
