import random

import numpy as np
import pytest
import torch

from ltcore.data import load
from ltcore.data import mnist1d as mnist1d_module
from ltcore.errors import UsageError


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mnist1d_module.mnist1d.cache_clear()


def test_mnist1d_is_deterministic_and_leaves_the_global_generators_alone(tmp_path):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = load("mnist1d", num_train=100, num_test=50)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert load("mnist1d", num_train=100, num_test=50) is first  # in memory
    mnist1d_module.mnist1d.cache_clear()
    from_disk = load("mnist1d", num_train=100, num_test=50)
    for file in (tmp_path / "cache/ltcore").glob("mnist1d-*"):
        file.write_bytes(b"broken")
    mnist1d_module.mnist1d.cache_clear()
    again = load("mnist1d", num_train=100, num_test=50)
    assert from_disk is not first and first.fingerprint == from_disk.fingerprint == again.fingerprint
    assert torch.equal(first.train.x, again.train.x)
    assert load("mnist1d", num_train=100, num_test=50, seed=7).fingerprint != first.fingerprint


def test_mnist1d_is_the_package_s_own():
    from mnist1d.data import get_dataset_args, make_dataset

    with mnist1d_module.untouched_generators():
        args = get_dataset_args()
        args.num_samples, args.train_split = 100, 0.8
        made = make_dataset(args)
    data = load("mnist1d", num_train=80, num_test=20)
    assert torch.equal(data.train.x, torch.tensor(made["x"]).float()) and data.test.y.tolist() == made["y_test"].tolist()
    assert torch.equal(data.prepare(data.train.x), data.train.x)  # normalised by the package


def test_mnist1d_sizes():
    data = load("mnist1d", num_train=33, num_test=27)
    assert (len(data.train), len(data.test), data.input_shape, data.train.x.dtype) == (33, 27, (40,), torch.float32)
    for sizes in ({"num_train": 33, "num_test": 28}, {"num_train": 0, "num_test": 10}):
        with pytest.raises(UsageError, match="multiple of 10, both at least 1"):
            load("mnist1d", **sizes)


def test_digits():
    data = load("digits")
    assert (data.train.x.shape, data.test.x.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert data.fingerprint == "b54026c20e5fa1a2509b21a7754d3eda5a8b97f3d5a14944f264c4e2e62efa61"
    assert data.train.x.dtype == torch.uint8 and data.prepare(data.train.x).max() == 1
    counts = torch.bincount(torch.cat([data.train.y, data.test.y]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # the package's description
