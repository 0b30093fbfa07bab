"""What ``plan`` says: how many stages are left, and the time that they would take here, from steps timed on the spot."""
from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from bench import duration, effort
from bench.execute import most_stacked
from bench.grid import grid
from bench.plan import Plan, iterations, todo
from bench.store import Store
from bench.threads import threads
from bench.verbs import STACK
from ltcore import kinds
from ltcore.data import Corpus, Dataset
from ltcore.data.corpus import Tokens
from ltcore.library import Library
from ltcore.library import load as load_library
from ltcore.models import draw_state, layer_sizes, skeleton
from ltcore.recipe import Evaluate, Task
from ltcore.rl.worlds import Environment
from ltcore.stages import Stage
from ltcore.tasks import TASKS
from ltcore.training.loop import Replicate
from ltcore.training.supervised import Streams

KINDS = ("init", "train", "score", "prune", "transform", "measure")
MOST_TIMED = 3  # kinds of training that are timed; others are scaled from the first
ENOUGH_S = 0.25  # so many seconds of steps tell the time of one
MOST_STEPS = 2048
EXAMPLES, READ = 4000, 1000  # examples to train on, and those among them whose evaluation is timed
TIMED_BATCH, TIMED_READ = {"cpu": 2, "cuda": 64}, 8  # of decoded images, of which a step of a whole batch would take minutes on a core
LARGEST, READ_PAIRS = 10**10, 64  # multiply-adds of a batch of text that is timed whole on a core; pairs of sentences whose evaluation is timed
READS = 3  # evaluations of the validation part in a segment of one step: after it, at the end, at the minimum


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a kind of training costs here: a step of a whole stack, and the evaluation of one example by all of it."""

    step_s: float
    example_s: float
    stack: int
    size: int  # multiply-adds of a batch on its way forward, by which it is scaled


def summary(plan: Plan, store: Store | None, device: str, workers: int) -> dict[str, Any]:
    """Stages in all, done and to do, iterations to do and the seconds they would take, as plain JSON values.

    Without a store nothing is done yet. Nothing is written; timing takes about a second for each kind of training.
    """
    left = list(plan.stages) if store is None else list(todo(plan, store))
    training = [s for s in left if s.kind == "train" and iterations([s])]
    costs = _costs(training, plan, device)
    seconds = {s: _stage_s(s, costs[effort.key(s)], plan) for s in training}
    work, chain = sum(t / costs[effort.key(s)].stack for s, t in seconds.items()), effort.longest_chain(seconds)
    return {
        "paper": plan.paper.key, "scale": plan.flags.scale, "data": plan.data_names, "data_source": _sources(plan), "notes": list(plan.notes),
        "device": device, "workers": workers, "stages": _counts(plan.stages, left), "iterations": iterations(left),
        "ms_per_iteration": 1000 * work / max(iterations(left), 1), "longest_chain_s": chain, "seconds": max(work / workers, chain),
    }  # fmt: skip


def render(summary: Mapping[str, Any], plan: Plan) -> str:
    """The summary for people."""
    s, trials = summary, max((e["trials"] for e in plan.about.values()), default=0)
    rows = [[kind, n["total"], n["done"], n["to_do"]] for kind, n in s["stages"].items()]
    lines = [
        f"{s['paper']}, scale {s['scale']}, data {s['data']} ({s['data_source']}), {len(plan.about)} experiments, up to {trials} trials", *s["notes"], "",
        grid(rows, ["stages", "in all", "done", "to do"]), "", _time(s),
    ]  # fmt: skip
    return "\n".join(lines)


def _time(s: Mapping[str, Any]) -> str:
    if not s["iterations"]:
        return "no training to do: the rest takes seconds"
    where = "the GPU" if s["device"] == "cuda" else f"{s['workers']} processes" if s["workers"] > 1 else "1 process"
    each = f"{s['iterations']:,} training iterations to do, {s['ms_per_iteration']:.3g} ms each here with their evaluations"
    return f"{each}: about {duration.text(s['seconds'])} on {where}, start-up not counted"


def _sources(plan: Plan) -> str:
    return ", ".join(dict.fromkeys(d.source for d in plan.sets.values()))


def _counts(stages: Sequence[Stage], left: Sequence[Stage]) -> dict[str, dict[str, int]]:
    every, open_ = Counter(s.kind for s in stages), Counter(s.kind for s in left)
    return {k: {"total": every[k], "done": every[k] - open_[k], "to_do": open_[k]} for k in KINDS if every[k]}


# ---- from costs to seconds -----------------------------------------------------------------------------------
def _stage_s(stage: Stage, cost: Cost, plan: Plan) -> float:
    """Its steps and its evaluations."""
    data = plan.sets[stage.params["data"]["fingerprint"]]
    return effort.steps(stage, data) * cost.step_s + effort.reads(stage, data) * cost.example_s


# ---- timing --------------------------------------------------------------------------------------------------
def _costs(training: Sequence[Stage], plan: Plan, device: str) -> dict[str, Cost]:
    """The kinds with most iterations are timed, the others scaled from the first by their multiply-adds."""
    groups: dict[str, list[Stage]] = {}
    for stage in training:
        groups.setdefault(effort.key(stage), []).append(stage)
    library, costs = load_library(plan.flags.with_file), {}
    for key, stages in sorted(groups.items(), key=lambda item: -iterations(item[1])):
        stack = 1 if device == "cpu" else max(1, min(most_stacked(stages[0], STACK), int(len(stages) / effort.longest_chain(dict.fromkeys(stages, 1.0)))))
        costs[key] = _timed(stages[0], plan, library, device, stack) if len(costs) < MOST_TIMED else _scaled(costs, stages[0], library)
    return costs


def _scaled(costs: Mapping[str, Cost], stage: Stage, library: Library) -> Cost:
    first, size = next(iter(costs.values())), effort.size(stage, library)
    factor = size / first.size
    return dataclasses.replace(first, step_s=first.step_s * factor, example_s=first.example_s * factor, size=size)


def _timed(stage: Stage, plan: Plan, library: Library, device: str, stack: int) -> Cost:
    """Times whole segments and takes differences, so that only steps, or only evaluations, are left."""
    net = effort.net(stage, library)
    module, state, data = skeleton(*net), draw_state(*net, [0, "estimate"]), _data(stage, plan).to(device)
    mask = {n: torch.ones(state[n].shape, dtype=torch.bool) for n in layer_sizes(module)}
    copies = [Replicate(state, mask, Streams([0, "split"], [0, "order"]))] * stack
    whole = stage.params["batch_size"]
    batch = min(whole, TIMED_BATCH[device]) if data.decoded else _text_batch(stage, library, device) if isinstance(data, Corpus) else whole
    segment = dataclasses.replace(kinds.segment(stage.params), start=0, batch_size=batch, evaluate=Evaluate(2 * MOST_STEPS, ()),
                                  track=None)  # a search counts as if it went to its end
    if isinstance(data, Environment):
        segment = dataclasses.replace(segment, task=Task(segment.task.name, {**segment.task.options, "unit": "batches"}))

    def spent_s(steps: int, val: int = 0) -> float:
        started = time.perf_counter()
        TASKS[segment.task.name].train(module, data, dataclasses.replace(segment, stop=steps, val=val), copies)
        return time.perf_counter() - started

    read = 0 if isinstance(data, Environment) else len(data.val) if isinstance(data, Corpus) else min(TIMED_READ if data.decoded else READ, len(data.train) - batch)
    with threads(1 if device == "cpu" else torch.get_num_threads()):
        spent_s(1)  # the first call of anything is slow
        one = spent_s(1)
        step_s = _step_s(spent_s, one) * whole / batch
        example_s = max(spent_s(1, read) - one, 1e-6) / (READS * read) if read > 0 else 0.0
    return Cost(step_s, example_s, stack, effort.size(stage, library))


def _step_s(spent_s: Callable[[int], float], one: float) -> float:
    """More and more steps, until they take long enough to tell."""
    steps = 2
    while True:
        more = spent_s(1 + steps) - one
        if more >= ENOUGH_S or steps >= MOST_STEPS:
            return max(more, 1e-6) / steps
        steps *= 4


def _text_batch(stage: Stage, library: Library, device: str) -> int:
    """Of a net so large that a step of it takes seconds a share of the batch."""
    whole, size = stage.params["batch_size"], effort.size(stage, library)
    return max(2, int(whole * LARGEST / size)) if device == "cpu" and size > LARGEST else whole


def _data(stage: Stage, plan: Plan) -> Dataset | Corpus | Environment:
    """Some of the examples that the stage trains on; an environment as it is."""
    data, n = plan.sets[stage.params["data"]["fingerprint"]], max(EXAMPLES, 2 * stage.params["batch_size"])
    if isinstance(data, Environment):
        return data
    if isinstance(data, Corpus):
        text = isinstance(data.train, Tokens)
        some, few = data.train.first(max(n, 5 * effort.tokens(stage)) if text else n), data.val.first(READ if text else READ_PAIRS)
        return dataclasses.replace(data, train=some, val=few, test=few)
    some = data.train.first(n)
    return dataclasses.replace(data, train=some, test=some)
