"""The comparison: a golden JSON on made-up numbers, how rows find their measurements, curves, and the sparsest matching level."""
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hs

from bench.compare import compare, tidy
from bench.insights import sparsest_matching
from bench.joins import Join, versus
from bench.measurement import Gate, Measurement
from ltcore.errors import UserError
from replications import papers
from tests import made_up
from tests.made_up import claim, run, values


def _row(condition: str, metric: str = "test_accuracy_pct", value: str = "90.5", more: str = "", name: str = "r1", protocol: str = "net", n: str = "5") -> str:
    return (f"  - {{id: {name}, protocol: {protocol}, condition: {{{condition}}}, metric: {metric}, value: {value}, {more}spread: null, n: {n}, "
            "source: Tab 1, quality: table}\n")


def _one(folder: Path, row: str, measurements: list[Measurement], info: Any = None) -> dict[str, Any]:
    return compare(made_up.paper(folder, rows=row), measurements, info or run(3))["rows"][0]


DENSE = values("dense", [89.0, 90.0, 91.0], resolution=0.1)
TICKET = values("ticket", [90.0, 90.5, 92.0], level=7, resolution=0.1)

# differences 1, .5, 1: mean 5/6, sd .288675, se 1/6, t(.975, 2) = 4.302653; p = (1 - 5/sqrt 27) / 2
GOLDEN = {
    "paper": "toy2000", "scale": "paper",
    "rows": [
        {"id": "r1", "protocol": "net", "condition": {"arm": "dense", "level": 0, "at": "end"}, "metric": "test_accuracy_pct", "published": 90.5, "relation": "=",
         "published_spread": None, "published_n": 5, "quality": "table", "source": "Tab 1",
         "measured": {"mean": 90.0, "sd": 1.0, "n": 3, "ci95": [87.515862, 92.484138]}, "status": "measured", "comparable": True, "why_not": None, "agrees": True},
        {"id": "r2", "protocol": "net", "condition": {"arm": "ticket", "level": 2, "at": "end"}, "metric": "test_accuracy_pct", "published": 99.0, "relation": "=",
         "published_spread": None, "published_n": 5, "quality": "table", "source": "Tab 1", "measured": None, "status": "not-run", "comparable": False,
         "why_not": "level 2 not run at this scale", "agrees": None}],
    "claims": [
        {"id": "c1", "strength": "secondary", "statement": "Tickets match.", "source": "Sec 1", "ours": None, "verdict": "replicated",
         "why": "1 of 1 parts hold (alpha 0.05 a claim)", "n": 3,
         "parts": [{"protocol": "net", "test": "ticket@21.1% − dense test_accuracy_pct at end > 0", "n": 3, "effect": 0.833333, "bound": 0.0,
                    "ci95": [0.116225, 1.550442], "p": 0.018875, "verdict": "replicated", "why": ""}]}],
    "gates": [{"protocol": "net", "metric": "test_accuracy_pct", "at": "end", "low": 89.5, "high": 91.0, "source": "Tab 1", "measured": 90.0, "passed": True, "why": ""}],
    "curves": [{"id": "f1", "protocol": "net", "condition": {"arm": "ticket", "at": "end"}, "metric": "test_accuracy_pct", "x": "weights_remaining_pct", "source": "Fig 1",
                "quality": "read-from-figure", "status": "measured", "points": 3, "measured": 2, "with_band": 2, "inside": 1, "mean_distance": 0.416667,
                "comparable": True, "why_not": None}],
    "provenance": {"device": "cpu"},
}
CURVE = ("  - {id: f1, protocol: net, condition: {arm: ticket, at: end}, metric: test_accuracy_pct, n: 5, source: Fig 1, quality: read-from-figure, "
         "points: {100.0: [90.5, 90.2, 91.0], 64.0: [91, 90, 92], 21.1: [90.5, 90.0, 91.0]}}\n")


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    return [_rounded(v) for v in x] if isinstance(x, list) else round(x, 6) if isinstance(x, float) else x


def _golden(folder: Path, measurements: list[Measurement]) -> dict[str, Any]:
    paper = made_up.paper(folder, claim("difference: [{arm: ticket, weights_remaining_pct: 21.1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0"),
                          made_up.ROW + _row("arm: ticket, level: 2, at: end", value="99.0", name="r2"), CURVE)
    return compare(paper, measurements, run(3, gates={"net": Gate("test_accuracy_pct", "end", 89.5, 91.0, "Tab 1")}))


def test_the_golden_comparison(tmp_path: Path) -> None:
    assert _rounded(_golden(tmp_path, DENSE + TICKET)) == GOLDEN


def test_the_json_does_not_depend_on_the_order_of_measurements(tmp_path: Path) -> None:
    one = json.dumps(_golden(tmp_path, DENSE + TICKET), allow_nan=False)
    assert one == json.dumps(_golden(tmp_path, (DENSE + TICKET)[::-1]), allow_nan=False)


@pytest.mark.parametrize("key", papers.keys())
def test_every_paper_compares_with_an_empty_run_and_hides_nothing(key: str) -> None:
    paper = papers.load(key)
    c = compare(paper, [], run(3))
    assert [r["id"] for r in c["rows"]] == [r.id for r in paper.published] and [x["id"] for x in c["claims"]] == [x.id for x in paper.claims]
    assert all(r["status"] == "not-run" and r["why_not"] and r["agrees"] is None and not r["comparable"] for r in c["rows"])
    assert all(x["verdict"] == "not-run" and x["why"] for x in c["claims"]) and len(c["curves"]) == len(paper.figure_data)
    json.dumps(c, allow_nan=False)


def test_a_real_paper_finds_what_was_measured() -> None:
    paper = papers.load("frankle2019")
    ms = values("dense", [98.0, 98.1, 97.9], at="early-stop", protocol="lenet-mnist") + values("ticket", [98.3, 98.4, 98.5], at="early-stop", level=7, protocol="lenet-mnist")
    info = run(3, not_run={p["id"]: "needs a GPU" for p in paper.protocols if p["id"] != "lenet-mnist"})
    rows = compare(paper, ms, info)["rows"]
    assert sorted(r["id"] for r in rows if r["status"] == "measured") == ["fig4-acc-es-test-ticket-p100.0", "fig4-acc-es-test-ticket-p21.1"]
    assert {r["why_not"] for r in rows if r["protocol"] == "conv2-cifar10"} == {"needs a GPU"}


# ---- joins ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("condition", "status", "why"), [
    ("arm: ticket, level: 7, at: end", "measured", None),
    ("arm: ticket, weights_remaining_pct: 21.1, at: end", "measured", None),
    ("arm: ticket, weights_remaining_pct: 21.0, at: end", "measured", None),                      # the paper truncates
    ("arm: ticket, level: 7, weights_remaining_pct: 30, at: end", "measured", None),              # the level speaks
    ("arm: ticket, level: 7, weights_remaining_pct: 21.1, at: end, table: 3", "measured", None),  # where it stands is no condition
    ("arm: dense, at: end", "measured", None), ("arm: dense, weights_remaining_pct: 100, at: end", "measured", None),
    ("arm: ticket, weights_remaining_pct: 64.0, at: end", "not-run", "level 2 not run at this scale"),
    ("arm: ticket, weights_remaining_pct: 50, at: end", "not-run", "50 % not run at this scale"),
    ("arm: ticket, at: end", "not-covered", "no size named"),
    ("arm: ticket, level: 7, at: early-stop", "not-covered", "test_accuracy_pct is not read at early-stop"),
    ("arm: ticket, level: 7", "not-covered", "no reading point named for test_accuracy_pct"),
    ("arm: rigl, level: 7, at: end", "not-run", "arm rigl not run"),
    ("level: 7, at: end", "not-covered", "no arm named"),
    ("arm: ticket, level: 7, optimizer: SGD, at: end", "not-covered", "optimizer SGD is not told apart"),
])
def test_a_row_finds_its_measurements_or_says_why_not(condition: str, status: str, why: str | None, tmp_path: Path) -> None:
    row = _one(tmp_path, _row(condition), DENSE + TICKET)
    assert (row["status"], row["why_not"]) == (status, why)
    assert (row["measured"] is None) == (status != "measured")


def test_keys_of_the_measurement_must_be_named_and_defaults_may_be(tmp_path: Path) -> None:
    fresh = values("random-mask", [80.0, 81.0, 82.0], level=7, weights="fresh")
    assert _one(tmp_path, _row("arm: random-mask, level: 7, at: end"), fresh)["why_not"] == "weights not named"
    assert _one(tmp_path, _row("arm: random-mask, level: 7, weights: original, at: end"), fresh)["why_not"] == "weights original not run"
    assert _one(tmp_path, _row("arm: random-mask, level: 7, weights: fresh, at: end"), fresh)["measured"]["mean"] == 81.0
    default = [Measurement("net", {"arm": "ticket", "level": 7}, {"rewind": "0it"}, t, 0, "test_accuracy_pct", "end", 90.0 + t, 0.1) for t in range(3)]
    assert _one(tmp_path, _row("arm: ticket, level: 7, rewind: 0it, at: end"), default)["status"] == "measured"
    assert _one(tmp_path, _row("arm: ticket, level: 7, rewind: 5it, at: end"), default)["why_not"] == "rewind 5it not run"


def test_a_miniature_is_joined_by_level_whatever_its_own_percentage(tmp_path: Path) -> None:
    small = [Measurement("net", {"arm": "ticket", "level": 7}, {"weights_remaining_pct": 23.9}, t, 0, "test_accuracy_pct", "end", 90.0, 0.1) for t in range(3)]
    row = _one(tmp_path, _row("arm: ticket, weights_remaining_pct: 21.1, at: end"), small, run(3, "smoke", "scale smoke: 50 of 5000 iterations"))
    assert row["status"] == "measured" and row["comparable"] is False and row["agrees"] is None and row["why_not"] == "scale smoke: 50 of 5000 iterations"


def test_sizes_without_a_level_join_to_the_nearest_percentage(tmp_path: Path) -> None:
    ms = [m for pct, x in ((5.2, 80.0), (5.1, 70.0), (7.7, 85.0)) for m in values("one-shot", [x] * 3, weights_remaining_pct=pct)]
    assert _one(tmp_path, _row("arm: one-shot, weights_remaining_pct: 5.17, at: end"), ms)["measured"]["mean"] == 80.0
    assert _one(tmp_path, _row("arm: one-shot, weights_remaining_pct: 6.0, at: end"), ms)["why_not"] == "6.0 % not run at this scale"
    assert _one(tmp_path, _row("arm: one-shot, level: 7, at: end"), ms)["status"] == "not-run"


def test_a_row_of_several_protocols_takes_the_one_that_was_run(tmp_path: Path) -> None:
    row = _row("arm: ticket, level: 7, at: end", protocol="[net, other]")
    other = values("ticket", [80.0, 81.0, 82.0], level=7, protocol="other")
    assert _one(tmp_path, row, other)["measured"]["mean"] == 81.0
    assert _one(tmp_path, row, [], run(3, not_run={"net": "needs a GPU", "other": "no data"}))["why_not"] == "net: needs a GPU; other: no data"
    assert _one(tmp_path, row, [], run(3, not_run={"net": "needs a GPU", "other": "needs a GPU"}))["why_not"] == "needs a GPU"


def test_trials_beyond_the_declared_number_are_left_out_of_rows(tmp_path: Path) -> None:
    row = _one(tmp_path, _row("arm: dense, at: end"), values("dense", [89.0, 90.0, 91.0, 50.0]))
    assert row["measured"]["n"] == 3 and row["measured"]["mean"] == 90.0


def test_two_results_for_one_trial_are_never_averaged(tmp_path: Path) -> None:
    twice = [Measurement("net", {"arm": "dense"}, {"level": 0}, 0, 0, "test_accuracy_pct", "end", v, 0.1, stage=s) for v, s in ((90.0, "aa"), (91.0, "bb"))]
    with pytest.raises(UserError, match="stages aa and bb"):
        _one(tmp_path, _row("arm: dense, level: 0, at: end"), twice)
    same = _one(tmp_path, _row("arm: dense, level: 0, at: end"), [twice[0], twice[0]])
    assert same["measured"] == {"mean": 90.0, "sd": None, "n": 1, "ci95": None}


# ---- rows that are comparisons ----------------------------------------------------------------------------------
@pytest.mark.parametrize(("metric", "expected"), [("test_accuracy_gain_pp", [1.0, 0.5, 1.0]), ("test_accuracy_drop_pp", [-1.0, -0.5, -1.0])])
def test_gains_and_drops_are_taken_trial_by_trial(metric: str, expected: list[float], tmp_path: Path) -> None:
    row = _one(tmp_path, _row("arm: ticket, level: 7, at: end, versus: {arm: dense, level: 0, weights_remaining_pct: 100.0}", metric), DENSE + TICKET)
    assert row["measured"]["mean"] == pytest.approx(np.mean(expected)) and row["measured"]["sd"] == pytest.approx(np.std(expected, ddof=1))


@pytest.mark.parametrize("turned", [False, True])
def test_ratios_are_taken_trial_by_trial(turned: bool, tmp_path: Path) -> None:
    ms = values("ticket", [1000.0, 1500.0, 3000.0], "early_stop_it", None, 7) + values("dense", [2000.0, 2000.0, 3000.0], "early_stop_it", None)
    row = _row("arm: ticket, level: 7, versus: {arm: dense}", "early_stop_it_ratio", "0.8")
    if turned:
        row = _row("arm: dense, level: 0, versus: {arm: ticket, level: 7}", "early_stop_it_ratio", "1.4")
    assert _one(tmp_path, row, ms)["measured"]["mean"] == pytest.approx(np.mean([2, 4 / 3, 1] if turned else [0.5, 0.75, 1]))


def test_the_other_side_may_be_missing_or_of_another_protocol(tmp_path: Path) -> None:
    row = _row("arm: ticket, level: 7, at: end, versus: {arm: reinit}", "test_accuracy_gain_pp")
    assert _one(tmp_path, row, DENSE + TICKET)["why_not"] == "versus: arm reinit not run"
    row = _row("arm: dense, level: 0, at: end, versus: {protocol: other}", "test_accuracy_gain_pp")
    assert _one(tmp_path, row, DENSE + values("dense", [88.0, 88.0, 88.0], protocol="other"))["measured"]["mean"] == 2.0


def test_versus_takes_what_it_does_not_name_from_the_condition() -> None:
    ticket = {"arm": "ticket", "level": 7, "weights_remaining_pct": 21.1, "rewind": "5it", "at": "end", "network": "A"}
    assert versus({**ticket, "versus": {"arm": "reinit"}}) == {**ticket, "arm": "reinit"}
    assert versus({**ticket, "versus": {"arm": "dense"}}) == {"arm": "dense", "at": "end", "network": "A"}
    assert versus({**ticket, "versus": {"arm": "dense", "test_accuracy_pct": 71.0}}) == {"arm": "dense", "at": "end", "network": "A"}
    assert versus({**ticket, "versus": {"level": 3}}) == {"arm": "ticket", "level": 3, "rewind": "5it", "at": "end", "network": "A"}


# ---- what stands beside a mean ----------------------------------------------------------------------------------
def test_failed_and_missing_trials_and_lower_bounds_are_said(tmp_path: Path) -> None:
    row = _one(tmp_path, _row("arm: dense, at: end"), values("dense", [89.0, 91.0, 10.0], failed={2: "stayed at chance"}))
    assert row["measured"]["mean"] == 90.0 and row["measured"]["n"] == 2 and row["agrees"] is None and row["why_not"] == "trial 2 stayed at chance, left out"
    row = _one(tmp_path, _row("arm: dense, at: end"), DENSE, run(5))
    assert row["agrees"] is None and row["why_not"] == "trials 3, 4 missing" and row["measured"]["n"] == 3
    late = values("dense", [5000.0, 4000.0, 5000.0], "early_stop_it", None, censored=(0, 2))
    row = _one(tmp_path, _row("arm: dense, level: 0", "early_stop_it", "4500"), late)
    assert row["agrees"] is None and "2 of 3 trials end before their minimum" in row["why_not"]
    row = _one(tmp_path, _row("arm: dense, at: end"), values("dense", [1.0, 1.0, 1.0], failed=dict.fromkeys(range(3), "diverged")))
    assert row["measured"] is None and row["status"] == "measured" and "diverged" in row["why_not"]


def test_ticket_rows_are_flagged_where_the_dense_net_misses_its_band(tmp_path: Path) -> None:
    gates = {"net": Gate("test_accuracy_pct", "end", 95.0, 96.0, "Tab 1")}
    ticket = _one(tmp_path, _row("arm: ticket, level: 7, at: end"), DENSE + TICKET, run(3, gates=gates))
    assert ticket["comparable"] is False and "dense gate missed" in ticket["why_not"]
    dense = _one(tmp_path, _row("arm: dense, at: end"), DENSE + TICKET, run(3, gates=gates))
    assert dense["comparable"] is True and dense["agrees"] is True


def test_relations_are_honoured(tmp_path: Path) -> None:
    gain = "arm: ticket, level: 7, at: end, versus: {arm: dense}"          # gains 1, .5, 1
    for relation, value, agrees in ((">", "0.3", True), (">", "5", False), ("<", "0", True), ("<", "-5", False), ("up-to", "-5", False)):
        row = _one(tmp_path, _row(gain, "test_accuracy_gain_pp", value, f'relation: "{relation}", '), DENSE + TICKET)
        assert (row["relation"], row["agrees"]) == (relation, agrees)


@pytest.mark.parametrize(("axis", "points", "measured"), [("rewind_it", "{0: 90.0, 25: 90.0}", 1), ("rewind_ep", "{25: 90.0}", 0), ("alpha", "{0.5: 90.0}", 0),
                                                         ("weights_remaining_pct", "{21.1: [89.0, 91.0]}", 0)])
def test_points_of_other_axes(axis: str, points: str, measured: int, tmp_path: Path) -> None:
    figure = (f"  - {{id: f1, protocol: net, condition: {{arm: ticket, level: 7, at: end}}, metric: test_accuracy_pct, x: {axis}, n: 5, source: Fig 1, quality: table, "
              f"points: {points}}}\n")
    ms = values("ticket", [90.0, 90.5, 92.0], level=7, rewind="25it")
    curve = compare(made_up.paper(tmp_path, figures=figure), ms, run(3))["curves"][0]
    assert curve["measured"] == measured and bool(curve["why_not"]) == (measured == 0)


# ---- plain values -----------------------------------------------------------------------------------------------
plain = hs.recursive(hs.none() | hs.booleans() | hs.integers() | hs.floats() | hs.text(max_size=3), lambda c: hs.lists(c, max_size=3) | hs.dictionaries(hs.integers() | hs.text(max_size=2), c, max_size=3))


@given(plain)
def test_tidy_leaves_nothing_that_json_cannot_hold(value: Any) -> None:
    json.dumps(tidy(value), allow_nan=False)


def test_tidy_by_hand() -> None:
    assert tidy({1: (np.float64(2.0), np.int64(3), math.nan, math.inf, np.array([1.5]))}) == {"1": [2.0, 3, None, None, [1.5]]}


# ---- the sparsest level that matches ----------------------------------------------------------------------------
def test_sparsest_matching_level_with_its_interval(tmp_path: Path) -> None:
    dense = values("dense", [90.0, 91.0, 92.0])
    offsets = {1: [0.5, 0.6, 0.5], 2: [0.0, 0.4, 0.0], 3: [-0.3, 0.3, 0.1], 4: [-0.8, 0.2, -0.3], 5: [-2.0, -2.1, -2.0], 6: [0.5, 0.5, 0.6]}
    ms = dense + [m for level, o in offsets.items() for m in values("ticket", [90 + o[0], 91 + o[1], 92 + o[2]], level=level)]
    paper = made_up.paper(tmp_path)
    found = sparsest_matching(paper, [m for m in ms if m.condition.get("level") != 6], run(3))
    assert len(found) == 1 and (found[0]["at"], found[0]["n"]) == ("end", 3)
    # level 1: .53 +- .1 holds; 2: .13 - .39 does not; 3: mean .03 still matches; 4: mean -.3 no more, but not worse with confidence; 5 is
    assert [found[0][k]["level"] for k in ("confirmed", "estimate", "possible")] == [1, 3, 4]
    assert [x["level"] for x in found[0]["levels"]] == [1, 2, 3, 4, 5]
    lucky = sparsest_matching(paper, ms, run(3))[0]                         # one lucky level beyond the fall changes neither of the first two
    assert [lucky[k]["level"] for k in ("confirmed", "estimate", "possible")] == [1, 3, 6]


def test_sparsest_matching_needs_a_dense_net_and_keeps_settings_apart(tmp_path: Path) -> None:
    paper = made_up.paper(tmp_path)
    assert sparsest_matching(paper, values("ticket", [90.0, 90.0, 90.1], level=1), run(3)) == []
    ms = values("dense", [90.0, 91.0, 92.0]) + [m for rw, x in (("0it", 80.0), ("5it", 95.0)) for m in values("ticket", [x, x, x + 0.1], level=1, rewind=rw)]
    found = sparsest_matching(paper, ms, run(3))
    assert [(f["setting"], f["confirmed"]) for f in found] == [({"rewind": "0it"}, None), ({"rewind": "5it"}, {"level": 1, "weights_remaining_pct": None})]


def test_join_lists_what_was_measured(tmp_path: Path) -> None:
    join = Join(made_up.paper(tmp_path), DENSE + TICKET, run(3))
    assert join.protocols() == ["net"] and join.metrics("net") == {"test_accuracy_pct"}
    assert join.conditions("net", "test_accuracy_pct", "end") == [{"level": 0, "weights_remaining_pct": 100.0, "arm": "dense"}, {"arm": "ticket", "level": 7}]
