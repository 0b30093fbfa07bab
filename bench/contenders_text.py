"""The loops that ``perf --model lstm|transformer`` times against each other, each as in :mod:`bench.contenders`, on random text."""
from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contenders import ENDLESS_IT, UNREAD, Contender, Turn, training
from bench.contenders_conv import KEPT, WARM_UP_IT, _turns
from ltcore.data import Corpus, corpus
from ltcore.data.corpus import Sentences, Tokens
from ltcore.models import MODELS, draw_state, layer_sizes, skeleton
from ltcore.models.transformer import SIZES
from ltcore.recipe import Model, Optimizer, Task
from ltcore.training import translation
from ltcore.training.loop import Replicate, Segment, Stopped, train
from ltcore.training.supervised import Streams

LENGTH = 16  # pieces of each random sentence with its end mark: a bucket's bound, so that nothing is padding
SENTENCES = 4096
Product = tuple[int, int, int, int, int]  # how often, of a batch of so many matrices, (m, k) by (k, n)


@dataclass(frozen=True)
class Net:
    """A net with the words it knows and the batch that it takes; of a Transformer ``batch`` counts pieces of a side."""

    title: str
    model: Model
    classes: int
    batch: int
    optimizer: Optimizer
    bptt: int = 0  # tokens of a window of a language model

    @property
    def tokens(self) -> int:
        """That a step learns to predict."""
        return self.batch * (self.bptt or 1)

    @property
    def task(self) -> Task:
        return Task("language-model", {"bptt": self.bptt}) if self.bptt else Task("translate", {"label_smoothing": 0.1})

    def module(self) -> nn.Module:
        return skeleton(MODELS[self.model.name], self.model, (), self.classes)


def _lstm(title: str, width: int, words: int, rows: int, bptt: int) -> Net:
    return Net(title, Model("lstm", "module", {"embedding": width, "hidden": width, "dropout": 0.2}), words, rows, Optimizer("adam", 1e-3, eps=1e-3), bptt)


def _transformer(title: str, pieces: int, tokens: int, **options: Any) -> Net:
    return Net(title, Model("transformer", "module", options), pieces, tokens, Optimizer("adam", 1e-4, betas=(0.9, 0.98)))


# On CPU the sizes of scale quick, on a GPU those of the papers.
NETS: dict[str, dict[str, Net]] = {
    "lstm": {"cpu": _lstm("LSTM of 2 x 128, 10,000 words", 128, 10_000, 5, 40), "cuda": _lstm("LSTM of 2 x 650, 33,278 words", 650, 33_278, 30, 50)},
    "transformer": {
        "cpu": _transformer("Transformer of width 128, 3 + 3 layers, 4,000 pieces", 4000, 1024, size="small", layers=3, dropout=0.1),
        "cuda": _transformer("Transformer base, 32,768 pieces", 32_768, 28_672, size="base"),
    },
}


# ---- data and the engine -------------------------------------------------------------------------------------
def noise(net: Net) -> Corpus:
    """Random words: what they are costs no time."""
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(4, net.classes, (max(200_000, 20 * net.tokens),), generator=g)
    count = max(SENTENCES, 4 * net.batch // LENGTH)
    at = torch.arange(count + 1) * (LENGTH - 1)
    part: Any = Tokens(ids) if net.bptt else Sentences(*torch.randint(4, net.classes, (2, count * (LENGTH - 1)), generator=g), at, at, ("",) * count)
    return corpus.build("noise", [part, part.first(64), part.first(64)], [str(i) for i in range(net.classes)], source="random numbers")


def replicates(net: Net, n: int = 1) -> list[Replicate]:
    """Fresh copies, each with its own weights, order and random mask."""
    out, prunable = [], layer_sizes(net.module())
    for r in range(n):
        state, g = draw_state(MODELS[net.model.name], net.model, (), net.classes, [r, "init"]), torch.Generator().manual_seed(r)
        mask = {name: torch.rand(state[name].shape, generator=g) < KEPT for name in prunable}
        out.append(Replicate(state, mask, Streams([r, "split"], [r, "order"])))
    return out


def segment(net: Net) -> Segment:
    return Segment(net.optimizer, net.batch, 0, ENDLESS_IT, UNREAD, 0, task=net.task)


def engine(net: Net, data: Corpus, stack: Sequence[Replicate]) -> Contender:
    """``ltcore.training.loop.train`` itself: on CPU timed from one forward pass to the next, on a GPU where it asks whether to stop."""
    if data.device.type != "cpu":
        return training(lambda checkpoints: train(net.module(), data, segment(net), stack, checkpoints), on_gpu=True)

    def turn(seconds: float) -> Turn:
        begun: list[float] = []
        module = net.module()
        module.register_forward_pre_hook(lambda *_: _note(begun, seconds))
        with contextlib.suppress(Stopped):
            train(module, data, segment(net), stack)
        return len(begun) - 1 - WARM_UP_IT["cpu"], begun[-1] - begun[WARM_UP_IT["cpu"]]

    return turn


def _note(begun: list[float], seconds: float) -> None:
    """When a step begins; ends the training after ``seconds`` of steps."""
    begun.append(time.perf_counter())
    if len(begun) > WARM_UP_IT["cpu"] + 1 and begun[-1] - begun[WARM_UP_IT["cpu"]] >= seconds:
        raise Stopped


# ---- loops that people write ---------------------------------------------------------------------------------
def plain(net: Net, data: Corpus) -> Contender:
    """PyTorch's own layers, autograd and ``torch.optim.Adam``; windows and batches cut from tensors in memory."""
    module: nn.Module = (_PlainLstm if net.bptt else _PlainTransformer)(net).to(data.device)
    o = net.optimizer
    optimizer = torch.optim.Adam(module.parameters(), o.lr, o.betas, o.eps)
    batches = _windows(net, data) if net.bptt else _pairs(net, data)

    def step(x: tuple[Tensor, ...], y: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(*x).flatten(0, 1), y.flatten(), label_smoothing=0.0 if net.bptt else 0.1).backward()
        optimizer.step()

    return _turns(step, batches, data.device.type)


def _windows(net: Net, data: Corpus) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    rows = data.train.ids[: len(data.train) // net.batch * net.batch].view(net.batch, -1)
    while True:
        for a in range(0, rows.shape[1] - net.bptt - 1, net.bptt):
            yield (rows[:, a : a + net.bptt],), rows[:, a + 1 : a + 1 + net.bptt]


def _pairs(net: Net, data: Corpus) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    source, target = (F.pad(ids.view(-1, LENGTH - 1), (0, 1), value=translation.STOP) for ids in (data.train.source, data.train.target))
    while True:
        for i in torch.randperm(len(source), device=source.device).split(net.batch // LENGTH):
            yield (source[i], target[i].roll(1, 1)), target[i]


class _PlainLstm(nn.Module):
    """As pytorch/examples has it, without dropout on embeddings and outputs."""

    def __init__(self, net: Net):
        super().__init__()
        width = net.model.options["hidden"]
        self.embedding, self.decoder = nn.Embedding(net.classes, width), nn.Linear(width, net.classes)
        self.lstm = nn.LSTM(width, width, 2, dropout=net.model.options["dropout"], batch_first=True)
        self.state: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.lstm(self.embedding(x), self.state)
        self.state = tuple(s.detach() for s in state)
        return self.decoder(out)


class _PlainTransformer(nn.Module):
    """``nn.Transformer`` (whose dropout is on attention too) between one shared embedding."""

    def __init__(self, net: Net):
        super().__init__()
        width, inner, heads, layers, dropout = _sizes(net)
        self.embedding = nn.Embedding(net.classes, width)
        self.places = nn.Parameter(torch.zeros(LENGTH, width), requires_grad=False)
        self.body = nn.Transformer(width, heads, layers, layers, inner, dropout, batch_first=True)
        self.ahead = nn.Parameter(nn.Transformer.generate_square_subsequent_mask(LENGTH), requires_grad=False)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        source, target = (self.embedding(x) + self.places for x in (source, target))
        return F.linear(self.body(source, target, tgt_mask=self.ahead, tgt_is_causal=True), self.embedding.weight)


def _sizes(net: Net) -> list[Any]:
    options = net.model.options
    return [options.get(key, own) for key, own in zip(("width", "inner", "heads", "layers", "dropout"), SIZES[options["size"]])]


# ---- the products that a step can't do without -----------------------------------------------------------------
def needed(net: Net) -> list[Product]:
    """Of a step: forward, gradients by inputs and by weights; nothing of padding, which random sentences lack."""
    return _needed_lstm(net) if net.bptt else _needed_transformer(net)


def _needed_lstm(net: Net) -> list[Product]:
    """The recurrent product is done token after token; its gradient by weights over all tokens at once."""
    width, gates = net.model.options["hidden"], 4 * net.model.options["hidden"]
    step = [(net.bptt, 1, net.batch, width, gates), (net.bptt, 1, net.batch, gates, width), (1, 1, gates, net.tokens, width)]
    return 2 * [*_linear(net.tokens, width, gates), *step] + _linear(net.tokens, width, net.classes)


def _needed_transformer(net: Net) -> list[Product]:
    width, inner, heads, layers, _ = _sizes(net)
    rows, each = net.batch // LENGTH * heads, width // heads
    looks = 3 * [(1, rows, LENGTH, each, LENGTH), (1, rows, LENGTH, LENGTH, each)]  # scores and sums, each thrice as a linear layer's product
    sublayers = 3 * (4 * _linear(net.tokens, width, width) + looks)
    return layers * (sublayers + 2 * (_linear(net.tokens, width, inner) + _linear(net.tokens, inner, width))) + _linear(net.tokens, width, net.classes)


def _linear(tokens: int, a: int, b: int) -> list[Product]:
    return [(1, 1, tokens, a, b), (1, 1, tokens, b, a), (1, 1, b, tokens, a)]


def needed_flop(net: Net) -> int:
    return sum(2 * times * batch * m * k * n for times, batch, m, k, n in needed(net))


def products(net: Net, device: str = "cpu") -> Contender:
    """The products of :func:`needed` and nothing else."""
    made = [(times, torch.randn(b, m, k, device=device), torch.randn(b, k, n, device=device)) for times, b, m, k, n in needed(net)]

    def step() -> None:
        for times, left, right in made:
            for _ in range(times):
                torch.bmm(left, right) if len(left) > 1 else torch.mm(left[0], right[0])

    return _turns(lambda: step(), None, device)
