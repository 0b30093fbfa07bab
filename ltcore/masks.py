"""Masks: which weights are kept. Names of prunable tensors to bool tensors, with exact counts, distances and reports."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Mask = Mapping[str, Tensor]  # prunable parameter -> bool, True where kept


def full(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The mask of a dense network."""
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def kept(mask: Mask) -> int:
    """Number of weights kept."""
    return sum(int(m.sum()) for m in mask.values())


def size(mask: Mask) -> int:
    """Number of prunable weights."""
    return sum(m.numel() for m in mask.values())


def densities(mask: Mask) -> dict[str, float]:
    """Fraction kept, layer by layer."""
    return {name: int(m.sum()) / m.numel() for name, m in mask.items()}


def collapsed(mask: Mask) -> list[str]:
    """Layers that keep no weight at all."""
    return [name for name, m in mask.items() if not m.any()]


def is_subset(a: Mask, b: Mask) -> bool:
    """Does ``a`` keep only weights that ``b`` keeps?"""
    return all(not (m & ~b[name]).any() for name, m in a.items())


def distance(a: Mask, b: Mask) -> float:
    """Normalised Hamming distance, 0 … 1 (You et al. 2020, early-bird tickets)."""
    return sum(int((m ^ b[name]).sum()) for name, m in a.items()) / size(a)


def overlap(a: Mask, b: Mask) -> tuple[float, float]:
    """Shared share of kept weights (intersection over union), and what two random masks of the same layer densities would share."""
    both = sum(int((m & b[name]).sum()) for name, m in a.items())
    either = sum(int((m | b[name]).sum()) for name, m in a.items())
    chance_both = sum(int(m.sum()) * int(b[name].sum()) / m.numel() for name, m in a.items())
    chance = chance_both / max(kept(a) + kept(b) - chance_both, 1)
    return both / max(either, 1), chance


def shuffled(mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    """The mask permuted within each layer: same counts, other places."""
    return {name: m.flatten()[torch.randperm(m.numel(), generator=generator)].reshape(m.shape) for name, m in mask.items()}


def shuffled_globally(mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    """The mask permuted over all layers together: the same count in all, any number in each."""
    together = torch.cat([m.flatten() for m in mask.values()])
    parts = together[torch.randperm(len(together), generator=generator)].split([m.numel() for m in mask.values()])
    return {name: part.reshape(mask[name].shape) for name, part in zip(mask, parts)}


def effective(mask: Mask) -> float | None:
    """Fraction of the prunable weights that lie on some path from input to output, for a chain of fully connected layers.

    None where the layers do not form such a chain (shapes do not join). Tensors are (outputs, inputs), in order.
    """
    layers = list(mask.values())
    if any(m.dim() != 2 for m in layers) or any(a.shape[0] != b.shape[1] for a, b in zip(layers, layers[1:])):
        return None
    live = [m.clone() for m in layers]
    for _ in range(2 * len(live)):  # one sweep each way settles a chain; repeated until the ends have met
        for a, b in zip(live, live[1:]):
            through = a.any(1) & b.any(0)
            a &= through[:, None]
            b &= through[None, :]
    return sum(int(m.sum()) for m in live) / size(mask)


@dataclass(frozen=True)
class Report:
    """Exact counts of one mask. ``all_weights`` counts weights that are never pruned as well; biases and norms never count."""

    kept_prunable: int
    prunable: int
    all_weights: int
    layers: dict[str, float]

    @property
    def density_prunable(self) -> float:
        return self.kept_prunable / self.prunable if self.prunable else 1.0

    @property
    def density_all(self) -> float:
        return (self.kept_prunable + self.all_weights - self.prunable) / self.all_weights


def report(mask: Mask, all_weights: int) -> Report:
    """Counts of a mask in a network of ``all_weights`` weights."""
    return Report(kept(mask), size(mask), all_weights, densities(mask))
