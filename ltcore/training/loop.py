"""One segment of training for R replicates at once: step, mask, evaluate, remember the minimum of validation loss.

What comes out depends on each replicate's own inputs alone, not on which others ran beside it.
"""
from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ltcore import channels, drawing, seeds
from ltcore.data import Dataset
from ltcore.models import split_state
from ltcore.recipe import Evaluate, Optimizer, Task
from ltcore.training import backends, bfp, optimizers, precision, supervised
from ltcore.training.capture import Captured
from ltcore.training.rigl import Regrow, move

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
CURVES = ("val_loss", "val_accuracy_pct", "train_loss")
PARTS = ("val", "test", "train")
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
    """Everything that changes while a segment runs, as tensors, so that a checkpoint is this and nothing else."""

    params: dict[str, Tensor]  # (R, …) each, as are buffers, best and the optimiser's slots
    buffers: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor]  # parameters and buffers at the minimum of validation loss
    best_loss: Tensor  # (R,)
    best_it: Tensor  # (R,)
    curves: Tensor  # (evaluations, R, 3) in the order of CURVES
    reads: Tensor  # (declared points, parts, R, 2): loss and accuracy
    loss_sum: Tensor  # (R,) training loss since the last evaluation
    progress: Tensor  # (3,): next iteration, evaluations done, iteration of the last evaluation
    tracked: dict[str, Tensor]  # scale -> (checks, R, C), filled as far as the segment is
    masks: dict[str, Tensor] = field(default_factory=dict)  # (R, …), where they move

    def flat(self) -> dict[str, Tensor]:
        out = {}
        for f in fields(self):
            value = getattr(self, f.name)
            out |= {f"{f.name}/{n}": t for n, t in value.items()} if isinstance(value, dict) else {f.name: value}
        return out

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        for name, t in self.flat().items():
            t.copy_(saved[name])


def train(module: nn.Module, data: Dataset, segment: Segment, replicates: Sequence[Replicate],
          checkpoints: Checkpoints | None = None, backend: str | None = None) -> list[Trained]:  # fmt: skip
    """Trains R copies of ``module`` from their own states on ``data`` (already on the device).

    Masks act on the weights once, at the start, and on every gradient after that.

    Raises:
        Stopped: ``checkpoints.stop()`` said so; the state was saved before.
    """
    with precision.applied(segment.precision, data.train.y.device):
        return _train(module, data, segment, replicates, checkpoints or Checkpoints(), backend)


def _train(module: nn.Module, data: Dataset, segment: Segment, replicates: Sequence[Replicate],
           checkpoints: Checkpoints, backend: str | None) -> list[Trained]:  # fmt: skip
    dtype, streams = precision.PRECISIONS[segment.precision].dtype, [r.streams for r in replicates]
    with contextlib.closing(supervised.Batches(data, segment.val, segment.batch_size, streams, dtype, segment.augment, segment.stop)) as batches:
        run, masks = _begin(module, segment, replicates, batches)
        saved = checkpoints.load()
        if saved:
            run.restore(saved)
        rounding = _rounding(segment, replicates, run, batches.device, fresh=not saved)
        watched, backend = (rounding.watched(module), "loop") if rounding else (module, backend)
        engine = _engine(watched, segment, run, batches, backend)
        with seeds.global_stream(*streams[0].order, "module", segment.start):  # for a user's nn.Dropout, which knows no stream
            if saved and GLOBAL_RNG in saved:
                torch.set_rng_state(saved[GLOBAL_RNG])
            reached = _steps(engine, batches, segment, run, masks, checkpoints, channels.scales(module), rounding)
        return _finish(engine, batches, replace(segment, stop=reached), run)


def _engine(module: nn.Module, segment: Segment, run: _Run, batches: supervised.Batches, backend: str | None) -> Any:
    """The back end, chosen by a look at a first batch; of images in files two are enough for that."""
    index = batches.index(segment.start)
    x, y = batches.fetch(index[:, :2] if batches.data.decoded else index)
    return backends.choose(module, run.params, run.buffers, supervised.loss, x, y, backend)


def _begin(module: nn.Module, segment: Segment, replicates: Sequence[Replicate], batches: supervised.Batches) -> tuple[_Run, Masks]:
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
        curves=torch.full((len(evaluation_points(segment)), copies, len(CURVES)), math.nan, dtype=torch.float64),
        reads=torch.full((len(_declared(segment)), len(PARTS), copies, 2), math.nan, dtype=torch.float64),
        loss_sum=torch.zeros(copies, dtype=torch.float64, device=device),
        progress=torch.tensor([segment.start, 0, segment.start]),
        tracked={n: torch.zeros(len(_checks(segment)), *params[n].shape) for n in channels.kinds(module)} if segment.track else {},
    )  # fmt: skip
    # All bits set where kept: "and" costs what a product costs and leaves pruned weights 0 even under a gradient that is not a number.
    bits = {n: -m.to(BITS[dtype]) for n, m in masks.items() if n in params}
    run.masks = bits if segment.regrow else {}
    return run, bits


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


def _steps(engine: Any, batches: supervised.Batches, segment: Segment, run: _Run, masks: Masks, checkpoints: Checkpoints,
           scales: list[str], rounding: bfp.Rounding | None) -> int:  # fmt: skip
    """Trains to the end, or to where a ticket is drawn; returns the iteration reached."""
    round_ = _rounders(rounding, run)
    points, declared = set(evaluation_points(segment)), _declared(segment)
    checks = _checks(segment) if segment.track else ()

    def step(index: Tensor, lr: optimizers.Rate, t: int | Tensor) -> Tensor:
        if rounding:
            rounding.step.copy_(t) if isinstance(t, Tensor) else rounding.step.fill_(t)
        losses, grads = engine.grads(*batches.augmented(index, t))
        if segment.optimizer.bn_l1:
            channels.add_l1(run.params, grads, scales, segment.optimizer.bn_l1)
        round_["gradient"](grads)
        for n, mask in masks.items():
            grads[n].view(mask.dtype).bitwise_and_(mask)
        optimizers.update(segment.optimizer, run.params, grads, run.optimizer, lr)
        round_["weight"](run.params)
        round_["momentum"](run.optimizer)
        return losses

    if batches.device.type == "cuda" and not batches.data.decoded:  # no graph decodes files; such steps are long enough to launch one by one
        step = Captured(step, batches.index(segment.start), run.params | run.buffers | run.optimizer)
    for t in range(int(run.progress[0]), segment.stop):
        if segment.regrow and segment.regrow.due(t):  # instead of a step
            run.loss_sum += _regrow(engine, batches, segment.regrow, run, t)
        else:
            run.loss_sum += step(batches.index(t), optimizers.learning_rate(segment.optimizer, t), t)
        if t + 1 in points and segment.val:
            _validate(engine, batches, run, t + 1)
        if t + 1 in declared:
            run.reads[declared.index(t + 1)] = _read(engine, batches, segment.evaluate, f"{t + 1}it")
        if t + 1 in checks and _drawn(run, segment.track, checks.index(t + 1)):
            return t + 1
        if t % CHECK_EVERY_IT == 0 or batches.data.decoded:  # a step on decoded images takes seconds
            run.progress[0] = t + 1
            _checkpoint(run, checkpoints)
    return segment.stop


def _rounding(segment: Segment, replicates: Sequence[Replicate], run: _Run, device: torch.device, fresh: bool) -> bfp.Rounding | None:
    """Block floating point, where the precision class asks for it; first weights are put on its grid."""
    bits = precision.PRECISIONS[segment.precision].bits
    if bits is None:
        return None
    if len(replicates) > 1:
        raise ValueError("training in block floating point can't be stacked")
    rounding = bfp.Rounding(replicates[0].streams.order, bits, device)
    if fresh:
        rounding.step.fill_(segment.start)
        rounding.round_(run.params, rounding.keyed(run.params, "first"))
    return rounding


def _rounders(rounding: bfp.Rounding | None, run: _Run) -> dict[str, Callable[[Mapping[str, Tensor]], None]]:
    """What rounds gradients, weights and momentum; nothing at full precision."""
    if rounding is None:
        return dict.fromkeys(("gradient", "weight", "momentum"), lambda tensors: None)
    slots = {n: t for n, t in run.optimizer.items() if n != "step"}
    keys = {use: rounding.keyed(tensors, use) for use, tensors in (("gradient", run.params), ("weight", run.params), ("momentum", slots))}
    return {use: functools.partial(rounding.round_, keys=of) for use, of in keys.items()}


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


def _regrow(engine: Any, batches: supervised.Batches, regrow: Regrow, run: _Run, t: int) -> Tensor:
    losses, grads = engine.grads(*batches.augmented(batches.index(t), t))
    move(regrow, t, run.params, grads, run.masks, run.optimizer)
    return losses


def _checkpoint(run: _Run, checkpoints: Checkpoints) -> None:
    stop = checkpoints.stop()
    if stop or checkpoints.due():
        checkpoints.save(run.flat() | {GLOBAL_RNG: torch.get_rng_state()})
    if stop:
        raise Stopped


def _validate(engine: Any, batches: supervised.Batches, run: _Run, t: int) -> None:
    """Reads validation, notes the curves, and keeps a copy of every replicate that is at a new minimum."""
    loss, accuracy = (v.cpu() for v in supervised.evaluate(engine, batches, "val"))
    _, row, last = run.progress.tolist()
    run.curves[row] = torch.stack([loss, accuracy, run.loss_sum.cpu() / (t - last)], dim=1)
    run.loss_sum.zero_()
    run.progress[1:] = torch.tensor([row + 1, t])
    for r in (loss < run.best_loss).nonzero().flatten().tolist():
        run.best_loss[r], run.best_it[r] = loss[r], t
        for n, now in (run.params | run.buffers).items():
            run.best[n][r].copy_(now[r])


def _read(engine: Any, batches: supervised.Batches, evaluate: Evaluate, point: str) -> Tensor:
    """Loss and accuracy of the parts that the protocol reads at this point, (parts, R, 2); NaN for those it does not."""
    wanted = {"val": batches.size("val") > 0, "test": point in evaluate.test, "train": point in evaluate.train}
    unread = torch.full((len(batches.streams), 2), math.nan, dtype=torch.float64)
    return torch.stack([torch.stack(supervised.evaluate(engine, batches, p), dim=1).cpu() if wanted[p] else unread for p in PARTS])


def _finish(engine: Any, batches: supervised.Batches, segment: Segment, run: _Run) -> list[Trained]:
    """Reads the end, then the minimum of validation loss (by putting those weights in place), and takes the stack apart."""
    reads = {f"{t}it": read for t, read in zip(_declared(segment), run.reads)}
    reads["end"] = _read(engine, batches, segment.evaluate, "end")
    end = {n: t.clone() for n, t in (run.params | run.buffers).items()}
    for n, t in (run.params | run.buffers).items():
        t.copy_(run.best[n])
    if segment.val:
        reads["early-stop"] = _read(engine, batches, segment.evaluate, "early-stop")
    return [_row(r, batches, segment, run, end, reads) for r in range(len(batches.streams))]


def _row(r: int, batches: supervised.Batches, segment: Segment, run: _Run, end: Mapping[str, Tensor], reads: Mapping[str, Tensor]) -> Trained:
    metrics = {point: _named(read[:, r]) for point, read in reads.items()}
    points = evaluation_points(segment)
    curves = {"it": points} | {name: run.curves[: len(points), r, i].tolist() for i, name in enumerate(CURVES)}
    optimizer = {n: t.cpu() if n == "step" else t[r].cpu() for n, t in run.optimizer.items()}
    best_it = int(run.best_it[r])
    facts = {
        "early_stop_it": best_it,
        "censored": best_it == segment.stop,
        "failed": _failure(metrics, batches),
        "n_val": batches.size("val"), "n_test": batches.size("test"), "n_train": batches.size("train"),
    }  # fmt: skip
    mask = {n: (m[r] != 0).cpu() for n, m in run.masks.items()}
    tracked = {n: noted[: len(_checks(segment)), r] for n, noted in run.tracked.items()}
    facts |= {"stopped_it": segment.stop} if tracked else {}
    return Trained({n: t[r].cpu() for n, t in end.items()}, optimizer, metrics, curves, facts, mask, tracked)


def _named(read: Tensor) -> dict[str, float]:
    """(parts, 2) as metrics, without those that were not read."""
    named = {f"{part}_{what}": float(read[i, j]) for i, part in enumerate(PARTS) for j, what in enumerate(("loss", "accuracy_pct"))}
    unread = {part for i, part in enumerate(PARTS) if read[i].isnan().all()}
    return {name: value for name, value in named.items() if name.partition("_")[0] not in unread}


def _failure(metrics: Mapping[str, Mapping[str, float]], batches: supervised.Batches) -> str:
    """Why this trial does not count: its loss is not a number at the end, or its accuracy lies within 3 sd of guessing."""
    if not all(math.isfinite(v) for m in metrics.values() for v in m.values()):
        return "diverged"
    part = "val" if batches.size("val") else "test"
    chance, n = 1 / batches.data.classes, batches.size(part)
    best = max((m[f"{part}_accuracy_pct"] for m in metrics.values() if f"{part}_accuracy_pct" in m), default=100.0)
    return "stayed at chance" if best <= 100 * (chance + 3 * math.sqrt(chance * (1 - chance) / n)) else ""
