"""ResNets for CIFAR (He et al. 2016, section 4.2): depth 6n + 2, three stages of n blocks of two 3x3 convolutions."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ltcore.models.layers import conv3x3, image, widths


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the shortcut is the identity, or a 1x1 projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu_()))
        return (inner + self.shortcut(x)).relu_()


class ResNet(nn.Module):
    """CIFAR ResNet; ResNet-20 (which Frankle & Carbin 2019 call Resnet-18) has 267,696 + 2,560 (shortcuts) + 640 weights on CIFAR-10.

    Shortcuts are projections where the width changes (option B of He et al.: the paper counts 1x1 convolutions), with batch norm
    after them as in the ImageNet nets of He et al.; their weights are of kind ``shortcut``, so that a recipe can leave them unpruned.

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        depth: 6n + 2: 8, 14, 20, 32, 44, 56, 110, …
        width: channels of the first stage; the others have 2 and 4 times as many.

    Raises:
        ValueError: another depth, a width below 1, or inputs that are not images.
    """

    memory_format = torch.channels_last

    def __init__(self, input_shape: Sequence[int], classes: int, depth: int = 20, width: int = 16):
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth {depth} is not 6n + 2; take 14, 20, 32, 44 or 56")
        stages, n = widths(width, (1, 2, 4)), depth // 6
        self.conv, self.norm = conv3x3(image(input_shape)[0], stages[0]), nn.BatchNorm2d(stages[0])
        firsts = zip([stages[0], *stages], stages, (1, 2, 2))  # inputs, outputs, stride of each stage's first block
        self.blocks = nn.Sequential(*(Block(a, b, stride) if i == 0 else Block(b, b, 1) for a, b, stride in firsts for i in range(n)))
        self.output = nn.Linear(stages[-1], classes)
        self.layer_kinds = {name: "shortcut" for name, p in self.named_parameters() if name.endswith("shortcut.0.weight")}

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        x = self.blocks(self.norm(self.conv(x)).relu_())
        return self.output(x.mean((2, 3)))
