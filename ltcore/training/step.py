"""One step of a whole stack, and the rounding of all that it holds where the precision class asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ltcore import channels
from ltcore.training import bfp, optimizers, precision
from ltcore.training.rigl import move

Masks = Mapping[str, Tensor]
Run = Any  # the loop's tensors, which a step changes in place


class Step:
    """One step of the whole stack: gradients, masks, update."""

    def __init__(self, engine: Any, batches: Any, segment: Any, run: Run, masks: Masks, scales: list[str], rounding: bfp.Rounding | None):
        self.engine, self.batches, self.segment, self.run, self.masks = engine, batches, segment, run, masks
        self.scales, self.rounding, self.round = scales, rounding, rounders(rounding, run)

    def __call__(self, index: Tensor, lr: optimizers.Rate, t: int | Tensor) -> Tensor:
        """Losses (R,)."""
        optimizer, run, rounding = self.segment.optimizer, self.run, self.rounding
        if rounding:
            rounding.step.copy_(t) if isinstance(t, Tensor) else rounding.step.fill_(t)
        losses, grads = self.gradients(index, t)
        if optimizer.bn_l1:
            channels.add_l1(run.params, grads, self.scales, optimizer.bn_l1)
        self.round["gradient"](grads)
        for n, mask in self.masks.items():
            grads[n].view(mask.dtype).bitwise_and_(mask)
        optimizers.update(optimizer, run.params, grads, run.optimizer, lr)
        self.round["weight"](run.params)
        self.round["momentum"](run.optimizer)
        return losses

    def gradients(self, index: Tensor, t: int | Tensor) -> tuple[Tensor, Masks]:
        """Of the whole layers, not masked; the memory goes on."""
        losses, grads = self.engine.grads(*self.batches.augmented(index, t, *self.run.memory.values()))
        for old, new in zip(self.run.memory.values(), self.engine.carried):
            old.copy_(new)
        return losses, grads

    def regrow(self, t: int) -> Tensor:
        """Instead of a step."""
        losses, grads = self.gradients(self.batches.index(t), t)
        move(self.segment.regrow, t, self.run.params, grads, self.run.masks, self.run.optimizer)
        return losses


def begun_rounding(segment: Any, replicates: Sequence[Any], run: Run, device: torch.device, fresh: bool) -> bfp.Rounding | None:
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


def rounders(rounding: bfp.Rounding | None, run: Run) -> dict[str, Callable[[Mapping[str, Tensor]], None]]:
    """What rounds gradients, weights and momentum; nothing at full precision."""
    if rounding is None:
        return dict.fromkeys(("gradient", "weight", "momentum"), lambda tensors: None)
    slots = {n: t for n, t in run.optimizer.items() if n != "step"}
    keys = {use: rounding.keyed(tensors, use) for use, tensors in (("gradient", run.params), ("weight", run.params), ("momentum", slots))}
    return {use: functools.partial(rounding.round_, keys=of) for use, of in keys.items()}
