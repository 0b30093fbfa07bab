"""earlybird2020: what its experiments declare is what the paper's rows and claims look for; what is left out is left out on purpose."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

import pytest

from bench import measurements, plan, verdicts
from bench.compare import compare
from bench.joins import Join
from bench.measurement import Measurement, RunInfo
from ltcore import drawing
from ltcore.early_bird import rate
from ltcore.imp import DataFacts, Trial
from replications import papers, registry

FACTS = {
    "cifar10": DataFacts("cifar10", "made-up", 50_000, (3, 32, 32), 10), "cifar100": DataFacts("cifar100", "made-up", 50_000, (3, 32, 32), 100),
    "imagenet": DataFacts("imagenet", "made-up", 1_281_167, (3, 224, 224), 1000, decoded=True),
}  # fmt: skip
DATA, PAPER = papers.load("earlybird2020"), registry.load("earlybird2020")
N = 3


def accuracy(c: dict, trial: int) -> float:
    """A world in which the paper is right: epoch 1 is too early, 70 % is too much where the paper says so, late is no better."""
    value = 93.0 + 0.01 * trial
    if c["arm"] == "early-bird":
        value += 0.2 - (2.0 if c.get("epoch_drawn") == 1 else 0.0) - (1.0 if c.get("init") == "fresh" else 0.0)
        value -= (3.0 if c["channels_remaining_pct"] == 30 and c["network"] == "preresnet101" else 0.0) + (
            0.3 if c.get("epoch_drawn") == 140 else 0.0
        )
        value -= 1.0 if c.get("variant") == "lr-drops-0-100" else 0.0
    return value - (1.0 if c["arm"] in ("snip", "network-slimming") else 0.0)


def of_stage(p: plan.Point) -> Iterator[tuple[str, str | None, float, dict]]:
    """What the stage of a point would measure: metric, reading point, value, own conditions."""
    c, kind = {**p.base, **p.condition}, p.stage.kind
    if kind == "train":
        yield "test_accuracy_pct", "end", accuracy(c, p.trial), {}
        return
    what = p.stage.params["what"]
    if what == "top-5":
        yield "test_top5_pct", "end", accuracy(c, p.trial) + 5, {}
    if what == "mask-distances":
        for a, b in drawing.chosen_pairs(160):
            yield "mask_distance", None, 0.05 + 0.1 * (a == 1) + 0.001 * p.trial, {"from_epoch": a, "to_epoch": b}
    if what == "training-cost":
        yield (
            "training_flops",
            None,
            {"early-bird": 1.0, "dense": 1.5, "snip": 1.5, "one-shot": 3.0, "network-slimming": 2.9}.get(c["arm"], 3.0) + 0.01 * p.trial,
            {},
        )
    if what == "draw" or "clock" in p.stage.inputs:
        yield "epoch_drawn_ep", None, (14 if c.get("search") == "8bit" else 20) + p.trial, {}
        yield "search_length_pct", None, 12.5 + p.trial, {}


@pytest.fixture(scope="module")
def measured() -> list[Measurement]:
    """A made-up measurement of everything that scale paper has, with the conditions that a run would write down."""
    found = []
    for e in PAPER.experiments:
        name = e.recipe.data.name
        scaled, trials = e.scaled["paper", name], [Trial(e.recipe, FACTS[name], t) for t in range(N)]
        for arm in scaled.arms:
            for p in plan._points(e, arm, scaled, trials):
                found += [Measurement(p.protocol, {**p.condition, **own}, p.base, p.trial, 0, metric, at, value, 0.001, stage=p.stage.hash)
                          for metric, at, value, own in of_stage(p)]  # fmt: skip
    return found


def info() -> RunInfo:
    ran = {e.protocol for e in PAPER.experiments}
    manifest = {"scale": "paper", "flags": {"experiments": ()}, "skipped": {}}
    not_run = {p["id"]: measurements._not_run(p["id"], manifest, PAPER) for p in DATA.protocols if p["id"] not in ran}
    return RunInfo(PAPER.key, "paper", dict.fromkeys(ran, N), dict.fromkeys(ran, ""), not_run, provenance={"data": {}})


@pytest.fixture(scope="module")
def compared(measured) -> dict:
    return compare(DATA, measured, info())


def test_every_protocol_is_run_or_left_out_with_a_reason():
    ran, left = {e.protocol for e in PAPER.experiments}, set(PAPER.not_covered)
    assert ran | left == {p["id"] for p in DATA.protocols} and not ran & left


def test_rows_that_do_not_join_are_those_of_other_methods_and_energy(compared):
    why = collections.Counter()
    for r in compared["rows"]:
        c = r["condition"]
        if r["status"] == "measured":
            continue
        many = not isinstance(r["protocol"], str)
        why["several networks" if many else "energy" if "energy" in r["metric"] else c["arm"] if c["arm"] in ("thinet", "sfp") else "8-bit" if "8bit" in (c.get("search"), c.get("retrain"))
            else "best of several" if c.get("variant") == "best-of-eb" else f"{r['metric']} {c['arm']}"] += 1  # fmt: skip
    assert why == {
        "several networks": 6, "energy": 54, "thinet": 12, "sfp": 5, "best of several": 12,
        "detector_epsilon early-bird": 1, "detector_queue_count early-bird": 1,  # constants of the method
        "search_length_pct early-bird": 2,  # a sentence about a table: no size named
        "test_accuracy_pct early-bird": 2, "test_accuracy_pct winning-ticket": 2,  # of the older version: its FLOPs are counted, nothing is retrained
    }  # fmt: skip


def test_every_reason_is_said(compared):
    assert all(r["why_not"] for r in compared["rows"] if r["status"] != "measured")


def test_in_a_world_where_the_paper_is_right_its_claims_come_out(measured):
    judged = {c["id"]: c for c in verdicts.judge(DATA, Join(DATA, measured, info()))}
    whole = {"eb-tickets-exist", "eb-can-beat-dense", "too-early-is-worse", "over-pruning-hurts", "mask-distance-settles", "detector-fires-early",
             "large-lr-needed", "inherit-beats-reinit", "imagenet", "low-precision-ok"}  # fmt: skip
    partly = {"eb-train-accuracy": "thinet", "eb-train-cheaper": "thinet"}
    assert {i for i, c in judged.items() if c["verdict"] == "replicated"} == whole
    for claim, missing in partly.items():
        left = [p for p in judged[claim]["parts"] if p["verdict"] == "not-run"]
        assert len(left) == 6 and all(missing in p["test"] for p in left)
        assert {p["verdict"] for p in judged[claim]["parts"]} <= {"not-run", "replicated"}


def test_two_rules_are_told_apart(measured):
    join = Join(DATA, measured, info())
    want = {"arm": "early-bird", "network": "vgg16", "dataset": "cifar100", "channels_remaining_pct": 60, "epsilon": 0.1}
    assert len(join.find("mask-distance-cifar100", "epoch_drawn_ep", None, want).trials) == N
    both = [
        c
        for c in join.conditions("mask-distance-cifar100", "epoch_drawn_ep", None)
        if c["channels_remaining_pct"] == 60 and c["network"] == "vgg16"
    ]
    assert sorted(str(c.get("rule")) for c in both) == ["None", "newest"]


def test_the_recipes_are_the_papers():
    existence = DATA.protocol("eb-existence")
    for e in PAPER.experiments:
        if e.protocol != "eb-existence":
            continue
        o = e.recipe.optimizer
        printed = existence["optimizer"]
        assert (o.lr, o.momentum, o.weight_decay, o.bn_l1) == tuple(printed[k] for k in ("lr", "momentum", "weight_decay", "bn_scale_l1"))
        steps = int(e.recipe.length.removesuffix("it")) // existence["epochs"]
        assert steps == 50_000 // existence["batch_size"] and tuple(d // steps for d in o.drops_it) == tuple(
            existence["lr_schedule"]["at_epochs"]
        )
        name = f"{e.condition['network']}-{e.condition['dataset']}"
        drawn = {
            (a.options["channels_remaining_pct"], a.options["epoch_drawn"])
            for a in e.scaled["paper", e.condition["dataset"]].arms
            if a.arm == "early-bird"
        }
        assert drawn == {
            (pct, epoch) for pct in existence["pruning"]["channels_remaining_pct"][name] for epoch in existence["pruning"]["epochs_drawn"]
        }


def test_all_scales_build_their_graphs():
    digits, photos = DataFacts("digits", "f", 1437, (1, 8, 8), 10), DataFacts("photos", "f", 64, (3, 224, 224), 2, decoded=True)
    from ltcore.recipe import changed

    for e in PAPER.experiments:
        for (scale, name), scaled in e.scaled.items():
            recipe = changed(e.recipe, scaled.changes)
            facts = {"digits": digits, "photos": photos}.get(recipe.data.name) or dataclasses.replace(FACTS[recipe.data.name])
            points = [p for arm in scaled.arms for p in plan._points(e, arm, scaled, [Trial(recipe, facts, 0)])]
            assert points and all(p.stage.hash for p in points), (scale, name)


def test_rates_are_exact():
    assert [rate(pct) for pct in (90, 80, 70, 60, 50, 40, 30, 20)] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
