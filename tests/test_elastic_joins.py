"""elastic2021: what its experiments declare is what the paper's rows and claims look for, and the networks are the paper's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import yaml

from bench import claims, custom, plan, verdicts
from bench.compare import compare
from bench.joins import Join
from bench.measurement import Measurement, RunInfo
from ltcore.imp import DataFacts, Source, Trial
from ltcore.recipe import Recipe, changed
from replications import papers, registry
from replications.schema import Scaled
from tests.made_up import every_part_is_found

FACTS = {
    "cifar10": DataFacts("cifar10", "made-up", 50_000, (3, 32, 32), 10), "mnist": DataFacts("mnist", "made-up", 60_000, (1, 28, 28), 10),
    "svhn": DataFacts("svhn", "made-up", 73_257, (3, 32, 32), 10),
    "imagenet": DataFacts("imagenet", "made-up", 1_281_167, (3, 224, 224), 1000, decoded=True),
}  # fmt: skip
DATA, PAPER = papers.load("elastic2021"), registry.load("elastic2021")
OURS = tuple(dict.fromkeys(e.protocol for e in PAPER.experiments))
N = 3
NAMED = (3, 6, 8, 10)  # the levels that claims and rows name; the sweeps between them are the same arms

LOSSES = {  # points below the ticket at level 10, in a world where the paper is right
    "ett": 0.1, "ett-reinit": 3.0, "ett-random-mask": 3.0, "ett-source-mask-snip": 2.0, "ett-permuted-replicas": 1.5, "snip": 2.0, "grasp": 2.5,
    "magnitude-at-init": 1.5, "synflow": 2.0, "reinit": 3.0, "random-mask": 3.0, "ticket": 0.0, "dense": -0.5, "rigl": 1.0, "direct-transfer": 1.0,
}  # fmt: skip
FEWER = {"": 0.1, "1234": 0.1, "12": 0.3, "23": 0.4, "34": 0.6, "1": 1.5}  # blocks that were replicated


def accuracy(c: dict, trial: int) -> float:
    loss = LOSSES[c["arm"]]
    if c["arm"] == "ett":
        loss = 2.0 if c.get("drop") == "1234" else FEWER[c.get("replicate", "")]
        loss += {"resnet14": 1.6, "resnet20": 0.5}.get(c["source"], 0.0)
        loss += 0.6 * (c.get("source_dataset") != c.get("target_dataset"))  # together 1.2, alone 0.6 (the depth) and 1.0
    return 92 - loss * (0.3 if c.get("level", 10) == 3 else 1) + 0.02 * trial * (1 + (c["arm"] == "ett"))


def drop(c: dict, trial: int) -> float:
    return {"resnet14": 69.7, "resnet20": 8.7}.get(c.get("source"), 2.0) + 0.1 * trial


def given(recipe: Recipe, scaled: Scaled) -> dict[str, Source]:
    """Where tickets of other data sets come from."""
    recipes = {n: changed(recipe, changes) for n, changes in scaled.sources.items()}
    return {n: Source(r, FACTS[r.data.name]) for n, r in recipes.items()}


def measured() -> Iterator[Measurement]:
    """A made-up measurement of every point at the named levels, with the conditions that a run would write down."""
    for e in PAPER.experiments:
        name = e.recipe.data.name
        scaled = e.scaled["paper", name]
        trials = [Trial(e.recipe, FACTS[name], t, sources=given(e.recipe, scaled)) for t in range(N)]
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


COSTS = ("training_flops_ratio", "wall_time_s")  # printed for one training, or computed for several: nothing here is measured so


def test_every_row_of_a_declared_protocol_is_measured(world):
    found = {r["id"]: r for r in compare(DATA, world, info())["rows"]}
    for row in DATA.published:
        r = found[row.id]
        wanted = "not-run" if row.protocol not in OURS else "not-covered" if row.metric in COSTS else "measured"
        assert r["status"] == wanted, (row.id, r["why_not"])
        assert wanted != "measured" or r["measured"]["n"] == N and r["comparable"]
    measured_ids = [id_.partition("-")[0] for id_, r in found.items() if r["status"] == "measured"]
    tables = {n: measured_ids.count(n) for n in sorted({*measured_ids})}
    assert tables == {"t1": 27, "t2": 6, "t5": 18, "t6": 12, "t7": 4, "lmc": 2}


def test_a_wrong_condition_finds_nothing(world):
    """The rows of Tables 6 and 7 name no size and little else: what is told apart is told apart all the same."""
    join, end = Join(DATA, world, info()), "end"
    moved = {"source": "resnet20", "source_dataset": "svhn", "target": "resnet32", "target_dataset": "cifar10"}
    want = {"arm": "ett", **moved, "rewind": "1000it"}
    assert join.find("cross-dataset-architecture", "test_accuracy_pct", end, want).status == "measured"
    for key, wrong in (("source_dataset", "imagenet"), ("target", "resnet20"), ("arm", "direct-transfer"), ("rewind", "0it")):
        assert join.find("cross-dataset-architecture", "test_accuracy_pct", end, {**want, key: wrong}).status != "measured", key
    want = {"arm": "ett", "source": "resnet26", "source_dataset": "imagenet", "target_dataset": "cifar10", "level": 6}
    assert join.find("imagenet-to-cifar10", "test_accuracy_pct", end, want).status == "measured"
    assert join.find("imagenet-to-cifar10", "test_accuracy_pct", end, {**want, "source": "resnet34"}).status != "measured"


OURS_ALONE = [c.id for c in DATA.claims if not c.custom]


@pytest.mark.parametrize("claim_id", OURS_ALONE)
def test_every_part_of_every_claim_finds_its_measurements(claim_id, world):
    every_part_is_found(DATA, claim_id, Join(DATA, world, info()), N)


def test_claims_are_replicated_in_a_world_where_the_paper_is_right(world):
    found = {c["id"]: c["verdict"] for c in compare(DATA, world, info())["claims"]}
    assert found == dict.fromkeys([c.id for c in DATA.claims], "replicated")


def test_losses_that_stack_are_three_losses_of_six_accuracies(world):
    """Together 1.2 and a little for each trial, alone 1.0 and 0.6: below 0 by 0.4."""
    claim = next(c for c in compare(DATA, world, info())["claims"] if c["id"] == "drops-do-not-stack")
    assert [p["effect"] for p in claim["parts"]] == [pytest.approx(-0.4)] * 2 and "svhn to cifar10" in claim["parts"][0]["test"]
    both = {"arm": "ett", "source_dataset": "svhn", "target_dataset": "cifar10"}
    dear = [dataclasses.replace(m, value=m.value - 3) if both.items() <= m.condition.items() else m for m in world]
    claim = next(c for c in compare(DATA, dear, info())["claims"] if c["id"] == "drops-do-not-stack")
    assert [p["verdict"] for p in claim["parts"]] == ["not-replicated", "replicated"] and claim["verdict"] == "not-replicated"


def test_the_papers_own_numbers_of_table_6_are_those_of_its_file():
    """From the printed accuracies: 3.55 - 3.86 - 0.32 and 0.53 - 0.51 - 0.84."""
    rows = [r for r in DATA.published if r.protocol == "cross-dataset-architecture"]
    conditions = [{k: v for k, v in r.condition.items() if k not in ("at", "table")} for r in rows]
    told = [Measurement(r.protocol, c, {}, 0, 0, r.metric, "end", r.value, 0.01) for r, c in zip(rows, conditions)]
    join = Join(DATA, told, info())
    parts = list(claims.parts(custom.drops_do_not_stack()))
    effects = [sum(o.sign * verdicts.look_up(o, join)[0][0].value for o in p.operands) for p in parts]
    own = next(c for c in yaml.safe_load(DATA.path.read_text(encoding="utf-8"))["claims"] if c["id"] == "drops-do-not-stack")["own_numbers"]
    assert effects == pytest.approx([own["svhn-to-cifar10"], own["cifar10-to-svhn"]])


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
        if file["dataset"]["name"] in ("CIFAR-10", "ImageNet"):
            o, per_epoch = e.recipe.optimizer, {"CIFAR-10": 390, "ImageNet": 1251}[file["dataset"]["name"]]
            assert o.warmup_it == file["warmup_epochs"] * per_epoch
            assert e.recipe.rewind == file["pruning"]["rewind"] and e.recipe.batch_size == file["batch_size"]
            assert (o.lr, o.momentum, o.weight_decay) == tuple(file["optimizer"][k] for k in ("lr", "momentum", "weight_decay"))
            assert list(o.drops_it) == [n * per_epoch for n in file["lr_schedule"]["at_epochs"]] and e.recipe.length == f"{file['epochs'] * per_epoch}it"
