"""One segment of training for R replicates at once: step, mask, evaluate, remember the minimum of validation loss.

What comes out depends on each replicate's own inputs alone, not on which others ran beside it.
"""
from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ltcore import channels, drawing, seeds
from ltcore.data import Corpus, Dataset
from ltcore.models import split_state
from ltcore.recipe import Evaluate, Optimizer, Task
from ltcore.training import averaging, backends, language, optimizers, precision, supervised, translation
from ltcore.training.capture import Captured
from ltcore.training.goal import PARTS, Goal
from ltcore.training.rigl import Regrow
from ltcore.training.step import Step, begun_rounding

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
# By task; given the task's options.
GOALS: dict[str, Callable[[Mapping[str, Any]], Goal]] = {"classify": supervised.goal, "language-model": language.goal, "translate": translation.goal}
LAST = "last-iterate"  # where weights are averaged, "end" is the average, and this the weights that training ended with
GLOBAL_RNG = "global_rng"  # in a checkpoint: the state of torch's own CPU generator
CHECK_EVERY_IT = 64  # how often a segment asks whether to save or stop

Masks = Mapping[str, Tensor]


@dataclass(frozen=True)
class Segment:
    """Iterations [start, stop) of a schedule, shared by all replicates of a stack."""

    optimizer: Optimizer
    batch_size: int
    start: int
    stop: int
    evaluate: Evaluate
    val: int
    precision: str = "fp32"
    augment: str = "crop-flip"  # what is done where the streams have one for it
    regrow: Regrow | None = None  # a mask that moves
    track: drawing.Draw | None = None  # note the scales of channels, and maybe stop at a draw
    task: Task = Task()
    average: averaging.Average | None = None  # what is left at the end is the mean of weights passed through

    def __post_init__(self) -> None:
        if self.average and self.regrow:
            raise ValueError("weights can't be averaged under a mask that moves: their mean would be pruned nowhere")


@dataclass(frozen=True)
class Replicate:
    """What one copy brings: its weights and buffers, mask, optimiser state (None: fresh) and streams."""

    state: Mapping[str, Tensor]
    mask: Mapping[str, Tensor]
    streams: supervised.Streams
    optimizer: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Trained:
    """What one copy leaves: weights at the end, optimiser state, metrics by point (``early-stop``, ``end``, …) and curves."""

    state: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    metrics: dict[str, dict[str, float]]
    curves: dict[str, list[float]]
    facts: dict[str, Any]
    mask: dict[str, Tensor] = field(default_factory=dict)  # at the end, where it moved
    tracked: dict[str, Tensor] = field(default_factory=dict)  # scale -> (checks, C), where the segment tracks them


@dataclass
class Checkpoints:
    """Where a long segment saves itself, and when it has to stop; the defaults do neither."""

    load: Callable[[], dict[str, Tensor] | None] = lambda: None
    save: Callable[[dict[str, Tensor]], None] = lambda tensors: None
    due: Callable[[], bool] = lambda: False
    stop: Callable[[], bool] = lambda: False


class Stopped(Exception):
    """The time given is used up; the segment has saved itself."""


@dataclass
class _Run:
    """Everything that changes while a segment runs, as tensors, so that a checkpoint is this and nothing else; columns are the goal's."""

    params: dict[str, Tensor]  # (R, …) each, as are buffers, best and the optimiser's slots
    buffers: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor]  # parameters and buffers at the minimum of validation loss
    best_loss: Tensor  # (R,)
    best_it: Tensor  # (R,)
    curves: Tensor  # (evaluations, R, columns + 1): what validation reads, and the training loss
    reads: Tensor  # (declared points, parts, R, columns)
    loss_sum: Tensor  # (R,) training loss since the last evaluation
    progress: Tensor  # (3,): next iteration, evaluations done, iteration of the last evaluation
    tracked: dict[str, Tensor]  # scale -> (checks, R, C), filled as far as the segment is
    masks: dict[str, Tensor] = field(default_factory=dict)  # (R, …), where they move
    memory: dict[str, Tensor] = field(default_factory=dict)  # (R, …), what goes from step to step beside weights (an LSTM's state)
    sums: dict[str, Tensor] = field(default_factory=dict)  # (R, …), of the weights taken so far, where they are averaged

    def flat(self) -> dict[str, Tensor]:
        out = {}
        for f in fields(self):
            value = getattr(self, f.name)
            out |= {f"{f.name}/{n}": t for n, t in value.items()} if isinstance(value, dict) else {f.name: value}
        return out

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, t in self.flat().items():
            t.copy_(saved[name])


def train(module: nn.Module, data: Dataset | Corpus, segment: Segment, replicates: Sequence[Replicate],
          checkpoints: Checkpoints | None = None, backend: str | None = None) -> list[Trained]:  # fmt: skip
    """Trains R copies of ``module`` from their own states on ``data`` (already on the device).

    Masks act on the weights once, at the start, and on every gradient after that.

    Raises:
        Stopped: ``checkpoints.stop()`` said so; the state was saved before.
    """
    with precision.applied(segment.precision, data.device):
        return _train(module, data, segment, replicates, checkpoints or Checkpoints(), backend)


def _train(module: nn.Module, data: Dataset | Corpus, segment: Segment, replicates: Sequence[Replicate],
           checkpoints: Checkpoints, backend: str | None) -> list[Trained]:  # fmt: skip
    dtype, streams = precision.PRECISIONS[segment.precision].dtype, [r.streams for r in replicates]
    goal = GOALS[segment.task.name](segment.task.options)
    with contextlib.closing(goal.batches(data, segment, streams, dtype)) as batches:
        run, masks = _begin(module, segment, replicates, batches, goal)
        saved = checkpoints.load()
        if saved:
            run.restore(saved)
        rounding = begun_rounding(segment, replicates, run, batches.device, fresh=not saved)
        watched, backend = (rounding.watched(module), "loop") if rounding else (module, backend)
        engine = _engine(watched, segment, run, batches, goal, backend)
        with seeds.global_stream(*streams[0].order, "module", segment.start):  # for a user's nn.Dropout, which knows no stream
            if saved and GLOBAL_RNG in saved:
                torch.set_rng_state(saved[GLOBAL_RNG])
            step = Step(engine, batches, segment, run, masks, channels.scales(module), rounding)
            reading = _Reading(engine, batches, goal, module)
            reached = _steps(step, reading, segment, run, checkpoints)
        return _finish(reading, replace(segment, stop=reached), run)


def _engine(module: nn.Module, segment: Segment, run: _Run, batches: Any, goal: Goal, backend: str | None) -> Any:
    """The back end, chosen by a look at a first batch."""
    x, y = batches.example(batches.index(segment.start), *run.memory.values())
    return backends.choose(module, run.params, run.buffers, goal.loss, x, y, backend)


def _begin(module: nn.Module, segment: Segment, replicates: Sequence[Replicate], batches: Any, goal: Goal) -> tuple[_Run, Masks]:
    dtype, device, copies = batches.dtype, batches.device, len(replicates)
    names = dict.fromkeys(n for r in replicates for n in r.mask)
    masks = {n: torch.stack([r.mask.get(n, torch.ones(r.state[n].shape, dtype=torch.bool)) for r in replicates]).to(device) for n in names}
    stack = {n: torch.stack([r.state[n] for r in replicates]).to(device) for n in replicates[0].state}
    stack = {n: t.to(dtype) if t.is_floating_point() else t for n, t in stack.items()}
    stack = {n: t * masks[n] if n in masks else t for n, t in stack.items()}
    params, buffers = split_state(module, stack)
    rows = torch.full((copies,), math.inf, dtype=torch.float64)
    run = _Run(
        params, buffers, _optimizer_state(segment, replicates, params, masks), {n: t.clone() for n, t in stack.items()},
        best_loss=rows, best_it=torch.full((copies,), segment.start),
        curves=torch.full((len(evaluation_points(segment)), copies, len(goal.columns) + 1), math.nan, dtype=torch.float64),
        reads=torch.full((len(_declared(segment)), len(PARTS), copies, len(goal.columns)), math.nan, dtype=torch.float64),
        loss_sum=torch.zeros(copies, dtype=torch.float64, device=device),
        progress=torch.tensor([segment.start, 0, segment.start]),
        tracked={n: torch.zeros(len(_checks(segment)), *params[n].shape) for n in channels.kinds(module)} if segment.track else {},
        memory=_memory(replicates, batches.memory(module)),
    )  # fmt: skip
    # All bits set where kept: "and" costs what a product costs and leaves pruned weights 0 even under a gradient that is not a number.
    bits = {n: -m.to(BITS[dtype]) for n, m in masks.items() if n in params}
    run.masks = bits if segment.regrow else {}
    run.sums = {n: torch.zeros_like(p) for n, p in params.items()} if segment.average else {}
    return run, bits


def _memory(replicates: Sequence[Replicate], first: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the first step is given, or what came with the optimiser's state of the segment before."""
    memory = {f"memory/{i}": t for i, t in enumerate(first)}
    for n, t in memory.items():
        if given := [r.optimizer[n] for r in replicates if r.optimizer and n in r.optimizer]:
            t.copy_(torch.stack(given))
    return memory


def _optimizer_state(segment: Segment, replicates: Sequence[Replicate], params: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Zeros, or the state that came with the weights, with what belongs to pruned weights set to 0."""
    state = optimizers.init(segment.optimizer, params)
    if replicates[0].optimizer is None:
        return state
    for n, t in state.items():
        given = [r.optimizer[n] for r in replicates]
        t.copy_(given[0] if n == "step" else torch.stack(given))
        name = n.partition("/")[2]
        if name in masks:
            t.mul_(masks[name])
    return state


def evaluation_points(segment: Segment) -> list[int]:
    """Iterations after which validation is read: multiples of ``every_it`` beyond the start, and the last one."""
    every = segment.evaluate.every_it
    points = list(range(segment.start - segment.start % every + every, segment.stop + 1, every))
    return points if segment.stop in (segment.start, *points[-1:]) else [*points, segment.stop]


def _checks(segment: Segment) -> range:
    """Iterations after which the scales of channels are noted."""
    every = segment.track.every_it
    return range(segment.start - segment.start % every + every, segment.stop + 1, every)


def _declared(segment: Segment) -> list[int]:
    """Iterations of this segment that the evaluation names, such as 30000 for ``30000it``."""
    named = {int(p[:-2]) for p in (*segment.evaluate.test, *segment.evaluate.train) if p.endswith("it")}
    return sorted(t for t in named if segment.start < t <= segment.stop)


def _steps(steps: Step, reading: _Reading, segment: Segment, run: _Run, checkpoints: Checkpoints) -> int:
    """Trains to the end, or to where a ticket is drawn; returns the iteration reached."""
    points, declared, batches, step = set(evaluation_points(segment)), _declared(segment), steps.batches, steps
    checks = _checks(segment) if segment.track else ()
    taken = averaging.points(segment.average, segment.start, segment.stop)
    if batches.device.type == "cuda" and batches.captured:
        step = Captured(steps, batches.index(segment.start), run.params | run.buffers | run.optimizer | run.memory)
    for t in range(int(run.progress[0]), segment.stop):
        if segment.regrow and segment.regrow.due(t):
            run.loss_sum += steps.regrow(t)
        else:
            run.loss_sum += step(batches.index(t), optimizers.learning_rate(segment.optimizer, t), t)
        if t + 1 in taken:
            averaging.add(run.sums, run.params)
        if t + 1 in points and segment.val:
            _validate(reading, run, t + 1)
        if t + 1 in declared:
            run.reads[declared.index(t + 1)] = reading(segment.evaluate, f"{t + 1}it")
        if t + 1 in checks and _drawn(run, segment.track, checks.index(t + 1)):
            return t + 1
        if t % CHECK_EVERY_IT == 0 or not batches.captured:  # such a step takes long
            run.progress[0] = t + 1
            _checkpoint(run, checkpoints)
    return segment.stop


def _drawn(run: _Run, track: drawing.Draw, check: int) -> bool:
    """Notes the scales at a check; does the rule draw the ticket here? Only a replicate alone can stop."""
    for n, noted in run.tracked.items():
        noted[check] = run.params[n].cpu()
    if track.rule == "none":
        return False
    if len(run.best_loss) > 1:
        raise ValueError("a search that ends at its own draw can't be stacked with others")
    latest = {n: noted[max(0, check - drawing.QUEUE) : check + 1, 0] for n, noted in run.tracked.items()}
    return drawing.draws(drawing.masks_of(latest, track.rate), track.rule, track.epsilon)


def _checkpoint(run: _Run, checkpoints: Checkpoints) -> None:
    stop = checkpoints.stop()
    if stop or checkpoints.due():
        checkpoints.save(run.flat() | {GLOBAL_RNG: torch.get_rng_state()})
    if stop:
        raise Stopped


def _validate(reading: _Reading, run: _Run, t: int) -> None:
    """Reads validation, notes the curves, and keeps a copy of every replicate that is at a new minimum."""
    read = reading.part("val")
    loss = read[:, 0]
    _, row, last = run.progress.tolist()
    run.curves[row] = torch.cat([read, (run.loss_sum.cpu() / (t - last))[:, None]], dim=1)
    run.loss_sum.zero_()
    run.progress[1:] = torch.tensor([row + 1, t])
    for r in (loss < run.best_loss).nonzero().flatten().tolist():
        run.best_loss[r], run.best_it[r] = loss[r], t
        for n, now in (run.params | run.buffers).items():
            run.best[n][r].copy_(now[r])


@dataclass(frozen=True)
class _Reading:
    """What evaluations need."""

    engine: Any
    batches: Any
    goal: Goal
    module: nn.Module

    def part(self, part: str) -> Tensor:
        """The goal's columns of a whole part, (R, columns)."""
        return self.goal.evaluate(self.engine, self.batches, part, self.module).cpu()

    def __call__(self, evaluate: Evaluate, point: str) -> Tensor:
        """Columns of the parts that the protocol reads at this point, (parts, R, columns); NaN for those it does not."""
        wanted = {"val": self.batches.size("val") > 0, "test": point in evaluate.test, "train": point in evaluate.train}
        unread = torch.full((len(self.batches.streams), len(self.goal.columns)), math.nan, dtype=torch.float64)
        return torch.stack([self.part(p) if wanted[p] else unread for p in PARTS])


def _finish(reading: _Reading, segment: Segment, run: _Run) -> list[Trained]:
    """Reads the end, then the minimum of validation loss (by putting those weights in place), and takes the stack apart."""
    reads = {f"{t}it": read for t, read in zip(_declared(segment), run.reads)}
    reads["end"] = reading(segment.evaluate, "end")
    if count := len(averaging.points(segment.average, segment.start, segment.stop)):
        averaging.place(reading.module, run.params, run.buffers, run.sums, count, reading.batches, segment.stop)
        plain = backends.Loop(reading.module, run.params, run.buffers, reading.goal.loss)  # nothing is rounded any more
        reads |= {LAST: reads["end"], "end": replace(reading, engine=plain)(segment.evaluate, "end")}
    end = {n: t.clone() for n, t in (run.params | run.buffers).items()}
    for n, t in (run.params | run.buffers).items():
        t.copy_(run.best[n])
    if segment.val:
        reads["early-stop"] = reading(segment.evaluate, "early-stop")
    return [_row(r, reading, segment, run, end, reads) for r in range(len(reading.batches.streams))]


def _row(r: int, reading: _Reading, segment: Segment, run: _Run, end: Mapping[str, Tensor], reads: Mapping[str, Tensor]) -> Trained:
    goal, batches = reading.goal, reading.batches
    metrics = {point: _named(read[:, r], goal) for point, read in reads.items()}
    points = evaluation_points(segment)
    read = [i for i, c in enumerate(goal.columns) if c not in goal.unread.get("val", ())]
    curves = {"it": points} | {name: run.curves[: len(points), r, i].tolist() for name, i in zip(goal.curves, (*read, len(goal.columns)))}
    optimizer = {n: t.cpu() if n == "step" else t[r].cpu() for n, t in (run.optimizer | run.memory).items()}
    best_it = int(run.best_it[r])
    facts = {
        "early_stop_it": best_it,
        "censored": best_it == segment.stop,
        "failed": goal.failure(metrics, batches),
        "n_val": batches.size("val"), "n_test": batches.size("test"), "n_train": batches.size("train"),
    }  # fmt: skip
    mask = {n: (m[r] != 0).cpu() for n, m in run.masks.items()}
    tracked = {n: noted[: len(_checks(segment)), r] for n, noted in run.tracked.items()}
    facts |= batches.facts | ({"stopped_it": segment.stop} if tracked else {})
    if segment.average:
        facts["averaged"] = len(averaging.points(segment.average, segment.start, segment.stop))  # 0: the end is the last iterate
    return Trained({n: t[r].cpu() for n, t in end.items()}, optimizer, metrics, curves, facts, mask, tracked)


def _named(read: Tensor, goal: Goal) -> dict[str, float]:
    """(parts, columns) as metrics, without those that were not read."""
    unread = {part for i, part in enumerate(PARTS) if read[i].isnan().all()}
    return {goal.name(part, column): float(read[i, j]) for i, part in enumerate(PARTS) for j, column in enumerate(goal.columns)
            if part not in unread and column not in goal.unread.get(part, ())}  # fmt: skip
