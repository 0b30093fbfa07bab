"""Corpora as whole tensors: running text for language models, pairs of sentences for translation.

They stand where a `Dataset` stands: a name, a source, a fingerprint over all that training sees, parts with a length. Unlike a `Dataset`
a corpus has a validation part of its own.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ltcore.data.dataset import fingerprint

UNK, EOS = "<unk>", "<eos>"


@dataclass(frozen=True, eq=False)
class Tokens:
    """One part of a running text."""

    ids: Tensor  # (N,) int64, places in the vocabulary

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, n: int) -> "Tokens":
        return Tokens(self.ids[:n])

    def to(self, device: torch.device | str) -> "Tokens":
        return Tokens(self.ids.to(device))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.ids,)


@dataclass(frozen=True, eq=False)
class Sentences:
    """One part of a corpus of translations: each side as one long tensor and where its sentences begin; no markers among them."""

    source: Tensor  # (tokens,) int64
    target: Tensor
    source_at: Tensor  # (N + 1,) int64: sentence i is source[source_at[i] : source_at[i + 1]]
    target_at: Tensor
    texts: tuple[str, ...] = ()  # of the target side as it was written: what a translation is held against; not kept of the training part

    def __len__(self) -> int:
        return len(self.source_at) - 1

    def first(self, n: int) -> "Sentences":
        a, b = self.source_at[: n + 1], self.target_at[: n + 1]
        return Sentences(self.source[: int(a[-1])], self.target[: int(b[-1])], a, b, self.texts[:n])

    def to(self, device: torch.device | str) -> "Sentences":
        return Sentences(*(t.to(device) for t in self.tensors), self.texts)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.source, self.target, self.source_at, self.target_at)

    def lengths(self) -> tuple[Tensor, Tensor]:
        """Tokens of each sentence's source and target, (N,) each."""
        return self.source_at.diff(), self.target_at.diff()


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three parts that share one vocabulary. `tokenizer` is the JSON of package `tokenizers` where pieces of words have to be put together.

    `fallback_for` and `note` are as a `Dataset`'s.
    """

    name: str
    train: Tokens | Sentences
    val: Tokens | Sentences
    test: Tokens | Sentences
    words: tuple[str, ...]  # the vocabulary, by number
    source: str
    fingerprint: str
    fallback_for: str | None = None
    note: str = ""
    tokenizer: str = ""

    decoded = False  # nothing stays in files

    @property
    def classes(self) -> int:
        return len(self.words)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one token, which is a number."""
        return ()

    @property
    def device(self) -> torch.device:
        return self.train.tensors[0].device

    def to(self, device: torch.device | str) -> "Corpus":
        return dataclasses.replace(self, train=self.train.to(device), val=self.val.to(device), test=self.test.to(device))


def build(name: str, parts: Sequence[Tokens] | Sequence[Sentences], words: Sequence[str], *, source: str, note: str = "",
          tokenizer: str = "") -> Corpus:  # fmt: skip
    """A Corpus of (training, validation, test) with its fingerprint, which covers vocabulary and texts too."""
    said = "\n".join([*words, *(text for part in parts for text in getattr(part, "texts", ()))])
    tensors = [t for part in parts for t in part.tensors]
    found = fingerprint([*tensors, torch.frombuffer(bytearray(said.encode()), dtype=torch.uint8)])
    return Corpus(name, *parts, tuple(words), source, found, note=note, tokenizer=tokenizer)
