"""Classification: batches as a pure function of (seed, t), cross-entropy, and evaluation of whole splits."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore import seeds
from ltcore.data import Dataset, split
from ltcore.data.augment import crop_draws, crop_flip
from ltcore.data.images import Decoding
from ltcore.recipe import seen_shape
from ltcore.training.goal import Goal

AHEAD = 2  # batches that are decoded while one is trained on
DECODED_CHUNK = 128  # examples an evaluation pass of images of ImageNet's size: 0.8 GB of ResNet-50's activations
MOST_INPUTS = DECODED_CHUNK * 3 * 224 * 224  # numbers that the first layers of a stack read in a pass, where networks enlarge images
CHUNK = {"cpu": 500, "cuda": 10_000}  # examples an evaluation pass; 500 rows of LeNet's activations stay in a core's cache


def loss(out: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy, (B, classes) and (B,) -> scalar."""
    return F.cross_entropy(out, y)


@dataclass(frozen=True)
class Streams:
    """Where one replicate's randomness comes from: paths for ``seeds.stream``."""

    split: Sequence[Any]
    order: Sequence[Any]
    labels: Sequence[Any] | None = None  # given: training labels are permuted (negative control)
    augment: Sequence[Any] | None = None  # given: training images are cropped and flipped at random


class Batches:
    """R replicates' views of one data set on the device: their own split, order and, where asked, labels.

    Images that stay in files are decoded batch by batch; what the next iterations before ``stop`` take is known, so it is begun ahead of them.
    """

    def __init__(self, data: Dataset, n_val: int, batch_size: int, streams: Sequence[Streams], dtype: torch.dtype,
                 augment: str = "crop-flip", stop: float = math.inf):  # fmt: skip
        self.data, self.batch_size, self.streams, self.dtype, self.stop = data, batch_size, streams, dtype, stop
        self.device = data.train.y.device
        parts = [split(data, n_val, seeds.stream(*s.split)) for s in streams]
        self.train_index = torch.stack([train for train, _ in parts])  # (R, n), kept on the CPU where orders are drawn
        self.val_index = torch.stack([val for _, val in parts]).to(self.device)  # (R, n_val)
        self.labels = torch.stack([_labels(data.train.y, s) for s in streams])  # (R, N)
        self.per_epoch = self.train_index.shape[1] // batch_size
        if not self.per_epoch:
            raise ValueError(f"a batch of {batch_size} is larger than the training set of {self.train_index.shape[1]}")
        keys = [seeds.stream_seed(*s.augment) % 2**31 for s in streams if s.augment is not None]
        self.keys = torch.tensor(keys, device=self.device) if keys else None  # (R,) of the augmentation
        self.augment = augment
        self._orders: dict[int, Tensor] = {}
        self._coming: dict[int, tuple[Tensor, Decoding]] = {}  # iteration -> its index, and its images on their way
        self._val: tuple[Tensor, Tensor] | None = None
        self.facts: dict[str, Any] = {}  # what evaluations have to say beside numbers

    def index(self, t: int) -> Tensor:
        """Which examples make up batch t, (R, B); one permutation per (seed, epoch), the remainder of an epoch dropped."""
        epoch, place = divmod(t, self.per_epoch)
        if epoch not in self._orders:
            n = self.train_index.shape[1]
            orders = torch.stack([torch.randperm(n, generator=seeds.stream(*s.order, epoch)) for s in self.streams])
            kept = {e: order for e, order in self._orders.items() if abs(e - epoch) == 1}  # looking ahead, two epochs take turns
            self._orders = kept | {epoch: self.train_index.gather(1, orders).to(self.device)}
        return self._orders[epoch][:, place * self.batch_size : (place + 1) * self.batch_size]

    @property
    def captured(self) -> bool:
        """Whether a step can be recorded once and replayed; no graph decodes files, and such steps are long enough to launch one by one."""
        return not self.data.decoded

    def memory(self, module: Any) -> tuple[Tensor, ...]:
        """What goes from step to step beside weights: nothing."""
        return ()

    def example(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """A first batch for the choice of a back end; of images in files two are enough for that."""
        return self.fetch(index[:, :2] if self.data.decoded else index)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (R, B, …) and labels (R, B) of training examples (R, B), as they are."""
        return self.data.prepare(self._raw(index), self.dtype), self.labels.gather(1, index)

    def augmented(self, index: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """The same for iteration t, with the augmentation of the recipe where there is one."""
        raw = self._decoded(index, int(t)) if self.data.decoded else self._raw(index)
        if self.keys is not None and self.augment == "crop-flip":
            raw = crop_flip(raw, self.keys, t)
        return self.data.prepare(raw, self.dtype), self.labels.gather(1, index)

    def _decoded(self, index: Tensor, t: int) -> Tensor:
        """Raw images of iteration t, those of the next ones begun."""
        here = self._coming.pop(t, None)
        if here is None or not torch.equal(here[0], index):
            here = (index, self._begin(index, t))
        soon = range(t + 1, min(t + 1 + AHEAD, self.stop))
        self._coming = {s: self._coming.get(s) or (self.index(s), self._begin(self.index(s), s)) for s in soon}
        return here[1].result().view(*index.shape, *self.data.input_shape)

    def close(self) -> None:
        """Gives up what was begun ahead; a process would otherwise decode it before it ends."""
        for _, decoding in self._coming.values():
            decoding.cancel()
        self._coming = {}

    def _begin(self, index: Tensor, t: int) -> Decoding:
        draws = None
        if self.keys is not None and self.augment == "resized-crop-flip":
            draws = crop_draws(self.keys.cpu(), t, index.shape[1]).flatten(0, 1)
        return self.data.train.x.begin(index.flatten().tolist(), draws)

    def _raw(self, index: Tensor) -> Tensor:
        rows = self.data.train.x.index_select(0, index.flatten())  # several times faster than x[index] for a small batch
        return rows.view(*index.shape, *rows.shape[1:])

    def size(self, part: str) -> int:
        """Number of examples of ``val``, ``test`` or ``train``."""
        return {"val": self.val_index.shape[1], "test": len(self.data.test.y), "train": self.train_index.shape[1]}[part]

    def chunk(self, part: str, a: int, b: int) -> tuple[Tensor, Tensor]:
        """Examples a … b of a part, (R, b−a, …) and (R, b−a)."""
        if part == "test":
            x = self.data.prepare(self.data.test.x[a:b], self.dtype)
            return x.expand(len(self.streams), *x.shape), self.data.test.y[a:b].expand(len(self.streams), -1)
        if part == "val" and not self.data.decoded:  # read every few steps: prepared once
            self._val = self._val or self.fetch(self.val_index)
            return self._val[0][:, a:b], self._val[1][:, a:b]
        return self.fetch((self.val_index if part == "val" else self.train_index)[:, a:b].to(self.device))


@torch.no_grad()
def evaluate(backend: Any, batches: Batches, part: str, module: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy in percent over a whole part, each (R,) float64; the last batch counts like every other.

    Args:
        module: the network, of which is asked whether it enlarges images.
    """
    n, step = batches.size(part), examples_a_pass(batches, getattr(module, "enlarge", 0))
    total = torch.zeros(len(batches.streams), 2, dtype=torch.float64, device=batches.device)
    for a in range(0, n, step):
        x, y = batches.chunk(part, a, min(a + step, n))
        out = backend.forward(x)  # (R, B, classes)
        total[:, 0] += F.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none").reshape(y.shape).double().sum(1)
        total[:, 1] += (out.argmax(2) == y).sum(1)
    return total[:, 0] / n, total[:, 1] * (100 / n)


def examples_a_pass(batches: Batches, enlarge: int = 0) -> int:
    """How many an evaluation takes at once, of each of the stack's replicates."""
    step, copies = CHUNK[batches.device.type], len(batches.streams)
    if batches.data.decoded:
        return DECODED_CHUNK
    if batches.device.type == "cuda" and batches.data.train.x.dim() == 4:  # feature maps of a whole stack, up to 256 KiB an image and layer
        step = max(step // (2 * copies), 100)
    if enlarge:
        step = min(step, max(1, MOST_INPUTS // (copies * math.prod(seen_shape(batches.data.input_shape, enlarge)))))
    return step


def _labels(y: Tensor, streams: Streams) -> Tensor:
    if streams.labels is None:
        return y
    return y[torch.randperm(len(y), generator=seeds.stream(*streams.labels)).to(y.device)]


# ---- as a task of the loop -----------------------------------------------------------------------------------
def goal(options: Mapping[str, Any]) -> Goal:
    """Classification."""
    return Goal(_batches, loss, _columns, ("loss", "accuracy_pct"), failure)


def _batches(data: Dataset, segment: Any, streams: Sequence[Streams], dtype: torch.dtype) -> Batches:
    return Batches(data, segment.val, segment.batch_size, streams, dtype, segment.augment, segment.stop)


def _columns(backend: Any, batches: Batches, part: str, module: Any) -> Tensor:
    return torch.stack(evaluate(backend, batches, part, module), dim=1)


def failure(metrics: Mapping[str, Mapping[str, float]], batches: Batches) -> str:
    """Why this trial does not count: its loss is not a number at the end, or its accuracy lies within 3 sd of guessing."""
    if not all(math.isfinite(v) for m in metrics.values() for v in m.values()):
        return "diverged"
    part = "val" if batches.size("val") else "test"
    chance, n = 1 / batches.data.classes, batches.size(part)
    best = max((m[f"{part}_accuracy_pct"] for m in metrics.values() if f"{part}_accuracy_pct" in m), default=100.0)
    return "stayed at chance" if best <= 100 * (chance + 3 * math.sqrt(chance * (1 - chance) / n)) else ""
