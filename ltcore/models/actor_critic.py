"""Actor-critic networks: one trunk, from which the logits of a policy and one value are read."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore.models.layers import image


def _kinds(module: nn.Module) -> Mapping[str, str]:
    """Every tensor can be pruned, biases too; the policy's weights are the output, those of the value have a kind of their own."""
    biases = {name: "bias" for name, _ in module.named_parameters() if name.endswith("bias")}
    return {"policy.weight": "output", "value.weight": "value", **biases}


class ActorCritic(nn.Module):
    """Fully connected, ReLU between layers; without the value's 129 parameters the CartPole net of Yu et al. 2020 has 33,922.

    Args:
        input_shape: shape of one observation, flattened at the door.
        classes: number of actions.
        hidden: widths of the hidden layers.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, hidden: Sequence[int] = (128, 128, 128)):
        super().__init__()
        widths = [math.prod(input_shape), *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.policy, self.value = nn.Linear(widths[-1], classes), nn.Linear(widths[-1], 1)
        self.layer_kinds = _kinds(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, *input_shape) -> (B, classes + 1): logits, then the value
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x).relu()
        return torch.cat([self.policy(x), self.value(x)], dim=1)


CONVOLUTIONS = (5, 5, 3, 3)  # kernel sizes (Yu et al. 2020, Table A1); each is followed by a 2x2 max-pool


class ActorCriticConv(nn.Module):
    """Four convolutions of ``width`` channels with 2x2 max-pools, then fully connected layers (Yu et al. 2020, Table A1).

    Args:
        input_shape: (frames, height, width) in 0 … 1; 84 x 84 leave 5 x 5 x 64 = 1,600 inputs to the fully connected layers.
        classes: number of actions.
        width: channels of every convolution. hidden: widths of the fully connected layers.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, width: int = 64, hidden: Sequence[int] = (512, 512)):
        super().__init__()
        channels, *size = image(input_shape)
        inputs = [channels, *[width] * (len(CONVOLUTIONS) - 1)]
        self.conv = nn.ModuleList(nn.Conv2d(a, width, kernel, padding=kernel // 2) for a, kernel in zip(inputs, CONVOLUTIONS))
        widths = [width * math.prod(s // 2 ** len(CONVOLUTIONS) for s in size), *hidden]
        if not widths[0]:
            raise ValueError(f"four 2x2 pools leave nothing of {size[0]} x {size[1]} pixels")
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.policy, self.value = nn.Linear(widths[-1], classes), nn.Linear(widths[-1], 1)
        self.layer_kinds = _kinds(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes + 1): logits, then the value
        for conv in self.conv:
            x = F.max_pool2d(conv(x), 2).relu()  # the maximum of relus is the relu of the maximum, of a quarter as many numbers
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x).relu()
        return torch.cat([self.policy(x), self.value(x)], dim=1)
