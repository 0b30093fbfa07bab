"""SVHN: street view house numbers in Matlab files (Netzer et al. 2011), read by scipy."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ltcore.data.dataset import Split
from ltcore.data.files import FileSet, check_md5, damaged

SIZES = (73257, 26032)  # training and test images; the 531,131 easier ones of extra_32x32.mat are not used
_SMALLEST_BYTES = 10_000_000


def check_svhn(source: FileSet, paths: Mapping[str, Path]) -> tuple[int, int]:
    """A quick look at the lengths: (number of training examples, number of test examples). The md5s are checked on reading."""
    for path in paths.values():
        if path.stat().st_size < _SMALLEST_BYTES:
            raise damaged(path, f"it holds {path.stat().st_size} bytes only")
    return SIZES


def read_svhn(source: FileSet, paths: Mapping[str, Path]) -> tuple[Split, Split]:
    """(train, test) with x (N, 3, 32, 32) uint8 and y (N,) int64; the digit 0, which the files call 10, is class 0, as in torchvision."""
    check_md5(source, paths)
    return _read(paths["train_32x32.mat"]), _read(paths["test_32x32.mat"])


def _read(path: Path) -> Split:
    from scipy.io import loadmat  # slow to import

    raw = loadmat(path)
    x = torch.from_numpy(raw["X"]).permute(3, 2, 0, 1).contiguous()  # (H, W, C, N) in the file
    return Split(x, torch.from_numpy(raw["y"].astype("int64")).squeeze(1) % 10)
