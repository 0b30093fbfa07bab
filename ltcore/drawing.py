"""When a ticket is drawn: masks of channels from scales along a training run, their distances, and the two drawing rules.

References: You et al. 2020, section 4 (a queue of distances) and the authors' code (``EarlyBird`` in ``main.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ltcore import masks
from ltcore.masks import Mask
from ltcore.pruning import prune

EPSILON, QUEUE, OLDER = 0.1, 5, 4  # the bound; consecutive distances in the paper's queue; older masks in the code's


@dataclass(frozen=True)
class Draw:
    """Scales are noted after every ``every_it`` iterations; a rule other than ``none`` ends the run where it draws.

    Args:
        rate: share of the channels that the ticket loses.
    """

    every_it: int
    rate: float = 0.0
    rule: str = "none"
    epsilon: float = EPSILON


def masks_of(scales: Mapping[str, Tensor], rate: float) -> list[dict[str, Tensor]]:
    """Masks of channels at the times of ``scales`` {name: (T, C)}: the global threshold, each layer's best channel kept."""
    times, rates = len(next(iter(scales.values()))), dict.fromkeys(scales, rate)
    full = masks.full({n: s.shape[1:] for n, s in scales.items()})
    return [prune({n: s[t].abs() for n, s in scales.items()}, full, rates, "global-keep-one") for t in range(times)]


def draws(found: Sequence[Mask], rule: str, epsilon: float) -> bool:
    """Does the rule draw at the last of these masks?"""
    return RULES[rule](found, epsilon)


def first(found: Sequence[Mask], rule: str, epsilon: float) -> int | None:
    """Place of the first mask at which the rule draws; None where it never does."""
    return next((t for t in range(len(found)) if draws(found[: t + 1], rule, epsilon)), None)


def _queue(found: Sequence[Mask], epsilon: float) -> bool:
    """The paper's: the last five distances of consecutive masks all lie below epsilon."""
    last = found[-(QUEUE + 1) :]
    return len(last) == QUEUE + 1 and all(masks.distance(a, b) < epsilon for a, b in zip(last, last[1:]))


def _newest(found: Sequence[Mask], epsilon: float) -> bool:
    """The code's: the newest mask is no further than epsilon from each of the four before it."""
    *older, newest = found[-(OLDER + 1) :]
    return len(older) == OLDER and all(masks.distance(newest, mask) <= epsilon for mask in older)


RULES = {"queue": _queue, "newest": _newest, "none": lambda found, epsilon: False}


def distances(found: Sequence[Mask]) -> Tensor:
    """Normalised Hamming distance of every pair, (T, T) float64."""
    flat = torch.stack([torch.cat([m.flatten() for m in mask.values()]) for mask in found]).double()  # (T, channels)
    inner = flat @ flat.T  # exact: sums of zeros and ones
    held = inner.diagonal()
    return (held[:, None] + held[None, :] - 2 * inner) / flat.shape[1]


def chosen_pairs(epochs: int, most: int = 40) -> list[tuple[int, int]]:
    """Pairs of 1 … ``epochs`` worth a record of their own: neighbours, and every pair of at most ``most`` + 2 evenly spaced epochs."""
    step = -(-epochs // most)
    grid = [e for e in range(1, epochs + 1) if e % step == 0 or e in (1, epochs)]
    pairs = {(a, b) for i, a in enumerate(grid) for b in grid[i + 1 :]} | {(e, e + 1) for e in range(1, epochs)}
    return sorted(pairs)
