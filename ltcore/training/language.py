"""Language modelling: windows of running text as a function of t, memory carried from window to window, perplexity of whole parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore.data.corpus import Corpus, Tokens
from ltcore.errors import UserError
from ltcore.training.goal import Goal

BPTT = 50  # tokens of a window where the task's options name none
ROWS = 10  # texts side by side in an evaluation, as in pytorch/examples
NO_TOKEN = -100  # cross_entropy's ignore_index


def loss(out: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of the next token, (B, T, classes) and (B, T) -> scalar."""
    return F.cross_entropy(out.flatten(0, 1), y.flatten())


def epoch_it(tokens: int, batch_size: int, bptt: int) -> int:
    """Whole windows in a row of the text cut into ``batch_size`` rows; the last token of a row is a target only."""
    return (tokens // batch_size - 1) // bptt


class Windows:
    """The training text as B rows side by side, read window by window; the remainder of a row that fills no window is dropped.

    Order is not random: trials differ by their weights and dropout. At the first window of an epoch the memory begins with zeros.
    """

    captured = True  # all windows have one form

    def __init__(self, corpus: Corpus, segment: Any, streams: Sequence[Any], dtype: torch.dtype):
        if not isinstance(corpus, Corpus) or not isinstance(corpus.train, Tokens):
            raise UserError(f"task language-model needs a running text, such as wikitext2; {corpus.name} is none")
        self.data, self.streams, self.dtype, self.device = corpus, streams, dtype, corpus.device
        self.batch_size, self.bptt, self.n_val = segment.batch_size, segment.task.options.get("bptt", BPTT), segment.val
        self.ids, self.row = corpus.train.ids, len(corpus.train) // segment.batch_size
        self.per_epoch = epoch_it(len(self.ids), self.batch_size, self.bptt)
        if self.per_epoch < 1:
            raise UserError(f"{len(self.ids)} tokens in {self.batch_size} rows leave no window of {self.bptt}")
        if self.n_val > len(corpus.val):
            raise UserError(f"data.val asks for {self.n_val:,} tokens of validation; {corpus.name} has {len(corpus.val):,}")
        self.parts = {"val": corpus.val.ids[: self.n_val], "test": corpus.test.ids, "train": self.ids}
        self.facts: dict[str, Any] = {}
        self._starts = torch.arange(self.batch_size, device=self.device) * self.row
        self._window = torch.arange(self.bptt, device=self.device)

    def index(self, t: int) -> Tensor:
        """Where each row's window t begins, (R, B)."""
        return (self._starts + t % self.per_epoch * self.bptt).expand(len(self.streams), -1)

    def augmented(self, index: Tensor, t: int | Tensor, *memory: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs (tokens (R, B, T), memory) and the tokens that follow (R, B, T)."""
        at = index[..., None] + self._window
        goes_on = (index[:, 0] != 0).view(-1, 1, 1, 1)  # row 0 begins at token 0
        return (self.ids[at], *(m * goes_on for m in memory)), self.ids[at + 1]

    def example(self, index: Tensor, *memory: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        return self.augmented(index, 0, *memory)

    def memory(self, module: nn.Module) -> tuple[Tensor, ...]:
        """What the text begins with, (R, layers, B, hidden) each."""
        return self._memory(module, self.batch_size)

    def _memory(self, module: nn.Module, rows: int) -> tuple[Tensor, ...]:
        if not hasattr(module, "memory"):
            raise UserError(
                f"task language-model needs a model such as lstm; {type(module).__name__} has no method memory(batch)"
            )
        copies = len(self.streams)
        return tuple(m.to(self.device, self.dtype).expand(copies, *m.shape).clone() for m in module.memory(rows))

    def size(self, part: str) -> int:
        """Number of tokens of ``val``, ``test`` or ``train``."""
        return len(self.parts[part])

    def rows(self, part: str) -> tuple[Tensor, Tensor]:
        """A part as (tokens, those that follow), (ROWS, T) each: every token but the first is a target once, ``NO_TOKEN`` fills the end."""
        ids = self.parts[part]
        n = max(-(-(len(ids) - 1) // ROWS), 1)
        y = F.pad(ids[1:], (0, ROWS * n - (len(ids) - 1)), value=NO_TOKEN).view(ROWS, n)
        x = F.pad(ids[:-1], (0, ROWS * n - (len(ids) - 1))).view(ROWS, n)
        return x, y

    def close(self) -> None:
        """Nothing is under way."""


@torch.no_grad()
def evaluate(engine: Any, windows: Windows, part: str, module: nn.Module) -> Tensor:
    """Mean nats a token over a whole part, (R, 1) float64, memory carried; infinite where it is not a number."""
    x, y = windows.rows(part)
    copies, memory = len(windows.streams), windows._memory(module, ROWS)
    total = torch.zeros(copies, dtype=torch.float64, device=windows.device)
    for a in range(0, x.shape[1], windows.bptt):
        inputs, targets = (t[:, a : a + windows.bptt].expand(copies, -1, -1) for t in (x, y))
        out = engine.forward((inputs, *memory))  # (R, ROWS, T, classes)
        memory = engine.carried
        nats = F.cross_entropy(out.flatten(0, 2), targets.flatten(), ignore_index=NO_TOKEN, reduction="none")
        total += nats.view(copies, -1).double().sum(1)
    return (total / max(windows.size(part) - 1, 1)).nan_to_num(nan=math.inf)[:, None]


def failure(metrics: Mapping[str, Mapping[str, float]], windows: Windows) -> str:
    """Why this trial does not count: it diverged, or predicts no better than guessing among all words."""
    found = [v for m in metrics.values() for v in m.values()]
    if not all(math.isfinite(v) for v in found):
        return "diverged"
    return "stayed at chance" if found and min(found) >= math.log(windows.data.classes) else ""


def goal(options: Mapping[str, Any]) -> Goal:
    """Language modelling; the test set's log perplexity is named as papers name it."""
    return Goal(Windows, loss, evaluate, ("log_perplexity",), failure, names={("test", "log_perplexity"): "log_perplexity"})
