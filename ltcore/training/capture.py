"""A training step captured once as a CUDA graph and replayed: one launch a step for the whole stack."""
from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

WARM_UP = 3  # runs before capture, so that libraries have chosen their kernels and allocated their workspaces


class Captured:
    """Replays ``step(index, lr, t)``; index (R, B), rate and iteration are copied into the tensors that the graph reads.

    ``state`` is every tensor that a step changes: the warm-up's steps are undone.
    """

    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor], index: Tensor, state: Mapping[str, Tensor]):
        self.index, self.lr = index.clone(), torch.zeros((), device=index.device)
        self.t = torch.zeros((), dtype=torch.int64, device=index.device)
        before = {name: t.clone() for name, t in state.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(self.index, self.lr, self.t)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.losses = step(self.index, self.lr, self.t)
        for name, t in state.items():
            t.copy_(before[name])

    def __call__(self, index: Tensor, lr: float, t: int) -> Tensor:
        """Losses (R,) of one step; the tensor is overwritten by the next call."""
        self.index.copy_(index)
        self.lr.fill_(lr)
        self.t.fill_(t)
        self.graph.replay()
        return self.losses
