"""Killed, interrupted, stopped, doubled: the same command goes on, and the final table is that of an undisturbed run, byte for byte."""
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench import plan as planning
from bench import worker
from bench.flags import Flags
from bench.store import Store, merge
from ltcore.errors import UserError
from ltcore.training import supervised
from replications import registry
from tests.conftest import ROOT, bench, environment

RUN = ("replicate", "frankle2019", "--scale", "smoke", "--experiment", "lenet-mnist", "--levels", "2")
KILLS = 20
LONGER = ("--set", "lenet-mnist.length=1500it")  # so that the work takes longer than the start, and kills land in it


def start(store: Path, *more: str) -> subprocess.Popen:
    """The run in a session of its own, so that it can be killed with or without its workers."""
    command = [sys.executable, "-m", "bench", *RUN, "--store", str(store), *more]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True, preexec_fn=hear_ctrl_c)


def hear_ctrl_c() -> None:
    """A suite that a script runs in the background inherits that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def journal(store: Path) -> list[str]:
    """Hashes of the stages that were computed, in order."""
    file = store / "journal.jsonl"
    return [json.loads(line)["stage"] for line in file.read_text().splitlines()] if file.exists() else []


def alive(session: int) -> list[int]:
    """Processes of a session that still run (zombies do not)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended while we looked
            continue
        if int(of) == session and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def until(condition, seconds: float) -> bool:
    """Waits for a condition; False where it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[str, int, float]:
    """Table, number of stages and seconds of a run that nothing disturbs."""
    store, begun = tmp_path_factory.mktemp("undisturbed") / "store", time.monotonic()
    done = bench(*RUN, *LONGER, "--store", store)
    assert done.returncode == 0, done.stderr
    return done.stdout, len(journal(store)), time.monotonic() - begun


def killed_once(store: Path, after_s: float, with_workers: bool) -> bool:
    """Starts the run and kills it after so long; False where it was done before."""
    process = start(store, *LONGER)
    try:
        process.communicate(timeout=after_s)
        return False
    except subprocess.TimeoutExpired:
        (os.killpg if with_workers else os.kill)(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def test_kill_9_at_twenty_random_moments(undisturbed, tmp_path):
    """Kills go on in one store until its run comes to its end, then in the next."""
    table, stages, seconds = undisturbed
    draw, kills, stores, halfway = random.Random(9), 0, [], 0
    while kills < KILLS:
        stores.append(tmp_path / f"store-{len(stores)}")
        while kills < KILLS and killed_once(stores[-1], draw.uniform(0.2, 1.0) * seconds, with_workers=kills % 2 == 0):
            kills += 1
            halfway += 0 < len(journal(stores[-1])) < stages
    assert halfway >= 3  # some of them hit the middle of the work
    for store in stores:
        done = bench(*RUN, *LONGER, "--store", store)
        assert (done.returncode, done.stdout) == (0, table), done.stderr
        assert len(journal(store)) == len(set(journal(store))) <= stages  # what was done was kept
        assert not list((store / "tmp").iterdir())


def test_two_processes_started_at_once_share_one_store(undisturbed, tmp_path):
    table, stages, _ = undisturbed
    both = [start(tmp_path / "store", *LONGER), start(tmp_path / "store", *LONGER)]
    told = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [out for out, _ in told] == [table, table]
    assert len(journal(tmp_path / "store")) == len(set(journal(tmp_path / "store"))) == stages


def test_max_time_stops_with_75_and_the_same_command_goes_on(undisturbed, tmp_path):
    table, stages, _ = undisturbed
    early = bench(*RUN, *LONGER, "--store", tmp_path / "store", "--max-time", "1s")
    assert early.returncode == 75 and "run the same command again to go on" in early.stderr and "Traceback" not in early.stderr
    assert len(journal(tmp_path / "store")) < stages and "Provenance" in early.stdout  # what there is, is shown
    late = bench(*RUN, *LONGER, "--store", tmp_path / "store", "--max-time", "10m")
    assert (late.returncode, late.stdout) == (0, table)


@linux
def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    process = start(tmp_path / "store", "--set", "lenet-mnist.length=50000it")
    assert until(lambda: len(journal(tmp_path / "store")) >= 1, 60)  # a worker is at work: on the dense net, for a minute
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert until(lambda: not alive(process.pid), 3)


@linux
def test_ctrl_c_is_one_line_and_leaves_no_worker(tmp_path):
    process = start(tmp_path / "store", "--set", "lenet-mnist.length=50000it")
    assert until(lambda: len(journal(tmp_path / "store")) >= 1, 60)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "") and "Traceback" not in err
    assert err.splitlines()[-1] == "stopped; what is done is kept, run the same command again to go on"
    assert until(lambda: not alive(process.pid), 3)


# ---- inside a stage ------------------------------------------------------------------------------------------
def dense_task() -> tuple[worker.Task, worker.Task]:
    """The initial weights of a smoke trial, and 400 iterations of the dense network."""
    sets = ("lenet-mnist.length=400it",)
    plan = planning.make(registry.load("frankle2019"), Flags("smoke", ("lenet-mnist",), sets=sets))
    dense = next(p.stage for p in plan.points if p.condition["arm"] == "dense")
    init = dense.inputs["state"].stage
    return tuple(worker.Task([(s.hash, s.described())], {s.hash: ["state"]}) for s in (init, dense))


def begin(store: Path) -> None:
    worker.begin(os.getpid(), str(store), "cpu", None, "auto")


def die_in_the_middle(store: str, tasks: tuple[worker.Task, worker.Task]) -> None:
    """Saves at every opportunity and is killed while the fourth checkpoint is written."""
    worker.CHECKPOINT_S, saves, save = 0, [], Store.save_checkpoint

    def save_or_die(self, name, tensors):
        saves.append(name)
        if len(saves) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, name, tensors)

    Store.save_checkpoint = save_or_die
    begin(Path(store))
    assert worker.work(tasks[0]) is worker.Taken.DONE
    worker.work(tasks[1])


def test_a_long_stage_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_world", {})
    tasks = dense_task()
    process = multiprocessing.get_context("spawn").Process(target=die_in_the_middle, args=(str(tmp_path / "killed"), tasks))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    killed, stage = Store(tmp_path / "killed"), tasks[1].stages[0][0]
    assert not killed.has(stage) and int(killed.load_checkpoint(stage)["progress"][0]) == 129  # saved at 1, 65 and 129
    spent_s = round(float(killed.load_checkpoint(stage)["spent"][0]), 3)

    steps, index = [], supervised.Batches.index
    monkeypatch.setattr(supervised.Batches, "index", lambda self, t: steps.append(t) or index(self, t))
    begin(tmp_path / "killed")
    assert worker.work(tasks[1]) is worker.Taken.DONE
    assert min(t for t in steps if t) == 129 and max(steps) == 399
    assert killed.load_checkpoint(stage) is None and killed.record(stage)["machine"]["wall_s"] >= spent_s > 0

    begin(tmp_path / "straight")
    assert [worker.work(task) for task in tasks] == [worker.Taken.DONE] * 2
    straight = Store(tmp_path / "straight")
    for part in ("stage", "values", "curves", "facts"):
        assert killed.record(stage)[part] == straight.record(stage)[part]
    ours, theirs = killed.load(stage, "state"), straight.load(stage, "state")
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs) and ours.keys() == theirs.keys()


def test_a_stack_goes_on_only_from_its_own_checkpoint():
    alone, two, other = (worker.Task([(h, {}) for h in hashes], {}) for hashes in ("a", "ab", "ac"))
    names = [worker._checkpoint_name(task) for task in (alone, two, other)]
    assert names[0] == "a" and len(set(names)) == 3


def test_a_deadline_stops_a_stage_in_its_middle_and_saves_it(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_world", {})
    init, dense = dense_task()
    begin(tmp_path)
    assert worker.work(init) is worker.Taken.DONE
    late = worker.Task(dense.stages, dense.keep, deadline=time.time() - 1)
    assert worker.work(late) is worker.Taken.STOPPED
    assert Store(tmp_path).load_checkpoint(dense.stages[0][0]) is not None


class Clock:
    """Seconds and joules that pass only where a test says so; ``time.time`` is the machine's own."""

    def __init__(self, joules: float | None):
        self.seconds, self.joules, self.time = 0.0, joules, time.time

    def monotonic(self) -> float:
        return self.seconds

    def goes_on(self, seconds: float, joules: float) -> None:
        self.seconds, self.joules = self.seconds + seconds, None if self.joules is None else self.joules + joules


def sitting(store: Path, monkeypatch, task: worker.Task, clock: Clock, seconds: float, joules: float) -> worker.Taken:
    """Works on a task; so much passes before its inputs are there."""
    load = Store.load

    def slowly(self, *ref):
        clock.goes_on(seconds, joules)
        return load(self, *ref)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "time", clock)
        patch.setattr(worker.energy, "joules", lambda device: clock.joules)
        patch.setattr(Store, "load", slowly)
        begin(store)
        return worker.work(task)


@pytest.mark.parametrize("first, second, joules", [(10.0, 7000.0, 50.0), (None, 7000.0, None), (10.0, None, None)])
def test_seconds_and_joules_are_those_of_all_sittings(tmp_path, monkeypatch, first, second, joules):
    """The counter of a GPU starts anew with its driver, and may be there in one sitting alone."""
    monkeypatch.setattr(worker, "_world", {})
    init, dense = dense_task()
    begin(tmp_path)
    assert worker.work(init) is worker.Taken.DONE
    late = worker.Task(dense.stages, dense.keep, deadline=time.time() - 1)
    assert sitting(tmp_path, monkeypatch, late, Clock(first), 100.0, 30.0) is worker.Taken.STOPPED
    assert sitting(tmp_path, monkeypatch, dense, Clock(second), 11.0, 20.0) is worker.Taken.DONE
    machine = Store(tmp_path).record(dense.stages[0][0])["machine"]
    assert (machine["wall_s"], machine.get("energy_J")) == (111.0, joules)


def test_what_was_spent_is_no_part_of_what_a_loop_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_world", {})
    task, store = worker.Task([("a", {})], {}), Store(tmp_path)
    worker._checkpoints(task, store, worker._Meter("cpu")).save({"weights": torch.ones(2)})
    assert store.load_checkpoint("a").keys() == {"weights", worker.SPENT}
    assert worker._checkpoints(task, store, worker._Meter("cpu")).load().keys() == {"weights"}
    store.save_checkpoint("a", {"weights": torch.ones(2)})  # of an older version
    meter = worker._Meter("cpu")
    assert worker._checkpoints(task, store, meter).load().keys() == {"weights"} and meter.before_s == 0.0


def test_a_stage_that_another_holds_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_world", {})
    init, _ = dense_task()
    begin(tmp_path)
    with Store(tmp_path).lock(init.stages[0][0]) as held:
        assert held and worker.work(init) is worker.Taken.ELSEWHERE
    assert worker.work(init) is worker.Taken.DONE


# ---- merging stores ------------------------------------------------------------------------------------------
def record(value: float, device: str = "cpu x86_64") -> dict:
    return {"stage": {"kind": "train"}, "values": [{"value": value}], "curves": {}, "facts": {}, "machine": {"device": device}}


def manifest(**more) -> dict:
    return {"version": 1, "paper": "p", "scale": "smoke", "wanted": "mnist", "flags": {}, "experiments": {}, "data": {}, "points": []} | more


def test_merge_keeps_one_of_what_is_the_same_and_both_of_what_differs(tmp_path):
    source, target = Store(tmp_path / "source"), Store(tmp_path / "target")
    for name, value, device in (("same", 1.0, "GPU A/1"), ("other", 2.0, "GPU A/1"), ("new", 3.0, "GPU A/1")):
        source.commit(name, record(value, device), {"state": {"w": torch.full((3,), value)}})
    target.commit("same", record(1.0), {})
    target.commit("other", record(2.5), {"state": {"w": torch.zeros(3)}})
    source.write_manifest("p-smoke-1", manifest(trials=1))
    source.write_manifest("p-smoke-2", manifest(trials=2))
    target.write_manifest("p-smoke-1", manifest(trials=9))
    assert merge(source, target) == {"new": 1, "same": 1, "tagged": 1}
    assert target.stages() == ["new", "other", "other~GPU-A-1", "same"]
    assert target.record("other")["values"] == [{"value": 2.5}]  # what compare reads is the store's own
    assert target.record("other~GPU-A-1")["values"] == [{"value": 2.0}]
    assert torch.equal(target.load("new", "state")["w"], torch.full((3,), 3.0))
    assert [target.read_manifest(p)["trials"] for p in target.manifests("p")] == [9, 2]
    assert merge(source, target) == {"new": 0, "same": 3, "tagged": 0}  # again changes nothing


def test_a_damaged_record_stops_a_merge_before_it_is_copied(tmp_path):
    source, target = Store(tmp_path / "source"), Store(tmp_path / "target")
    for store in (source, target):
        store.commit("one", record(1.0), {})
    (source.folder("one") / "record.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged; remove"):
        merge(source, target)
    assert target.record("one")["values"] == [{"value": 1.0}]
