"""The comparison as text: every cell by hand on a small comparison, then the real one of frankle2019."""
from __future__ import annotations

import pytest

from bench import networks, summary, tables
from bench.compare import compare
from bench.measurement import Measurement, RunInfo
from replications.papers import load


def row(**changes):
    return {"id": "lenet-acc", "protocol": "lenet-mnist", "condition": {"arm": "ticket", "level": 7, "weights_remaining_pct": 21.1, "at": "early-stop"},
            "metric": "test_accuracy_pct", "published": 98.37, "relation": "=", "published_spread": {"kind": "min-max", "min": 98.24, "max": 98.42},
            "published_n": 5, "quality": "read-from-figure", "source": "Fig 4a", "measured": {"mean": 98.3, "sd": 0.05, "n": 3, "ci95": [98.2, 98.4]},
            "status": "measured", "comparable": True, "why_not": None, "agrees": True} | changes


def part(**changes):
    return {"protocol": "lenet-mnist", "test": "ticket@21.1% − dense test_accuracy_pct at early-stop > 0", "n": 3, "effect": 0.43, "bound": 0.0,
            "ci95": [0.1, 0.76], "p": 0.0004, "verdict": "replicated", "why": ""} | changes


def claim(**changes):
    return {"id": "c4-reinit", "strength": "headline", "statement": "The mask alone is not enough.", "source": "Sec 2", "ours": None,
            "verdict": "replicated", "why": "2 of 2 parts hold", "n": 3, "parts": [part()]} | changes


LOST = {"measured": None, "status": "not-run", "comparable": False, "agrees": None}
WHY = "scale quick: 8000 of 50000 iterations; data: MNIST-1D instead of MNIST"


def comparison(**changes):
    return {
        "paper": "frankle2019", "scale": "quick",
        "rows": [row(), row(id="other", agrees=False), row(id="open", agrees=None, why_not="one trial has no interval"),
                 row(id="apart", comparable=False, agrees=None, why_not=WHY),
                 row(id="vgg", protocol="vgg19-cifar10", why_not="needs a GPU", **LOST), row(id="vgg-2", protocol="vgg19-cifar10", why_not="needs a GPU", **LOST),
                 row(id="two", protocol=["conv2-cifar10", "conv4-cifar10"], why_not="level 20 not run at this scale", **LOST)],
        "claims": [claim(), claim(id="c9-conv", verdict="not-run", why="needs a GPU", n=None, parts=[
            part(n=None, effect=None, ci95=None, p=None, verdict="not-run", why="needs a GPU")] * 3)],
        "gates": [{"protocol": "lenet-mnist", "metric": "test_accuracy_pct", "at": "end", "low": 97.5, "high": 98.5, "source": "Fig 4b", "measured": 98.1,
                   "passed": True, "why": ""}],
        "curves": [{"id": "fig4-acc", "protocol": "lenet-mnist", "condition": {"arm": "ticket", "at": "early-stop"}, "metric": "test_accuracy_pct",
                    "x": "weights_remaining_pct", "source": "Fig 4", "quality": "read-from-figure", "status": "measured", "points": 26, "measured": 16,
                    "with_band": 15, "inside": 12, "mean_distance": 0.0411, "comparable": True, "why_not": None}],
        "insights": [{"protocol": "lenet-mnist", "setting": {}, "arm": "ticket", "metric": "test_accuracy_pct", "at": "early-stop", "margin": 0.1, "n": 3,
                      "confirmed": {"level": 9, "weights_remaining_pct": 13.5}, "estimate": {"level": 14, "weights_remaining_pct": 4.5}, "possible": None,
                      "levels": []}],
        "provenance": {"data": {"lenet-mnist": {"name": "MNIST-1D", "source": "mnist1d"}}, "device": "cpu", "versions": {"torch": "2.13"},
                       "source_hash": "abc", "deviations": ["biases start at 0"]}} | changes


# ---- cells --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("value", "metric", "text"), [
    (98.3, "test_accuracy_pct", "98.30"), (-0.004, "test_accuracy_gain_pp", "0.00"), (3540.4, "early_stop_it", "3,540"), (0.8417, "early_stop_it_ratio", "0.842"),
    (4.1234, "log_perplexity", "4.12"), (None, "bleu", "–")])
def test_numbers_carry_the_digits_of_their_metric(value, metric, text):
    assert tables.number(value, metric) == text


@pytest.mark.parametrize(("changes", "text"), [
    ({}, "98.37 [98.24, 98.42] n5 †"),
    ({"published_spread": None, "quality": "stated-in-text", "relation": "about"}, "≈ 98.37 n5"),
    ({"published_spread": {"kind": "sd", "value": 0.2}, "published_n": None, "quality": "secondary-source"}, "98.37 ± 0.2 ‡"),
    ({"published_spread": {"kind": "unknown", "value": 0.2}, "quality": "table", "relation": "<="}, "≤ 98.37 ± 0.2 (unknown) n5"),
    ({"published_spread": None, "published": 11853.3, "quality": "table", "relation": "up-to"}, "up to 11853.3 n5")])
def test_published_numbers_stand_as_printed(changes, text):
    assert tables.published(row(**changes)) == text


def test_measured_is_mean_sd_and_n():
    assert tables.measured(row()) == "98.30 ± 0.05 n3"
    assert tables.measured(row(measured={"mean": 98.3, "sd": None, "n": 1, "ci95": None})) == "98.30 n1"
    assert tables.measured(row(measured=None)) == "–"


@pytest.mark.parametrize(("condition", "text"), [
    ({"arm": "ticket", "level": 7, "weights_remaining_pct": 21.1, "at": "end"}, "ticket 21.1 % level 7"),
    ({"arm": "dense", "level": 0, "weights_remaining_pct": 100.0}, "dense"),
    ({"arm": "reinit", "level": 7, "versus": {"arm": "ticket"}}, "reinit level 7 vs ticket"),
    ({"arm": "ticket", "optimizer": "SGD", "lr": 0.4}, "ticket, optimizer SGD, lr 0.4")])
def test_conditions_in_words(condition, text):
    assert tables.what(condition) == text


def test_agreement_says_yes_no_open_or_why_not():
    rows = comparison()["rows"]
    marks = tables.reasons(rows)
    assert marks == {"one trial has no interval": "1", "scale quick: 8000 of 50000 iterations": "2", "data: MNIST-1D instead of MNIST": "3",
                     "needs a GPU": "4", "level 20 not run at this scale": "5"}
    assert [tables.agreement(r, marks) for r in rows] == ["yes", "no", "open 1", "n/c 2,3", "not-run 4", "not-run 4", "not-run 5"]


# ---- sections -----------------------------------------------------------------------------------------------------------------------

def test_rows_without_a_measurement_are_counted_with_their_reason_or_listed():
    few = tables.row_sections(comparison())
    assert [s.title for s in few] == ["lenet-mnist: 4 of 4 published numbers measured"]
    assert few[0].classes == ("group", "agrees", "differs", "not-compared", "not-compared")
    counted = tables.missing_section(comparison())
    assert counted.body == (("vgg19-cifar10", "2", "not-run", "needs a GPU"),
                            ("conv2-cifar10, conv4-cifar10", "1", "not-run", "level 20 not run at this scale"))
    listed = [cells[0] for s in tables.row_sections(comparison(), show_all=True) for cells, kind in zip(s.body, s.classes) if kind != "group"]
    assert listed == [r["id"] for r in comparison()["rows"]]


def test_claims_and_parts():
    run, idle = tables.claim_sections(comparison())
    assert run.title == "Claims: 1 replicated, 0 not-replicated, 0 inconclusive, 1 not-run"
    assert run.body == (("c4-reinit", "headline", "replicated", "3", "The mask alone is not enough.", "2 of 2 parts hold"),)
    assert run.notes == ("5 % a claim, not corrected across claims",)
    assert idle.body == (("c9-conv", "headline", "The mask alone is not enough.", "needs a GPU"),)
    parts = tables.part_section(comparison())
    assert parts.body[0][0] == "c4-reinit: replicated"
    assert parts.body[1][1:] == ("lenet-mnist", "3", "0.43", "0", "[0.1, 0.76]", "<0.001", "replicated")
    assert parts.notes == ("3 parts were not run and are not listed here",)
    everything = tables.part_section(comparison(), show_all=True)
    assert len(everything.body) == 6 and everything.body[3][0].endswith("> 0 (needs a GPU)") and everything.notes == ()


def test_gate_curves_and_insights():
    assert tables.gate_section(comparison()).body == (("lenet-mnist", "test_accuracy_pct at end", "97.5 to 98.5", "98.10", "passed", "", "Fig 4b"),)
    assert tables.curve_section(comparison()).body[1] == ("fig4-acc", "ticket", "16 of 26", "12 of 15", "0.04", "yes")
    assert tables.insight_section(comparison()).body == (
        ("lenet-mnist", "ticket", "test_accuracy_pct at early-stop", "0.1", "level 9 (13.5 %)", "level 14 (4.5 %)", "none", "3"),)


def test_every_section_is_rectangular():
    for section in tables.sections(comparison(), show_all=True):
        assert {len(cells) for cells in section.body} == {len(section.headers)} == {len(section.widths)} and len(section.classes) == len(section.body)


# ---- the page -----------------------------------------------------------------------------------------------------------------------

def test_page_is_loud_about_a_fall_back_and_gives_provenance():
    lines = tables.render(comparison()).splitlines()
    assert lines[:2] == ["frankle2019 at scale quick", "*** FALL-BACK DATA: MNIST-1D instead of MNIST ***"]
    assert lines[lines.index("Provenance") + 2:] == [
        "FALL-BACK DATA: MNIST-1D instead of MNIST", "scale: quick", "data, lenet-mnist: name MNIST-1D, source mnist1d", "device: cpu", "versions: torch 2.13",
        "source hash: abc", "deviation: biases start at 0"]


def test_page_without_fall_back_or_provenance_says_what_is_missing():
    page = tables.render(comparison(rows=[row()], provenance={}))
    assert "FALL-BACK" not in page and "data: not recorded" in page and "deviations: none" in page


@pytest.mark.parametrize(("provenance", "text"), [
    ({"data": {"lenet-mnist": {"name": "MNIST-1D"}}}, "MNIST-1D"), ({"data": {"name": "MNIST"}}, "MNIST"), ({"data": {"lenet-mnist": "MNIST"}}, "MNIST"),
    ({"data": "MNIST"}, "MNIST"), ({"data": {}}, "data not recorded"), ({}, "data not recorded")])
def test_name_of_the_data(provenance, text):
    assert tables.data_name(provenance, "lenet-mnist") == text


@pytest.mark.parametrize("show_all", [False, True])
def test_the_real_comparison_fits_the_page_and_hides_nothing(show_all):
    made = [Measurement("lenet-mnist", {"arm": arm} | ({"level": level} if level else {}), {} if level else {"level": 0, "weights_remaining_pct": 100.0}, trial, 0,
                        metric, at, 98 - 0.01 * level + 0.1 * trial, 0.01)
            for arm, levels in (("dense", [0]), ("ticket", range(1, 16)), ("reinit", range(1, 16))) for level in levels for trial in range(3)
            for metric, at in (("test_accuracy_pct", "early-stop"), ("test_accuracy_pct", "end"), ("early_stop_it", None))]
    run = RunInfo("frankle2019", "quick", {"lenet-mnist": 3}, {"lenet-mnist": WHY}, {"vgg19-cifar10": "needs a GPU"})
    paper = load("frankle2019")
    result = compare(paper, made, run)
    page = tables.render(result, show_all)
    assert max(len(line) for line in page.splitlines()) <= tables.WIDTH
    assert tables.render(compare(paper, made, run), show_all) == page
    counted = sum(int(cells[1]) for cells in tables.missing_section(result).body)
    assert counted + sum(r["status"] == "measured" for r in result["rows"]) == len(paper.published)
    assert all(c.id.split("-")[0] in page for c in paper.claims)


def _arm(metric: str, at: str | None) -> dict:
    value = {"metric": metric, "at": at, "mean": 42.0, "sd": 1.5, "n": 3, "censored": 0}
    return {"protocol": "p", "condition": {"arm": "dense"}, "weights_remaining_pct": 100, "density": 1.0, "n": 3, "failed": [], "values": [value]}


@pytest.mark.parametrize(("measured", "headings"), [
    ((), ("test accuracy at early stop, %", "early stop, iteration", "test accuracy at end, %")),
    ((("episode_return", "end"),), ("episode return at end",)),
    ((("bleu", "end"), ("log_perplexity", "end")), ("log perplexity at end", "BLEU at end")),
    ((("test_accuracy_pct", "end"), ("episode_return", "end")), ("test accuracy at early stop, %", "early stop, iteration", "test accuracy at end, %", "episode return at end")),
])  # fmt: skip
def test_arms_are_listed_with_the_scores_of_their_task(measured, headings):
    section = tables.arm_section({"arms": [_arm(*m) for m in measured]})
    assert section.headers == ("arm", "weights kept, %", "n", *headings, "left out")
    assert all(len(cells) == len(section.headers) == len(section.widths) for cells in section.body)
    assert sum("42" in cell for cells in section.body for cell in cells) == len(measured)


def network(densities, collapsed=()):
    return {"protocol": "net", "condition": {"arm": "ticket", "level": 3}, "n": 2, "density_layers": densities, "density_effective": None,
            "sign_agreement_pct": 90.0, "collapsed": list(collapsed)}  # fmt: skip


def test_few_layers_stand_one_by_one_and_of_many_the_ends_and_the_median():
    few, many = {"hidden.0": 0.5, "hidden.1": 0.25, "out": 1.0}, {f"layer.{i}": i / 100 for i in range(1, 100)}
    cells = [row[2] for row in tables.network_section({"networks": [network(few), network(many)]}).body if row[2]]
    assert cells == ["50 / 25 / 100", "99 tensors: 1 (layer.1) … 50 … 99 (layer.99)"]


def test_of_many_collapsed_layers_the_first_few_are_named():
    assert networks._named(["a", "b"]) == "a, b"
    assert networks._named([f"bias.{i}" for i in range(9)]) == "bias.0, bias.1, bias.2, bias.3, bias.4 and 4 more"


@pytest.mark.parametrize("measured, heads", [
    ([("bleu", "end"), ("early_stop_it", None)], ["early stop, iteration", "BLEU at end"]),
    ([("episode_return", "end")], ["episode return at end"]),
    ([("test_accuracy_pct", "end"), ("bleu", "end")], ["test accuracy at early stop, %", "early stop, iteration", "test accuracy at end, %", "BLEU at end"]),
    ([], ["test accuracy at early stop, %", "early stop, iteration", "test accuracy at end, %"]),
])  # fmt: skip
def test_columns_are_those_of_what_was_measured(measured, heads):
    assert [c[0] for c in summary.columns([{"values": [{"metric": m, "at": at} for m, at in measured]}])] == heads
