"""Which measurements a wanted thing means, seen through the rows of a comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.joins import Join, versus
from bench.measurement import Measurement
from ltcore.errors import UserError
from tests import made_up
from tests.made_up import compared, row_of, run, values

DENSE = values("dense", [89.0, 90.0, 91.0], resolution=0.1)
TICKET = values("ticket", [90.0, 90.5, 92.0], level=7, resolution=0.1)


@pytest.mark.parametrize(
    ("condition", "status", "why"),
    [
        ("arm: ticket, level: 7, at: end", "measured", None),
        ("arm: ticket, weights_remaining_pct: 21.1, at: end", "measured", None),
        ("arm: ticket, weights_remaining_pct: 21.0, at: end", "measured", None),  # the paper truncates
        ("arm: ticket, level: 7, weights_remaining_pct: 30, at: end", "measured", None),  # the level speaks
        ("arm: ticket, level: 7, weights_remaining_pct: 21.1, at: end, table: 3", "measured", None),  # where it stands is no condition
        ("arm: dense, at: end", "measured", None),
        ("arm: dense, weights_remaining_pct: 100, at: end", "measured", None),
        ("arm: ticket, weights_remaining_pct: 64.0, at: end", "not-run", "level 2 not run at this scale"),
        ("arm: ticket, weights_remaining_pct: 50, at: end", "not-run", "50 % not run at this scale"),
        ("arm: ticket, at: end", "not-covered", "no size named"),
        ("arm: ticket, level: 7, at: early-stop", "not-covered", "test_accuracy_pct is not read at early-stop"),
        ("arm: ticket, level: 7", "not-covered", "no reading point named for test_accuracy_pct"),
        ("arm: rigl, level: 7, at: end", "not-run", "arm rigl not run"),
        ("level: 7, at: end", "not-covered", "no arm named"),
        ("arm: ticket, level: 7, optimizer: SGD, at: end", "not-covered", "optimizer SGD is not told apart"),
    ],
)
def test_a_row_finds_its_measurements_or_says_why_not(condition: str, status: str, why: str | None, tmp_path: Path) -> None:
    row = compared(tmp_path, row_of(condition), DENSE + TICKET)
    assert (row["status"], row["why_not"]) == (status, why)
    assert (row["measured"] is None) == (status != "measured")


def test_keys_of_the_measurement_must_be_named_and_defaults_may_be(tmp_path: Path) -> None:
    fresh = values("random-mask", [80.0, 81.0, 82.0], level=7, weights="fresh")
    assert compared(tmp_path, row_of("arm: random-mask, level: 7, at: end"), fresh)["why_not"] == "weights not named"
    assert (
        compared(tmp_path, row_of("arm: random-mask, level: 7, weights: original, at: end"), fresh)["why_not"] == "weights original not run"
    )
    assert compared(tmp_path, row_of("arm: random-mask, level: 7, weights: fresh, at: end"), fresh)["measured"]["mean"] == 81.0
    default = [
        Measurement("net", {"arm": "ticket", "level": 7}, {"rewind": "0it"}, t, 0, "test_accuracy_pct", "end", 90.0 + t, 0.1)
        for t in range(3)
    ]
    assert compared(tmp_path, row_of("arm: ticket, level: 7, rewind: 0it, at: end"), default)["status"] == "measured"
    assert compared(tmp_path, row_of("arm: ticket, level: 7, rewind: 5it, at: end"), default)["why_not"] == "rewind 5it not run"


def test_a_miniature_is_joined_by_level_whatever_its_own_percentage(tmp_path: Path) -> None:
    small = [
        Measurement("net", {"arm": "ticket", "level": 7}, {"weights_remaining_pct": 23.9}, t, 0, "test_accuracy_pct", "end", 90.0, 0.1)
        for t in range(3)
    ]
    row = compared(
        tmp_path, row_of("arm: ticket, weights_remaining_pct: 21.1, at: end"), small, run(3, "smoke", "scale smoke: 50 of 5000 iterations")
    )
    assert (
        row["status"] == "measured"
        and row["comparable"] is False
        and row["agrees"] is None
        and row["why_not"] == "scale smoke: 50 of 5000 iterations"
    )


def test_sizes_without_a_level_join_to_the_nearest_percentage(tmp_path: Path) -> None:
    ms = [m for pct, x in ((5.2, 80.0), (5.1, 70.0), (7.7, 85.0)) for m in values("one-shot", [x] * 3, weights_remaining_pct=pct)]
    assert compared(tmp_path, row_of("arm: one-shot, weights_remaining_pct: 5.17, at: end"), ms)["measured"]["mean"] == 80.0
    assert compared(tmp_path, row_of("arm: one-shot, weights_remaining_pct: 6.0, at: end"), ms)["why_not"] == "6.0 % not run at this scale"
    assert compared(tmp_path, row_of("arm: one-shot, level: 7, at: end"), ms)["status"] == "not-run"


def test_a_row_of_several_protocols_takes_the_one_that_was_run(tmp_path: Path) -> None:
    row = row_of("arm: ticket, level: 7, at: end", protocol="[net, other]")
    other = values("ticket", [80.0, 81.0, 82.0], level=7, protocol="other")
    assert compared(tmp_path, row, other)["measured"]["mean"] == 81.0
    assert (
        compared(tmp_path, row, [], run(3, not_run={"net": "needs a GPU", "other": "no data"}))["why_not"]
        == "net: needs a GPU; other: no data"
    )
    assert compared(tmp_path, row, [], run(3, not_run={"net": "needs a GPU", "other": "needs a GPU"}))["why_not"] == "needs a GPU"


def test_trials_beyond_the_declared_number_are_left_out_of_rows(tmp_path: Path) -> None:
    row = compared(tmp_path, row_of("arm: dense, at: end"), values("dense", [89.0, 90.0, 91.0, 50.0]))
    assert row["measured"]["n"] == 3 and row["measured"]["mean"] == 90.0


def test_two_results_for_one_trial_are_never_averaged(tmp_path: Path) -> None:
    twice = [
        Measurement("net", {"arm": "dense"}, {"level": 0}, 0, 0, "test_accuracy_pct", "end", v, 0.1, stage=s)
        for v, s in ((90.0, "aa"), (91.0, "bb"))
    ]
    with pytest.raises(UserError, match="stages aa and bb"):
        compared(tmp_path, row_of("arm: dense, level: 0, at: end"), twice)
    same = compared(tmp_path, row_of("arm: dense, level: 0, at: end"), [twice[0], twice[0]])
    assert same["measured"] == {"mean": 90.0, "sd": None, "n": 1, "ci95": None}


def test_versus_takes_what_it_does_not_name_from_the_condition() -> None:
    ticket = {"arm": "ticket", "level": 7, "weights_remaining_pct": 21.1, "rewind": "5it", "at": "end", "network": "A"}
    assert versus({**ticket, "versus": {"arm": "reinit"}}) == {**ticket, "arm": "reinit"}
    assert versus({**ticket, "versus": {"arm": "dense"}}) == {"arm": "dense", "at": "end", "network": "A"}
    assert versus({**ticket, "versus": {"arm": "dense", "test_accuracy_pct": 71.0}}) == {"arm": "dense", "at": "end", "network": "A"}
    assert versus({**ticket, "versus": {"level": 3}}) == {"arm": "ticket", "level": 3, "rewind": "5it", "at": "end", "network": "A"}


def test_join_lists_what_was_measured(tmp_path: Path) -> None:
    join = Join(made_up.paper(tmp_path), DENSE + TICKET, run(3))
    assert join.protocols() == ["net"] and join.metrics("net") == {"test_accuracy_pct"}
    assert join.conditions("net", "test_accuracy_pct", "end") == [
        {"level": 0, "weights_remaining_pct": 100.0, "arm": "dense"},
        {"arm": "ticket", "level": 7},
    ]
