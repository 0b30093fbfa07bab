"""Layers that the engine needs in its own form, and what the families of convolutional nets share."""
from __future__ import annotations

from collections.abc import Sequence

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


def image(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """(channels, height, width) of one example; ValueError for anything but an image."""
    if len(input_shape) != 3:
        raise ValueError(f"it takes images of (channels, height, width), not inputs of {len(input_shape)} dimension(s)")
    channels, height, width = input_shape
    return channels, height, width


def widths(width: int, factors: Sequence[int]) -> list[int]:
    """Channels of each stage: ``width`` times the stage's factor."""
    if width < 1:
        raise ValueError(f"width {width} is less than 1 channel")
    return [width * factor for factor in factors]


def conv3x3(inputs: int, outputs: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """3x3 convolution that keeps the size of the image (at stride 1); no bias where batch norm follows."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
