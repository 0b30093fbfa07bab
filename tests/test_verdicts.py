"""Verdicts on made-up claims and trials whose outcome can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import statistics as st
from bench import verdicts
from bench.claims import Operand, Part
from bench.joins import Join
from bench.measurement import Gate, Measurement, RunInfo
from tests import made_up
from tests.made_up import claim, run, values

BETTER = "difference: [{arm: ticket, level: 1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0"
DENSE = values("dense", [90.0, 91.0, 92.0, 90.0, 91.0])
GOOD = values("ticket", [91.0, 92.1, 92.9, 91.0, 92.0], level=1)  # differences 1, 1.1, .9, 1, 1
BAD = values("ticket", [89.0, 90.1, 90.9, 89.0, 90.0], level=1)
NOISY = values("ticket", [92.0, 90.5, 93.0, 91.5, 90.0], level=1)  # differences 2, -.5, 1, 1.5, -1: mean .6, sd 1.2942


def judged(folder: Path, entry: str, measurements: list[Measurement], info: RunInfo | None = None) -> dict[str, Any]:
    paper = made_up.paper(folder, entry)
    return verdicts.judge(paper, Join(paper, measurements, info or run()))[0]


# ---- the rule ---------------------------------------------------------------------------------------------------
def test_a_clear_effect_is_replicated(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE + GOOD)
    assert (c["verdict"], c["n"], c["id"], c["strength"], c["statement"]) == ("replicated", 5, "c1", "secondary", "Tickets match.")
    part = c["parts"][0]
    assert part["test"] == "ticket@level 1 − dense test_accuracy_pct at end > 0" and part["protocol"] == "net"
    assert part["effect"] == pytest.approx(1.0) and part["bound"] == 0 and part["verdict"] == "replicated"
    assert part["ci95"] == pytest.approx([1 - 0.0878, 1 + 0.0878], abs=1e-4)  # 2.776 * .0707 / sqrt 5
    assert part["p"] < 1e-4


def test_a_clear_opposite_is_not_replicated(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE + BAD)
    assert c["verdict"] == "not-replicated" and c["parts"][0]["effect"] == pytest.approx(-1.0)
    assert "1 of 1 parts contradicted" in c["why"]


def test_inconclusive_says_which_n_would_decide(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE + NOISY)
    n = st.n_for_power(st.Sample(0.6, ((1.294218, 5),)), "greater_than", 0, 0.05)
    assert c["verdict"] == "inconclusive" and c["parts"][0]["why"] == f"{n} trials would give 80 % power at the effect seen"
    assert 25 < n < 40  # (1.645 + .842)^2 * (1.294 / .6)^2 = 28.8, and a little for t


def test_inconclusive_where_the_effect_points_the_other_way(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE + values("ticket", [88.0, 91.5, 91.0, 88.5, 92.0], level=1))
    assert c["verdict"] == "inconclusive" and "points the other way" in c["why"]


def test_two_trials_are_too_few(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE[:2] + GOOD[:2], run(2))
    assert c["verdict"] == "inconclusive" and c["n"] == 2 and "at least 3" in c["why"]


def test_three_equal_trials_rest_on_the_resolution(tmp_path: Path) -> None:
    dense, ticket = values("dense", [90.0] * 3, resolution=0.5), values("ticket", [90.8] * 3, level=1, resolution=0.5)
    part = judged(tmp_path, claim(BETTER), dense + ticket, run(3))["parts"][0]
    assert part["verdict"] == "inconclusive"  # .8 - 2.92 * .5 / sqrt 3 = -.043
    finer = values("dense", [90.0] * 3, resolution=0.4) + values("ticket", [90.8] * 3, level=1, resolution=0.4)
    assert judged(tmp_path, claim(BETTER), finer, run(3))["verdict"] == "replicated"


def test_draws_are_averaged_within_the_trial_first(tmp_path: Path) -> None:
    entry = claim("difference: [{arm: reinit, level: 1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0")
    draws = [values("reinit", [91.0 + d, 92.1 + d, 92.9 + d], level=1, draw=i) for i, d in enumerate((-3.0, 0.0, 3.0))]
    c = judged(tmp_path, entry, DENSE[:3] + [m for d in draws for m in d], run(3))
    assert c["n"] == 3 and c["parts"][0]["effect"] == pytest.approx(1.0) and c["verdict"] == "replicated"


def test_a_trial_with_fewer_draws_is_named(tmp_path: Path) -> None:
    entry = claim("difference: [{arm: reinit, level: 1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0")
    draws = values("reinit", [91.0, 92.1, 92.9], level=1) + values("reinit", [91.0, 92.1], level=1, draw=1)
    c = judged(tmp_path, entry, DENSE[:3] + draws, run(3))
    assert c["verdict"] == "inconclusive" and "trial 2 has 1 of 2 draws" in c["why"]


def test_a_missing_trial_is_inconclusive_and_named(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE + GOOD[:4])
    assert c["verdict"] == "inconclusive" and c["n"] == 4 and "trial 4 missing" in c["why"]
    assert c["parts"][0]["effect"] == pytest.approx(1.0)


def test_trials_beyond_the_declared_number_do_not_count(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE + BAD[:3] + [m for m in GOOD if m.trial > 2], run(3))
    assert c["n"] == 3 and c["verdict"] == "not-replicated"


def test_a_failed_trial_is_inconclusive_and_named(tmp_path: Path) -> None:
    ticket = values("ticket", [91.0, 92.1, 92.9, 91.0, 10.0], level=1, failed={4: "stayed at chance"})
    c = judged(tmp_path, claim(BETTER), DENSE + ticket)
    assert c["verdict"] == "inconclusive" and "trial 4 of ticket stayed at chance" in c["why"] and c["n"] == 4
    assert c["parts"][0]["effect"] == pytest.approx(1.0)


def test_a_failed_trial_spoils_the_claim_even_beside_a_contradicted_part(tmp_path: Path) -> None:
    entry = claim(BETTER, BETTER.replace("level: 1", "level: 2"))
    ticket = values("ticket", [91.0, 92.1, 92.9, 91.0, float("nan")], level=2, failed={4: "diverged"})
    c = judged(tmp_path, entry, DENSE + BAD + ticket)
    assert (
        [p["verdict"] for p in c["parts"]] == ["not-replicated", "inconclusive"]
        and c["verdict"] == "inconclusive"
        and "diverged" in c["why"]
    )


def test_a_value_that_is_no_number_is_a_failed_trial(tmp_path: Path) -> None:
    c = judged(tmp_path, claim(BETTER), DENSE + values("ticket", [91.0, 92.1, 92.9, 91.0, float("nan")], level=1))
    assert c["verdict"] == "inconclusive" and "trial 4 of ticket no number" in c["why"]


def test_protocols_with_other_numbers_of_trials_are_paired_over_the_smaller(tmp_path: Path) -> None:
    entry = claim("difference: [{arm: dense}, {arm: dense, protocol: other}], metric: test_accuracy_pct, at: end, greater_than: 0")
    info = replace(run(5), n={"net": 5, "other": 3})
    c = judged(tmp_path, entry, DENSE + values("dense", [89.0, 90.1, 90.9], protocol="other"), info)
    assert (c["verdict"], c["n"]) == ("replicated", 3) and c["parts"][0]["effect"] == pytest.approx(1.0)
    assert "other trial 2 missing" in judged(tmp_path, entry, DENSE + values("dense", [89.0, 90.1], protocol="other"), info)["why"]


# ---- kinds of test ----------------------------------------------------------------------------------------------
def test_a_ratio_is_tested_on_the_log_scale_and_reported_as_a_ratio(tmp_path: Path) -> None:
    entry = claim("ratio: [{arm: reinit, level: 1}, {arm: ticket, level: 1}], metric: early_stop_it, greater_than: 1.5")
    ms = values("reinit", [2000.0, 4000.0, 8000.0], "early_stop_it", None, 1) + values(
        "ticket", [1000.0, 2000.0, 4000.0], "early_stop_it", None, 1
    )
    c = judged(tmp_path, entry, ms, run(3))
    part = c["parts"][0]
    assert (
        part["effect"] == pytest.approx(2.0)
        and part["bound"] == 1.5
        and part["ci95"] == pytest.approx([2.0, 2.0])
        and c["verdict"] == "replicated"
    )
    assert part["test"] == "reinit@level 1 / ticket@level 1 early_stop_it > 1.5"


def test_a_ratio_of_zero_is_inconclusive(tmp_path: Path) -> None:
    entry = claim("ratio: [{arm: reinit, level: 1}, {arm: ticket, level: 1}], metric: early_stop_it, greater_than: 1.5")
    ms = values("reinit", [2000.0, 4000.0, 8000.0], "early_stop_it", None, 1) + values(
        "ticket", [0.0, 2000.0, 4000.0], "early_stop_it", None, 1
    )
    c = judged(tmp_path, entry, ms, run(3))
    assert c["verdict"] == "inconclusive" and "above 0" in c["why"] and c["parts"][0]["effect"] is None


def test_equivalence(tmp_path: Path) -> None:
    entry = claim(BETTER.replace("greater_than: 0", "within: 1.2"))
    assert judged(tmp_path, entry, DENSE + GOOD)["verdict"] == "replicated"  # 1 +- .067
    assert judged(tmp_path, entry.replace("1.2", "0.8"), DENSE + GOOD)["verdict"] == "not-replicated"
    assert judged(tmp_path, entry.replace("1.2", "1.05"), DENSE + GOOD)["verdict"] == "inconclusive"


def test_unpaired_is_welch_and_needs_no_common_trial(tmp_path: Path) -> None:
    from scipy import stats

    a, b = [91.0, 93.0, 92.5], [90.0, 90.5, 89.0]
    c = judged(tmp_path, claim(BETTER + ", paired: false"), values("ticket", a, level=1) + values("dense", b), run(3))
    expected = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    assert c["parts"][0]["p"] == pytest.approx(expected.pvalue) and c["verdict"] == (
        "replicated" if expected.pvalue < 0.05 else "inconclusive"
    )
    paired = judged(tmp_path, claim(BETTER), values("ticket", a, level=1) + values("dense", b), run(3))
    assert paired["parts"][0]["p"] != pytest.approx(expected.pvalue)


def test_difference_of_differences(tmp_path: Path) -> None:
    entry = claim(
        "difference: [{difference: [{arm: ticket}, {arm: reinit}], lr: 0.01}, {difference: [{arm: ticket}, "
        "{arm: reinit}], lr: 0.1}], level: 1, "
        "metric: test_accuracy_pct, at: end, greater_than: 0"
    )
    ms = [
        m
        for arm, lr, x in (("ticket", 0.01, 95), ("reinit", 0.01, 90), ("ticket", 0.1, 93), ("reinit", 0.1, 92))
        for m in values(arm, [x, x + 0.1 * (arm == "ticket"), x], level=1, lr=lr)
    ]
    part = judged(tmp_path, entry, ms, run(3))["parts"][0]
    assert part["effect"] == pytest.approx(4.0) and part["verdict"] == "replicated"


def test_mean_over_levels_and_a_missing_one(tmp_path: Path) -> None:
    entry = claim(
        "difference: [{arm: ticket, mean_over: {level: [1, 2]}}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0"
    )
    two = values("ticket", [93.0, 94.1, 94.9, 93.0, 94.0], level=2)
    assert judged(tmp_path, entry, DENSE + GOOD + two)["parts"][0]["effect"] == pytest.approx(2.0)
    alone = judged(tmp_path, entry, DENSE + GOOD)
    assert alone["verdict"] == "not-run" and "level 2 not run at this scale" in alone["why"]


def test_a_percentage_joins_by_level(tmp_path: Path) -> None:
    entry = claim(
        BETTER.replace("level: 1", "weights_remaining_pct: 80.0").replace("{arm: dense}", "{arm: dense, weights_remaining_pct: 100}")
    )
    assert judged(tmp_path, entry, DENSE + GOOD)["verdict"] == "replicated"


# ---- error levels -----------------------------------------------------------------------------------------------
SLIGHT = [91.0, 92.3, 92.6, 90.6, 92.1]  # 1.0, 1.3, .6, .6, 1.1 above dense


def _p(xs: list[float], bound: float) -> float:
    from scipy import stats

    return float(stats.ttest_1samp([x - d.value for x, d in zip(xs, DENSE)], bound, alternative="greater").pvalue)


def test_alternatives_share_the_error_level(tmp_path: Path) -> None:
    p = _p(SLIGHT, 0.5)
    assert 0.0125 < p < 0.025  # holds among two alternatives, not among four
    entry = (
        "difference: [{{arm: ticket}}, {{arm: dense, level: 0}}], metric: test_accuracy_pct, at: end, "
        "for_any: {{level: [{}]}}, greater_than: 0.5"
    )
    ms = DENSE + [
        m for level in (1, 2, 3, 4) for m in values("ticket", SLIGHT if level == 1 else [90.0, 91.0, 92.0, 90.4, 91.2], level=level)
    ]
    two, four = (judged(tmp_path, claim(entry.format(levels)), ms) for levels in ("1, 2", "1, 2, 3, 4"))
    assert two["parts"][0]["verdict"] == "replicated" and two["verdict"] == "replicated"
    assert four["verdict"] == "inconclusive" and len(four["parts"]) == 4


def test_any_is_contradicted_only_where_every_alternative_is(tmp_path: Path) -> None:
    entry = claim(BETTER, BETTER.replace("level: 1", "level: 2"), more="any: true")
    worse = values("ticket", [88.0, 89.1, 89.9, 88.0, 89.0], level=2)
    assert judged(tmp_path, entry, DENSE + BAD + worse)["verdict"] == "not-replicated"
    assert judged(tmp_path, entry, DENSE + NOISY + worse)["verdict"] == "inconclusive"
    assert judged(tmp_path, entry, DENSE + GOOD + worse)["verdict"] == "replicated"
    assert judged(tmp_path, entry, DENSE + GOOD)["verdict"] == "inconclusive"  # never replicated while a part was not run


def test_contradiction_shares_the_error_level_among_the_j_tests(tmp_path: Path) -> None:
    low = [d.value - (x - d.value - 0.5) for x, d in zip(SLIGHT, DENSE)]  # the mirror image about 0
    assert 0.0125 < 1 - _p(low, 0.0) < 0.025
    ms = DENSE + values("ticket", low, level=1) + [m for level in (2, 3, 4) for m in values("ticket", [x.value for x in GOOD], level=level)]
    tests = [BETTER.replace("level: 1", f"level: {level}") for level in (1, 2, 3, 4)]
    assert judged(tmp_path, claim(*tests[:2]), ms)["verdict"] == "not-replicated"
    assert judged(tmp_path, claim(*tests), ms)["verdict"] == "inconclusive"


def test_after_a_look_alpha_is_two_percent(tmp_path: Path) -> None:
    xs = [91.0, 92.0, 92.4, 90.6, 92.1]
    assert 0.02 < _p(xs, 0.5) < 0.05
    entry = claim(BETTER.replace("greater_than: 0", "greater_than: 0.5"))
    assert judged(tmp_path, entry, DENSE + values("ticket", xs, level=1))["verdict"] == "replicated"
    assert judged(tmp_path, entry, DENSE + values("ticket", xs, level=1), run(looks=2))["verdict"] == "inconclusive"


# ---- censoring --------------------------------------------------------------------------------------------------
FASTER = "difference: [{arm: ticket, level: 1}, {arm: dense}], metric: early_stop_it, less_than: 0"
FAST, SLOW = [1000.0, 1100.0, 1200.0], [5000.0, 5200.0, 5100.0]


def _times(ticket: list[float], dense: list[float], cut_ticket: tuple[int, ...] = (), cut_dense: tuple[int, ...] = ()) -> list[Measurement]:
    return values("ticket", ticket, "early_stop_it", None, 1, resolution=100, censored=cut_ticket) + values(
        "dense", dense, "early_stop_it", None, resolution=100, censored=cut_dense
    )


@pytest.mark.parametrize(
    ("test", "cut", "expected"),
    [
        # a censored dense time is at least what was seen: the true gain in speed is larger
        (FASTER, "dense", "replicated"),
        (FASTER, "ticket", "inconclusive"),
        (FASTER, "both", "inconclusive"),
        # the other way round: dense − ticket above 0
        ("difference: [{arm: dense}, {arm: ticket, level: 1}], metric: early_stop_it, greater_than: 0", "dense", "replicated"),
        ("difference: [{arm: dense}, {arm: ticket, level: 1}], metric: early_stop_it, greater_than: 0", "ticket", "inconclusive"),
        ("ratio: [{arm: dense}, {arm: ticket, level: 1}], metric: early_stop_it, greater_than: 2", "dense", "replicated"),
        ("ratio: [{arm: dense}, {arm: ticket, level: 1}], metric: early_stop_it, greater_than: 2", "ticket", "inconclusive"),
        ("ratio: [{arm: ticket, level: 1}, {arm: dense}], metric: early_stop_it, less_than: 0.5", "dense", "replicated"),
        ("ratio: [{arm: ticket, level: 1}, {arm: dense}], metric: early_stop_it, less_than: 0.5", "ticket", "inconclusive"),
        ("value: {arm: dense}, metric: early_stop_it, greater_than: 1000", "dense", "replicated"),
        ("value: {arm: dense}, metric: early_stop_it, less_than: 9000", "dense", "inconclusive"),
        ("difference: [{arm: dense}, {arm: ticket, level: 1}], metric: early_stop_it, within: 9000", "dense", "inconclusive"),
        ("difference: [{arm: dense}, {arm: ticket, level: 1}], metric: early_stop_it, within: 9000", "none", "replicated"),
    ],
)
def test_censoring_counts_only_against_the_claim(test: str, cut: str, expected: str, tmp_path: Path) -> None:
    ms = _times(FAST, SLOW, (0,) if cut in ("ticket", "both") else (), (1,) if cut in ("dense", "both") else ())
    c = judged(tmp_path, claim(test), ms, run(3))
    assert c["verdict"] == expected
    assert expected == "replicated" or "censored" in c["why"]


def test_a_censored_time_cannot_contradict_a_claim_that_it_works_against(tmp_path: Path) -> None:
    ms = _times(SLOW, FAST, cut_dense=(0,))
    assert judged(tmp_path, claim(FASTER), _times(SLOW, FAST), run(3))["verdict"] == "not-replicated"
    c = judged(tmp_path, claim(FASTER), ms, run(3))
    assert c["verdict"] == "inconclusive" and "longer training" in c["why"]


def test_one_censored_draw_makes_the_mean_a_lower_bound(tmp_path: Path) -> None:
    entry = claim("difference: [{arm: reinit, level: 1}, {arm: ticket, level: 1}], metric: early_stop_it, LESS")
    draws = values("reinit", SLOW, "early_stop_it", None, 1) + values("reinit", SLOW, "early_stop_it", None, 1, draw=1, censored=(2,))
    ms = draws + values("ticket", FAST, "early_stop_it", None, 1)
    assert judged(tmp_path, entry.replace("LESS", "greater_than: 0"), ms, run(3))["verdict"] == "replicated"
    assert judged(tmp_path, entry.replace("LESS", "less_than: 9000"), ms, run(3))["verdict"] == "inconclusive"


# ---- what was not run, scales, gates ----------------------------------------------------------------------------
def test_parts_that_were_not_run(tmp_path: Path) -> None:
    entry = claim(BETTER, BETTER.replace("level: 1", "level: 7"))
    c = judged(tmp_path, entry, DENSE + GOOD)
    assert c["verdict"] == "inconclusive" and c["why"] == "1 of 2 parts run"
    assert [p["verdict"] for p in c["parts"]] == ["replicated", "not-run"] and c["parts"][1][
        "why"
    ] == "ticket: level 7 not run at this scale"
    assert judged(tmp_path, entry, DENSE + BAD)["verdict"] == "not-replicated"
    nothing = judged(tmp_path, entry, [], run(not_run={"net": "needs a GPU"}))
    assert (nothing["verdict"], nothing["why"], nothing["n"]) == ("not-run", "needs a GPU", None)
    assert judged(tmp_path, entry, DENSE)["verdict"] == "not-run"


def test_needs_paper_scale(tmp_path: Path) -> None:
    entry = claim(BETTER, BETTER.replace("level: 1", "level: 2"), more="needs_paper_scale: true")
    ms = DENSE + GOOD + values("ticket", [m.value for m in NOISY], level=2)
    c = judged(tmp_path, entry, ms, run(scale="quick"))
    assert (c["verdict"], c["why"]) == ("inconclusive", "needs paper scale; at this scale 1 of 2 parts hold")
    assert [p["verdict"] for p in c["parts"]] == ["replicated", "inconclusive"]
    both = DENSE + GOOD + values("ticket", [m.value for m in GOOD], level=2)
    assert judged(tmp_path, entry, both, run(scale="quick"))["verdict"] == "inconclusive"
    assert judged(tmp_path, entry, both, run(scale="paper"))["verdict"] == "replicated"
    assert judged(tmp_path, entry, [], run(scale="quick"))["verdict"] == "not-run"


def test_a_missed_dense_gate_forbids_replicated(tmp_path: Path) -> None:
    band = {"net": (Gate("test_accuracy_pct", "end", 95.0, 96.0, "Tab 1"),)}
    c = judged(tmp_path, claim(BETTER), DENSE + GOOD, run(gates=band))
    assert c["verdict"] == "inconclusive" and "dense gate missed: test_accuracy_pct 90.8, not in 95 … 96" in c["why"]
    assert judged(tmp_path, claim(BETTER), DENSE + GOOD, run(gates=band, comparable="scale quick"))["verdict"] == "replicated"
    passed = {"net": (Gate("test_accuracy_pct", "end", 90.0, 91.0, "Tab 1"),)}
    assert judged(tmp_path, claim(BETTER), DENSE + GOOD, run(gates=passed))["verdict"] == "replicated"
    unseen = {"net": (Gate("test_accuracy_pct", "early-stop", 90.0, 91.0, "Tab 1"),)}
    assert "dense net was not measured" in judged(tmp_path, claim(BETTER), DENSE + GOOD, run(gates=unseen))["why"]


def test_a_custom_claim_without_a_tree_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "  - {id: c1, statement: S, source: Sec 1, strength: secondary, protocols: [net], custom: a sentence}\n"
    c = judged(tmp_path, entry, DENSE)
    assert (c["verdict"], c["why"], c["parts"]) == ("not-run", "custom test not implemented", [])
    dense = Operand("net", "test_accuracy_pct", "end", ({"arm": "dense"},), 1, 0)
    at_90 = Part("net", "value", (dense,), "greater_than", 90.0, True, "dense > 90")
    monkeypatch.setitem(verdicts.TREES, ("toy2000", "c1"), lambda: at_90)
    c = judged(tmp_path, entry, DENSE)
    assert (c["verdict"], c["n"], c["parts"][0]["test"], c["parts"][0]["effect"]) == ("replicated", 5, "dense > 90", pytest.approx(90.8))
