"""Halves, repeated channels and fewer classes of a data set; SVHN's reader; Places365's folder."""
from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from ltcore.data import DATASETS, Dataset, Split, build, load
from ltcore.data import download as download_module
from ltcore.data.files import FileSet
from ltcore.data.svhn import read_svhn
from ltcore.data.variants import varied
from ltcore.errors import DataMissingError, UsageError, UserError
from tests.conftest import image_folder


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LTCORE_DATA", raising=False)
    monkeypatch.setattr(download_module, "reachable", lambda urls: [])
    download_module.download_once.cache_clear()


def a_set(labels: list[int], channels: int = 1) -> Dataset:
    """Images whose only pixel value is their number."""
    x = torch.arange(len(labels), dtype=torch.uint8).reshape(-1, 1, 1, 1).repeat(1, channels, 2, 2)
    part = Split(x, torch.tensor(labels))
    return build("made", part, part, max(labels) + 1, source="test", scale=255.0)


def numbers(part: Split) -> list[int]:
    return part.x[:, 0, 0, 0].tolist()


# ---- halves ----------------------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 3), min_size=2, max_size=200))
def test_halves_are_a_partition_with_half_of_every_class(labels):
    whole = a_set([*labels, 3])
    a, b = (varied(whole, {"half": h}) for h in "ab")
    assert sorted(numbers(a.train) + numbers(b.train)) == numbers(whole.train) and numbers(a.train) == sorted(numbers(a.train))
    counts = [s.train.y.bincount(minlength=4) for s in (a, b)]
    assert torch.equal(counts[0], whole.train.y.bincount(minlength=4) // 2) and torch.equal(sum(counts), whole.train.y.bincount(minlength=4))
    assert numbers(a.test) == numbers(whole.test) and a.classes == whole.classes
    assert a.fingerprint != whole.fingerprint and varied(whole, {"half": "a"}).fingerprint == a.fingerprint


def test_the_draw_of_the_halves_is_fixed():
    assert numbers(varied(a_set([0, 1] * 10), {"half": "a"}).train) == [2, 5, 6, 7, 8, 9, 10, 14, 15, 19]


def test_halves_of_a_set_that_ships_with_a_dependency():
    a, b = load("digits", half="a"), load("digits", half="b")
    assert (len(a.train), len(b.train)) == (717, 720) and a.fingerprint != b.fingerprint != load("digits").fingerprint


# ---- channels, classes -----------------------------------------------------------------------------------------
def test_grey_images_in_colour_and_fewer_classes():
    whole = a_set([0, 1, 2, 1])
    colour, two = varied(whole, {"channels": 3}), varied(whole, {"classes": 2})
    assert colour.input_shape == (3, 2, 2) and all(torch.equal(colour.train.x[:, c], whole.train.x[:, 0]) for c in range(3))
    assert torch.equal(colour.prepare(colour.train.x)[:, 2], whole.prepare(whole.train.x)[:, 0])
    assert (two.classes, numbers(two.train), numbers(two.test), two.train.y.tolist()) == (2, [0, 1, 3], [0, 1, 3], [0, 1, 1])
    assert len({d.fingerprint for d in (whole, colour, two)}) == 3 and varied(a_set([0, 1], 3), {"channels": 3}).fingerprint == a_set([0, 1], 3).fingerprint


@pytest.mark.parametrize(("options", "said"), [
    ({"half": "c"}, "option half is a or b, not 'c'"), ({"half": 1}, "option half is a or b, not 1"),
    ({"channels": 0}, "channels=0 is not possible"), ({"channels": "3"}, "channels='3' is not possible"),
    ({"classes": 1}, "from 2 to 10, not 1"), ({"classes": 11}, "from 2 to 10, not 11"), ({"classes": True}, "from 2 to 10"),
])  # fmt: skip
def test_options_that_mean_nothing(options, said):
    with pytest.raises(UsageError, match=said):
        load("digits", **options)


def test_colours_do_not_become_other_colours_and_flat_inputs_have_no_channels():
    with pytest.raises(UsageError, match="channels=2 is not possible for examples of shape"):
        varied(a_set([0, 1], 3), {"channels": 2})
    with pytest.raises(UsageError, match="channels=3 is not possible for examples of shape"):
        load("mnist1d", num_train=20, num_test=10, channels=3)


# ---- SVHN ------------------------------------------------------------------------------------------------------
def write_svhn(root) -> tuple[FileSet, np.ndarray]:
    rng, source = np.random.default_rng(0), DATASETS["svhn"]
    images = rng.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    savemat(root / "train_32x32.mat", {"X": images, "y": np.array([[1], [10], [9], [2]], dtype=np.uint8)})
    savemat(root / "test_32x32.mat", {"X": images[..., :2], "y": np.array([[10], [3]], dtype=np.uint8)})
    md5 = {name: (hashlib.md5((root / name).read_bytes()).hexdigest(),) for name in source.files}
    return FileSet(**{**vars(source), "md5": md5}), images


def test_svhn_is_read_channels_first_and_ten_is_zero(tmp_path):
    source, images = write_svhn(tmp_path)
    train, test = read_svhn(source, {name: tmp_path / name for name in source.files})
    assert train.x.shape == (4, 3, 32, 32) and train.x.dtype == torch.uint8 and train.x.is_contiguous()
    assert all(train.x[n, c, h, w] == images[h, w, c, n] for n, c, h, w in ((0, 0, 0, 0), (3, 2, 31, 5), (2, 1, 7, 30)))
    assert (train.y.tolist(), test.y.tolist(), train.y.dtype) == ([1, 0, 9, 2], [0, 3], torch.int64)


def test_svhn_that_is_not_the_official_one_is_refused(tmp_path):
    write_svhn(tmp_path)
    with pytest.raises(UserError, match=r"train_32x32\.mat is damaged: its md5 is"):
        load("svhn", tmp_path)


def test_svhn_is_where_torchvision_puts_it_and_missing_elsewhere(tmp_path):
    with pytest.raises(DataMissingError, match="SVHN: .*train_32x32.mat and 1 more missing"):
        load("svhn", tmp_path)
    assert load("svhn").fallback_for == "svhn"


def test_svhn_is_downloaded_split_by_split(tmp_path, monkeypatch):
    asked = []

    class SVHN:
        split_list = {"test": ["http://a/test_32x32.mat", "test_32x32.mat", ""]}

        def __init__(self, root, split, download):
            asked.append((split, download))
            (type(self).place(root) / f"{split}_32x32.mat").write_bytes(b"x")

        @staticmethod
        def place(root):
            from pathlib import Path

            return Path(root)

    monkeypatch.setattr(download_module, "torchvision_datasets", lambda: type("datasets", (), {"SVHN": SVHN}))
    monkeypatch.setattr(download_module, "reachable", lambda urls: urls)
    download_module.download(DATASETS["svhn"], tmp_path)
    assert asked == [("train", True), ("test", True)] and sorted(p.name for p in tmp_path.glob("*.mat")) == ["test_32x32.mat", "train_32x32.mat"]


# ---- Places365 -------------------------------------------------------------------------------------------------
def test_places365_is_an_image_folder_of_its_own(tmp_path):
    image_folder(tmp_path / "imagenet", 2, 2, 1)
    with pytest.raises(DataMissingError, match="Places365-Standard not found"):
        load("places365", tmp_path / "imagenet")  # that folder itself is ImageNet's
    image_folder(tmp_path / "places365", 3, 2, 1)
    found = load("places365", tmp_path, size=16, resize=20)
    assert (found.classes, len(found.train), len(found.test), found.decoded) == (3, 6, 3, True) and "365 classes" in found.note
    with pytest.raises(UsageError, match="read from image files: it has no option half"):
        load("places365", tmp_path, half="a")
