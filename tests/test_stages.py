"""Hashes of stages: everything that changes the numbers is in them and nothing else; golden ones for the paper's recipe."""

from __future__ import annotations

import dataclasses
import random

import pytest

from ltcore import arms, stages
from ltcore.errors import UsageError
from ltcore.imp import DataFacts, Trial
from ltcore.library import Library
from ltcore.recipe import Model, Optimizer, changed
from ltcore.stages import Stage, canonical, with_ancestors
from replications.frankle2019 import LENET

MNIST = DataFacts("mnist", "cf17c6b4", 60000, (1, 28, 28), 10)


def lenet(seed: int = 0, facts: DataFacts = MNIST, library: Library | None = None, **changes: object) -> Trial:
    return Trial(changed(LENET, {k.replace("__", "."): v for k, v in changes.items()}), facts, seed, library or Library())


# ---- golden ----------------------------------------------------------------------------------------------------
CONV = {"model.name": "conv", "model.options": {"depth": 2}, "pruning.rates": {"conv": 0.1, "fc": 0.2, "output": 0.1}}
GOLDEN = {
    "init": (lambda t: t.init().stage, "4c7bcbf9390be6790e084fa7f7976079e084ded84b055a115b4889c2158bb990"),
    "dense": (lambda t: t.ticket(0), "b4721842d6e32742b81533de210bda3227a87ff11ef698856fcb8917ba46a5b0"),
    "mask 1": (lambda t: t.mask(1).stage, "6ab9374bd7f0358bab6119e62542481ec8e565d3ef8509a94482ed4f55585aae"),
    "ticket 3": (lambda t: t.ticket(3), "96e199fb6cfbafb35a9510fbab64ef76a67c5214b72b3709c85052ff5971ee35"),
    "reinit 3": (lambda t: arms.reinit(t, 3), "a4bb904ff89e1684f42d4c75cf8c0dfce0dfc7e59471d4cdc9d92b7577c4f734"),
    "one-shot 38": (lambda t: arms.one_shot(t, 38), "5a60ac1a1979d890b0612a5a75844691a4f00b904254437b60b0b94cec7555f7"),
    "ett 3": (lambda t: arms.ett(t, 3, source="mlp-2"), "b37b21ece7037582e84982dab0afe7284629b45f0707d99eeba134f42b6a96a9"),
    "grasp 3": (lambda t: arms.grasp(t, 3), "c5a38d2e3c84bf98955d4c7064900ad5f1da1f7f0d93cb5b61075641b6854dc3"),
    "synflow 3": (lambda t: arms.synflow(t, 3), "276d3f77c3f931a46ef73692c7c9e8a6c7d088b6b13a072871eee9d1fc6de62b"),
    "rigl 3": (lambda t: arms.rigl(t, 3), "abd387234428ba487be2facf8cf24121cb68cebd115d2087bfef0e26c19a2c00"),
    "rigl conv 3": (lambda t: arms.rigl(t.with_changes(CONV), 3), "e678ae7802b88153e660ee18f5204b147f5106fa41badf7b63a94b764bea306c"),
    "path 3": (lambda t: arms.ett_path(t, 3, source="mlp-2"), "0e1f569bd6e8bf318b3a3622e310cbe70b14ce794b2f7addb7f58cc0dda757bc"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_hashes_of_the_papers_recipe(name):
    """A default that changes silently changes these. A change on purpose raises ``stages.VERSIONS`` or the recipe, and then these."""
    build, expected = GOLDEN[name]
    assert build(lenet()).hash == expected


# ---- what is in a hash -----------------------------------------------------------------------------------------
def shuffled(value, rng: random.Random):
    """The same JSON value with its mappings in another order."""
    if isinstance(value, dict):
        items = [(k, shuffled(v, rng)) for k, v in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(v, rng) for v in value] if type(value) is list else value


@pytest.mark.parametrize("seed", range(5))
def test_a_hash_does_not_depend_on_the_order_of_mappings(seed):
    rng, dense, score = random.Random(seed), lenet().ticket(0), lenet().mask(1).stage.inputs["scores"].stage
    assert Stage("train", shuffled(dict(dense.params), rng), dense.inputs).hash == dense.hash
    assert Stage("score", shuffled(dict(score.params), rng), shuffled(dict(score.inputs), rng)).hash == score.hash


CHANGES = {
    "model.name": {"library": Library(models={"mine": object}), "model": Model("mine", LENET.model.init, LENET.model.options)},
    "model.init": {"model__init": "module"}, "model.options": {"model__options": {"hidden": [300, 101]}},
    "data.val": {"data__val": 5001}, "data.options": {"data__options": {"num_train": 5}}, "data.labels": {"data__labels": "shuffled"},
    "data.augment": {"data__augment": "crop-flip"},
    "optimizer.name": {"optimizer__name": "sgd"}, "optimizer.lr": {"optimizer__lr": 1.3e-3},
    "optimizer.momentum": {"optimizer__momentum": 0.9},
    "optimizer.betas": {"optimizer__betas": (0.9, 0.99)}, "optimizer.eps": {"optimizer__eps": 1e-7},
    "optimizer.weight_decay": {"optimizer__weight_decay": 1e-4}, "optimizer.warmup_it": {"optimizer__warmup_it": 10},
    "optimizer.drops_it": {"optimizer__drops_it": (100,)}, "optimizer.factor": {"optimizer__factor": 0.2},
    "optimizer.bn_l1": {"optimizer__bn_l1": 1e-4}, "optimizer.schedule": {"optimizer__schedule": "inverse-sqrt"},
    "batch_size": {"batch_size": 61}, "length": {"length": "50001it"}, "evaluate.every_it": {"evaluate__every_it": 50},
    "evaluate.test": {"evaluate__test": ("end",)}, "evaluate.train": {"evaluate__train": ()}, "rewind": {"rewind": "100it"},
    "precision": {"precision": "fp64"}, "control": {"control": "no-training"},
}  # fmt: skip
PRUNING = {
    "pruning.rates": {"pruning__rates": {"fc": 0.2, "output": 0.2}}, "pruning.criterion": {"pruning__criterion": "random"},
    "pruning.scope": {"pruning__scope": "global"},
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_that_changes_the_dense_numbers_changes_the_hash(field):
    assert lenet(**CHANGES[field]).ticket(0).hash != lenet().ticket(0).hash


@pytest.mark.parametrize("field", PRUNING)
def test_every_field_of_pruning_changes_tickets_and_leaves_dense_alone(field):
    other = lenet(**PRUNING[field])
    assert other.ticket(1).hash != lenet().ticket(1).hash and other.ticket(0).hash == lenet().ticket(0).hash


def test_optimizer_state_changes_tickets_where_there_is_a_state_to_keep():
    kept, fresh = (lenet(rewind="100it", optimizer_state=state) for state in ("kept", "fresh"))
    assert kept.ticket(1).hash != fresh.ticket(1).hash and kept.ticket(0).hash == fresh.ticket(0).hash
    assert lenet(optimizer_state="kept").ticket(1).hash == lenet().ticket(1).hash  # rewound to 0 there is none


def test_every_field_of_the_recipe_is_accounted_for():
    """A new field must be put into CHANGES or PRUNING, or be named here with its reason."""
    parts = {
        "model": Model,
        "data": type(LENET.data),
        "optimizer": Optimizer,
        "evaluate": type(LENET.evaluate),
        "pruning": type(LENET.pruning),
        "task": type(LENET.task),
    }
    fields = {f.name for f in dataclasses.fields(LENET)} - set(parts)
    fields |= {f"{part}.{f.name}" for part, cls in parts.items() for f in dataclasses.fields(cls)}
    elsewhere = {
        "data.name": "test_data_facts_change_the_hash", "optimizer_state": "the test above",
        "pruning.counts": "says what a printed percentage is of; changes no number", "optimizer.alpha": "rmsprop's, the test below",
        "task.name": "the test below", "task.options": "the test below",
    }  # fmt: skip
    assert fields == set(CHANGES) | set(PRUNING) | set(elsewhere)


def test_what_only_some_recipes_use_is_in_the_hash_there_and_nowhere_else():
    assert lenet(optimizer__alpha=0.9).ticket(0).hash == lenet().ticket(0).hash
    assert lenet(optimizer__name="rmsprop", optimizer__alpha=0.9).ticket(0).hash != lenet(optimizer__name="rmsprop").ticket(0).hash
    assert lenet(task__options={"some": 1}).ticket(0).hash == lenet().ticket(0).hash  # to classify leaves nothing open


def test_an_unknown_task_is_refused():
    with pytest.raises(UsageError, match="unknown task.name 'clasify'.*classify"):
        lenet(task__name="clasify")


@pytest.mark.parametrize("change", [{"name": "other"}, {"fingerprint": "ffff"}, {"input_shape": (1, 28, 27)}, {"classes": 11}])
def test_data_facts_change_the_hash(change):
    assert lenet(facts=dataclasses.replace(MNIST, **change)).ticket(0).hash != lenet().ticket(0).hash


def test_seeds_and_draws_change_the_hash():
    hashes = [lenet(seed=s).ticket(0).hash for s in range(3)] + [arms.reinit(lenet(), 3, draw).hash for draw in range(3)]
    assert len(set(hashes)) == 6


def test_a_users_source_changes_the_hash_of_what_it_touches_only():
    users = Library(user={("criteria", "magnitude"): "aa"})
    assert (
        lenet(library=users).ticket(0).hash
        == lenet().ticket(0).hash
        != lenet(library=Library(user={("models", "lenet"): "aa"})).ticket(0).hash
    )
    assert lenet(library=users).ticket(1).hash != lenet().ticket(1).hash
    assert lenet(library=Library(user={("datasets", "mnist"): "aa"})).ticket(0).hash != lenet().ticket(0).hash


def test_the_version_of_a_kind_is_in_the_hash(monkeypatch):
    before = {kind: Stage(kind, {}).hash for kind in stages.VERSIONS}
    monkeypatch.setattr(stages, "VERSIONS", {kind: version + 1 for kind, version in stages.VERSIONS.items()})
    assert len(set(before.values())) == 6 and not set(before.values()) & {Stage(kind, {}).hash for kind in stages.VERSIONS}


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_what_is_not_json_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        canonical({"x": value})


def test_an_input_is_told_by_stage_artefact_and_role():
    a = lenet().ticket(0)
    by = [Stage("score", {}, i).hash for i in ({"weights": a.out("state")}, {"start": a.out("state")}, {"weights": a.out("optimizer")}, {})]
    assert len(set(by)) == 4


# ---- what is shared --------------------------------------------------------------------------------------------
def graph(trial: Trial, levels: int) -> set[str]:
    return {s.hash for s in with_ancestors(trial.ticket(n) for n in range(levels + 1))}


def test_more_levels_reuse_those_before():
    assert graph(lenet(), 3) < graph(lenet(), 5)
    assert len(graph(lenet(), 5)) == 1 + 6 + 2 * 5  # init, six runs, five scores and masks


def test_iterative_and_one_shot_share_the_dense_run_and_trials_share_nothing():
    iterative, one_shot = graph(lenet(), 2), {s.hash for s in with_ancestors([arms.one_shot(lenet(), 20), arms.one_shot(lenet(), 38)])}
    assert iterative & one_shot == {lenet().init().stage.hash, lenet().ticket(0).hash}
    assert not graph(lenet(), 2) & graph(lenet(seed=1), 2)


def test_rewinding_recipes_share_the_prefix_only_where_k_is_the_same():
    a, b = lenet(rewind="100it"), lenet(rewind="100it", pruning__criterion="random")
    assert a.rewound() == b.rewound() and a.rewound() != lenet(rewind="200it").rewound()


def test_one_epoch_is_so_many_iterations():
    assert lenet(length="2ep").length_it == 2 * (55_000 // 60) and lenet(rewind="1ep").rewind_it == 916


# ---- order -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("level", [0, 4, 60])
def test_with_ancestors_gives_each_stage_once_and_parents_first(level):
    trial = lenet()
    order = with_ancestors([arms.reinit(trial, level), trial.ticket(level), arms.one_shot(trial, 38)] if level else [trial.ticket(0)])
    place = {s.hash: i for i, s in enumerate(order)}
    assert len(place) == len(order)
    for s in order:
        assert all(place[out.stage.hash] < place[s.hash] for out in s.inputs.values())


def test_with_ancestors_is_the_same_every_time():
    assert [s.hash for s in with_ancestors([lenet().ticket(4)])] == [s.hash for s in with_ancestors([lenet().ticket(4)])]
