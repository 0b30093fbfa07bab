"""Scores: one number a weight, the lowest are pruned first. Each criterion is one small pure function.

A criterion takes the :class:`Scored` values and returns {name: scores} in the shapes of the weights. The dict ``CRITERIA`` is the
whole registry; ``--with my.py`` adds to a copy of it.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """What a criterion may look at; all mappings hold the prunable weights by name.

    Args:
        weights: the weights at the end of training (or wherever the recipe scores).
        start: the weights that this training run started from.
        mask: what is kept so far.
        generator: a stream of this trial, level and use.
        gradient: the loss's gradient by the weights (masked, in training mode) on one batch of training examples; only for criteria
            that ask for data by an attribute ``needs_gradient = True``.
    """

    weights: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    mask: Mapping[str, Tensor]
    generator: torch.Generator
    gradient: Callable[[], Mapping[str, Tensor]] | None = None


Criterion = Callable[[Scored], Mapping[str, Tensor]]


def magnitude(s: Scored) -> dict[str, Tensor]:
    """|w|. References: Han et al. 2015; Frankle & Carbin 2019, section 2."""
    return {name: w.abs() for name, w in s.weights.items()}


def largest(s: Scored) -> dict[str, Tensor]:
    """−|w|: the largest weights go first. The negative control ``largest-pruned``, not a method."""
    return {name: -w.abs() for name, w in s.weights.items()}


def random(s: Scored) -> dict[str, Tensor]:
    """A uniform draw for each weight."""
    return {name: torch.rand(w.shape, generator=s.generator) for name, w in s.weights.items()}


def snip(s: Scored) -> dict[str, Tensor]:
    """|w · ∂L/∂w|, on one batch: how much the loss would change without the weight, to first order.

    References: Lee et al. 2019, SNIP, equation 6 (their normalisation over all weights does not change the order).
    """
    gradient = s.gradient()
    return {name: (w * gradient[name]).abs() for name, w in s.weights.items()}


snip.needs_gradient = True


def bn_scale(s: Scored) -> dict[str, Tensor]:
    """|γ| of every channel's batch norm. References: Liu et al. 2017, network slimming; You et al. 2020, early-bird tickets."""
    return {name: w.abs() for name, w in s.weights.items()}


bn_scale.of_channels = True  # the scales of the module's channels are scored, not its weights

CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "largest": largest, "random": random, "snip": snip, "bn-scale": bn_scale}
