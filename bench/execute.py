"""Runs what a plan still needs: on CPU one process a core with one thread each, on a GPU one process that trains ready stages as one stack.

Stages are handed out as their parents finish. Two programs on one store share the work: a stage that another holds is left to it.
"""
from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import heapq
import math
import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench import plan as planning
from bench.pace import Pace, Progress
from bench.plan import Plan
from bench.store import Store, StoreError
from bench.worker import Taken, Task, begin, work
from ltcore.errors import UserError
from ltcore.recipe import seen_shape
from ltcore.stages import Stage, canonical

MOST_INPUTS = 2**26  # numbers in one batch of a whole stack: 170 replicates of CIFAR at batch 128, but ImageNet at batch 1,024 one by one
MOST_SCORES = 2**29  # scores in one step of a whole stack, 2 GiB of float32: 10 replicates of a LSTM with 33,278 words
MOST_DEATHS = 8  # of workers in a row, with nothing finished between: none can live here
RETRY_S = 0.2  # how soon a stage that another process holds is asked for again


@dataclass(frozen=True)
class Options:
    """How to run, none of which changes a number.

    Args:
        stack: most replicates trained as one; 1 on CPU, where stacking does not pay.
        max_time_s: stop cleanly after so long. keep: ``needed`` or ``all`` artefacts.
        executor: ``local``, or ``ray``: there device ``auto`` is allowed, and device, workers and stack become those of the cluster.
    """

    device: str = "cpu"
    workers: int = 1
    stack: int = 1
    max_time_s: float | None = None
    keep: str = "needed"
    report: Callable[[Progress], None] = lambda progress: None
    executor: str = "local"


@dataclass(frozen=True)
class Outcome:
    """What became of a run: stopped early, or which stages failed and why."""

    stopped: bool
    failures: Mapping[str, str]
    computed: int


def execute(plan: Plan, store: Store, options: Options) -> Outcome:
    """Computes every stage that the plan's points still lack. What is done stays done, whatever happens.

    A stage that fails is named in the outcome; stages that do not need it go on.
    """
    left = planning.todo(plan, store)
    deadline = None if options.max_time_s is None else time.time() + options.max_time_s
    failures: dict[str, str] = {}
    if not left:
        return Outcome(False, failures, 0)
    with _pool(plan, store, options) as (pool, options):
        progress = Progress(Pace(plan), options.workers)
        progress.pace.recall(store, options.device)
        try:
            while left:
                progress.expect(left)
                run = _Run(plan, store, options, left, progress, failures, deadline)
                run.loop(pool)
                if not run.replan or run.late():
                    break
                left = {s: a for s, a in planning.todo(plan, store).items() if s.hash not in failures}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():  # or the pool would wait until their stages are done
                worker.terminate()
            raise
    unfinished = bool(planning.todo(plan, store)) and not failures
    return Outcome(run.stopped or unfinished, failures, progress.done)


class _Run:
    """The state of one execution: what waits, what is ready, what runs.

    ``replan`` is set where another program changed the store so that what is left must be worked out anew.
    """

    def __init__(self, plan: Plan, store: Store, options: Options, left: Mapping[Stage, frozenset[str]], progress: Progress,
                 failures: dict[str, str], deadline: float | None):  # fmt: skip
        self.store, self.options, self.left = store, options, dict(left)
        self.progress, self.failures, self.deadline = progress, failures, deadline
        self.known = {s for s in left if store.has(s.hash)}  # records that are there already: only artefacts are wanted
        self.rank = {stage: i for i, stage in enumerate(_by_importance(plan, left))}
        self.waits = {s: {o.stage for o in s.inputs.values() if o.stage in left} for s in left}
        self.consumers: dict[Stage, set[Stage]] = {}
        for consumer in left:
            for out in consumer.inputs.values():
                self.consumers.setdefault(out.stage, set()).add(consumer)
        self.rewound_to = {o.stage for s in plan.stages for role, o in s.inputs.items() if role == "state" and _goes_on(o.stage, s)}
        self.ready = [(self.rank[s], s.hash, s) for s in left if not self.waits[s]]
        heapq.heapify(self.ready)
        self.stopped, self.replan, self.deaths = False, False, 0
        self.busy: dict[Stage, float] = {}  # held by another program -> when to ask again

    def loop(self, pool: concurrent.futures.Executor) -> None:
        running: dict[concurrent.futures.Future, list[Stage]] = {}
        while True:
            while len(running) < self.options.workers and not self.late() and not self.replan and (batch := self._next(self.options.workers - len(running))):
                running[pool.submit(work, self._task(batch))] = batch
                self.progress.begin(batch)
            for future in [f for f in running if self.late() and f.cancel()]:  # no worker has begun it, and a busy cluster may not for long
                del running[future]
                self.stopped = True
            if not running and (self.late() or self.replan or not (self.ready or self.busy)):
                break
            done, _ = concurrent.futures.wait(running, timeout=RETRY_S, return_when=concurrent.futures.FIRST_COMPLETED)
            if not running:
                time.sleep(RETRY_S)  # everything that is left is held by another program
            for future in done:
                self._settle(running.pop(future), future)

    def late(self) -> bool:
        return self.stopped or (self.deadline is not None and time.time() > self.deadline)

    def _next(self, free: int) -> list[Stage]:
        """The most important ready stage, and on a GPU others that can be stacked with it: a fair share where several workers are free."""
        now = time.monotonic()
        for stage in [s for s, due in self.busy.items() if due <= now]:
            self._push(stage)
            del self.busy[stage]
        if not self.ready:
            return []
        first = heapq.heappop(self.ready)[2]
        stack = most_stacked(first, self.options.stack) if first.kind == "train" else 1
        if stack == 1:
            return [first]
        key = _stack_key(first)
        alike = [entry for entry in sorted(self.ready) if entry[2].kind == "train" and _stack_key(entry[2]) == key]
        alike = alike[: min(stack, -(-(len(alike) + 1) // free)) - 1]
        self.ready = [entry for entry in self.ready if entry not in alike]
        heapq.heapify(self.ready)
        return [first, *(stage for _, _, stage in alike)]

    def _push(self, stage: Stage) -> None:
        heapq.heappush(self.ready, (self.rank[stage], stage.hash, stage))

    def _task(self, batch: list[Stage]) -> Task:
        keep = {s.hash: sorted(_all_artefacts(s) if self.options.keep == "all" else self.left[s]) for s in batch}
        return Task([(s.hash, s.described()) for s in batch], keep, self.deadline, [s.hash for s in batch if s in self.known])

    def _settle(self, batch: list[Stage], future: concurrent.futures.Future) -> None:
        """Books what came back."""
        try:
            outcome = future.result()
        except StoreError:
            raise
        except UserError as error:
            outcome = str(error)
        except concurrent.futures.process.BrokenProcessPool as error:
            self.deaths += 1
            outcome = "its worker process died (out of memory?); what is done is kept, run the same command again"
            if self.deaths == MOST_DEATHS:
                raise UserError(f"{MOST_DEATHS} stages in a row failed: {outcome}") from error
        except concurrent.futures.BrokenExecutor as error:
            raise UserError(str(error)) from error
        if isinstance(outcome, str):
            for stage in batch:
                self._fail(stage, outcome)
        elif outcome is Taken.STOPPED:
            self.stopped = True
        elif outcome is Taken.LOST:
            self.replan = True
        elif outcome is Taken.ELSEWHERE:
            self.busy |= {s: time.monotonic() + RETRY_S for s in batch}
        else:
            for stage in batch:
                self._finished(stage)

    def _fail(self, stage: Stage, why: str) -> None:
        """A failed stage takes down those that need it, and no other."""
        self.failures[stage.hash] = why
        self.progress.drop(stage)
        waiting = [c for c in self.consumers.get(stage, ()) if c.hash not in self.failures]
        for consumer in waiting:
            self._fail(consumer, why)

    def _finished(self, stage: Stage) -> None:
        self.deaths = 0
        self.progress.finish(stage, self.store.record(stage.hash)["machine"]["wall_s"] if self.store.has(stage.hash) else None)
        for consumer in self.consumers.get(stage, ()):
            self.waits[consumer].discard(stage)
            if not self.waits[consumer]:
                self._push(consumer)
        for out in stage.inputs.values():
            self._release(out.stage, stage)
        self.options.report(self.progress)

    def _release(self, parent: Stage, by: Stage) -> None:
        """Drops large artefacts of a parent (weights after training, scores) once nobody in the plan waits for them; W_k stays."""
        waiting = self.consumers[parent]
        waiting.discard(by)
        if not waiting and parent not in self.rewound_to and self.options.keep != "all" and parent.kind in ("train", "score"):
            for artefact in _all_artefacts(parent):
                self.store.drop(parent.hash, artefact)


def _all_artefacts(stage: Stage) -> tuple[str, ...]:
    trained = ("state", "optimizer", "search") if "track" in stage.params else ("state", "optimizer")
    others = {"init": ("state",), "score": ("scores",), "prune": ("mask",), "transform": ("mask", "state"), "measure": ()}
    return trained if stage.kind == "train" else others[stage.kind]


def _goes_on(first: Stage, second: Stage) -> bool:
    """Does the second segment go on where the first ends? Then the first's weights are W_k, which every ticket starts from."""
    return first.kind == second.kind == "train" and first.params["stop"] == second.params["start"]


def most_stacked(stage: Stage, stack: int) -> int:
    """How many replicates of a training stage one stack of at most ``stack`` takes: activations grow with the inputs,
    as the first layer reads them.

    Physically smaller networks differ in their shapes, a search that ends at its own draw in its length, and block floating point is
    rounded network by network: they train alone.
    """
    if "channels" in stage.inputs or stage.params["precision"] == "bfp8" or stage.params.get("track", {}).get("rule", "none") != "none":
        return 1
    task, batch = stage.params.get("task", {}), stage.params["batch_size"]
    if task.get("name") in ("language-model", "translate"):  # scores of every word at every place are the largest tensor
        return max(1, min(stack, MOST_SCORES // (batch * task["options"].get("bptt", 1) * stage.params["classes"])))
    seen = seen_shape(stage.params["input_shape"], stage.params["model"]["options"].get("enlarge", 0))
    return max(1, min(stack, MOST_INPUTS // (batch * math.prod(seen))))


def _stack_key(stage: Stage) -> str:
    """Training stages with one key differ only in their streams and inputs."""
    params = {k: v for k, v in stage.params.items() if k != "streams"}
    return canonical({"params": params, "roles": sorted(stage.inputs)})


def _by_importance(plan: Plan, left: Mapping[Stage, frozenset[str]]) -> list[Stage]:
    """Stages in the order in which the plan's points need them."""
    seen: dict[Stage, None] = {}
    parents_first = {s: i for i, s in enumerate(plan.stages)}
    for point in plan.points:
        for stage in sorted(_missing(point.stage, left, seen), key=parents_first.__getitem__):
            seen.setdefault(stage)
    return list(seen)


def _missing(stage: Stage, left: Mapping[Stage, frozenset[str]], seen: Mapping[Stage, None]) -> set[Stage]:
    found, stack = set(), [stage]
    while stack:
        node = stack.pop()
        if node in left and node not in seen and node not in found:
            found.add(node)
            stack += [out.stage for out in node.inputs.values()]
    return found


class _Workers(concurrent.futures.Executor):
    """Pools of one process each: one that dies, killed for its memory for example, takes down its own task and no other."""

    def __init__(self, workers: int, context: multiprocessing.context.BaseContext, setup: tuple[Any, ...]):
        self._new = functools.partial(concurrent.futures.ProcessPoolExecutor, 1, context, begin, setup)
        self._pools = [self._new() for _ in range(workers)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(workers):
            self._free.put(i)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> concurrent.futures.Future:
        """On a free one; waits for it."""
        i = self._free.get()
        try:
            future = self._pools[i].submit(fn, *args)
        except concurrent.futures.process.BrokenProcessPool:  # its process died
            self._pools[i] = self._new()
            future = self._pools[i].submit(fn, *args)
        future.add_done_callback(lambda done: self._free.put(i))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=cancel_futures)


@contextlib.contextmanager
def _pool(plan: Plan, store: Store, options: Options):
    """Worker processes, started afresh (not forked: torch has threads), each with one thread on CPU; and the options that hold there."""
    if options.executor == "ray":
        from bench import ray_executor

        with ray_executor.pool(plan, store, options) as opened:
            yield opened
        return
    setup = (os.getpid(), str(store.root), options.device, plan.flags.with_file, plan.flags.data)
    environment = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if options.device == "cpu" else {}
    before = {k: os.environ.get(k) for k in environment}
    os.environ |= environment
    pool = _Workers(options.workers, multiprocessing.get_context("spawn"), setup)
    try:
        with pool:
            yield pool, options
    finally:
        for k, v in before.items():
            os.environ.pop(k) if v is None else os.environ.__setitem__(k, v)
