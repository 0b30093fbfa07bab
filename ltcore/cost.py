"""What training costs on paper: floating-point operations of a step, and parameters.

Counted as the early-bird paper's Table 2 is: 2 for a multiply-add, convolutions and linear layers only, three passes of equal cost
(forward, gradient by the inputs, gradient by the weights). VGG-16 on CIFAR-10 takes 0.63 GFLOP an image forward.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PASSES = 3


def forward_flops(module: nn.Module, input_shape: Sequence[int]) -> int:
    """Of one example on its way forward; nothing is computed (the tensors are torch's "meta")."""
    inputs = torch.empty(2, *input_shape, device="meta")  # two examples: batch norm wants more than one
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(module).to("meta")(inputs)
    return counter.get_total_flops() // 2


def training_flops(module: nn.Module, input_shape: Sequence[int], examples: int) -> float:
    """Of training on so many examples, each as often as it is seen."""
    return float(PASSES * forward_flops(module, input_shape) * examples)


def parameters(module: nn.Module) -> int:
    """Of all kinds: weights, biases, scales and shifts."""
    return sum(p.numel() for p in module.parameters())
