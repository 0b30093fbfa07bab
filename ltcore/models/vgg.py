"""VGG for CIFAR: the convolutions of Simonyan & Zisserman 2015 with batch norm, and one linear layer (or more) at the end."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore.channels import Link
from ltcore.models.layers import conv3x3, image, widths

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # depth -> convolutions in each stage
FACTORS = (1, 2, 4, 8, 8)  # width of each stage, in units of the first


class VGG(nn.Module):
    """Five stages of (3x3 convolution, batch norm, ReLU); VGG-19 has 20,018,880 + 5,120 weights on CIFAR-10.

    A 2x2 max-pool lies between stages, a global average pool after the fifth (Frankle & Carbin 2019, Sec 4; the depth in a name
    counts the three linear layers of the original). Pools round sizes up, so that images below 32x32 pass; at 32x32 nothing is rounded.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        depth: 11, 13, 16 or 19.
        width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        linear: number of fully connected layers: the output, and before it layers of the last stage's width (Chen et al. 2021, App C).
        bias: convolutions have biases, 5,504 in VGG-19 (Morcos et al. 2019, App A.1).

    Raises:
        ValueError: another depth, a width or number of layers below 1, or inputs that are not images.
    """

    memory_format = torch.channels_last

    def __init__(self, input_shape: Sequence[int], classes: int, depth: int = 19, width: int = 64, linear: int = 1, bias: bool = False):
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"depth {depth} is not one of {', '.join(map(str, STAGES))}")
        if linear < 1:
            raise ValueError(f"{linear} fully connected layers leave no output")
        convs = [image(input_shape)[0], *(w for w, n in zip(widths(width, FACTORS), STAGES[depth]) for _ in range(n))]
        self.pool_before = {sum(STAGES[depth][:stage]) for stage in range(1, len(FACTORS))}  # places of convolutions
        self.conv = nn.ModuleList(conv3x3(a, b, bias=bias) for a, b in zip(convs, convs[1:]))
        self.norm = nn.ModuleList(nn.BatchNorm2d(b) for b in convs[1:])
        self.hidden = nn.ModuleList(nn.Linear(convs[-1], convs[-1]) for _ in range(linear - 1))
        self.output = nn.Linear(convs[-1], classes)
        after = [*(f"conv.{i}" for i in range(1, len(self.conv))), "output"]
        self.channel_links = {f"norm.{i}": Link(f"conv.{i}", (name,)) for i, name in enumerate(after)}

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        for i, (conv, norm) in enumerate(zip(self.conv, self.norm)):
            x = F.max_pool2d(x, 2, ceil_mode=True) if i in self.pool_before else x
            x = norm(conv(x)).relu_()
        x = x.mean((2, 3))
        for layer in self.hidden:
            x = layer(x).relu_()
        return self.output(x)
