"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 that come with the package (UCI Optical Recognition of Handwritten Digits)."""

import functools

import torch

from ltcore.data.dataset import Dataset, Split, build

N_TEST = 360  # a fifth
SPLIT_SEED = 0  # the set has no official split; this one is fixed
LARGEST = 16.0  # raw values are counts 0 ... 16


@functools.lru_cache(maxsize=1)
def digits() -> Dataset:
    """x (1437 and 360, 1, 8, 8) uint8 of 0 ... 16, prepared to 0 ... 1; y (N,) int64."""
    from sklearn.datasets import load_digits  # a second to import

    raw = load_digits()
    x = torch.from_numpy(raw.images).to(torch.uint8).unsqueeze(1)  # (N, 1, 8, 8)
    y = torch.from_numpy(raw.target).to(torch.int64)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(SPLIT_SEED))
    test, train = order[:N_TEST], order[N_TEST:]
    return build("digits", Split(x[train], y[train]), Split(x[test], y[test]), 10, source="shipped with scikit-learn", scale=LARGEST)
