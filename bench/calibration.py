"""How often the rule says ``replicated`` where it must not: simulated trials whose true effect lies exactly on the bound.

Run as ``python -m bench.calibration`` to print the table of docs/calibration.md. The simulation calls the very functions that
decide verdicts (`bench.statistics.holds`), on many repetitions at once.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bench import statistics as st

TRIALS = (3, 5, 10)
REPS = 200_000
CRASH_RATE, CRASH_SD = 0.1, 10.0          # one trial in ten loses ten standard deviations, unnoticed by the rule
WIDE = 20.0                               # margin of `within` in sd, wide enough that one side alone can err: the worst case

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_normal(shape)


def _lognormal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Lognormal (sigma 1), centred on its mean: a long tail of large effects."""
    return np.exp(rng.standard_normal(shape)) - math.exp(0.5)


def _crashed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Normal, and a rate of crashes that drag the effect down, centred on the mean of the mixture."""
    return rng.standard_normal(shape) - CRASH_SD * ((rng.random(shape) < CRASH_RATE) - CRASH_RATE)


def _noticed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The same crashes, seen (NaN): a failed trial makes the claim inconclusive, whatever the others say."""
    return np.where(rng.random(shape) < CRASH_RATE, np.nan, rng.standard_normal(shape))


NOISES: dict[str, Draw] = {
    "normal": _normal,
    "skewed": lambda rng, shape: -_lognormal(rng, shape),      # the tail speaks against the claim: seldom seen with few trials
    "skewed towards the claim": _lognormal,
    "skewed in both arms alike": lambda rng, shape: _lognormal(rng, shape) - _lognormal(rng, shape),
    "crashed runs, unnoticed": _crashed,
    "crashed runs, noticed": _noticed,
}
# kind of test -> (bound kind, bound); the noise is the effect's own, for a ratio that of the log ratio
TESTS: dict[str, tuple[st.BoundKind, float]] = {
    "difference": ("greater_than", 0.0), "ratio": ("greater_than", math.log(1.5)), "within": ("within", WIDE)}


def calibrate(n: int, noise: str, reps: int = REPS, seed: int = 0, kind: str = "difference", alpha: float = st.ALPHA) -> float:
    """Rate of ``replicated`` when the true effect lies on the bound.

    Args:
        n: trials.
        noise: key of `NOISES`.
        reps: simulated claims.
        kind: ``difference``, ``ratio`` (noise on the log scale) or ``within`` (true effect on its edge).

    Returns:
        Rate in [0, 1]; its Monte Carlo standard error is √(rate·(1−rate)/reps).
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, n, list(NOISES).index(noise), list(TESTS).index(kind)]))
    bound_kind, bound = TESTS[kind]
    # at the upper edge of `within` the claim lies below, so the noise is turned to keep its tail where its name says
    effects = bound + (-1 if kind == "within" else 1) * NOISES[noise](rng, (reps, n))
    return float(st.holds(st.paired(effects), bound_kind, bound, alpha).mean())


def welch_rate(n: int, ratio_of_sd: float = 1.0, reps: int = REPS, seed: int = 0, alpha: float = st.ALPHA) -> float:
    """The same for an unpaired difference of two normal groups of n trials whose standard deviations have this ratio."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, n, 99]))
    left, right = ratio_of_sd * rng.standard_normal((reps, n)), rng.standard_normal((reps, n))
    return float(st.holds(st.welch(left, right), "greater_than", 0.0, alpha).mean())


def standard_error(rate: float, reps: int) -> float:
    """Monte Carlo standard error of a rate."""
    return math.sqrt(rate * (1 - rate) / reps)


def markdown_table(reps: int = REPS, seed: int = 0) -> str:
    """Rates in percent, one line a test and noise, one column a number of trials."""
    lines = ["| test | noise | " + " | ".join(f"n = {n}" for n in TRIALS) + " |", "| --- | --- |" + " ---: |" * len(TRIALS)]
    for kind in TESTS:
        for noise in NOISES:
            rates = [calibrate(n, noise, reps, seed, kind) for n in TRIALS]
            lines.append(f"| {kind} | {noise} | " + " | ".join(f"{100 * r:.1f} %" for r in rates) + " |")
    for ratio in (1.0, 4.0):
        rates = [welch_rate(n, ratio, reps, seed) for n in TRIALS]
        lines.append(f"| unpaired (Welch) | normal, sd {ratio:g} : 1 | " + " | ".join(f"{100 * r:.1f} %" for r in rates) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
