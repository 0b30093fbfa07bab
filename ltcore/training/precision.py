"""Precision classes: the type of weights and optimiser state, and what products and convolutions may round their inputs to.

A class is part of a training stage's hash; none of them depends on how PyTorch's own switches stand (by default convolutions of float32
run in TF32 on a GPU, and a user's file may let products do so too).
"""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Precision:
    """``passes``: forward and backward pass in this type by autocast, with weights, loss and update in ``dtype``.

    ``bits``: all that training holds is rounded to block floating point of so many bits: see :mod:`ltcore.training.bfp`.
    """

    dtype: torch.dtype
    tf32: bool = False
    passes: torch.dtype | None = None
    bits: int | None = None


PRECISIONS = {
    "fp32": Precision(torch.float32), "fp64": Precision(torch.float64), "tf32": Precision(torch.float32, tf32=True),
    "bf16": Precision(torch.float32, passes=torch.bfloat16), "bfp8": Precision(torch.float32, bits=8),
}  # fmt: skip


@contextlib.contextmanager
def applied(name: str, device: torch.device | str) -> Iterator[None]:
    """Runs a block under a precision class; the process's own settings are back after it."""
    precision = PRECISIONS[name]
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if precision.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = precision.tf32
        # Casts of weights are not cached: a captured step would replay the first one, and updates in place would not be seen.
        with torch.autocast(torch.device(device).type, precision.passes, enabled=precision.passes is not None, cache_enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
