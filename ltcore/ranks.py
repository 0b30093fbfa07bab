"""Top-k accuracy: how often the right class is among the k that a network gives most."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ltcore.data import Dataset
from ltcore.models import split_state
from ltcore.training import precision
from ltcore.training.backends import Loop
from ltcore.training.supervised import Batches, Streams, failure, loss

CHUNK = 128  # examples a pass, images of ImageNet's size among them


@torch.no_grad()
def read(module: nn.Module, data: Dataset, streams: Streams, state: Mapping[str, Tensor], k: int) -> tuple[float, str]:
    """Percent of the test examples, in evaluation mode; where there are no more than k classes every example counts. And why the network
    does not count (``diverged``: outputs that are not numbers, ``stayed at chance``), or nothing."""
    dtype = next(t.dtype for t in state.values() if t.is_floating_point())
    batches = Batches(data, 0, 1, [streams], dtype)
    net = Loop(module, *split_state(module, {n: t[None].to(batches.device) for n, t in state.items()}), loss)
    n, right, first, finite = batches.size("test"), 0, 0, True
    with precision.applied("fp32", batches.device):
        for a in range(0, n, CHUNK):
            x, y = batches.chunk("test", a, min(a + CHUNK, n))
            out = net.forward(x)[0]  # (B, classes)
            right, first = right + int(hits(out, y[0], k).sum()), first + int(hits(out, y[0], 1).sum())
            finite &= bool(out.isfinite().all())
    accuracy_pct = 100 * first / n if finite else math.nan
    return 100 * right / n, failure({"end": {"test_accuracy_pct": accuracy_pct}}, batches)


def hits(out: Tensor, y: Tensor, k: int) -> Tensor:
    """Of outputs (B, classes): is the class among the k largest? (B,) bool. Of equal outputs those of lower classes come first.

    Outputs that are not numbers rank nothing.
    """
    given = out.gather(1, y[:, None])
    classes = torch.arange(out.shape[1], device=out.device)
    before = (out > given) | ((out == given) & (classes < y[:, None]))
    return (before.sum(1) < k) & ~out.isnan().any(1)
