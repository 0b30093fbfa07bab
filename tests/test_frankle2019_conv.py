"""The convolutional half of frankle2019: what is declared measures what the paper's file asks for, on networks of the file's sizes."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench import compare, measurements, plan
from bench.measurement import Measurement, RunInfo
from ltcore.imp import DataFacts, Trial
from ltcore.pruning import count
from replications import frankle2019_conv as conv
from replications import papers
from replications.frankle2019 import PAPER
from replications.schema import Experiment
from tests.conftest import bench

FACTS = DataFacts("cifar10", "made-up", 50_000, (3, 32, 32), 10)
DATA = papers.load("frankle2019")
CONV = [e for e in PAPER.experiments if e.recipe.data.name == "cifar10"]
KEYS = ("conv_rate_per_round", "warmup_iterations", "pruned", "scope", "lr", "arms")  # what a sweep varies
# Rows that name no size ("up to") can't be measured at one.
NO_SIZE = {"conv2-val-lr4e-4-best", "dropout-ticket-gain-conv2", "dropout-ticket-gain-conv4", "dropout-ticket-gain-conv6"}


def read(e: Experiment) -> Iterator[tuple[str, str | None]]:
    """(metric, reading point) of a training run of this recipe; validation is read wherever anything is."""
    evaluate = e.recipe.evaluate
    everywhere = {*evaluate.test, *evaluate.train, "early-stop", "end"}
    for split, points in (("test", evaluate.test), ("train", evaluate.train), ("val", everywhere)):
        yield from ((f"{split}_accuracy_pct", at) for at in points)
    yield "early_stop_it", None


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    """The comparison of made-up measurements of everything that scale paper would train on CIFAR-10: one trial, one draw."""
    made = []
    for e in CONV:
        scaled, trial = e.scaled["paper", "cifar10"], Trial(e.recipe, FACTS, 0)
        for arm in scaled.arms:
            for p in plan._points(e, dataclasses.replace(arm, draws=1), scaled, [trial]):
                base = {**p.base, **measurements._percent({"protocol": p.protocol, "condition": p.condition}, DATA, None, False)}
                made += [Measurement(p.protocol, p.condition, base, 0, 0, metric, at, 1.0, 0.0) for metric, at in read(e)]
    return compare.compare(DATA, made, RunInfo("frankle2019", "paper", {}, {}, {}, {}))


# ---- everything in the file is declared ------------------------------------------------------------------------
def test_every_protocol_of_the_file_is_declared():
    named = {p for r in (*DATA.published, *DATA.figure_data) for p in ([r.protocol] if isinstance(r.protocol, str) else r.protocol)}
    assert named | {p["id"] for p in DATA.protocols} == {e.protocol for e in PAPER.experiments} and not PAPER.not_covered


def test_every_row_on_cifar10_is_measured_but_those_without_a_size(compared):
    rows = [r for r in compared["rows"] if "lenet" not in str(r["protocol"])]
    assert len(rows) == 226
    assert {r["id"]: r["why_not"] for r in rows if r["status"] != "measured"} == dict.fromkeys(NO_SIZE, "no size named")


def test_every_point_of_the_figures_is_measured(compared):
    curves = [c for c in compared["curves"] if "lenet" not in c["protocol"]]
    assert len(curves) == 66 and [c["id"] for c in curves if c["measured"] < c["points"]] == []


def test_every_claim_about_cifar10_finds_its_numbers(compared):
    parts = [p for c in compared["claims"] for p in c["parts"] if "lenet" not in p["protocol"]]
    assert len(parts) > 50 and [p["test"] for p in parts if p["verdict"] == "not-run"] == []


def test_every_variant_and_setting_of_the_sweeps_is_declared():
    """The file's lists; what the net itself is stands in ``strategy`` (Adam) or ``lr`` (no warm-up) instead."""
    for p in DATA.protocols:
        mine = [e for e in CONV if e.protocol == p["id"]]
        assert {v["id"] for v in p.get("variants", ())} == {e.variant for e in mine if "variant" in e.condition}
        for sweep in (p.get("sweeps", ()) if mine else ()):
            ids = {sweep["id"], "strategy" if sweep["id"] == "adam-lr" else ""}
            here = [{**e.base, **e.condition} for e in mine if e.variant.partition("-")[2] in ids]
            key = next(k for k in KEYS if isinstance(sweep.get(k), list))
            expected = set(sweep[key]) - ({0} if key == "warmup_iterations" else {"global"} if key == "scope" else set())
            assert key == "arms" or {c[key] for c in here if key in c} == expected, (p["id"], sweep["id"])


def test_recipes_are_the_papers():
    for e in conv.MAIN:
        p, r = DATA.protocol(e.protocol), e.recipe
        variant = next((v for v in p.get("variants", ()) if v["id"] == e.variant), {})
        assert r.optimizer.lr == variant.get("lr", p["optimizer"]["lr"]) and r.optimizer.warmup_it == variant.get("warmup_iterations", 0)
        assert r.length == f"{p['iterations']}it" and r.batch_size == p["batch_size"] and r.data.val == p["dataset"]["val"]
        assert r.model.options.get("dropout", 0) == p.get("dropout", 0) and r.rewind == p["pruning"]["rewind"]
        assert r.pruning.scope == (variant.get("scope") or p["pruning"]["scope"].split()[0]) and r.pruning.counts == p["pct_counts"]
        assert r.pruning.rates in (p["pruning"]["rate_per_round"], {"conv": p["pruning"]["rate_per_round"]})
        assert r.data.augment == ("none" if p["dataset"]["augmentation"].startswith("none") else "crop-flip")
        if variant:
            assert (r.optimizer.name, r.optimizer.momentum, r.optimizer.weight_decay) == ("sgd", 0.9, 1e-4)
            assert list(r.optimizer.drops_it) == p["lr_schedule"]["at_iterations"]
            assert {f"{t}it" for t in p["measured_at_iterations"]} < set(r.evaluate.test)
        else:
            assert (r.optimizer.name, r.evaluate.every_it, e.scaled["paper", "cifar10"].trials) == ("adam", p["eval_every"], p["trials"])


def test_gates_are_rows_of_the_dense_net_with_a_range():
    rows = {r.id: r for r in DATA.published}
    gated = [e for e in conv.MAIN if e.gate]
    layerwise = {e.id for e in conv.MAIN if e.variant.endswith("-layerwise")}  # the file has no row of their dense nets
    assert {e.id for e in conv.MAIN} - {e.id for e in gated} == layerwise
    for e in gated:
        row = rows[e.gate]
        assert row.protocol == e.protocol and row.condition["arm"] == "dense" and row.spread.min < row.value < row.spread.max
        assert e.variant == row.condition.get("variant", "")


# ---- sizes ---------------------------------------------------------------------------------------------------
SIZES = {  # kind -> weights of each layer, as the paper's file has them
    "conv2-cifar10": {"conv": (1728, 36864), "fc": (4194304, 65536), "output": (2560,)},
    "conv4-cifar10": {"conv": (1728, 36864, 73728, 147456), "fc": (2097152, 65536), "output": (2560,)},
    "conv6-cifar10": {"conv": (1728, 36864, 73728, 147456, 294912, 589824), "fc": (1048576, 65536), "output": (2560,)},
    "vgg19-cifar10": {"conv": (20018880,), "output": (5120,)},  # one number for all convolutions: global pruning
    "resnet18-cifar10": {"conv": (267696,), "shortcut": (2560,), "output": (640,)},
}


@pytest.mark.parametrize("protocol", SIZES)
def test_prunings_reach_the_sizes_of_the_ladder(protocol):
    e = next(e for e in conv.MAIN if e.protocol == protocol)
    left, rates = {kind: list(sizes) for kind, sizes in SIZES[protocol].items()}, e.recipe.pruning.rates
    total, ladder = sum(map(sum, left.values())), DATA.ladder(protocol)
    for level in range(1, e.scaled["paper", "cifar10"].levels + 1):
        left = {kind: [n - count(rates.get(kind, 0.0), n) for n in sizes] for kind, sizes in left.items()}
        assert 100 * sum(map(sum, left.values())) / total == pytest.approx(ladder[level], abs=0.1), level
    assert level == max(ladder)


# ---- scales --------------------------------------------------------------------------------------------------
def test_nothing_of_it_is_quick_and_it_says_why():
    assert all(e.why_not_quick.startswith("needs a GPU") and {s for s, _ in e.scaled} <= {"paper", "smoke"} for e in CONV)


def test_names_in_a_manifest_are_unique():
    assert len({e.label for e in PAPER.experiments}) == len(PAPER.experiments)


def test_a_miniature_runs(tmp_path):
    """Augmentation, warm-up, batch norm, global pruning and a reading in mid-run, through the command line."""
    args = ("frankle2019", "--scale", "smoke", "--experiment", "vgg19-lr0.1-warmup", "--store", tmp_path / "store")
    done = bench("replicate", *args, "--json")
    assert done.returncode == 0, done.stderr
    rows = {r["id"]: r for r in json.loads(done.stdout)["rows"]}
    assert rows["fig7-112K-lr0.1-warmup-ticket-p100.0"]["status"] != "measured"  # 112,000 iterations are not in a run of 30
    assert rows["vgg-dense-acc-warmup"]["status"] == "measured" and not rows["vgg-dense-acc-warmup"]["comparable"]
