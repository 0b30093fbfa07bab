"""The LeNet-300-100 family: fully connected ReLU networks for flat inputs (LeCun et al. 1998, section III.C.4)."""
from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn


class LeNet(nn.Module):
    """Fully connected, ReLU between layers; LeNet-300-100 has 235,200 + 30,000 + 1,000 weights on MNIST.

    Args:
        input_shape: shape of one example, flattened at the door.
        classes: number of outputs.
        hidden: widths of the hidden layers.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, hidden: Sequence[int] = (300, 100)):
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.output = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, *input_shape) -> (B, classes)
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x).relu()
        return self.output(x)
