"""Fixtures that several test files share: a small data set, a small recipe, and a way to run a graph in this process."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
import torch

from ltcore import data, kinds
from ltcore.imp import DataFacts, Trial
from ltcore.library import Library
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe
from ltcore.stages import Stage, with_ancestors

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_data() -> data.Dataset:
    """200 + 60 examples of 12 numbers in 3 classes that a small net can learn."""
    g = torch.Generator().manual_seed(7)
    centres = 2 * torch.randn(3, 12, generator=g)
    y = torch.randint(3, (260,), generator=g)
    x = centres[y] + torch.randn(260, 12, generator=g)
    return data.from_user("small", (x[:200], y[:200], x[200:], y[200:]))


RECIPE = Recipe(
    Model("lenet", options={"hidden": [16, 8]}), Data("small", val=40), Optimizer("adam", 1e-2), 10, "48it",
    Evaluate(8, ("early-stop", "end"), ("end",)), Pruning({"fc": 0.2, "output": 0.1}), precision="fp64",
)  # fmt: skip


def trial(small: data.Dataset, seed: int = 0, recipe: Recipe = RECIPE, **changes: object) -> Trial:
    facts = DataFacts(small.name, small.fingerprint, len(small.train), small.input_shape, small.classes)
    return Trial(dataclasses.replace(recipe, **changes), facts, seed)


def run_all(stages: Iterable[Stage], small: data.Dataset, library: Library | None = None, **env: object) -> dict[Stage, kinds.Result]:
    """Runs a graph in this process, one stage after another."""
    env_ = kinds.Env(library or Library(), lambda _: small, **env)
    done: dict[Stage, kinds.Result] = {}
    for stage in with_ancestors(stages):
        inputs = {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}
        done[stage] = kinds.run([kinds.Job(stage.kind, stage.params, inputs)], env_)[0]
    return done
