"""MNIST-1D (Greydanus & Kobak, 2020, arXiv 2011.14439): ten templates, bent, moved and noised by formulas of package `mnist1d`; no file needed."""

import contextlib
import functools
import importlib.metadata
import logging
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ltcore.data.cache import cache_folder
from ltcore.data.dataset import Dataset, Split, build, fingerprint
from ltcore.errors import UsageError

CLASSES = 10
SEED = 42  # the package's own default
_log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=4)
def mnist1d(num_train: int = 4000, num_test: int = 10000, seed: int = SEED) -> Dataset:
    """x (N, 40) float32, y (N,) int64; the same numbers give the same tensors. Making 14,000 examples takes seconds, so they are kept on disk.

    The package's defaults (4,000 training and 1,000 test examples, a training share of 0.8) give too coarse a test accuracy, hence 10,000.
    The package centres and scales over training and test examples together; that is kept, so nothing is left for `prepare`.
    """
    if min(num_train, num_test) < 1 or (num_train + num_test) % CLASSES:
        raise UsageError(f"mnist1d: num_train + num_test must be a multiple of {CLASSES}, both at least 1; got {num_train} and {num_test}")
    stored = cache_folder() / f"mnist1d-{importlib.metadata.version('mnist1d')}-{seed}-{num_train}-{num_test}.safetensors"
    tensors = _stored(stored)
    if tensors is None:
        tensors = _make(num_train, num_test, seed)
        _store(tensors, stored)
    train, test = Split(tensors["x_train"], tensors["y_train"]), Split(tensors["x_test"], tensors["y_test"])
    return build("mnist1d", train, test, CLASSES, source="formula (mnist1d)")


def _make(num_train: int, num_test: int, seed: int) -> dict[str, Tensor]:
    """Calls the package, which draws from the global generators of `random` and numpy after seeding them."""
    with untouched_generators():
        from mnist1d.data import get_dataset_args, make_dataset  # imports matplotlib, over a second

        args = get_dataset_args()
        args.num_samples, args.seed = num_train + num_test, seed
        args.train_split = (num_train + 0.5) / args.num_samples  # the package truncates share * samples
        made = make_dataset(args)
    x = {"x_train": made["x"], "x_test": made["x_test"]}
    y = {"y_train": made["y"], "y_test": made["y_test"]}
    return {k: torch.tensor(v, dtype=torch.float32) for k, v in x.items()} | {k: torch.tensor(v, dtype=torch.int64) for k, v in y.items()}


@contextlib.contextmanager
def untouched_generators() -> Iterator[None]:
    """Restores the global generators of `random`, numpy and torch (CPU) on leaving, whatever was done to them inside."""
    state, state_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(state_numpy)


def _stored(path: Path) -> dict[str, Tensor] | None:
    """The tensors kept in `path`; None when there are none, or when they are not what was written."""
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
            written = (file.metadata() or {}).get("fingerprint")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        _log.warning("%s cannot be read (%s); making MNIST-1D anew", path, error)
        return None
    return tensors if written == fingerprint(tensors.values()) else None


def _store(tensors: dict[str, Tensor], path: Path) -> None:
    """Keeps the tensors, whole or not at all; where the folder cannot be written they are simply made again next time."""
    kept = {key: tensors[key] for key in sorted(tensors)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            save_file(kept, str(Path(scratch) / path.name), metadata={"fingerprint": fingerprint(kept.values())})
            os.replace(Path(scratch) / path.name, path)
    except (OSError, SafetensorError) as error:
        _log.info("MNIST-1D was not kept in %s: %s", path, error)
