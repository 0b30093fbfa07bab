"""How far a run is, and how long what is left will take, judged by the stages that were run."""
from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench import effort
from bench.plan import Plan
from bench.store import Store
from ltcore.library import Library
from ltcore.library import load as load_library
from ltcore.stages import Stage, canonical

PASSES = 3  # a step is three passes of equal cost, an evaluation is one
SMALL = 2 * 10**7  # multiply-adds in the millisecond that a step takes however small its net is


@dataclass
class Kind:
    """Stages that cost alike: ``example`` is one of them; the sums are over those that were run, of work times seconds and of work squared."""

    example: Stage
    seconds: float = 0.0
    square: float = 0.0

    @property
    def rate(self) -> float:
        """Seconds for a unit of work, by least squares through the origin: what short stages say is mostly their start."""
        return self.seconds / self.square


class Pace:
    """What stages take here, learnt kind by kind from those that were run.

    The work of a training is its steps, with evaluations as so many steps; other stages are a unit each. A training of a kind that was
    never run is scaled by multiply-adds from the kind next to it in size; another such stage counts nothing.
    """

    def __init__(self, plan: Plan):
        self._plan = plan
        self._kinds: dict[str, Kind] = {}
        self._known: dict[Stage, tuple[Kind, float]] = {}  # so that each stage is looked at once
        self._sizes: dict[int, float] = {}

    def recall(self, store: Store, device: str) -> None:
        """Learns from the longest stage of each kind that the store has, where a core or a GPU ran it as now."""
        done = [s for s in self._plan.stages if store.has(s.hash)]
        longest = {id(self._of(s)[0]): s for s in sorted(done, key=lambda s: self._of(s)[1])}
        for stage in longest.values():
            made_by = store.record(stage.hash)["machine"]
            if made_by["device"].startswith("cpu") == (device == "cpu"):
                self.learn(stage, made_by["wall_s"])

    def learn(self, stage: Stage, seconds: float) -> None:
        kind, work = self._of(stage)
        kind.seconds, kind.square = kind.seconds + work * seconds, kind.square + work * work

    def seconds(self, stage: Stage) -> float | None:
        """What a stage will take; None of a training as long as none was run."""
        kind, work = self._of(stage)
        if kind.square:
            return work * kind.rate
        run = [k for k in self._kinds.values() if k.square and k.example.kind == "train"]
        if stage.kind != "train" or not run:
            return None if stage.kind == "train" else 0.0
        size = self._size(kind)
        near = min(run, key=lambda k: abs(math.log(self._size(k) / size)))
        return work * near.rate * size / self._size(near)

    def _of(self, stage: Stage) -> tuple[Kind, float]:
        """A stage's kind and work."""
        if stage not in self._known:
            told = _name(stage)
            self._known[stage] = self._kinds.setdefault(told, Kind(stage)), self._work(stage)
        return self._known[stage]

    def _work(self, stage: Stage) -> float:
        if stage.kind != "train":
            return 1.0
        data, batch = self._plan.sets[stage.params["data"]["fingerprint"]], effort.tokens(stage) or stage.params["batch_size"]
        return max(1.0, effort.steps(stage, data) + effort.reads(stage, data) / (PASSES * batch))

    def _size(self, kind: Kind) -> float:
        """Multiply-adds of a step forward, of the smallest nets as many as fit into its time."""
        if id(kind) not in self._sizes:
            try:
                counted = effort.size(kind.example, self._library)
            except Exception:  # a user's net: its own stages will fail, and say why
                counted = 0
            self._sizes[id(kind)] = SMALL + counted
        return self._sizes[id(kind)]

    @functools.cached_property
    def _library(self) -> Library:
        return load_library(self._plan.flags.with_file)


def _name(stage: Stage) -> str:
    """Of a kind of stage; a search that may end early and a physically smaller net are kinds of their own."""
    p = stage.params
    if stage.kind != "train":
        return canonical([stage.kind, p.get("what"), p.get("criterion"), p.get("model")])
    return canonical([effort.key(stage), p.get("track", {}).get("rule"), "channels" in stage.inputs])


class Progress:
    """How far a run is: stages done and left, and when those that run now were begun."""

    def __init__(self, pace: Pace, workers: int):
        self.pace, self.workers, self.done = pace, workers, 0
        self._left: dict[Stage, None] = {}
        self._begun: dict[Stage, tuple[float, int]] = {}

    @property
    def total(self) -> int:
        return self.done + len(self._left)

    def expect(self, left: Iterable[Stage]) -> None:
        """What is left, parents first; nothing of it runs."""
        self._left, self._begun = dict.fromkeys(left), {}

    def begin(self, batch: Sequence[Stage]) -> None:
        """Hands out stages that are trained as one."""
        self._begun |= dict.fromkeys(batch, (time.monotonic(), len(batch)))

    def finish(self, stage: Stage, seconds: float | None) -> None:
        """Books a stage, and what it took where that is known."""
        self.done += 1
        self.drop(stage)
        if seconds is not None:
            self.pace.learn(stage, seconds)

    def drop(self, stage: Stage) -> None:
        """A stage that is not to be expected any more."""
        self._left.pop(stage, None)
        self._begun.pop(stage, None)

    @property
    def eta_s(self) -> float | None:
        """Seconds left: the work over the workers, but no less than the longest chain of stages; None before any training was run."""
        left = {s: self._left_s(s) for s in self._left}
        if None in left.values():
            return None
        return max(sum(left.values()) / self.workers, effort.longest_chain(left))

    def _left_s(self, stage: Stage) -> float | None:
        seconds, (begun, shared) = self.pace.seconds(stage), self._begun.get(stage, (math.inf, 1))
        return seconds if seconds is None else min(seconds, max(0.0, seconds - (time.monotonic() - begun) / shared))
