"""Conv-2, Conv-4 and Conv-6: small VGG-like nets without normalisation (Frankle & Carbin 2019, Fig 2)."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore.models.layers import Dropout, conv3x3, image, widths

DEPTHS = {2: (1,), 4: (1, 2), 6: (1, 2, 4)}  # convolutions -> width of each block, in units of the first


class Conv(nn.Module):
    """Blocks of two 3x3 convolutions and a 2x2 max-pool, then fully connected layers; ReLU between all, biases everywhere.

    Conv-2 / 4 / 6 have 4,300,992 / 2,425,024 / 2,261,184 weights on CIFAR-10. Convolutions pad by 1 and keep the size of the image:
    the paper does not print the padding, but its counts of Conv-2 and Conv-4 and its percentages of Conv-6 say so (its 1.7 M weights
    for Conv-6 do not).

    Args:
        input_shape: (channels, height, width).
        classes: number of outputs.
        depth: number of convolutions: 2, 4 or 6.
        width: channels of the first block; the second and third have 2 and 4 times as many.
        hidden: widths of the fully connected layers before the output.
        dropout: probability of setting an input of a fully connected layer to 0, the output layer's too. The paper gives the rate (0.5) but
            not the place; here it is the input of every fully connected layer and of no convolution.

    Raises:
        ValueError: another depth, a width below 1, or an image smaller than the pools take.
    """

    memory_format = torch.channels_last

    def __init__(self, input_shape: Sequence[int], classes: int, depth: int = 6, width: int = 64, hidden: Sequence[int] = (256, 256),
                 dropout: float = 0.0):  # fmt: skip
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth {depth} is not one of {', '.join(map(str, DEPTHS))}")
        (channels, *sides), blocks = image(input_shape), widths(width, DEPTHS[depth])
        sides = [side // 2 ** len(blocks) for side in sides]  # after the pools
        if not all(sides):
            raise ValueError(f"{len(blocks)} pools of 2x2 leave nothing of so small an image; take a smaller depth")
        convs = [channels, *(w for w in blocks for _ in range(2))]
        self.conv = nn.ModuleList(conv3x3(a, b, bias=True) for a, b in zip(convs, convs[1:]))
        fc = [convs[-1] * sides[0] * sides[1], *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(fc, fc[1:]))
        self.output = nn.Linear(fc[-1], classes)
        self.drop = nn.ModuleList(Dropout(dropout) if dropout else nn.Identity() for _ in fc)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes)
        for i, conv in enumerate(self.conv):
            x = conv(x).relu_()
            x = F.max_pool2d(x, 2) if i % 2 else x
        x = x.flatten(1)
        for drop, layer in zip(self.drop, self.hidden):
            x = layer(drop(x)).relu_()
        return self.output(self.drop[-1](x))
