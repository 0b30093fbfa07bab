"""The time left, on a made-up clock: tasks that are mixed, kinds that were never run, workers, chains, and what the store remembers."""
from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import pytest
from torch import nn

from bench import effort, pace, plan
from bench.flags import Flags
from bench.pace import SMALL, Pace, Progress
from bench.progress import Reporter
from bench.store import Store
from ltcore.library import Library
from ltcore.stages import Stage
from replications import registry


@pytest.fixture(scope="module")
def mixed():
    """A plan of windows of text, batches of sentences, episodes and frames."""
    return plan.make(registry.load("yu2020"), Flags("smoke"))


@pytest.fixture(scope="module")
def lenet():
    return plan.make(registry.load("frankle2019"), Flags("smoke", ("lenet-mnist",)))


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def training(made, start: int, stop: int, data: str | None = None, after: Stage | None = None, **more) -> Stage:
    """A stage like one of the plan's, but for its length, that evaluates nothing."""
    stage = next(s for s in made.stages if s.kind == "train" and data in (None, s.params["data"]["name"]))
    params = {**stage.params, "start": start, "stop": stop, "evaluate": {"every_it": 10**6, "test": (), "train": ()}, **more}
    params["data"] = {**params["data"], "val": 0}
    return dataclasses.replace(stage, params=params, inputs={"state": after.out("state")} if after else {})


def told_in(run: list[Stage], made, takes, workers: int, clock) -> list[tuple[float, float | None]]:
    """(seconds left in truth, estimate) after each stage of a run in which stage s takes ``takes(s)``."""
    progress, waiting, running, told, done = Progress(Pace(made), workers), list(run), {}, [], set()
    progress.expect(run)
    while waiting or running:
        while len(running) < workers and (free := next((s for s in waiting if all(o.stage in done for o in s.inputs.values())), None)):
            waiting.remove(free)
            running[free] = clock.s + takes(free)
            progress.begin([free])
        stage, clock.s = min(running.items(), key=lambda entry: entry[1])
        del running[stage]
        done.add(stage)
        progress.finish(stage, takes(stage))
        told.append((clock.s, progress.eta_s))
    return [(clock.s - at, left) for at, left in told]


def test_a_run_of_mixed_tasks_is_told_well_from_the_first_stage_on(mixed, clock):
    """As yu2020 at scale quick: 30 trainings on text at 33 ms a window, then 135 on CartPole at 1.2 ms an episode. With iterations counted
    alike the first stages announced fourteen times as much."""
    run: list[Stage] = []
    for seed in range(3):
        last = None
        for level in range(10):
            last = training(mixed, 0, 450, "topics", last, seed=seed, level=level, batch_size=1360)
            run.append(last)
    assert effort.size(run[0], Library()) == pytest.approx(567e6, rel=0.01)
    windows = len(run)
    run += [training(mixed, 0, 3040, "cartpole-v0", seed=seed, batch_size=128) for seed in range(135)]

    def takes(stage: Stage) -> float:
        return plan.iterations([stage]) * (0.033 if stage.params["data"]["name"] == "topics" else 0.0012)

    told = told_in(run, mixed, takes, 2, clock)
    assert 0.033 * plan.iterations(run) / 2 > 14 * told[0][0]
    assert all(estimate == pytest.approx(left, rel=0.5) for left, estimate in told[:windows])  # episodes are guessed
    assert all(estimate == pytest.approx(left, rel=0.1, abs=1) for left, estimate in told[windows:])


def test_seconds_are_learnt_for_each_kind_and_long_stages_weigh_more(lenet):
    short, long, other = training(lenet, 0, 10), training(lenet, 10, 1010), training(lenet, 0, 500, batch_size=120)
    told = Pace(lenet)
    assert told.seconds(long) is None
    told.learn(short, 1.0)  # its data were read
    told.learn(long, 3.0)
    assert told.seconds(training(lenet, 0, 2000)) == pytest.approx(6.0, rel=0.01)
    told.learn(other, 5.0)
    assert told.seconds(training(lenet, 0, 2000)) == pytest.approx(6.0, rel=0.01)
    assert told.seconds(training(lenet, 0, 100, batch_size=120)) == pytest.approx(1.0)


def test_a_kind_that_was_never_run_is_scaled_from_the_next_in_size(lenet):
    told, weights = Pace(lenet), 40 * 300 + 300 * 100 + 100 * 10
    for batch, seconds in ((60, 1.0), (60_000, 7.0)):
        told.learn(training(lenet, 0, 1000, batch_size=batch), seconds)
    assert told.seconds(training(lenet, 0, 500, batch_size=600)) == pytest.approx(0.5 * (SMALL + 600 * weights) / (SMALL + 60 * weights))
    assert told.seconds(training(lenet, 0, 500, batch_size=30_000)) == pytest.approx(3.5 * (SMALL + 30_000 * weights) / (SMALL + 60_000 * weights))


def test_evaluations_count_as_a_third_of_a_step_an_example(lenet):
    stage = training(lenet, 0, 1000)
    read = dataclasses.replace(stage, params={**stage.params, "data": {**stage.params["data"], "val": 600}, "evaluate": {"every_it": 100, "test": (), "train": ()}})
    told = Pace(lenet)
    told.learn(stage, 1.0)
    assert told.seconds(read) == pytest.approx((1000 + 12 * 600 / 60 / 3) / 1000)


def test_searches_smaller_nets_and_other_stages_are_kinds_of_their_own(lenet):
    dense, init = training(lenet, 0, 100), next(s for s in lenet.stages if s.kind == "init")
    search, smaller = training(lenet, 0, 100, track={"rule": "newest"}), dataclasses.replace(dense, inputs={"channels": init.out("mask")})
    told = Pace(lenet)
    told.learn(dense, 1.0)
    told.learn(search, 0.3)
    told.learn(smaller, 0.5)
    assert [told.seconds(s) for s in (dense, search, smaller)] == pytest.approx([1.0, 0.3, 0.5])
    measure = Stage("measure", {"what": "linear-path"})
    assert told.seconds(measure) == 0.0
    told.learn(measure, 4.0)
    assert told.seconds(Stage("measure", {"what": "linear-path", "points": 3})) == pytest.approx(4.0)
    assert told.seconds(Stage("measure", {"what": "stability"})) == 0.0


def test_a_net_that_fails_on_the_way_does_not_stop_the_run(lenet, monkeypatch):
    def broken(*_):
        raise RuntimeError("a user's forward")

    monkeypatch.setattr(effort, "size", broken)
    told = Pace(lenet)
    told.learn(training(lenet, 0, 100), 1.0)
    assert told.seconds(training(lenet, 0, 100, batch_size=7)) == pytest.approx(1.0)


# ---- workers, chains, failures ---------------------------------------------------------------------------------
def test_the_time_left_is_work_over_workers_but_no_less_than_the_longest_chain(lenet, clock):
    one, *others = (training(lenet, 0, 100, seed=i) for i in range(5))
    last = dataclasses.replace(others[-1], params={**others[-1].params, "seed": 9}, inputs={"state": others[-1].out("state")})
    progress = Progress(Pace(lenet), 2)
    progress.expect([one, *others, last])
    assert (progress.eta_s, progress.done, progress.total) == (None, 0, 6)
    progress.begin([one])
    progress.finish(one, 10.0)
    assert (progress.eta_s, progress.done, progress.total) == (pytest.approx(25.0), 1, 6)
    progress.workers = 10
    assert progress.eta_s == pytest.approx(20.0)  # two that wait for each other


def test_what_runs_counts_for_what_is_left_of_it(lenet, clock):
    one, two, three = (training(lenet, 0, 100, seed=i) for i in range(3))
    progress = Progress(Pace(lenet), 1)
    progress.expect([one, two, three])
    progress.finish(one, 10.0)
    progress.begin([two, three])  # as one stack
    clock.s = 8.0
    assert progress.eta_s == pytest.approx(12.0)
    clock.s = 100.0
    assert progress.eta_s == 0.0
    progress.expect([two, three])  # planned anew: nothing runs
    assert progress.eta_s == pytest.approx(20.0)


def test_a_stage_that_failed_is_not_waited_for(lenet):
    one, two, three = (training(lenet, 0, 100, seed=i) for i in range(3))
    progress = Progress(Pace(lenet), 1)
    progress.expect([one, two, three])
    progress.finish(one, 10.0)
    progress.drop(two)
    assert (progress.eta_s, progress.done, progress.total) == (pytest.approx(10.0), 1, 2)
    progress.finish(three, None)  # another program's, of which nothing is known
    assert progress.eta_s == 0.0


# ---- what the store remembers ----------------------------------------------------------------------------------
@pytest.mark.parametrize("here", [True, False])
def test_a_run_that_goes_on_learns_from_what_was_done_on_such_a_device(lenet, tmp_path, here):
    store, stage = Store(tmp_path / "store"), max((s for s in lenet.stages if s.kind == "train"), key=lambda s: plan.iterations([s]))
    made_by = {"device": "cpu x86_64" if here else "NVIDIA H100", "wall_s": 4.0}
    store.commit(stage.hash, {"stage": stage.described(), "values": [], "curves": {}, "facts": {}, "machine": made_by}, {})
    told = Pace(lenet)
    told.recall(store, "cpu")
    assert told.seconds(stage) == (pytest.approx(4.0) if here else None)


# ---- sizes -----------------------------------------------------------------------------------------------------
def test_multiply_adds_of_kernels_and_matrices_as_often_as_an_example_meets_them(lenet, monkeypatch):
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1, groups=2), nn.Flatten(), nn.Linear(1024, 10)
    monkeypatch.setattr(effort, "skeleton", lambda *_: nn.Sequential(*layers))
    stage = training(lenet, 0, 1, input_shape=[3, 16, 16])
    assert effort.size(stage, Library()) == 60 * (8 * 3 * 9 * 256 + 16 * 4 * 9 * 64 + 1024 * 10)


def test_of_a_net_without_such_layers_the_parameters_count_once(lenet, monkeypatch):
    monkeypatch.setattr(effort, "skeleton", lambda *_: nn.BatchNorm1d(40))
    assert effort.size(training(lenet, 0, 1), Library()) == 60 * 80


# ---- the line --------------------------------------------------------------------------------------------------
def test_the_line_says_stages_and_the_time(lenet, capsys, monkeypatch):
    stages = [training(lenet, 0, 100, seed=i) for i in range(3)]
    progress = Progress(Pace(lenet), 1)
    progress.expect(stages)
    with Reporter("paper (smoke)") as report:
        progress.finish(stages[0], None)
        report(progress)
        progress.finish(stages[1], 75.0)
        report(progress)  # too soon after the first line
        report.last = -math.inf
        report(progress)
        progress.finish(stages[2], 75.0)
        report(progress)  # the last line stands always
    assert capsys.readouterr().err.splitlines() == [
        "paper (smoke): 1 of 3 stages, no estimate yet", "paper (smoke): 2 of 3 stages, about 1 min 15 s left", "paper (smoke): 3 of 3 stages, about 0 s left",
    ]  # fmt: skip
