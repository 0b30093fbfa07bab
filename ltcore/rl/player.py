"""One replicate's side of the loop: its environments, its random numbers and its account of episodes."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltcore import seeds
from ltcore.rl.environments import Copies, State

CHUNK = 64  # updates whose random numbers are drawn at once


class Player:
    """Steps its copies with sampled actions and notes what an update of T steps needs.

    Args:
        copies: n copies of the environment. stream: path of this replicate's random numbers.
        steps: T. actions: number of actions. scale, clip: of rewards, for learning only; clip 0 is none.
    """

    def __init__(self, copies: Copies, stream: Sequence[Any], steps: int, actions: int, scale: float, clip: float):
        self.copies, self.stream, self.scale, self.clip = copies, stream, scale, clip
        self.shape = (steps, len(copies.observation), actions)
        self.updates = 0
        self.returns: list[float] = []  # of the episodes that are over, in the order in which they ended
        self.running = np.zeros(self.shape[1])  # return so far of those that are not
        self.reward = np.zeros(self.shape[:2])  # of the current update, (T, n), as are the two below
        self.terminated, self.cut = np.zeros(self.shape[:2], dtype=bool), np.zeros(self.shape[:2], dtype=bool)
        self.truncated: list[tuple[int, int, np.ndarray]] = []  # step, copy and last observation of episodes that were cut
        self._noise: tuple[int, np.ndarray] | None = None

    def begin(self) -> np.ndarray:
        """Starts an update; Gumbel noise (T, n, A) for its actions, a function of the number of the update."""
        self.truncated = []
        chunk, place = divmod(self.updates, CHUNK)
        if self._noise is None or self._noise[0] != chunk:
            draws = torch.empty(CHUNK, *self.shape, dtype=torch.float64).exponential_(generator=seeds.stream(*self.stream, "actions", chunk))
            self._noise = (chunk, -draws.log_().numpy())
        return self._noise[1][place]

    def step(self, t: int, actions: np.ndarray) -> None:
        """Step t of an update with actions (n,)."""
        s = self.copies.step(actions)
        self.running += s.reward
        self.reward[t] = (np.clip(s.reward, -self.clip, self.clip) if self.clip else s.reward) * self.scale
        self.terminated[t], self.cut[t] = s.terminated, s.terminated | s.truncated
        if s.truncated.any():
            self.truncated += [(t, int(i), s.final[i]) for i in s.truncated.nonzero()[0]]
        if s.over.any():
            self.returns += self.running[s.over].tolist()
            self.running[s.over] = 0.0

    def state(self) -> dict[str, Tensor] | None:
        """All of it between two updates as tensors; None where the environment can't be saved."""
        copies = self.copies.state()
        if copies is None:
            return None
        own = {"returns": np.array(self.returns), "running": self.running, "updates": np.array(self.updates)}
        return {name: torch.from_numpy(a.copy()) for name, a in (*own.items(), *((f"copies/{n}", a) for n, a in copies.items()))}

    def restore(self, saved: dict[str, Tensor]) -> None:
        self.returns, self.updates = saved["returns"].tolist(), int(saved["updates"])
        self.running = saved["running"].numpy().copy()
        copies: State = {name.removeprefix("copies/"): t.numpy() for name, t in saved.items() if name.startswith("copies/")}
        self.copies.restore(copies)
