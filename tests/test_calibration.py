"""The rule's promise, by simulation: at the boundary at most 5 % come out replicated under normal noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import calibration as cal

REPS = 20_000


@pytest.mark.parametrize("n", cal.TRIALS)
@pytest.mark.parametrize("kind", cal.TESTS)
def test_normal_noise_keeps_the_promise(n: int, kind: str) -> None:
    rate = cal.calibrate(n, "normal", REPS, seed=1, kind=kind)
    limit = 3 * cal.standard_error(0.05, REPS)
    assert rate <= 0.05 + limit
    assert rate >= 0.05 - limit  # and it is not bought with caution


@pytest.mark.parametrize("n", cal.TRIALS)
def test_two_percent_after_a_look(n: int) -> None:
    assert cal.calibrate(n, "normal", REPS, seed=2, alpha=0.02) <= 0.02 + 3 * cal.standard_error(0.02, REPS)


@pytest.mark.parametrize("n", cal.TRIALS)
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_welch_keeps_it_too(n: int, ratio: float) -> None:
    assert cal.welch_rate(n, ratio, REPS, seed=3) <= 0.05 + 3 * cal.standard_error(0.05, REPS) + 0.005  # Welch's df is an approximation


def test_unkind_noise_is_shown_for_what_it_is() -> None:
    assert cal.calibrate(5, "skewed", REPS) > 0.1 > cal.calibrate(5, "skewed towards the claim", REPS)
    assert cal.calibrate(5, "crashed runs, unnoticed", REPS) > 0.1 > cal.calibrate(5, "crashed runs, noticed", REPS)
    assert cal.calibrate(5, "skewed in both arms alike", REPS) < 0.05


def test_it_is_deterministic() -> None:
    assert cal.calibrate(3, "normal", 1000, seed=7) == cal.calibrate(3, "normal", 1000, seed=7) != cal.calibrate(3, "normal", 1000, seed=8)


def test_the_page_shows_every_case() -> None:
    page = (Path(__file__).parents[1] / "docs" / "calibration.md").read_text()
    lines = cal.markdown_table(200).splitlines()
    assert len(lines) == 2 + len(cal.TESTS) * len(cal.NOISES) + 2
    assert all(line.split("%")[0].rsplit("|", 1)[0] in page for line in lines)
    assert "python -m bench.calibration" in page
