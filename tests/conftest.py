"""Fixtures that several test files share: a small data set, a small recipe, and a way to run a graph in this process."""
from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from ltcore import data, kinds
from ltcore.imp import DataFacts, Trial
from ltcore.library import Library
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe
from ltcore.stages import Stage, with_ancestors

torch.set_num_threads(1)


def make_small() -> data.Dataset:
    """200 + 60 examples of 12 numbers in 3 classes that a small net can learn."""
    g = torch.Generator().manual_seed(7)
    centres = 2 * torch.randn(3, 12, generator=g)
    y = torch.randint(3, (260,), generator=g)
    x = centres[y] + torch.randn(260, 12, generator=g)
    return data.from_user("small", (x[:200], y[:200], x[200:], y[200:]))


@pytest.fixture(scope="session")
def small_data() -> data.Dataset:
    return make_small()


RECIPE = Recipe(
    Model("lenet", options={"hidden": [16, 8]}), Data("small", val=40), Optimizer("adam", 1e-2), 10, "48it",
    Evaluate(8, ("early-stop", "end"), ("end",)), Pruning({"fc": 0.2, "output": 0.1}), precision="fp64",
)  # fmt: skip


def trial(small: data.Dataset, seed: int = 0, recipe: Recipe = RECIPE, library: Library | None = None, **changes: object) -> Trial:
    facts = DataFacts(small.name, small.fingerprint, len(small.train), small.input_shape, small.classes)
    return Trial(dataclasses.replace(recipe, **changes), facts, seed, library or Library())


def run_all(stages: Iterable[Stage], small: data.Dataset, library: Library | None = None, **env: object) -> dict[Stage, kinds.Result]:
    """Runs a graph in this process, one stage after another."""
    env_ = kinds.Env(library or Library(), lambda _: small, **env)
    done: dict[Stage, kinds.Result] = {}
    for stage in with_ancestors(stages):
        inputs = {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}
        done[stage] = kinds.run([kinds.Job(stage.kind, stage.params, inputs)], env_)[0]
    return done


def image_folder(base: Path, classes: int, n_train: int, n_val: int) -> Path:
    """train and val below ``base``, torchvision's layout: JPEG files of several sizes, brighter from class to class."""
    generator = np.random.default_rng(0)
    for part, n in (("train", n_train), ("val", n_val)):
        for label in range(classes):
            folder = base / part / f"n{label:02d}"
            folder.mkdir(parents=True)
            for i in range(n):
                coarse = generator.integers(0, 120, (5, 7, 3)) + 40 * label
                Image.fromarray(coarse.astype(np.uint8)).resize((40 + i, 30 + 3 * label)).save(folder / f"{i}.JPEG")
    return base


# ---- the command line ----------------------------------------------------------------------------------------
ROOT = Path(__file__).parent.parent


def environment(**more: str) -> dict[str, str]:
    """One thread, no data folder: what is run then needs no file."""
    kept = {k: v for k, v in os.environ.items() if k not in ("LTCORE_DATA", "LTCORE_STORE")}
    return kept | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | more


def bench(*args: object, timeout_s: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
    """``python -m bench`` with these arguments, from the folder above the tests."""
    command = [sys.executable, "-m", "bench", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=environment(**env), capture_output=True, text=True, timeout=timeout_s)


class Smoke(NamedTuple):
    """A store that holds frankle2019 at scale smoke, and what the run printed."""

    root: Path
    stdout: str
    stderr: str
    journal: str  # as it was right after the run


@pytest.fixture(scope="session")
def smoke_store(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """Trained once for all tests; they may add stages and manifests to it, but must not break it."""
    root = tmp_path_factory.mktemp("smoke") / "store"
    done = bench("replicate", "frankle2019", "--scale", "smoke", "--store", root)
    assert done.returncode == 0, done.stderr
    return Smoke(root, done.stdout, done.stderr, (root / "journal.jsonl").read_text())
