"""Block floating point: numbers of a block share one exponent, each keeps a short signed integer, rounded at random.

References: Yang et al. 2019, SWALP, section 3.1 and Algorithm 2 (8 bits, one exponent a tensor or a row of it, stochastic rounding), which
You et al. 2020 search and train with. Rounding is counter-based, so that it is the same alone, stacked, on every device and after a resume.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltcore import seeds

EXPONENT_BITS = 8
BLOCKS = ("tensor", "row")


def exponents(x: Tensor, block: str = "tensor") -> Tensor:
    """Shared exponents, floor(log2 max |x|) within ``EXPONENT_BITS``: () or (rows, 1, …); the lowest where all are 0."""
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
    largest = 2 ** (bits - 1) - 1  # either way: -2^(bits - 1) would raise the exponent when it is rounded again, and move all others
    return torch.floor(x / unit + draws).clamp(-largest, largest) * unit


class _Round(torch.autograd.Function):
    """Rounds what passes forward, and the error that passes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: tuple[Tensor, Tensor], step: Tensor, bits: int) -> Tensor:
        ctx.how = keys[1], step, bits
        return quantise(x, keys[0], step, bits, "row")

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        return quantise(error, *ctx.how, "row"), None, None, None


class Rounding:
    """Block floating point for all that training one network holds: weights, gradients, momentum, activations and errors.

    Activations and errors have an exponent an example, matrices and filters one a row, vectors one. The draws are a function of the
    trial's path, the iteration, the use and the place; evaluation has draws of its own, the same at every iteration.
    """

    def __init__(self, path: Sequence[Any], bits: int, device: torch.device):
        self.path, self.bits, self.device = path, bits, device
        self.step, self.still = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))

    def _key(self, *use: str) -> Tensor:
        return torch.tensor(seeds.stream_seed(*self.path, "rounding", *use) % 2**31, device=self.device)

    def watched(self, module: nn.Module) -> nn.Module:
        """A copy of the module whose convolutions, batch norms and linear layers round what they give."""
        module = copy.deepcopy(module)
        for name, layer in module.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)):
                layer.register_forward_hook(self._hook((self._key(name, "activation"), self._key(name, "error"))))
        return module

    def _hook(self, keys: tuple[Tensor, Tensor]) -> Any:
        def rounded(layer: nn.Module, inputs: Any, out: Tensor) -> Tensor:
            return _Round.apply(out, keys, self.step if layer.training else self.still, self.bits)

        return rounded

    def keyed(self, tensors: Mapping[str, Tensor], use: str) -> dict[str, Tensor]:
        """A key for each of a stack's tensors; made once, as a captured step makes nothing."""
        return {name: self._key(name, use) for name in tensors}

    @torch.no_grad()
    def round_(self, tensors: Mapping[str, Tensor], keys: Mapping[str, Tensor]) -> None:
        """Rounds tensors (1, …) of a stack of one in place."""
        for name, key in keys.items():
            one = tensors[name][0]
            one.copy_(quantise(one, key, self.step, self.bits, "row" if one.dim() > 1 else "tensor"))
