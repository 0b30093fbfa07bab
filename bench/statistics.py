"""The one rule that decides all verdicts, as pure functions on numpy arrays.

Each test of a claim is one number a trial (`Sample.mean` is its mean): left − right, or log(left / right), against a bound.
With s = max(sd over trials, resolution), se = √(Σ s²/n) over the groups (one group when paired, two in Welch's test) and
ν degrees of freedom,

    L = mean − t(1−α, ν)·se        U = mean + t(1−α, ν)·se

are one-sided bounds, each missed with probability α. A test holds where the bound that speaks against it lies on the claim's
side (`holds`), and is contradicted where the other bound lies on the far side (`contradicted`). Leading axes of the arrays are
independent repetitions, so that the calibration runs the very code that decides verdicts.

The rule was fixed before the runs and is never tuned to a claim.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

ALPHA = 0.05          # one look at the data
ALPHA_LOOK = 0.02     # each look, where trials were added after one
POWER = 0.8
MIN_TRIALS = 3
BoundKind = Literal["greater_than", "less_than", "within"]


@dataclass(frozen=True)
class Sample:
    """Mean of a per-trial effect, and the groups that its standard error comes from.

    Args:
        mean: effect, shape (...).
        groups: (s, n) of each group: one when paired, two for Welch; s (...) is max(sd, resolution).
    """

    mean: np.ndarray | float
    groups: tuple[tuple[np.ndarray | float, int], ...]

    @property
    def n(self) -> int:
        """Trials of the smaller group."""
        return min(n for _, n in self.groups)

    @property
    def se(self) -> np.ndarray:
        """Standard error √(Σ s²/n)."""
        return np.sqrt(sum(np.square(s) / n for s, n in self.groups))

    @property
    def df(self) -> np.ndarray:
        """Welch–Satterthwaite degrees of freedom; n − 1 with one group. Needs n ≥ 2."""
        parts = [np.square(s) / n for s, n in self.groups]
        scale = np.maximum(np.max(parts, axis=0), np.finfo(float).tiny)       # s = 0 in both: any weights do
        parts = [np.where(scale > np.finfo(float).tiny, p / scale, 1.0) for p in parts]
        return np.square(sum(parts)) / sum(np.square(p) / (n - 1) for p, (_, n) in zip(parts, self.groups))


def spread(x: np.ndarray, resolution: float = 0.0) -> np.ndarray:
    """s = max(sd, resolution) over the last axis; sd has n − 1 in its denominator, and is 0 for one trial."""
    sd = np.std(x, axis=-1, ddof=1) if x.shape[-1] > 1 else np.zeros(x.shape[:-1])
    return np.maximum(sd, resolution)


def paired(effects: np.ndarray, resolution: float = 0.0) -> Sample:
    """Sample of per-trial effects (..., n)."""
    return Sample(effects.mean(-1), ((spread(effects, resolution), effects.shape[-1]),))


def welch(left: np.ndarray, right: np.ndarray, resolution: tuple[float, float] = (0.0, 0.0)) -> Sample:
    """Sample of mean(left) − mean(right) where the two (..., n_left), (..., n_right) share no seed."""
    return Sample(left.mean(-1) - right.mean(-1),
                  ((spread(left, resolution[0]), left.shape[-1]), (spread(right, resolution[1]), right.shape[-1])))


def t_quantile(p: float, df: np.ndarray | float) -> np.ndarray:
    """Quantile of Student's t."""
    from scipy.stats import t
    return t.ppf(p, df)


def lower(sample: Sample, alpha: float) -> np.ndarray:
    """One-sided lower bound L = mean − t(1−α)·se."""
    return sample.mean - t_quantile(1 - alpha, sample.df) * sample.se


def upper(sample: Sample, alpha: float) -> np.ndarray:
    """One-sided upper bound U = mean + t(1−α)·se."""
    return sample.mean + t_quantile(1 - alpha, sample.df) * sample.se


def ci95(sample: Sample) -> tuple[float, float] | None:
    """Two-sided 95 % t interval; None with fewer than two trials."""
    return None if sample.n < 2 else (float(lower(sample, 0.025)), float(upper(sample, 0.025)))


# ---- tests ------------------------------------------------------------------------------------------------------
def holds(sample: Sample, kind: BoundKind, bound: float, alpha: float) -> np.ndarray:
    """Whether the bound holds with confidence 1 − α; ``within`` is two one-sided tests, both at α (TOST)."""
    above, below = lower(sample, alpha), upper(sample, alpha)
    if kind == "within":
        return (above > -bound) & (below < bound)
    return above > bound if kind == "greater_than" else below < bound


def contradicted(sample: Sample, kind: BoundKind, bound: float, alpha: float) -> np.ndarray:
    """Whether the data lie on the far side of the bound with confidence 1 − α (``within``: of either end, α for each)."""
    above, below = lower(sample, alpha), upper(sample, alpha)
    if kind == "within":
        return (above > bound) | (below < -bound)
    return below < bound if kind == "greater_than" else above > bound


def one_sided_tests(kind: BoundKind) -> int:
    """How many one-sided tests a bound is: two for ``within``."""
    return 2 if kind == "within" else 1


def margins(mean: float, kind: BoundKind, bound: float) -> list[float]:
    """Distances from the mean to the bound(s), turned so that positive supports the claim."""
    if kind == "within":
        return [mean + bound, bound - mean]
    return [mean - bound] if kind == "greater_than" else [bound - mean]


def p_value(sample: Sample, kind: BoundKind, bound: float) -> float | None:
    """One-sided p of the null that the bound fails (the larger of two for ``within``); None with fewer than two trials."""
    from scipy.stats import t
    if sample.n < 2:
        return None
    se, df = float(sample.se), float(sample.df)
    return max((float(t.sf(m / se, df)) if se > 0 else float(m <= 0)) for m in margins(float(sample.mean), kind, bound))


# ---- power ------------------------------------------------------------------------------------------------------
def power(sample: Sample, kind: BoundKind, bound: float, alpha: float, n: int) -> float:
    """Probability that the bound holds with ``n`` trials a group, were the effect and s seen here the true ones.

    Noncentral t: P(T(ν, δ) > t(1−α, ν)) with δ = margin / se(n). For ``within`` the two tests are combined by
    1 − (β₁ + β₂), a lower bound of their joint power.
    """
    from scipy.stats import nct
    planned = Sample(sample.mean, tuple((s, n) for s, _ in sample.groups))
    se, df = float(planned.se), float(planned.df)
    distances = margins(float(sample.mean), kind, bound)
    if se == 0:
        return float(min(distances) > 0)
    critical = float(t_quantile(1 - alpha, df))
    # beyond δ − t = 40 the chance of missing is 0 in double precision, and scipy's nct returns NaN there
    missed = [0.0 if m / se - critical > 40 else float(nct.cdf(critical, df, m / se)) for m in distances]
    return max(0.0, 1 - sum(missed))


def n_for_power(sample: Sample, kind: BoundKind, bound: float, alpha: float, wanted: float = POWER, most: int = 10_000) -> int | None:
    """Fewest trials (a group) with power ``wanted`` at the effect seen; None where it points the other way or ``most`` do not do."""
    if min(margins(float(sample.mean), kind, bound)) <= 0 or power(sample, kind, bound, alpha, most) < wanted:
        return None
    low, high = MIN_TRIALS - 1, MIN_TRIALS
    while power(sample, kind, bound, alpha, high) < wanted:
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(sample, kind, bound, alpha, middle) < wanted else (low, middle)
    return high


# ---- rows -------------------------------------------------------------------------------------------------------
def summary(x: np.ndarray, resolution: float = 0.0) -> dict[str, object]:
    """{mean, sd, n, ci95} of per-trial values (n,); sd is the plain one, ci95 uses s; both None for one trial."""
    sample = paired(x, resolution)
    return {"mean": float(sample.mean), "sd": float(spread(x)) if len(x) > 1 else None, "n": len(x),
            "ci95": list(ci95(sample)) if len(x) > 1 else None}


def rounding(value: float) -> float:
    """Half a unit of the last digit that a published number is written with (0.05 for 97.9, 0.5 for 38)."""
    text = repr(value)
    if isinstance(value, int) or "e" in text or "inf" in text or "nan" in text:
        return 0.5 if isinstance(value, int) else abs(value) * 1e-6
    return 0.5 * 10.0 ** -len(text.split(".")[1])


def agrees(x: np.ndarray, resolution: float, published: float, n_published: int | None, relation: str = "=") -> bool | None:
    """Whether a published number is compatible with the per-trial values ``x`` (n,); None with fewer than two.

    The interval is mean ± t(.975, n−1)·s·√(1/n + 1/n_published); where the paper names no n it is the 95 % interval of the
    mean, widened by the row's rounding. ``=`` asks that the number lies in it. Other relations ask that the interval does not
    exclude them: ``>`` that some of it lies above the number (``>=``: or on it), ``<`` and ``<=`` likewise below, ``up-to`` is
    ``<=``, and ``about`` is ``=`` with the rounding added in every case (at most 5 % of the number).
    """
    n = len(x)
    if n < 2:
        return None
    half = float(t_quantile(0.975, n - 1) * spread(x, resolution) * math.sqrt(1 / n + (1 / n_published if n_published else 0)))
    if not n_published:
        half += rounding(published)
    elif relation == "about":
        half += min(rounding(published), 0.05 * abs(published))
    low, high = float(x.mean()) - half, float(x.mean()) + half
    slack = 1e-9 * max(1.0, abs(published))             # 97.93 − 97.88 is not exactly 0.05
    inside = low - slack <= published <= high + slack
    return {"=": inside, "about": inside, ">": high > published, ">=": high >= published,
            "<": low < published, "<=": low <= published, "up-to": low <= published}[relation]
