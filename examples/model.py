r"""A network of your own: a 1-D convolutional net with group normalisation in place of LeNet.

    python -m bench replicate frankle2019 --scale smoke --experiment lenet-mnist --with examples/model.py \
        --set lenet-mnist.model.name=conv1d --set 'lenet-mnist.pruning.rates={conv: 0.2, output: 0.1}'

An ordinary ``nn.Module``; options go in with ``--set 'lenet-mnist.model.options={width: 32}'``. Layers are told apart by their type: ``conv``,
``fc`` and ``output`` (the last linear one). Only kinds that the rates name are pruned.
"""
import math
from collections.abc import Sequence

from torch import Tensor, nn


class Conv1d(nn.Module):
    """Two convolutions over the flattened example, normalised in groups (no running statistics to rewind), then the mean over places."""

    def __init__(self, input_shape: Sequence[int], classes: int, width: int = 16):
        super().__init__()
        self.places = math.prod(input_shape)
        self.body = nn.Sequential(
            nn.Conv1d(1, width, 5, stride=2), nn.GroupNorm(4, width), nn.ReLU(),
            nn.Conv1d(width, 2 * width, 5, stride=2), nn.GroupNorm(4, 2 * width), nn.ReLU(),
        )  # fmt: skip
        self.output = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:  # (B, *input_shape) -> (B, classes)
        return self.output(self.body(x.reshape(-1, 1, self.places)).mean(-1))


MODELS = {"conv1d": Conv1d}
