"""Small networks as a user would write them, each with something that an engine can get wrong; inputs are 12 numbers."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from ltcore.library import Library
from ltcore.models import MODELS, Dropout


class ConvNorm(nn.Module):
    """Convolution, batch norm and our Dropout."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 2, bias=False)  # a bias before batch norm has a gradient of rounding errors only, which Adam blows up
        self.norm, self.drop, self.out = nn.BatchNorm2d(4), Dropout(0.2), nn.Linear(4 * 6, classes)

    def forward(self, x):
        return self.out(self.drop(self.norm(self.conv(x.reshape(-1, 1, 3, 4))).relu().flatten(1)))


class StockDropout(nn.Sequential):
    """A user's plain module with torch's own dropout, which draws from the global generator."""

    def __init__(self, input_shape, classes):
        super().__init__(nn.Linear(12, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, classes))


class Branch(nn.Module):
    """A branch on a value: vmap refuses it."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.out = nn.Linear(12, classes)

    def forward(self, x):
        return self.out(x if x.sum().item() > 0 else -x)


class Recurrent(nn.Module):
    """vmap takes its gradient, but not its forward pass without one."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, classes)

    def forward(self, x):
        return self.out(self.lstm(x.reshape(-1, 4, 3))[0][:, -1])


class Tied(nn.Module):
    """One weight used twice, a buffer that is not saved, and a frozen layer."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False), nn.Linear(12, classes)
        self.second.weight = self.first.weight
        self.register_buffer("factor", torch.full((12,), 0.5), persistent=False)
        self.out.weight.requires_grad_(False)

    def forward(self, x):
        return self.out(self.second(self.first(x).tanh()).tanh() * self.factor)


NETS = {"conv-norm": ConvNorm, "stock-dropout": StockDropout, "branch": Branch, "recurrent": Recurrent, "tied": Tied}
LIBRARY = Library(models=MODELS | NETS)
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
needs_torchvision = pytest.mark.skipif(not HAS_TORCHVISION, reason="torchvision is not installed")
