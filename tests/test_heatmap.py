"""Maps of mask distances: numbers first, then the file; and what the clock says beside FLOPs."""

from __future__ import annotations

import json

import pytest

from bench import costs, phases, plot_heatmap, summary
from bench.measurement import Measurement, RunInfo
from bench.plots import plot
from replications.papers import load

PROTOCOL = "mask-distance-cifar100"
RUN = RunInfo("earlybird2020", "quick", {PROTOCOL: 2}, {PROTOCOL: "scale quick"}, {}, provenance={"data": {"name": "CIFAR-100"}})


def cell(trial: int, a: int, b: int, value: float, pct: int = 60) -> Measurement:
    condition = {"network": "vgg16", "arm": "early-bird", "channels_remaining_pct": pct, "from_epoch": a, "to_epoch": b}
    return Measurement(PROTOCOL, condition, {}, trial, 0, "mask_distance", None, value, 0.0)


def drawn(trial: int, epoch: int, **rule: str) -> Measurement:
    return Measurement(
        PROTOCOL,
        {"network": "vgg16", "arm": "early-bird", "channels_remaining_pct": 60, **rule},
        {},
        trial,
        0,
        "epoch_drawn_ep",
        None,
        epoch,
        1.0,
    )


PAIRS = [(1, 2), (2, 3), (3, 4), (4, 5), (1, 3), (1, 5), (3, 5)]
MEASURED = [cell(t, a, b, (b - a) / 10 + t / 100) for t in (0, 1) for a, b in PAIRS]


def test_a_map_has_the_epochs_whose_pairs_are_all_there_and_means_over_trials():
    (made,) = plot_heatmap.maps([*MEASURED, drawn(0, 3), drawn(1, 4), drawn(0, 5, rule="newest")])
    assert made.epochs == (1, 3, 5) and made.n == 2 and made.label == "vgg16, 60 % of the channels"
    assert made.cells[1, 5] == pytest.approx(0.405) and made.cells[1, 2] == pytest.approx(0.105)
    assert made.drawn == {"queue": 3.5, "newest": 5}


def test_each_share_of_channels_has_its_map():
    made = plot_heatmap.maps([*MEASURED, *[cell(0, a, b, 0.1, pct=20) for a, b in PAIRS]])
    assert [m.label for m in made] == ["vgg16, 60 % of the channels", "vgg16, 20 % of the channels"]


def test_other_measurements_make_no_map():
    other = Measurement(PROTOCOL, {"arm": "ticket", "level": 1}, {}, 0, 0, "mask_distance", None, 0.2, 0.0)
    assert plot_heatmap.maps([other, drawn(0, 3)]) == []


def test_the_colours_of_the_figure_are_the_cells():
    fig = plot_heatmap.heat_figure(plot_heatmap.maps(MEASURED), RUN)
    (mesh,) = [c for axes in fig.axes for c in axes.collections if c.get_array() is not None and c.get_array().size == 9]
    assert mesh.get_array().reshape(3, 3).tolist() == [
        pytest.approx([0, 0.205, 0.405]), pytest.approx([0.205, 0, 0.205]), pytest.approx([0.405, 0.205, 0]),
    ]  # fmt: skip
    assert mesh.get_clim() == (0, pytest.approx(0.405))


def test_the_file_is_written_and_the_same_every_time(tmp_path):
    paper = load("earlybird2020")
    first, second = (plot(paper, MEASURED, RUN, tmp_path / d) for d in "ab")
    assert [p.name for p in first] == [f"{PROTOCOL}-mask-distance.png"] and first[0].read_bytes() == second[0].read_bytes()


def test_cells_are_no_rows_of_the_arms_table():
    assert [e["condition"].get("from_epoch") for e in summary.arms([*MEASURED, drawn(0, 3)])] == [None]


# ---- costs -----------------------------------------------------------------------------------------------------
class Records(dict):
    """A store of made-up records."""

    def has(self, stage: str) -> bool:
        return stage in self

    def record(self, stage: str) -> dict:
        return self[stage]


def record(wall_s: float, steps: int, start: int = 0, **facts: float) -> dict:
    return {"stage": {"kind": "train", "params": {"start": 0, "stop": start + steps}}, "facts": facts, "machine": {"wall_s": wall_s}}


def test_speed_up_is_set_against_flops():
    store = Records(
        d=record(2.0, 100), a=record(0.6, 60, 40, start_it=40, flops_remaining_pct=25.0), b=record(0.4, 60, 40, start_it=40, flops_remaining_pct=25.0),
        m={"stage": {"kind": "measure", "params": {}}, "facts": {}, "machine": {"wall_s": 1}},
    )  # fmt: skip
    ticket = {"arm": "early-bird", "channels_remaining_pct": 50}
    points = [("d", 0, {"arm": "dense"}), ("a", 0, ticket), ("b", 1, ticket), ("m", 1, ticket), ("gone", 2, ticket), ("b", 1, ticket)]
    (row,) = costs.rows({"points": [{"label": "x", "trial": t, "stage": s, "condition": c} for s, t, c in points]}, store)
    assert (row.n, row.dense_ms, row.flops_pct, row.on_paper) == (2, 20.0, 25.0, 4.0)  # two draws of trial 1 count once
    assert row.ticket_ms == pytest.approx(50 / 6) and row.speed_up == pytest.approx(2.4)
    assert "| x            | channels_remaining_pct 50 |" in costs.render([row]) and "| 0.60" in costs.render([row])


def test_tickets_without_a_dense_net_beside_them_are_left_out():
    store = Records(a=record(1.0, 10, flops_remaining_pct=50.0))
    assert costs.rows({"points": [{"label": "x", "trial": 0, "stage": "a", "condition": {"arm": "early-bird"}}]}, store) == []


# ---- search, retraining and both -------------------------------------------------------------------------------
def node(kind: str, wall_s: float, energy_J: float | None = None, **inputs: str) -> dict:
    told = {} if energy_J is None else {"energy_J": energy_J}
    stage = {"kind": kind, "inputs": {role: [stage, "state"] for role, stage in inputs.items()}}
    return {"stage": stage, "machine": {"wall_s": wall_s, **told}}


GRAPH = {
    "init": node("init", 100.0), "first": node("train", 2.0, 20.0, state="init"),
    "dense": node("train", 3.0, 30.0, state="first", optimizer="first"),
    "scores": node("score", 0.5, 5.0, weights="first"), "mask": node("prune", 9.0, scores="scores"),
    "small": node("transform", 9.0, state="first", channels="mask"),
    "ticket": node("train", 1.5, 15.0, state="small", channels="mask"),
}  # fmt: skip
POINTS = [{"label": "x", "trial": 0, "stage": s, "condition": {"arm": arm, **more}} for s, arm, more in (
    ("dense", "dense", {}), ("ticket", "early-bird", {"epoch_drawn": 5}), ("mask", "early-bird", {}))]  # fmt: skip


def test_what_came_before_a_network_is_its_search_and_a_cut_run_is_one():
    dense, ticket = phases.rows({"points": POINTS}, Records(GRAPH))
    assert (dense.search, dense.retraining) == (phases.Spent(0, 0), phases.Spent(5.0, 50.0))
    assert (ticket.search, ticket.retraining) == (phases.Spent(2.5, 25.0), phases.Spent(1.5, 15.0))
    assert phases.render([dense, ticket]).splitlines()[-1].split() == ["|", "x", "|", "early-bird:", "epoch_drawn", "5", "|", "1", "|", "2.5", "|", "1.5", "|", "4.0", "|", "25.0", "|", "15.0", "|", "40.0", "|"]


def test_draws_of_a_trial_count_once():
    """Trial 0 has two draws of 1 and 3 s, trial 1 one of 8 s: 5 s a trial, not 4."""
    store = Records(a=node("train", 1.0, 10.0), b=node("train", 3.0, 30.0), c=node("train", 8.0, 40.0))
    points = [{"label": "x", "trial": t, "stage": s, "condition": {"arm": "reinit"}} for s, t in (("a", 0), ("b", 0), ("c", 1))]
    (row,) = phases.rows({"points": points}, store)
    assert (row.n, row.retraining) == (2, phases.Spent(5.0, 30.0))


def test_energy_is_told_where_every_stage_has_it():
    plain = {**GRAPH, "first": node("train", 2.0, state="init")}
    dense, ticket = phases.rows({"points": POINTS}, Records(plain))
    assert dense.retraining.energy_J is None and ticket.search.energy_J is None and ticket.retraining.energy_J == 15.0
    only_time = phases.rows({"points": POINTS}, Records({n: {**r, "machine": {"wall_s": 1.0}} for n, r in GRAPH.items()}))
    assert phases.render(only_time).splitlines()[0].rstrip(" |").endswith("total, s")


def test_an_arm_whose_search_is_not_in_the_store_is_left_out():
    assert [r.arm for r in phases.rows({"points": POINTS}, Records({n: r for n, r in GRAPH.items() if n != "scores"}))] == ["dense"]
    assert phases.rows({"points": POINTS[:1]}, Records({n: r for n, r in GRAPH.items() if n != "first"})) == []


def test_a_packed_manifest_tells_what_came_before_its_points():
    whole = Records(GRAPH)
    packed = {"points": POINTS, "phases": json.loads(json.dumps(phases.noted(POINTS, whole)))}
    assert phases.rows(packed, Records({n: GRAPH[n] for n in ("dense", "ticket", "mask")})) == phases.rows({"points": POINTS}, whole)
