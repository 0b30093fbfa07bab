"""Translation: batches of sentences of like length as a function of (seed, t), label-smoothed loss, BLEU of what a beam search writes.

References: Ott et al. 2018 (fairseq): batches by tokens, label smoothing 0.1, beam 4 with length penalty 0.6.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore import seeds
from ltcore.data import pieces
from ltcore.data.corpus import EOS, Corpus, Sentences
from ltcore.errors import UserError
from ltcore.models.transformer import PAD
from ltcore.training import backends, beam
from ltcore.training.goal import Goal

# Largest numbers of tokens of the buckets; longer sentences are not trained on.
BOUNDS = (*range(4, 33, 4), *range(40, 65, 8), *range(80, 129, 16), 160, 192, 256)
READ_TOKENS = 4096  # padded tokens of a pass of an evaluation
STOP = pieces.SPECIAL.index(EOS)
OPTIONS: Mapping[str, float] = {"label_smoothing": 0.1, "beam": 4, "length_penalty": 0.6, "average": 0, "average_every_it": 1000}


def loss(out: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the pieces that are no padding, (B, T, classes) and (B, T) -> scalar; of smoothed targets in training."""
    return F.cross_entropy(out.flatten(0, 1), y.flatten(), ignore_index=PAD, label_smoothing=smoothing)


class Pairs:
    """R replicates' batches of one corpus. ``batch_size`` counts padded tokens of a side.

    Sentences lie in buckets by the longer of their sides; a batch comes from one bucket and is padded to its bound, so that its form is a
    function of t alone and a stack has one form. Which bucket's turn it is follows a permutation an epoch that all trials share; which
    sentences come, one an epoch and a trial. What does not fill a bucket's last batch is dropped, another part each epoch.
    """

    captured = False  # forms differ from batch to batch

    def __init__(self, corpus: Corpus, segment: Any, streams: Sequence[Any], dtype: torch.dtype):
        if not isinstance(corpus, Corpus) or not isinstance(corpus.train, Sentences):
            raise UserError(f"task translate needs pairs of sentences, such as multi30k; {corpus.name} has none")
        if segment.val > len(corpus.val):
            raise UserError(f"data.val asks for {segment.val:,} pairs of validation; {corpus.name} has {len(corpus.val):,}")
        self.data, self.streams, self.dtype, self.device = corpus, streams, dtype, corpus.device
        self.options = {**OPTIONS, **segment.task.options}
        self.parts = {"val": corpus.val.first(segment.val), "test": corpus.test, "train": corpus.train}
        self.buckets = buckets(corpus.train, segment.batch_size)
        self.forms = [(b, k) for b, (_, size, members) in enumerate(self.buckets) for k in range(len(members) // size)]
        self.per_epoch, self.facts = len(self.forms), dict[str, Any]()
        if not self.per_epoch:
            raise UserError(f"no sentence of {corpus.name} has at most {BOUNDS[-1]} tokens")
        self._epoch: tuple[int, Tensor, dict[int, Tensor]] = (-1, torch.empty(0), {})

    def _form(self, t: int) -> tuple[int, int]:
        """Bucket, and which of its batches."""
        epoch, place = divmod(t, self.per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, torch.randperm(self.per_epoch, generator=seeds.stream(0, "forms", epoch)), {})
        return self.forms[int(self._epoch[1][place])]

    def index(self, t: int) -> Tensor:
        """Which pairs make up batch t, (R, B)."""
        (b, k), (epoch, _, orders) = self._form(t), self._epoch
        _, size, members = self.buckets[b]
        if b not in orders:
            drawn = [members[torch.randperm(len(members), generator=seeds.stream(*s.order, epoch, b))] for s in self.streams]
            orders[b] = torch.stack(drawn).to(self.device)
        return orders[b][:, k * size : (k + 1) * size]

    def augmented(self, index: Tensor, t: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Inputs (sources (R, B, S), targets shifted (R, B, S)) and targets (R, B, S)."""
        return batch(self.parts["train"], index, self.buckets[self._form(int(t))[0]][0])

    def example(self, index: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """A first batch for the choice of a back end: the first sentences, however long."""
        few = index[:, :2]
        return batch(self.parts["train"], few, int(_longer(self.parts["train"])[few.cpu()].max()))

    def memory(self, module: nn.Module) -> tuple[Tensor, ...]:
        """Nothing goes from step to step beside weights.

        Raises:
            UserError: the module can't write a translation.
        """
        if not all(hasattr(module, method) for method in ("encode", "start", "step")):
            raise UserError(f"task translate needs a model such as transformer; {type(module).__name__} has no methods encode, start and step")
        return ()

    def size(self, part: str) -> int:
        """Number of pairs of ``val``, ``test`` or ``train``."""
        return len(self.parts[part])

    def chunks(self, part: str, tokens: int = READ_TOKENS) -> list[tuple[Tensor, int]]:
        """A whole part as (pairs, padded length), short ones first."""
        longer = _longer(self.parts[part])
        order, out, a = longer.argsort(stable=True), [], 0
        while a < len(order):
            b = a + 1
            while b < len(order) and int(longer[order[b]]) * (b + 1 - a) <= tokens:
                b += 1
            out.append((order[a:b].to(self.device), int(longer[order[b - 1]])))
            a = b
        return out

    def close(self) -> None:
        """Nothing is under way."""


def _longer(part: Sentences) -> Tensor:
    """Tokens of the longer side of each pair with its end mark, (N,) on the CPU."""
    source, target = part.lengths()
    return torch.maximum(source, target).cpu() + 1


def buckets(train: Sentences, tokens: int) -> list[tuple[int, int, Tensor]]:
    """(bound, pairs a batch, members) of each bucket, short ones first; one that can't fill a batch joins the next."""
    longer, found, waiting = _longer(train), [], torch.empty(0, dtype=torch.int64)
    for low, bound in zip((0, *BOUNDS), BOUNDS):
        size = max(1, tokens // bound)
        waiting = torch.cat([waiting, ((longer > low) & (longer <= bound)).nonzero().flatten()])
        if len(waiting) >= size:
            found.append((bound, size, waiting.sort().values))
            waiting = waiting[:0]
    if len(waiting):
        bound = next(b for b in BOUNDS if b >= int(longer[waiting].max()))
        found.append((bound, min(max(1, tokens // bound), len(waiting)), waiting.sort().values))
    return found


def batch(part: Sentences, index: Tensor, width: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Sources, targets shifted and targets of pairs (…), each (…, width).

    Sources and targets end with the end mark; shifted targets begin with it.
    """
    source, target = (_padded(flat, at, index, width) for flat, at in ((part.source, part.source_at), (part.target, part.target_at)))
    ended = [torch.where(torch.arange(width, device=index.device) == length[..., None], STOP, ids) for ids, length in (source, target)]
    shifted = F.pad(target[0][..., :-1], (1, 0), value=STOP)
    return (ended[0], shifted), ended[1]


def _padded(flat: Tensor, at: Tensor, index: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Sentences (…, width) with padding behind, and their lengths (…)."""
    start, place = at[index], torch.arange(width, device=index.device)
    length = at[index + 1] - start
    ids = flat[(start[..., None] + place).clamp(max=len(flat) - 1)]
    return torch.where(place < length[..., None], ids, PAD), length


# ---- evaluation ----------------------------------------------------------------------------------------------
@torch.no_grad()
def evaluate(engine: Any, pairs: Pairs, part: str, module: nn.Module) -> Tensor:
    """Mean nats a target piece, and of the test set BLEU, (R, 2) float64; a loss that is not a number is infinite."""
    copies, count = len(pairs.streams), 0
    total = torch.zeros(copies, dtype=torch.float64, device=pairs.device)
    for index, width in pairs.chunks(part):
        x, y = batch(pairs.parts[part], index.expand(copies, -1), width)
        out = engine.forward(x)  # (R, B, T, classes)
        nats = F.cross_entropy(out.flatten(0, 2), y.flatten(), ignore_index=PAD, reduction="none")
        total += nats.view(copies, -1).double().sum(1)
        count += int((y[0] != PAD).sum())
    scores = _bleu(engine, pairs, module) if part == "test" else [math.nan] * copies
    return torch.stack([(total / count).nan_to_num(nan=math.inf).cpu(), torch.tensor(scores, dtype=torch.float64)], dim=1)


def _bleu(engine: Any, pairs: Pairs, module: nn.Module) -> list[float]:
    """BLEU of each copy on the test set."""
    return [bleu(translations(backends.alone(module, engine.params, engine.buffers, r), pairs), pairs) for r in range(len(pairs.streams))]


def translations(module: nn.Module, pairs: Pairs, part: str = "test") -> list[str]:
    """What a module writes for every source of a part, in the part's order."""
    found, sentences, decode = [""] * pairs.size(part), pairs.parts[part], pieces.loaded(pairs.data.tokenizer).decode
    for index, width in pairs.chunks(part):
        source = batch(sentences, index, width)[0][0]
        written = beam.search(module, source, int(pairs.options["beam"]), pairs.options["length_penalty"], 2 * width + 10, STOP, PAD)
        for i, ids in zip(index.tolist(), written):
            found[i] = decode(ids)
    return found


def bleu(written: Sequence[str], pairs: Pairs, part: str = "test") -> float:
    """Case-sensitive BLEU by sacrebleu, whose signature goes into the record."""
    from sacrebleu import BLEU  # without it there is no corpus of pairs

    metric = BLEU()
    score = metric.corpus_score(list(written), [list(pairs.parts[part].texts)]).score
    pairs.facts["bleu_signature"] = str(metric.get_signature())
    return score


def failure(metrics: Mapping[str, Mapping[str, float]], pairs: Pairs) -> str:
    """Why this trial does not count: it diverged, or predicts no better than guessing among all pieces."""
    losses = [v for m in metrics.values() for name, v in m.items() if name.endswith("loss")]
    if not all(math.isfinite(v) for v in losses):
        return "diverged"
    return "stayed at chance" if losses and min(losses) >= math.log(pairs.data.classes) else ""


def goal(options: Mapping[str, Any]) -> Goal:
    """Translation; the test set's BLEU is named as papers name it."""
    smoothed = functools.partial(loss, smoothing=options.get("label_smoothing", OPTIONS["label_smoothing"]))
    return Goal(Pairs, smoothed, evaluate, ("loss", "bleu"), failure, {("test", "bleu"): "bleu"}, {"val": ("bleu",), "train": ("bleu",)})
