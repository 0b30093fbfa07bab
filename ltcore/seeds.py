"""The only door to randomness: every random number is a pure function of a trial's seed and a path of uses.

``stream(seed, "order", epoch)`` gives the same generator in every process, whatever was drawn before.
``uniform`` is counter-based, for draws that happen inside a step on any device (dropout, augmentation).
"""
from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator

import torch
from torch import Tensor


def stream_seed(seed: int, *path: str | int | float) -> int:
    """A 63-bit seed for one use, e.g. ``stream_seed(0, "reinit", level, draw)``."""
    digest = hashlib.sha256(json.dumps([seed, *path]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, *path: str | int | float) -> torch.Generator:
    """A CPU generator for one use; drawn on CPU so that every device sees the same numbers."""
    return torch.Generator().manual_seed(stream_seed(seed, *path))


@contextlib.contextmanager
def global_stream(seed: int, *path: str | int | float) -> Iterator[None]:
    """Torch's global CPU generator set from a stream inside the block and put back after it.

    For constructors of user modules and library initialisers, which know no generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(stream_seed(seed, *path))
        yield


def uniform(key: Tensor, step: int | Tensor, n: int) -> Tensor:
    """``n`` numbers in [0, 1) as a function of (key, step, index), made on the device of ``key``.

    A 32-bit finaliser (Murmur3's, by Austin Appleby, public domain) over a mixed counter; int64 arithmetic, so that it is
    the same on CPU and GPU and works under ``torch.func.vmap``.

    Args:
        key: int64 scalar tensor, below 2**31. step: a number or an int64 scalar tensor. n: how many.
    """
    index = torch.arange(n, device=key.device, dtype=torch.int64)
    return _finalise(index ^ _finalise(step + _finalise(key))).to(torch.float64).mul(2.0**-32).to(torch.float32).clamp(max=1 - 2.0**-24)


def _finalise(x: Tensor) -> Tensor:
    """Murmur3's 32-bit finaliser on int64 tensors that hold 32-bit values."""
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)
