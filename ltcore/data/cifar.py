"""CIFAR-10 and CIFAR-100: pickled batches, read by torchvision.

A pickle can run code, so no file is opened before its md5 is an accepted one; that costs about 0.3 s a set and is done at every load.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ltcore.data.dataset import Split
from ltcore.data.files import FileSet, check_md5, damaged
from ltcore.data.torchvision_compat import torchvision_datasets

SIZES = (50000, 10000)  # training and test images, of both sets
_SMALLEST_BYTES = 10_000_000  # every batch file holds 10,000 images or more of 3,072 bytes


def check_cifar(source: FileSet, paths: Mapping[str, Path]) -> tuple[int, int]:
    """A quick look at the lengths: (number of training examples, number of test examples). The md5s are checked on reading."""
    for name, path in paths.items():
        if "meta" not in name and path.stat().st_size < _SMALLEST_BYTES:
            raise damaged(path, f"it holds {path.stat().st_size} bytes only")
    return SIZES


def read_cifar(source: FileSet, paths: Mapping[str, Path]) -> tuple[Split, Split]:
    """(train, test) with x (N, 3, 32, 32) uint8 and y (N,) int64; CIFAR-100's are the 100 fine labels."""
    check_md5(source, paths)
    base = getattr(torchvision_datasets(), source.torchvision_name)
    # The md5s were checked a line ago, against a list that also has CIFAR-100 in the order of its file names; torchvision need not again.
    unchecked = {part: [[name, None] for name, _ in getattr(base, part)] for part in ("train_list", "test_list")}
    reader = type(base.__name__, (base,), unchecked)
    root = next(iter(paths.values())).parent.parent
    return _split(reader(root, train=True)), _split(reader(root, train=False))


def _split(read: object) -> Split:
    images: Tensor = torch.from_numpy(read.data)  # (N, H, W, C)
    return Split(images.permute(0, 3, 1, 2).contiguous(), torch.tensor(read.targets))
