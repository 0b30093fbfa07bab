"""Averages of the weights that training passes through: what a segment leaves is their mean, with batch-norm statistics of its own.

References: Izmailov et al. 2018, SWA (one model a cycle, equal weights, statistics measured anew); Yang et al. 2019, SWALP, Algorithm 2
(the iterates are rounded, their average is not) and the authors' ``moving_average`` and ``bn_update``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltcore.training import backends
from ltcore.training.supervised import Batches


@dataclass(frozen=True)
class Average:
    """The weights after every ``every_it`` iterations beyond ``from_it`` count alike; the first are those after ``from_it + every_it``."""

    from_it: int
    every_it: int


def points(average: Average | None, start: int, stop: int) -> range:
    """Iterations of the segment [start, stop) after which weights are taken."""
    if average is None:
        return range(0)
    passed = max(0, start - average.from_it) // average.every_it
    return range(average.from_it + (passed + 1) * average.every_it, stop + 1, average.every_it)


def add(sums: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> None:
    """Takes the weights as they are now."""
    for n, total in sums.items():
        total.add_(params[n])


def place(module: nn.Module, params: dict[str, Tensor], buffers: dict[str, Tensor], sums: Mapping[str, Tensor], count: int,
          batches: Batches, start: int) -> None:  # fmt: skip
    """Puts the average of ``count`` iterates in place of the weights, and its own statistics in that of the batch norms'.

    Args:
        params, buffers: stacks (R, …), changed in place. start: the iteration whose batch begins the epoch that is read for statistics.
    """
    for n, total in sums.items():
        params[n].copy_(total / count)
    refresh_statistics(module, params, buffers, batches, start)


@torch.no_grad()
def refresh_statistics(module: nn.Module, params: dict[str, Tensor], buffers: dict[str, Tensor], batches: Batches, start: int) -> None:
    """Running means and variances become the plain mean of those of one epoch's batches, [start, start + an epoch), as training sees them.

    Other layers are in evaluation mode: dropout would move what is measured.
    """
    copies = [backends.bind(copy.deepcopy(module).to(batches.device), params, buffers, r) for r in range(len(batches.streams))]
    norms = sum(_reset(one) for one in copies)
    for t in range(start, start + batches.per_epoch if norms else start):
        x, _ = batches.augmented(batches.index(t), t)
        for one, images in zip(copies, x):
            one(images)


def _reset(module: nn.Module) -> int:
    """Statistics forgotten, and a momentum of None, which makes them cumulative; how many batch norms there are."""
    norms = [m for m in module.eval().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None
    return len(norms)
