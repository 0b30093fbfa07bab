"""Variants of a data set that is held as tensors, each an option of every such set: ``data.options.half=a``.

A variant is another data set: it has a fingerprint of its own.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ltcore.data.corpus import Corpus
from ltcore.data.dataset import Dataset, Split, fingerprint
from ltcore.errors import UsageError

HALF_SEED = 0  # one draw for everybody: the halves of two trials, and of two papers, are the same


def half(data: Dataset, which: Any) -> Dataset:
    """One of two halves of the training set with half of every class each; the test set stays whole.

    A permutation of each class, drawn by ``torch.randperm`` from one generator with seed 0, class after class; its first half is ``a`` (of an
    odd number the smaller one), the rest ``b``; each in the order of the set. CIFAR-10's have 25,000 images, 2,500 a class
    (Morcos et al. 2019, Sec 4.1).
    """
    if which not in ("a", "b"):
        raise UsageError(f"data set {data.name}: option half is a or b, not {which!r}")
    generator, chosen = torch.Generator().manual_seed(HALF_SEED), []
    for label in range(data.classes):
        members = (data.train.y == label).nonzero().squeeze(1)
        order = members[torch.randperm(len(members), generator=generator)]
        chosen.append(order[: len(order) // 2] if which == "a" else order[len(order) // 2 :])
    return _with(data, _taken(data.train, torch.cat(chosen).sort().values), data.test)


def channels(data: Dataset, count: Any) -> Dataset:
    """Grey images with their channel repeated, so that a network for colours takes them."""
    shape = data.input_shape
    if not isinstance(count, int) or isinstance(count, bool) or count < 1 or len(shape) != 3 or shape[0] not in (1, count):
        raise UsageError(f"data set {data.name}: channels={count!r} is not possible for examples of shape {shape}; grey images can have any number")
    if shape[0] == count:
        return data
    train, test = (Split(s.x.repeat(1, count, 1, 1), s.y) for s in (data.train, data.test))
    return _with(data, train, test)


def classes(data: Dataset, count: Any) -> Dataset:
    """The first ``count`` classes only, in training and test set."""
    if not isinstance(count, int) or isinstance(count, bool) or not 1 < count <= data.classes:
        raise UsageError(f"data set {data.name}: option classes is a whole number from 2 to {data.classes}, not {count!r}")
    train, test = (_taken(s, (s.y < count).nonzero().squeeze(1)) for s in (data.train, data.test))
    return dataclasses.replace(_with(data, train, test), classes=count)


VARIANTS: dict[str, Callable[[Dataset, Any], Dataset]] = {"classes": classes, "half": half, "channels": channels}


def varied(data: Dataset | Corpus, options: Mapping[str, Any]) -> Dataset | Corpus:
    """The set with variants applied, in the order of VARIANTS.

    Raises:
        UsageError: a value that means nothing, a set whose images stay in files, or a corpus.
    """
    if options and isinstance(data, Corpus):
        raise UsageError(f"data set {data.name} is a corpus: it has no option {', '.join(sorted(options))}")
    if options and data.decoded:
        raise UsageError(f"data set {data.name} is read from image files: it has no option {', '.join(sorted(options))}")
    for name, variant in VARIANTS.items():
        data = variant(data, options[name]) if name in options else data
    return data


def _taken(part: Split, index: Tensor) -> Split:
    return Split(part.x[index], part.y[index])


def _with(data: Dataset, train: Split, test: Split) -> Dataset:
    constants = [data.scale] + ([] if data.shift is None else [data.shift])
    return dataclasses.replace(data, train=train, test=test, fingerprint=fingerprint([train.x, train.y, test.x, test.y, *constants]))
