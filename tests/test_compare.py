"""The comparison: a golden JSON on made-up numbers, rows that are comparisons themselves, what stands beside a mean, curves."""

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
from bench.measurement import Gate, Measurement
from replications import papers
from tests import made_up
from tests.made_up import claim, compared, row_of, run, values

DENSE = values("dense", [89.0, 90.0, 91.0], resolution=0.1)
TICKET = values("ticket", [90.0, 90.5, 92.0], level=7, resolution=0.1)

# differences 1, .5, 1: mean 5/6, sd .288675, se 1/6, t(.975, 2) = 4.302653; p = (1 - 5/sqrt 27) / 2
GOLDEN = {
    "paper": "toy2000",
    "scale": "paper",
    "rows": [
        {
            "id": "r1",
            "protocol": "net",
            "condition": {"arm": "dense", "level": 0, "at": "end"},
            "metric": "test_accuracy_pct",
            "published": 90.5,
            "relation": "=",
            "published_spread": None,
            "published_n": 5,
            "quality": "table",
            "source": "Tab 1",
            "measured": {"mean": 90.0, "sd": 1.0, "n": 3, "ci95": [87.515862, 92.484138]},
            "status": "measured",
            "comparable": True,
            "why_not": None,
            "agrees": True,
        },
        {
            "id": "r2",
            "protocol": "net",
            "condition": {"arm": "ticket", "level": 2, "at": "end"},
            "metric": "test_accuracy_pct",
            "published": 99.0,
            "relation": "=",
            "published_spread": None,
            "published_n": 5,
            "quality": "table",
            "source": "Tab 1",
            "measured": None,
            "status": "not-run",
            "comparable": False,
            "why_not": "level 2 not run at this scale",
            "agrees": None,
        },
    ],
    "claims": [
        {
            "id": "c1",
            "strength": "secondary",
            "statement": "Tickets match.",
            "source": "Sec 1",
            "ours": None,
            "verdict": "replicated",
            "why": "1 of 1 parts hold (alpha 0.05 a claim)",
            "n": 3,
            "parts": [
                {
                    "protocol": "net",
                    "test": "ticket@21.1% − dense test_accuracy_pct at end > 0",
                    "n": 3,
                    "effect": 0.833333,
                    "bound": 0.0,
                    "ci95": [0.116225, 1.550442],
                    "p": 0.018875,
                    "verdict": "replicated",
                    "why": "",
                }
            ],
        }
    ],
    "gates": [
        {
            "protocol": "net",
            "condition": {},
            "metric": "test_accuracy_pct",
            "at": "end",
            "low": 89.5,
            "high": 91.0,
            "source": "Tab 1",
            "measured": 90.0,
            "passed": True,
            "why": "",
        }
    ],
    "curves": [
        {
            "id": "f1",
            "protocol": "net",
            "condition": {"arm": "ticket", "at": "end"},
            "metric": "test_accuracy_pct",
            "x": "weights_remaining_pct",
            "source": "Fig 1",
            "quality": "read-from-figure",
            "status": "measured",
            "points": 3,
            "measured": 2,
            "with_band": 2,
            "inside": 1,
            "mean_distance": 0.416667,
            "comparable": True,
            "why_not": None,
        }
    ],
    "provenance": {"device": "cpu"},
}
CURVE = (
    "  - {id: f1, protocol: net, condition: {arm: ticket, at: end}, metric: test_accuracy_pct, n: 5, "
    "source: Fig 1, quality: read-from-figure, "
    "points: {100.0: [90.5, 90.2, 91.0], 64.0: [91, 90, 92], 21.1: [90.5, 90.0, 91.0]}}\n"
)


def _rounded(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _rounded(v) for k, v in x.items()}
    return [_rounded(v) for v in x] if isinstance(x, list) else round(x, 6) if isinstance(x, float) else x


def _golden(folder: Path, measurements: list[Measurement]) -> dict[str, Any]:
    paper = made_up.paper(
        folder,
        claim(
            "difference: [{arm: ticket, weights_remaining_pct: 21.1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0"
        ),
        made_up.ROW + row_of("arm: ticket, level: 2, at: end", value="99.0", name="r2"),
        CURVE,
    )
    return compare(paper, measurements, run(3, gates={"net": (Gate("test_accuracy_pct", "end", 89.5, 91.0, "Tab 1"),)}))


def test_the_golden_comparison(tmp_path: Path) -> None:
    assert _rounded(_golden(tmp_path, DENSE + TICKET)) == GOLDEN


def test_the_json_does_not_depend_on_the_order_of_measurements(tmp_path: Path) -> None:
    one = json.dumps(_golden(tmp_path, DENSE + TICKET), allow_nan=False)
    assert one == json.dumps(_golden(tmp_path, (DENSE + TICKET)[::-1]), allow_nan=False)


@pytest.mark.parametrize("key", papers.keys())
def test_every_paper_compares_with_an_empty_run_and_hides_nothing(key: str) -> None:
    paper = papers.load(key)
    c = compare(paper, [], run(3))
    assert [r["id"] for r in c["rows"]] == [r.id for r in paper.published] and [x["id"] for x in c["claims"]] == [
        x.id for x in paper.claims
    ]
    assert all(r["status"] == "not-run" and r["why_not"] and r["agrees"] is None and not r["comparable"] for r in c["rows"])
    assert all(x["verdict"] == "not-run" and x["why"] for x in c["claims"]) and len(c["curves"]) == len(paper.figure_data)
    json.dumps(c, allow_nan=False)


def test_a_real_paper_finds_what_was_measured() -> None:
    paper = papers.load("frankle2019")
    ms = values("dense", [98.0, 98.1, 97.9], at="early-stop", protocol="lenet-mnist") + values(
        "ticket", [98.3, 98.4, 98.5], at="early-stop", level=7, protocol="lenet-mnist"
    )
    info = run(3, not_run={p["id"]: "needs a GPU" for p in paper.protocols if p["id"] != "lenet-mnist"})
    rows = compare(paper, ms, info)["rows"]
    assert sorted(r["id"] for r in rows if r["status"] == "measured") == ["fig4-acc-es-test-ticket-p100.0", "fig4-acc-es-test-ticket-p21.1"]
    assert {r["why_not"] for r in rows if r["protocol"] == "conv2-cifar10"} == {"needs a GPU"}


# ---- rows that are comparisons ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("metric", "expected"), [("test_accuracy_gain_pp", [1.0, 0.5, 1.0]), ("test_accuracy_drop_pp", [-1.0, -0.5, -1.0])]
)
def test_gains_and_drops_are_taken_trial_by_trial(metric: str, expected: list[float], tmp_path: Path) -> None:
    row = compared(
        tmp_path,
        row_of("arm: ticket, level: 7, at: end, versus: {arm: dense, level: 0, weights_remaining_pct: 100.0}", metric),
        DENSE + TICKET,
    )
    assert row["measured"]["mean"] == pytest.approx(np.mean(expected)) and row["measured"]["sd"] == pytest.approx(np.std(expected, ddof=1))


@pytest.mark.parametrize("turned", [False, True])
def test_ratios_are_taken_trial_by_trial(turned: bool, tmp_path: Path) -> None:
    ms = values("ticket", [1000.0, 1500.0, 3000.0], "early_stop_it", None, 7) + values(
        "dense", [2000.0, 2000.0, 3000.0], "early_stop_it", None
    )
    row = row_of("arm: ticket, level: 7, versus: {arm: dense}", "early_stop_it_ratio", "0.8")
    if turned:
        row = row_of("arm: dense, level: 0, versus: {arm: ticket, level: 7}", "early_stop_it_ratio", "1.4")
    assert compared(tmp_path, row, ms)["measured"]["mean"] == pytest.approx(np.mean([2, 4 / 3, 1] if turned else [0.5, 0.75, 1]))


def test_the_other_side_may_be_missing_or_of_another_protocol(tmp_path: Path) -> None:
    row = row_of("arm: ticket, level: 7, at: end, versus: {arm: reinit}", "test_accuracy_gain_pp")
    assert compared(tmp_path, row, DENSE + TICKET)["why_not"] == "versus: arm reinit not run"
    row = row_of("arm: dense, level: 0, at: end, versus: {protocol: other}", "test_accuracy_gain_pp")
    assert compared(tmp_path, row, DENSE + values("dense", [88.0, 88.0, 88.0], protocol="other"))["measured"]["mean"] == 2.0


# ---- what stands beside a mean ----------------------------------------------------------------------------------
def test_failed_and_missing_trials_and_lower_bounds_are_said(tmp_path: Path) -> None:
    row = compared(tmp_path, row_of("arm: dense, at: end"), values("dense", [89.0, 91.0, 10.0], failed={2: "stayed at chance"}))
    assert (
        row["measured"]["mean"] == 90.0
        and row["measured"]["n"] == 2
        and row["agrees"] is None
        and row["why_not"] == "trial 2 stayed at chance, left out"
    )
    row = compared(tmp_path, row_of("arm: dense, at: end"), DENSE, run(5))
    assert row["agrees"] is None and row["why_not"] == "trials 3, 4 missing" and row["measured"]["n"] == 3
    late = values("dense", [5000.0, 4000.0, 5000.0], "early_stop_it", None, censored=(0, 2))
    row = compared(tmp_path, row_of("arm: dense, level: 0", "early_stop_it", "4500"), late)
    assert row["agrees"] is None and "2 of 3 trials end before their minimum" in row["why_not"]
    row = compared(tmp_path, row_of("arm: dense, at: end"), values("dense", [1.0, 1.0, 1.0], failed=dict.fromkeys(range(3), "diverged")))
    assert row["measured"] is None and row["status"] == "measured" and "diverged" in row["why_not"]


def test_ticket_rows_are_flagged_where_the_dense_net_misses_its_band(tmp_path: Path) -> None:
    gates = {"net": (Gate("test_accuracy_pct", "end", 95.0, 96.0, "Tab 1"),)}
    ticket = compared(tmp_path, row_of("arm: ticket, level: 7, at: end"), DENSE + TICKET, run(3, gates=gates))
    assert ticket["comparable"] is False and "dense gate missed" in ticket["why_not"]
    dense = compared(tmp_path, row_of("arm: dense, at: end"), DENSE + TICKET, run(3, gates=gates))
    assert dense["comparable"] is True and dense["agrees"] is True


def test_relations_are_honoured(tmp_path: Path) -> None:
    gain = "arm: ticket, level: 7, at: end, versus: {arm: dense}"  # gains 1, .5, 1
    for relation, value, agrees in ((">", "0.3", True), (">", "5", False), ("<", "0", True), ("<", "-5", False), ("up-to", "-5", False)):
        row = compared(tmp_path, row_of(gain, "test_accuracy_gain_pp", value, f'relation: "{relation}", '), DENSE + TICKET)
        assert (row["relation"], row["agrees"]) == (relation, agrees)


@pytest.mark.parametrize(
    ("axis", "points", "measured"),
    [
        ("rewind_it", "{0: 90.0, 25: 90.0}", 1),
        ("rewind_ep", "{25: 90.0}", 0),
        ("alpha", "{0.5: 90.0}", 0),
        ("weights_remaining_pct", "{21.1: [89.0, 91.0]}", 0),
    ],
)
def test_points_of_other_axes(axis: str, points: str, measured: int, tmp_path: Path) -> None:
    figure = (
        f"  - {{id: f1, protocol: net, condition: {{arm: ticket, level: 7, at: end}}, "
        f"metric: test_accuracy_pct, x: {axis}, n: 5, source: Fig 1, quality: table, "
        f"points: {points}}}\n"
    )
    ms = values("ticket", [90.0, 90.5, 92.0], level=7, rewind="25it")
    curve = compare(made_up.paper(tmp_path, figures=figure), ms, run(3))["curves"][0]
    assert curve["measured"] == measured and bool(curve["why_not"]) == (measured == 0)


# ---- plain values -----------------------------------------------------------------------------------------------
plain = hs.recursive(
    hs.none() | hs.booleans() | hs.integers() | hs.floats() | hs.text(max_size=3),
    lambda c: hs.lists(c, max_size=3) | hs.dictionaries(hs.integers() | hs.text(max_size=2), c, max_size=3),
)


@given(plain)
def test_tidy_leaves_nothing_that_json_cannot_hold(value: Any) -> None:
    json.dumps(tidy(value), allow_nan=False)


def test_tidy_by_hand() -> None:
    assert tidy({1: (np.float64(2.0), np.int64(3), math.nan, math.inf, np.array([1.5]))}) == {"1": [2.0, 3, None, None, [1.5]]}
