"""Linear paths between networks: is the accuracy kept on the straight line from one to the other?"""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ltcore.data import Dataset
from ltcore.models import split_state
from ltcore.training import precision
from ltcore.training.backends import Loop
from ltcore.training.supervised import Batches, Streams, evaluate, loss


def places(points: int) -> list[float]:
    """Even places from 0 to 1, both ends included."""
    return [i / (points - 1) for i in range(points)]


def between(a: Mapping[str, Tensor], b: Mapping[str, Tensor], place: float) -> dict[str, Tensor]:
    """(1 − place) · a + place · b, tensor by tensor: parameters, norm scales and running statistics alike.

    Nothing is measured anew on data: running statistics are averaged as weights are (``linear_interpolate`` in the code of Chen et al.
    2021, ``lottery/branch/change_depth_linear_connect.py``). Counters, which are no floats, are those of ``a``.
    """
    return {n: t.lerp(b[n], place) if t.is_floating_point() else t for n, t in a.items()}


def accuracies(module: nn.Module, data: Dataset, streams: Streams, a: Mapping[str, Tensor], b: Mapping[str, Tensor],
               points: int) -> list[float]:  # fmt: skip
    """Test accuracy in percent at even places on the path, in evaluation mode; the ends are the two networks."""
    dtype = next(t.dtype for t in a.values() if t.is_floating_point())
    batches = Batches(data, 0, 1, [streams], dtype)
    return [_accuracy(module, batches, between(a, b, place)) for place in places(points)]


def _accuracy(module: nn.Module, batches: Batches, state: Mapping[str, Tensor]) -> float:
    stack = {n: t[None].to(batches.device) for n, t in state.items()}
    with torch.no_grad(), precision.applied("fp32", batches.device):
        return float(evaluate(Loop(module, *split_state(module, stack), loss), batches, "test", module)[1][0])
