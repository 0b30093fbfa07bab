"""Layers that the engine needs in its own form."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ltcore import seeds


class Dropout(nn.Module):
    """Dropout whose mask is a function of (key, step, index): the same on every device, alone or stacked, and after a resume.

    ``counter`` holds (key, step); the key is drawn with the weights, the step counts forward passes in training. A stock
    ``nn.Dropout`` in a user's model works too, but draws from a global stream.
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability {p} is not in [0, 1)")
        self.p = p
        self.register_buffer("counter", torch.stack([torch.randint(2**31, ()), torch.zeros((), dtype=torch.int64)]))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = seeds.uniform(self.counter[0], self.counter[1], x.numel()).reshape(x.shape) >= self.p
        self.counter[1].add_(1)  # in place and without a copy from the host, which a captured step can't do
        return x * keep / (1 - self.p)
