"""RigL: a sparse network whose mask moves while it trains, the number of weights in each layer staying as it is.

References: Evci et al. 2020, "Rigging the Lottery", section 3 and algorithm 1; google-research/rigl, ``rigl/sparse_optimizers_base.py``
(weights that are dropped and grown again at once keep their values, others start from 0; their momentum is set to 0).
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ltcore.pruning import count, drop_lowest

Stack = Mapping[str, Tensor]  # name -> (R, …)


@dataclass(frozen=True)
class Regrow:
    """When and how much the mask moves: every ``every_it`` iterations before ``until_it``, ``share`` of a layer at first, less by a cosine."""

    until_it: int
    every_it: int = 100
    share: float = 0.3

    def due(self, t: int) -> bool:
        return 0 < t < self.until_it and t % self.every_it == 0

    def share_at(self, t: int) -> float:
        return self.share / 2 * (1 + math.cos(math.pi * t / self.until_it))


@torch.no_grad()
def move(regrow: Regrow, t: int, params: Stack, grads: Stack, masks: Stack, slots: Stack) -> None:
    """In place: of each layer the smallest weights go and as many come where the gradient is largest.

    Args:
        grads: of the whole layers, not masked. masks: integers, all bits set where kept. slots: the optimiser's, ``<slot>/<name>``.
    """
    for name, bits in masks.items():
        before = bits != 0
        after = torch.stack([_moved(w, g, m, regrow.share_at(t)) for w, g, m in zip(params[name], grads[name], before)])
        stay = before & after
        for tensor in (params[name], *(s for n, s in slots.items() if n.partition("/")[2] == name)):
            tensor.mul_(stay)
        bits.copy_(-after.to(bits.dtype))


def _moved(weight: Tensor, grad: Tensor, mask: Tensor, share: float) -> Tensor:
    """The mask of one layer after its step; what is dropped may be grown again."""
    k = count(share, int(mask.sum()))
    kept = drop_lowest(weight.abs(), mask, k)
    return ~drop_lowest(-grad.abs(), ~kept, k)  # grown: the k largest among all that are not kept
