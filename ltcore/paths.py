"""Linear paths between networks: is the accuracy kept on the straight line from one to the other?"""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ltcore.data import Dataset
from ltcore.models import split_state
from ltcore.training import precision
from ltcore.training.backends import Loop
from ltcore.training.supervised import Batches, Streams, evaluate, failure, loss


def places(points: int) -> list[float]:
    """Even places from 0 to 1, both ends included."""
    return [i / (points - 1) for i in range(points)]


def between(a: Mapping[str, Tensor], b: Mapping[str, Tensor], place: float) -> dict[str, Tensor]:
    """(1 − place) · a + place · b, tensor by tensor: parameters, norm scales and running statistics alike.

    Nothing is measured anew on data: running statistics are averaged as weights are (``linear_interpolate`` in the code of Chen et al.
    2021, ``lottery/branch/change_depth_linear_connect.py``). Counters, which are no floats, are those of ``a``.
    """
    return {n: t.lerp(b[n], place) if t.is_floating_point() else t for n, t in a.items()}


def read(module: nn.Module, data: Dataset, streams: Streams, a: Mapping[str, Tensor], b: Mapping[str, Tensor],
         points: int) -> tuple[list[float], str]:  # fmt: skip
    """Test accuracy in percent at even places on the path, in evaluation mode, the ends being the two networks; and why these don't
    count (``diverged``, ``stayed at chance``), or nothing."""
    dtype = next(t.dtype for t in a.values() if t.is_floating_point())
    batches = Batches(data, 0, 1, [streams], dtype)
    found = [_read(module, batches, between(a, b, place)) for place in places(points)]
    ends = (failure({"end": end}, batches) for end in (found[0], found[-1]))
    return [at["test_accuracy_pct"] for at in found], next(filter(None, ends), "")


def _read(module: nn.Module, batches: Batches, state: Mapping[str, Tensor]) -> dict[str, float]:
    stack = {n: t[None].to(batches.device) for n, t in state.items()}
    with torch.no_grad(), precision.applied("fp32", batches.device):
        loss_, accuracy_pct = evaluate(Loop(module, *split_state(module, stack), loss), batches, "test", module)
    return {"test_loss": float(loss_[0]), "test_accuracy_pct": float(accuracy_pct[0])}
