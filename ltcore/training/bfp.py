"""Block floating point: numbers of a block share one exponent, each keeps a short signed integer, rounded at random.

References: Yang et al. 2019, SWALP, section 3.1 and Algorithm 2 (8 bits, one exponent a tensor or a row of it, stochastic rounding), which
You et al. 2020 search and train with. Rounding is counter-based, so that it is the same alone, stacked, on every device and after a resume.
"""
from __future__ import annotations

import torch
from torch import Tensor

from ltcore import seeds

EXPONENT_BITS = 8
BLOCKS = ("tensor", "row")


def exponents(x: Tensor, block: str = "tensor") -> Tensor:
    """Shared exponents, floor(log2 max |x|) within ``EXPONENT_BITS``: () for a tensor, (rows, 1, …) for rows; the lowest where all are 0."""
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}: {' or '.join(BLOCKS)}")
    largest = x.abs().max() if block == "tensor" else x.abs().flatten(1).amax(1).reshape(-1, *[1] * (x.dim() - 1))
    low, high = -(2 ** (EXPONENT_BITS - 1)), 2 ** (EXPONENT_BITS - 1) - 1
    exponent = torch.frexp(largest).exponent - 1  # exact, unlike log2
    return torch.where(largest > 0, exponent, low).clamp(low, high)


def quantise(x: Tensor, key: Tensor, step: int | Tensor, bits: int = 8, block: str = "tensor") -> Tensor:
    """x on the grid of its blocks; the expected value is x, but for the largest of a block, which may lie above the grid.

    Args:
        x: float tensor. key: int64 scalar tensor below 2**31, on the device of x. step: counter of the draw.
        bits: of the signed integers. block: ``tensor`` (one exponent) or ``row`` (one for each index of the first dimension).
    """
    exponent = exponents(x, block) - (bits - 2)
    unit = torch.ldexp(torch.ones_like(exponent, dtype=x.dtype), exponent)
    draws = seeds.uniform(key, step, x.numel()).to(x.dtype).reshape(x.shape)
    whole = torch.floor(x / unit + draws).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return whole * unit
