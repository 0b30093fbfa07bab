"""A user's own data set: what a function of their DATASETS dict returned, made a Dataset or refused in one clear line."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ltcore.data.corpus import Corpus, Sentences
from ltcore.data.corpus import build as build_corpus
from ltcore.data.dataset import Dataset, Split, build
from ltcore.errors import UserError
from ltcore.rl.worlds import Environment, World

PARTS = ("x_train", "y_train", "x_test", "y_test")


def from_user(name: str, value: Any) -> Dataset | Corpus | Environment:
    """A Dataset called `name`, from a Dataset or from (x_train, y_train, x_test, y_test), tensors or numpy arrays; of a World an Environment.

    A corpus is made by `words.corpus` of lines or by `pieces.corpus` of pairs of sentences.

    x is uint8 images, (N, H, W) or (N, C, H, W), prepared as raw / 255, or floats (N, ...) taken as they are (float32); y is whole numbers from 0, (N,).
    """
    if isinstance(value, World):
        return Environment(name, value, value.options)
    if isinstance(value, Corpus):
        return _from_corpus(name, value)
    if isinstance(value, Dataset):
        return _from_dataset(name, value)
    if not isinstance(value, tuple | list) or len(value) != len(PARTS):
        raise UserError(f"data set {name}: return a Dataset or the four arrays ({', '.join(PARTS)}), a Corpus or a World, not {_describe(value)}")
    x_train, y_train, x_test, y_test = _checked(name, tuple(value))
    classes = int(y_train.max()) + 1
    if int(y_test.max()) >= classes:
        raise UserError(f"data set {name}: y_test holds label {int(y_test.max())}, y_train has 0 to {classes - 1} only")
    scale = 255.0 if x_train.dtype == torch.uint8 else 1.0
    return build(name, Split(x_train, y_train), Split(x_test, y_test), classes, source="user", scale=scale)


def _from_corpus(name: str, value: Corpus) -> Corpus:
    parts = (value.train, value.val, value.test)
    if not all(len(part) for part in parts):
        raise UserError(f"data set {name}: a part of it is empty; a corpus needs text to train on, to validate on and to test on")
    texts = [t for part in parts for t in (part.tensors[:2] if isinstance(part, Sentences) else part.tensors)]
    largest = max(int(ids.max()) for ids in texts if len(ids))
    if largest >= value.classes:
        raise UserError(f"data set {name}: its vocabulary has {value.classes} words but it holds word {largest}")
    built = build_corpus(name, parts, value.words, source=value.source, note=value.note, tokenizer=value.tokenizer)
    return dataclasses.replace(built, fallback_for=value.fallback_for)


def _from_dataset(name: str, value: Dataset) -> Dataset:
    x_train, y_train, x_test, y_test = _checked(name, (value.train.x, value.train.y, value.test.x, value.test.y))
    largest = max(int(y_train.max()), int(y_test.max()))
    if largest >= value.classes:
        raise UserError(f"data set {name}: it says {value.classes} classes but holds label {largest}")
    shift = 0.0 if value.shift is None else value.shift.cpu()
    train, test = Split(x_train, y_train), Split(x_test, y_test)
    built = build(name, train, test, value.classes, source=value.source, scale=value.scale.cpu(), shift=shift)
    return dataclasses.replace(built, fallback_for=value.fallback_for, note=value.note)


def _describe(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list | dict) else type(value).__name__


def _checked(name: str, given: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x_train, y_train, x_test, y_test = (
        (_inputs if part.startswith("x") else _labels)(f"data set {name}: {part}", one) for part, one in zip(PARTS, given)
    )
    for x, y, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if len(x) != len(y):
            raise UserError(f"data set {name}: x_{part} has {len(x)} examples and y_{part} {len(y)}")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise UserError(f"data set {name}: an example of x_train is {_one(x_train)}, of x_test {_one(x_test)}; they must be alike")
    return x_train, y_train, x_test, y_test


def _one(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape[1:])}"


def _tensor(what: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        value = torch.from_numpy(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="))))
    if not isinstance(value, Tensor):
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise UserError(f"{what} must be a tensor or a numpy array of numbers, not {kind}")
    if value.ndim == 0 or len(value) == 0:
        raise UserError(f"{what} has no examples")
    return value.detach().cpu()


def _inputs(what: str, value: Any) -> Tensor:
    x = _tensor(what, value)
    if x.dtype == torch.uint8:
        if x.ndim not in (3, 4):
            raise UserError(f"{what} is uint8 {tuple(x.shape)}; images are (N, H, W) or (N, C, H, W), other inputs must be floats")
        return (x.unsqueeze(1) if x.ndim == 3 else x).contiguous()
    if not x.is_floating_point() or x.ndim < 2:
        raise UserError(f"{what} is {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}; it must be uint8 images or floats (N, ...)")
    if not x.isfinite().all():
        raise UserError(f"{what} holds values that are not finite")
    return x.to(torch.float32).contiguous()


def _labels(what: str, value: Any) -> Tensor:
    y = _tensor(what, value)
    if y.ndim != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"{what} is {str(y.dtype).removeprefix('torch.')} {tuple(y.shape)}; labels are whole numbers, one an example (N,)")
    y = y.to(torch.int64)
    if int(y.min()) < 0:
        raise UserError(f"{what} holds label {int(y.min())}; labels count from 0")
    return y.contiguous()
