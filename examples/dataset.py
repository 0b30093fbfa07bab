r"""A data set of your own: 8 x 8 handwritten digits of scikit-learn, each shifted at random, in place of MNIST.

    python -m bench replicate frankle2019 --scale smoke --experiment lenet-mnist --with examples/dataset.py \
        --set lenet-mnist.data.name=shifted-digits

Give a function that returns x_train, y_train, x_test, y_test as arrays or tensors: uint8 images, or floats that are taken as they are. It must
give the same arrays each time it is called. Validation examples are taken off the training set (``--set lenet-mnist.data.val=200``).
"""
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def shifted_digits(copies: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``copies`` of each digit on a 10 x 10 canvas, at a random place; options come from ``--set 'lenet-mnist.data.options={copies: 4}'``."""
    digits, place = load_digits(), np.random.default_rng(0)
    x_train, x_test, y_train, y_test = train_test_split(digits.images, digits.target, test_size=360, random_state=0, stratify=digits.target)

    def scattered(images: np.ndarray) -> np.ndarray:
        canvas = np.zeros((len(images), 1, 10, 10), dtype=np.float32)
        for one, image, (i, j) in zip(canvas, images, place.integers(0, 3, (len(images), 2)), strict=True):
            one[0, i : i + 8, j : j + 8] = image / 16
        return canvas

    return scattered(np.repeat(x_train, copies, axis=0)), np.repeat(y_train, copies), scattered(x_test), y_test


DATASETS = {"shifted-digits": shifted_digits}
