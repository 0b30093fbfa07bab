"""Beam search over a Transformer's pieces; with a beam of 1 greedy decoding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def search(module: Any, source: Tensor, beam: int, penalty: float, longest: int, stop: int, pad: int) -> list[list[int]]:
    """The best translation of each source (B, S), without its end mark.

    A translation's score is the sum of its log probabilities over its length (end mark included) to the power ``penalty``; a sentence is
    done when ``beam`` translations of it have ended, as in fairseq. One that never ends is what its best beam has written.

    Args:
        module: with ``encode``, ``start`` and ``step`` of ``ltcore.models.Transformer``, in evaluation mode.
    """
    memory, hidden = module.encode(source)
    rows = torch.arange(len(source), device=source.device).repeat_interleave(beam)
    state = _State(len(source), beam, memory, stop)
    cache, hidden = module.start(memory[rows]), hidden[rows]
    for place in range(longest):
        logs = module.step(state.written[:, -1], place, cache, hidden).log_softmax(1)
        logs[:, pad] = -math.inf
        _reorder(cache, state.grow(logs, penalty))
        if bool((state.ended >= beam).all()):
            break
    return state.best()


class _State:
    """Of each sentence what its beams have written, with their scores, and the best translation that has ended."""

    def __init__(self, sentences: int, beam: int, like: Tensor, stop: int):
        device = like.device
        self.beam, self.stop = beam, stop
        self.written = torch.full((sentences * beam, 1), stop, device=device)  # begins with the end mark, as targets do
        self.scores = like.new_full((sentences, beam), -math.inf)
        self.scores[:, 0] = 0  # all beams begin alike: one is enough
        self.ended = torch.zeros(sentences, dtype=torch.int64, device=device)
        self.value = like.new_full((sentences,), -math.inf)
        self.found: list[list[int]] = [[] for _ in range(sentences)]

    def grow(self, logs: Tensor, penalty: float) -> Tensor:
        """One piece more, logs (sentences × beam, classes); returns the rows that go on."""
        n, beam, classes = len(self.scores), self.beam, logs.shape[1]
        total = (self.scores.flatten()[:, None] + logs).view(n, beam * classes)
        top, at = total.topk(2 * beam, dim=1)  # enough to go on with where a beam's worth of them ends
        row = at // classes + beam * torch.arange(n, device=at.device)[:, None]
        piece, ends = at % classes, at % classes == self.stop
        self._keep(top, row, ends, penalty)
        scores, chosen = top.masked_fill(ends, -math.inf).topk(beam, dim=1)
        rows = row.gather(1, chosen).flatten()
        self.scores, self.written = scores, torch.cat([self.written[rows], piece.gather(1, chosen).flatten()[:, None]], dim=1)
        return rows

    def _keep(self, top: Tensor, row: Tensor, ends: Tensor, penalty: float) -> None:
        """Notes translations that end among the first ``beam`` candidates, of sentences that are not done."""
        counts = ends[:, : self.beam] & (self.ended < self.beam)[:, None] & top[:, : self.beam].isfinite()
        value, which = (top[:, : self.beam] / self.written.shape[1] ** penalty).masked_fill(~counts, -math.inf).max(1)
        for i in (value > self.value).nonzero().flatten().tolist():
            self.value[i] = value[i]
            self.found[i] = self.written[row[i, which[i]], 1:].tolist()
        self.ended += counts.sum(1)

    def best(self) -> list[list[int]]:
        """The best that ended, else what the first beam has written."""
        unended = (self.value == -math.inf).tolist()
        return [self.written[i * self.beam, 1:].tolist() if unended[i] else found for i, found in enumerate(self.found)]


def _reorder(cache: list[dict[str, Tensor]], rows: Tensor) -> None:
    """What beams have written moves with them; the source's keys and values are the same for all beams of a sentence."""
    for kept in cache:
        for name in ("own_key", "own_value"):
            kept[name] = kept[name][rows]
