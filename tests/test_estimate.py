"""``plan``'s summary: counts, chains and how seconds follow from costs; never how fast anything is."""
from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest

from bench import effort, estimate, plan
from bench.estimate import Cost
from bench.flags import Flags
from bench.store import Store
from ltcore.stages import Stage
from replications import registry


@pytest.fixture(scope="module")
def smoke():
    return plan.make(registry.load("frankle2019"), Flags("smoke", ("lenet-mnist",)))


@pytest.fixture
def known(monkeypatch):
    """1 ms a step and 1 µs an example for every kind of training, instead of timing it."""
    timed = []

    def cost(stage, *_):
        timed.append(stage)
        return Cost(1e-3, 1e-6, 1, 1000)

    monkeypatch.setattr(estimate, "_timed", cost)
    return timed


def train(i: int, *parents: Stage, iterations: int = 10) -> Stage:
    return Stage("train", {"i": i, "start": 0, "stop": iterations}, {f"p{n}": p.out("state") for n, p in enumerate(parents)})


def test_the_longest_chain_goes_through_stages_that_are_not_counted():
    first, other = train(1), train(2)
    score = Stage("score", {}, {"weights": first.out("state")})
    mask = Stage("prune", {}, {"scores": score.out("scores")})
    second = Stage("train", {"i": 3}, {"state": first.out("state"), "mask": mask.out("mask")})
    assert effort.longest_chain({}) == 0
    assert effort.longest_chain({first: 2.0, other: 4.0, second: 3.0}) == 5.0
    assert effort.longest_chain({first: 2.0, other: 6.0, second: 3.0}) == 6.0
    assert effort.longest_chain({other: 1.0, second: 3.0}) == 3.0  # the first is done


def test_everything_is_to_do_without_a_store_and_after_an_empty_one(smoke, known, tmp_path):
    without = estimate.summary(smoke, None, "cpu", 2)
    assert without == estimate.summary(smoke, Store(tmp_path / "store"), "cpu", 2)
    assert sum(n["total"] for n in without["stages"].values()) == len(smoke.stages)
    assert all(n["done"] == 0 and n["to_do"] == n["total"] > 0 for n in without["stages"].values())
    assert without["iterations"] == plan.iterations(smoke.stages) > 0


def test_seconds_are_work_over_workers_but_not_less_than_the_longest_chain(smoke, known):
    by_workers = {n: estimate.summary(smoke, None, "cpu", n) for n in (1, 2, 10_000)}
    one = by_workers[1]
    assert one["seconds"] > one["iterations"] * 1e-3 and one["ms_per_iteration"] == pytest.approx(1000 * one["seconds"] / one["iterations"])
    assert by_workers[2]["seconds"] == pytest.approx(max(one["seconds"] / 2, one["longest_chain_s"]))
    assert by_workers[10_000]["seconds"] == one["longest_chain_s"] > 0


def test_a_stage_costs_its_steps_its_evaluations_and_its_reads(smoke):
    stage = next(s for s in smoke.stages if s.kind == "train")
    params = {**stage.params, "start": 0, "stop": 1000, "evaluate": {"every_it": 100, "test": ("end",), "train": ()}}
    params["data"] = {**params["data"], "val": 50}
    seconds = estimate._stage_s(dataclasses.replace(stage, params=params), Cost(1e-3, 1e-5, 1, 1), smoke)
    assert seconds == pytest.approx(1000 * 1e-3 + (50 * 12 + 500) * 1e-5)


def test_at_most_three_kinds_of_training_are_timed_and_the_rest_scaled(smoke, known):
    stage = next(s for s in smoke.stages if s.kind == "train")
    many = [dataclasses.replace(stage, params={**stage.params, "batch_size": 10 * b, "stop": 1000 - b}) for b in range(1, 6)]
    costs = estimate._costs(many, smoke, "cpu")
    assert [s.params["batch_size"] for s in known] == [10, 20, 30]  # those with most iterations
    weights = 40 * 300 + 300 * 100 + 100 * 10
    assert list(costs.values())[4].size == 50 * weights
    assert list(costs.values())[4].step_s == pytest.approx(1e-3 * 50 * weights / 1000)


def test_steps_and_evaluations_are_timed(smoke, monkeypatch):
    monkeypatch.setattr(estimate, "ENOUGH_S", 0.0)
    stage = next(s for s in smoke.stages if s.kind == "train")
    cost = estimate._timed(stage, smoke, estimate.load_library(None), "cpu", 1)
    assert cost.step_s > 0 and cost.example_s > 0 and (cost.stack, cost.size) == (1, 60 * (40 * 300 + 300 * 100 + 100 * 10))


def test_a_finished_run_takes_no_time(smoke, known, monkeypatch):
    monkeypatch.setattr(estimate, "todo", lambda plan, store: {})
    done = estimate.summary(smoke, object(), "cpu", 2)
    assert done["iterations"] == done["seconds"] == 0 and all(n["to_do"] == 0 and n["done"] == n["total"] for n in done["stages"].values())
    assert "no training to do" in estimate.render(done, smoke)


def test_the_command_prints_stages_and_a_time(tmp_path):
    command = [sys.executable, "-m", "bench", "plan", "frankle2019", "--scale", "smoke", "--device", "cpu", "--store", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^train +\d+ +0 +\d+$", done.stdout, re.M)
    assert re.search(r"[\d,]+ training iterations to do, [\d.]+ ms each .* about \d+ s on", done.stdout)
    assert not (tmp_path / "none").exists()
