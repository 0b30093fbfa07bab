"""Scores to masks: exactly k weights go, ties broken by flat index, within each layer or over all layers together."""
from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ltcore.masks import Mask


def count(rate: float, remaining: int) -> int:
    """k = floor(rate × remaining + 0.5): round half up, the same in every language and library."""
    return math.floor(rate * remaining + 0.5)


def drop_lowest(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    """The mask (bool, flat or shaped) without the k kept weights of lowest score; of equal scores the lower flat index goes first."""
    flat, where = scores.flatten(), mask.flatten().nonzero().squeeze(1)
    lowest = where[torch.sort(flat[where], stable=True).indices[:k]]
    out = mask.flatten().clone()
    out[lowest] = False
    return out.reshape(mask.shape)


def prune_layerwise(scores: Mapping[str, Tensor], mask: Mask, rates: Mapping[str, float]) -> dict[str, Tensor]:
    """Each tensor loses ``count(rates[name], what it still holds)`` weights; tensors without a rate stay whole."""
    return {name: drop_lowest(scores[name], m, count(rates.get(name, 0.0), int(m.sum()))) for name, m in mask.items()}


def prune_global(scores: Mapping[str, Tensor], mask: Mask, rates: Mapping[str, float]) -> dict[str, Tensor]:
    """All tensors with a rate are ranked together and lose ``count(rate, all that they hold)`` weights.

    Raises:
        ValueError: the tensors do not share one rate.
    """
    names = [name for name in mask if name in rates]
    if len({rates[name] for name in names}) > 1:
        raise ValueError("global pruning takes one rate for all layers")
    together = torch.cat([mask[name].flatten() for name in names])
    left = drop_lowest(torch.cat([scores[name].flatten() for name in names]), together, count(rates[names[0]], int(together.sum())))
    parts = left.split([mask[name].numel() for name in names])
    return {**mask, **{name: part.reshape(mask[name].shape) for name, part in zip(names, parts)}}


def prune_global_keep_one(scores: Mapping[str, Tensor], mask: Mask, rates: Mapping[str, float]) -> dict[str, Tensor]:
    """As ``prune_global``, but of each tensor the best entry stays (of equal ones the last), and others go in their place.

    For channels: a layer without channels would cut the network. Fewer than asked go only where nothing but these is left.
    """
    safe = {name: _best_last(scores[name], m) for name, m in mask.items() if name in rates}
    k = count(next(iter(rates.values())), sum(int(mask[name].sum()) for name in safe))
    most = sum(max(int(mask[name].sum()) - 1, 0) for name in safe)
    if k <= most:
        return prune_global(safe, mask, rates)
    return {**mask, **{name: mask[name] & (safe[name] == math.inf) for name in safe}}


def _best_last(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with infinity at the best kept entry and at no other."""
    flat, where = scores.flatten().clamp(max=torch.finfo(scores.dtype).max), mask.flatten().nonzero().squeeze(1)
    if len(where):
        flat[where[torch.sort(flat[where], stable=True).indices[-1]]] = math.inf
    return flat.reshape(scores.shape)


SCOPES = {"layerwise": prune_layerwise, "global": prune_global, "global-keep-one": prune_global_keep_one}


def prune(scores: Mapping[str, Tensor], mask: Mask, rates: Mapping[str, float], scope: str) -> dict[str, Tensor]:
    """One prune step.

    Args:
        scores: prunable parameter -> scores of its shape; NaN counts as lowest.
        mask: what is kept so far.
        rates: prunable parameter -> share of its remaining weights to remove.
        scope: ``layerwise``, ``global`` or ``global-keep-one``.
    """
    clean = {name: torch.nan_to_num(s, nan=-math.inf, posinf=math.inf, neginf=-math.inf) for name, s in scores.items()}
    return SCOPES[scope](clean, mask, rates)
