"""scikit-learn's two sample photographs as JPEG files that are decoded batch by batch: ImageNet's way of reading in miniature, for smoke."""

import functools
import importlib.resources
from pathlib import Path

from ltcore.data.dataset import Dataset
from ltcore.data.folder import from_files

FILES = ("china.jpg", "flower.jpg")  # one a class, 640 x 427
REPEATS = (32, 10)  # of each in the training and in the test part: crops of them differ, the files do not
HALF = (127.5,) * 3


@functools.lru_cache(maxsize=2)
def photos(size: int = 32, resize: int = 36) -> Dataset:
    """64 and 20 images (3, size, size) of two classes, prepared to -1 ... 1."""
    base = Path(str(importlib.resources.files("sklearn.datasets.images")))
    parts = [([str(base / file) for file in FILES] * n, [0, 1] * n) for n in REPEATS]
    return from_files("photos", base, parts, len(FILES), size, resize, shift=HALF, scale=HALF, source="shipped with scikit-learn")
