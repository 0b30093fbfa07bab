"""elastic2021: what its experiments declare is what the paper's rows and claims look for, and the networks are the paper's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from bench import plan
from bench.compare import compare
from bench.joins import Join
from bench.measurement import Measurement, RunInfo
from ltcore.imp import DataFacts, Trial
from replications import papers, registry
from tests.made_up import every_part_is_found

FACTS = {"cifar10": DataFacts("cifar10", "made-up", 50_000, (3, 32, 32), 10), "mnist": DataFacts("mnist", "made-up", 60_000, (1, 28, 28), 10)}
DATA, PAPER = papers.load("elastic2021"), registry.load("elastic2021")
OURS = tuple(dict.fromkeys(e.protocol for e in PAPER.experiments))
N = 3
NAMED = (3, 6, 8, 10)  # the levels that claims and rows name; the sweeps between them are the same arms

LOSSES = {  # points below the ticket at level 10, in a world where the paper is right
    "ett": 0.1, "ett-reinit": 3.0, "ett-random-mask": 3.0, "ett-source-mask-snip": 2.0, "ett-permuted-replicas": 1.5, "snip": 2.0, "grasp": 2.5,
    "magnitude-at-init": 1.5, "synflow": 2.0, "reinit": 3.0, "random-mask": 3.0, "ticket": 0.0, "dense": -0.5, "rigl": 1.0,
}  # fmt: skip
FEWER = {"": 0.1, "1234": 0.1, "12": 0.3, "23": 0.4, "34": 0.6, "1": 1.5}  # blocks that were replicated


def accuracy(c: dict, trial: int) -> float:
    loss = LOSSES[c["arm"]]
    if c["arm"] == "ett":
        loss = 2.0 if c.get("drop") == "1234" else FEWER[c.get("replicate", "")]
        loss += {"resnet14": 1.6, "resnet20": 0.5}.get(c["source"], 0.0)
    return 92 - loss * (0.3 if c.get("level", 10) == 3 else 1) + 0.02 * trial * (1 + (c["arm"] == "ett"))


def drop(c: dict, trial: int) -> float:
    return {"resnet14": 69.7, "resnet20": 8.7}.get(c.get("source"), 2.0) + 0.1 * trial


def measured() -> Iterator[Measurement]:
    """A made-up measurement of every point at the named levels, with the conditions that a run would write down."""
    for e in PAPER.experiments:
        name = e.recipe.data.name
        scaled, trials = e.scaled["paper", name], [Trial(e.recipe, FACTS[name], t) for t in range(N)]
        for arm in scaled.arms:
            levels = arm.levels or tuple(n for n in NAMED if n <= scaled.levels)
            for p in plan._points(e, dataclasses.replace(arm, levels=levels), scaled, trials):
                c = {**p.base, **p.condition}
                path = p.stage.kind == "measure"
                metric, at, v = ("max_accuracy_drop_on_path_pp", None, drop(c, p.trial)) if path else ("test_accuracy_pct", "end", accuracy(c, p.trial))
                yield Measurement(p.protocol, p.condition, p.base, p.trial, 0, metric, at, v, 0.01, stage=p.stage.hash)


def info() -> RunInfo:
    return RunInfo("elastic2021", "paper", dict.fromkeys(OURS, N), dict.fromkeys(OURS, ""), dict(PAPER.not_covered))


@pytest.fixture(scope="module")
def world() -> list[Measurement]:
    return list(measured())


def test_every_protocol_is_declared_or_says_why_not():
    assert set(OURS) | set(PAPER.not_covered) == {p["id"] for p in DATA.protocols} and not set(OURS) & set(PAPER.not_covered)


def test_every_row_of_a_declared_protocol_is_measured(world):
    found = {r["id"]: r for r in compare(DATA, world, info())["rows"]}
    for row in DATA.published:
        r = found[row.id]
        assert r["status"] == ("measured" if row.protocol in OURS else "not-run"), (row.id, r["why_not"])
        assert row.protocol not in OURS or r["measured"]["n"] == N and r["comparable"]
    assert sum(r["status"] == "measured" for r in found.values()) == 9 + 9 + 2  # Table 5 twice, and the two paths of Sec 4.4


OURS_ALONE = [c.id for c in DATA.claims if not c.custom and not any("imagenet" in p for p in c.protocols or ())]


@pytest.mark.parametrize("claim_id", OURS_ALONE)
def test_every_part_of_every_claim_finds_its_measurements(claim_id, world):
    every_part_is_found(DATA, claim_id, Join(DATA, world, info()), N)


def test_claims_are_replicated_in_a_world_where_the_paper_is_right(world):
    found = {c["id"]: c["verdict"] for c in compare(DATA, world, info())["claims"]}
    assert {c: found.pop(c) for c in OURS_ALONE} == dict.fromkeys(OURS_ALONE, "replicated")
    assert found == {"ett-beats-controls-imagenet": "not-run", "imagenet-solid": "not-run", "drops-do-not-stack": "not-run"}


def test_experiments_of_one_protocol_share_their_tickets():
    """The source's IMP run of one target is the reference ticket of another: trained once."""
    by_target = {e.condition["target"]: e for e in PAPER.experiments if e.protocol == "mnist-mlp-depth"}
    trials = {target: Trial(e.recipe, FACTS["mnist"], 0) for target, e in by_target.items()}
    moved = plan.core_arms.ett(trials["mlp-3"], 10, source="mlp-2")
    assert moved.inputs["mask"].stage.inputs["mask"] == trials["mlp-2"].mask(10)
    assert trials["mlp-2"].recipe.model.options == {"hidden": [300, 300, 100]}


def test_a_level_that_the_file_fixes_and_no_row_names_is_no_condition():
    points = [p for e in PAPER.experiments if e.protocol == "cifar10-linear-mode-connectivity"
              for arm in e.scaled["paper", "cifar10"].arms for p in plan._points(e, arm, e.scaled["paper", "cifar10"], [Trial(e.recipe, FACTS["cifar10"], 0)])]  # fmt: skip
    assert [p.base["level"] for p in points] == DATA.protocol("cifar10-linear-mode-connectivity")["levels_ours"] * 3
    assert all("level" not in p.condition for p in points)


def test_what_the_recipes_prune_and_when_is_the_files():
    for e in PAPER.experiments:
        file = DATA.protocol(e.protocol)
        assert set(e.recipe.pruning.rates.values()) == {file["pruning"]["rate_per_round"]} and e.recipe.pruning.scope == file["pruning"]["scope"]
        assert e.recipe.pruning.counts == file["pct_counts"]
        if file["dataset"]["name"] == "CIFAR-10":
            o, per_epoch = e.recipe.optimizer, 390
            assert e.recipe.rewind == file["pruning"]["rewind"] and e.recipe.batch_size == file["batch_size"]
            assert (o.lr, o.momentum, o.weight_decay) == tuple(file["optimizer"][k] for k in ("lr", "momentum", "weight_decay"))
            assert list(o.drops_it) == [n * per_epoch for n in file["lr_schedule"]["at_epochs"]] and e.recipe.length == f"{file['epochs'] * per_epoch}it"
