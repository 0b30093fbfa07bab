"""The one rule, against numbers worked out by hand and against scipy's own tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hs
from scipy import stats

from bench import statistics as st

# t quantiles from a printed table (one-sided .95: 2 and 4 degrees of freedom; two-sided .95: 2)
T95_2, T95_4, T975_2 = 2.919986, 2.131847, 4.302653


def test_paired_bounds_by_hand() -> None:
    sample = st.paired(np.array([1.0, 2.0, 3.0]))  # mean 2, sd 1, se 1/sqrt 3
    assert st.lower(sample, 0.05) == pytest.approx(2 - T95_2 / 3**0.5, abs=1e-6)
    assert st.upper(sample, 0.05) == pytest.approx(2 + T95_2 / 3**0.5, abs=1e-6)
    assert st.ci95(sample) == pytest.approx((2 - T975_2 / 3**0.5, 2 + T975_2 / 3**0.5), abs=1e-6)


def test_s_is_never_below_the_resolution() -> None:
    same = np.array([0.02, 0.02, 0.02])  # three equal trials know no more than one test example
    assert st.spread(same, 0.01) == 0.01
    assert st.lower(st.paired(same, 0.01), 0.05) == pytest.approx(0.02 - T95_2 * 0.01 / 3**0.5, abs=1e-8)
    assert st.spread(np.array([0.0, 2.0]), 0.01) == pytest.approx(2**0.5)


floats = hs.floats(-100, 100).map(lambda x: round(x, 3))


@given(hs.lists(floats, min_size=3, max_size=10).filter(lambda x: np.std(x) > 1e-6), hs.sampled_from([-1.0, 0.0, 2.5]))
def test_p_is_that_of_the_t_test(x: list[float], bound: float) -> None:
    sample = st.paired(np.array(x))
    for kind, side in (("greater_than", "greater"), ("less_than", "less")):
        p = stats.ttest_1samp(x, bound, alternative=side).pvalue
        assert st.p_value(sample, kind, bound) == pytest.approx(p, abs=1e-9)
        if abs(p - 0.05) > 1e-9:
            assert bool(st.holds(sample, kind, bound, 0.05)) == (p < 0.05)
            assert bool(st.contradicted(sample, kind, bound, 0.05)) == (1 - p < 0.05)


@given(
    hs.lists(floats, min_size=3, max_size=8).filter(lambda x: np.std(x) > 1e-6),
    hs.lists(floats, min_size=3, max_size=8).filter(lambda x: np.std(x) > 1e-6),
)
def test_unpaired_is_welch(left: list[float], right: list[float]) -> None:
    sample = st.welch(np.array(left), np.array(right))
    expected = stats.ttest_ind(left, right, equal_var=False, alternative="greater")
    assert sample.df == pytest.approx(expected.df, rel=1e-6)
    assert st.p_value(sample, "greater_than", 0.0) == pytest.approx(expected.pvalue, abs=1e-9)


def test_welch_where_neither_group_varies() -> None:
    sample = st.welch(np.array([2.0, 2.0, 2.0]), np.array([1.0, 1.0, 1.0]))
    assert np.isfinite(sample.df) and bool(st.holds(sample, "greater_than", 0.0, 0.05)) and st.p_value(sample, "greater_than", 0.0) == 0


def test_within_is_two_one_sided_tests() -> None:
    sample = st.paired(np.array([-0.1, 0.0, 0.1]))  # half-width of the 90 % interval: 2.92 * .1 / sqrt 3 = .1686
    assert st.holds(sample, "within", 0.17, 0.05) and not st.holds(sample, "within", 0.168, 0.05)
    assert not st.contradicted(sample, "within", 0.01, 0.05)
    assert st.contradicted(st.paired(np.array([0.9, 1.0, 1.1])), "within", 0.5, 0.05)
    assert st.contradicted(st.paired(np.array([-0.9, -1.0, -1.1])), "within", 0.5, 0.05)
    p = max(
        stats.ttest_1samp([-0.1, 0.0, 0.1], -0.17, alternative="greater").pvalue,
        stats.ttest_1samp([-0.1, 0, 0.1], 0.17, alternative="less").pvalue,
    )
    assert st.p_value(sample, "within", 0.17) == pytest.approx(p)


def test_one_trial_has_no_interval_and_no_p() -> None:
    one = st.paired(np.array([1.0]))
    assert st.ci95(one) is None and st.p_value(one, "greater_than", 0) is None
    assert st.summary(np.array([1.0])) == {"mean": 1.0, "sd": None, "n": 1, "ci95": None}


def test_summary_by_hand() -> None:
    s = st.summary(np.array([1.0, 2.0, 3.0]))
    assert (s["mean"], s["sd"], s["n"]) == (2.0, 1.0, 3) and s["ci95"] == pytest.approx([2 - 2.484, 2 + 2.484], abs=1e-3)


# ---- power ------------------------------------------------------------------------------------------------------
def test_power_of_the_one_sample_t_test_is_the_textbook_one() -> None:
    sample = st.Sample(1.0, ((1.0, 5),))  # one-sided, effect of one sd, alpha .05: n = 8 gives .815, n = 7 .75
    assert st.power(sample, "greater_than", 0.0, 0.05, 8) == pytest.approx(0.815, abs=0.002)
    assert st.n_for_power(sample, "greater_than", 0.0, 0.05) == 8


def test_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(0)
    effects = 0.8 + rng.standard_normal((40_000, 6))
    rate = st.holds(st.paired(effects), "greater_than", 0.0, 0.05).mean()
    assert st.power(st.Sample(0.8, ((1.0, 6),)), "greater_than", 0.0, 0.05, 6) == pytest.approx(rate, abs=0.01)
    both = st.holds(
        st.welch(0.8 + rng.standard_normal((40_000, 6)), 0.5 * rng.standard_normal((40_000, 6))), "greater_than", 0.0, 0.05
    ).mean()
    assert st.power(st.Sample(0.8, ((1.0, 6), (0.5, 6))), "greater_than", 0.0, 0.05, 6) == pytest.approx(both, abs=0.02)


def test_no_n_helps_an_effect_that_points_the_other_way() -> None:
    assert st.n_for_power(st.paired(np.array([-1.0, -2.0, 0.5])), "greater_than", 0.0, 0.05) is None
    assert st.n_for_power(st.paired(np.array([1.0, 1.2, 1.1])), "within", 1.0, 0.05) is None


def test_power_is_finite_far_out_and_without_spread() -> None:
    assert st.power(st.Sample(1e9, ((1.0, 3),)), "greater_than", 0.0, 0.05, 3) == 1.0
    assert st.power(st.Sample(1.0, ((0.0, 3),)), "greater_than", 0.0, 0.05, 3) == 1.0
    assert st.n_for_power(st.Sample(1e9, ((1.0, 3),)), "greater_than", 0.0, 0.05) == 3


@given(hs.floats(0.05, 5), hs.floats(0.1, 5), hs.sampled_from([0.05, 0.02, 0.01]))
def test_n_for_power_is_the_fewest(mean: float, s: float, alpha: float) -> None:
    sample = st.Sample(mean, ((s, 3),))
    n = st.n_for_power(sample, "greater_than", 0.0, alpha)
    if n is not None:
        assert st.power(sample, "greater_than", 0.0, alpha, n) >= 0.8
        assert n == 3 or st.power(sample, "greater_than", 0.0, alpha, n - 1) < 0.8


# ---- rows -------------------------------------------------------------------------------------------------------
THREE = np.array([89.0, 90.0, 91.0])  # mean 90, s 1; t(.975, 2) s sqrt(1/3 + 1/5) = 3.142


@pytest.mark.parametrize(
    ("published", "n", "relation", "expected"),
    [
        (93.1, 5, "=", True),
        (93.2, 5, "=", False),
        (86.9, 5, "=", True),
        (86.8, 5, "=", False),
        (92.5, None, "=", True),
        (92.6, None, "=", False),  # 2.484 + 0.05 of rounding
        (92.98, None, "=", False),
        (93, None, "=", False),
        (92, None, "=", True),  # 92 is printed to whole numbers: 2.484 + 0.5
        (93.1, 5, ">", True),
        (93.2, 5, ">", False),
        (86.0, 5, ">", True),
        (86.9, 5, "<", True),
        (86.8, 5, "<", False),
        (95.0, 5, "<=", True),
        (86.8, 5, "up-to", False),
        (90.0, 5, "up-to", True),
        (95.0, 5, "up-to", True),
        (93.2, 5, ">=", False),
        (93.6, 5, "about", False),
        (93, 5, "about", True),
        (93.18, 5, "about", False),
    ],
)
def test_agrees(published: float, n: int | None, relation: str, expected: bool) -> None:
    assert st.agrees(THREE, 0.0, published, n, relation) is expected


def test_agrees_uses_the_resolution_and_says_nothing_of_one_trial() -> None:
    assert st.agrees(np.array([90.0, 90.0, 90.0]), 1.0, 93.1, 5) is True
    assert st.agrees(np.array([90.0, 90.0, 90.0]), 0.0, 90.1, 5) is False
    assert st.agrees(np.array([90.0]), 1.0, 90.0, 5) is None


@pytest.mark.parametrize(("value", "half"), [(97.9, 0.05), (97.93, 0.005), (38, 0.5), (0.5, 0.05), (90.0, 0.05), (-1.25, 0.005)])
def test_rounding_is_half_a_unit_of_the_last_digit(value: float, half: float) -> None:
    assert st.rounding(value) == pytest.approx(half)
