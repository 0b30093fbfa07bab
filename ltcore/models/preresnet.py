"""Pre-activation ResNets with bottlenecks for CIFAR (He et al. 2016b), as network slimming and early-bird tickets have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ltcore.channels import Link
from ltcore.models.layers import conv3x3, image, widths

EXPANSION = 4


class PreBottleneck(nn.Module):
    """x + conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(relu(bn(x)))))))); where the shape changes x passes a bare 1x1 projection."""

    def __init__(self, inputs: int, inner: int, stride: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(inner), conv3x3(inner, inner, stride)
        self.norm3, self.conv3 = nn.BatchNorm2d(inner), nn.Conv2d(inner, EXPANSION * inner, 1, bias=False)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != EXPANSION * inner:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, EXPANSION * inner, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        inside = self.conv1(self.norm1(x).relu_())
        inside = self.conv2(self.norm2(inside).relu_())
        return self.conv3(self.norm3(inside).relu_()) + self.shortcut(x)


class PreResNet(nn.Module):
    """PreResNet-101 has 1,054,106 parameters and 7,408 batch-norm scales on CIFAR-10.

    Every batch norm can lose channels: the first of a block and the one before the output select theirs from the stream, which keeps its
    width (``channel_selection`` in the authors' code).

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        depth: 9n + 2: 11, 20, 29, 101, 164, …
        width: inner channels of the first stage; the others have 2 and 4 times as many, streams four times as many as their stage.

    Raises:
        ValueError: another depth, a width below 1, or inputs that are not images.
    """

    memory_format = torch.channels_last

    def __init__(self, input_shape: Sequence[int], classes: int, depth: int = 101, width: int = 16):
        super().__init__()
        if depth < 11 or depth % 9 != 2:
            raise ValueError(f"depth {depth} is not 9n + 2; take 11, 20, 29, 101 or 164")
        stages, n = widths(width, (1, 2, 4)), depth // 9
        self.conv = conv3x3(image(input_shape)[0], stages[0])
        streams = [stages[0], *(EXPANSION * w for w in stages)]
        self.blocks = nn.Sequential(*(
            PreBottleneck(streams[s + (i > 0)], w, 2 if s and i == 0 else 1) for s, w in enumerate(stages) for i in range(n)
        ))  # fmt: skip
        self.norm, self.output = nn.BatchNorm2d(streams[-1]), nn.Linear(streams[-1], classes)
        self.layer_kinds = {name: "shortcut" for name, p in self.named_parameters() if name.endswith("shortcut.0.weight")}
        inside = {name: link for i in range(3 * n) for name, link in _links(f"blocks.{i}").items()}
        self.channel_links = inside | {"norm": Link(None, ("output",))}

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        x = self.norm(self.blocks(self.conv(x))).relu_()
        return self.output(x.mean((2, 3)))


def _links(block: str) -> dict[str, Link]:
    return {
        f"{block}.norm1": Link(None, (f"{block}.conv1",)),
        f"{block}.norm2": Link(f"{block}.conv1", (f"{block}.conv2",)),
        f"{block}.norm3": Link(f"{block}.conv2", (f"{block}.conv3",)),
    }
