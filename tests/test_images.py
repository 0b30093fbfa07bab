"""Image folders: listing, decoding, the draws of the random crop against torchvision's own, and what is said of a broken folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import data_verb
from ltcore.data import DATASETS, load
from ltcore.data.augment import AREA, DRAWS, RATIO, crop_draws, resized_crop
from ltcore.data.photos import photos
from ltcore.data.torchvision_compat import torchvision_transforms
from ltcore.errors import DataMissingError, UsageError, UserError
from tests.conftest import image_folder

CLASSES, N_TRAIN, N_VAL = 3, 4, 2  # images of each class


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LTCORE_DATA", raising=False)


@pytest.fixture
def root(tmp_path):
    """A folder with imagenet/train and imagenet/val."""
    return image_folder(tmp_path / "data" / "imagenet", CLASSES, N_TRAIN, N_VAL).parent


def small(root: Path, **options: int):
    return load("imagenet", root, **{"size": 16, "resize": 20, **options})


# ---- the set -------------------------------------------------------------------------------------------------
def test_classes_files_and_shapes(root):
    data = small(root)
    assert (data.name, data.source, data.classes, data.input_shape, data.decoded) == ("imagenet", "folder", CLASSES, (3, 16, 16), True)
    assert (len(data.train), len(data.test)) == (CLASSES * N_TRAIN, CLASSES * N_VAL)
    assert data.train.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4 and data.train.y.dtype == torch.int64
    for file, label in zip(data.train.x.files, data.train.y):
        assert Path(file).parent.name == f"n{label:02d}" and Path(file).parent.parent.name == "train"
    assert {Path(file).parent.parent.name for file in data.test.x.files} == {"val"}
    whole = load("imagenet", root)
    assert whole.input_shape == (3, 224, 224) and whole.fingerprint != data.fingerprint  # prepared otherwise


def test_constants_are_torchvisions(root):
    x = small(root).prepare(torch.full((3, 1, 1), 255, dtype=torch.uint8)).flatten()
    assert torch.allclose(x, (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]), atol=1e-6)


@pytest.mark.parametrize("mode", ["auto", "local", "DIR"])
def test_the_folder_is_named_by_hand_or_by_the_environment(root, monkeypatch, mode):
    monkeypatch.setenv("LTCORE_DATA", str(root))
    inner = load("imagenet", root / "imagenet")  # the folder itself will do too
    assert load("imagenet", root if mode == "DIR" else mode).fingerprint == inner.fingerprint


def test_the_fingerprint_knows_names_lengths_and_classes_but_not_the_place(root, tmp_path):
    here = load("imagenet", root)
    assert load("imagenet", root) is here
    other = image_folder(tmp_path / "elsewhere" / "imagenet", CLASSES, N_TRAIN, N_VAL)
    assert load("imagenet", other.parent).fingerprint == here.fingerprint
    (other / "train" / "n01" / "0.JPEG").rename(other / "train" / "n01" / "9.JPEG")
    assert load("imagenet", other.parent).fingerprint != here.fingerprint


def test_a_part_of_the_set_is_taken_and_says_so(root):
    assert load("imagenet", root).note == (
        "ImageNet (ILSVRC-2012): 3 classes, 12 + 6 images in the folder, the whole set has 1,000 classes, 1,281,167 + 50,000 images")


# ---- decoding ------------------------------------------------------------------------------------------------
def torchvision_reads(file: str, resize: int = 20, size: int = 16) -> torch.Tensor:
    t = torchvision_transforms()
    with Image.open(file) as image:
        return t.Compose([t.Resize(resize), t.CenterCrop(size), t.PILToTensor()])(image.convert("RGB"))


def test_evaluation_is_torchvisions_resize_and_centre_crop_bit_for_bit(root):
    data = small(root)
    expected = torch.stack([torchvision_reads(file) for file in data.test.x.files])
    assert expected.float().std() > 10  # no blank images
    assert torch.equal(data.test.x[0 : len(data.test)], expected)
    assert torch.equal(data.test.x[2:4], expected[2:4])
    assert torch.equal(data.test.x.index_select(0, torch.tensor([5, 0, 5])), expected[[5, 0, 5]])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_files_are_read_as_rgb(root, mode):
    file = root / "imagenet" / "val" / "n00" / "0.JPEG"
    with Image.open(file) as image:
        image.convert(mode).save(file, "JPEG")
    assert torch.equal(small(root).test.x[0:1][0], torchvision_reads(str(file)))


def test_a_random_crop_is_torchvisions_at_the_drawn_place(root):
    images, functional = small(root).train.x, torchvision_transforms().functional
    draws = crop_draws(torch.tensor([5]), 0, 40)[0]
    made = images.begin([7] * 40, draws).result()
    mirrored = 0
    for row, out in zip(draws.tolist(), made):
        with Image.open(images.files[7]) as image:
            part = functional.resized_crop(image.convert("RGB"), *resized_crop(row, *image.size), [16, 16])
        mirrored += row[-1] < 0.5
        expected = torch.from_numpy(np.array(part)).permute(2, 0, 1)
        assert torch.equal(out, expected.flip(2) if row[-1] < 0.5 else expected)
    assert 8 < mirrored < 32


# ---- draws ---------------------------------------------------------------------------------------------------
def test_draws_are_a_pure_function_of_key_step_and_place():
    keys = torch.tensor([11, 12])
    draws = crop_draws(keys, 3, 5)
    assert draws.shape == (2, 5, DRAWS) and bool((draws >= 0).all()) and bool((draws < 1).all())
    assert torch.equal(draws, crop_draws(keys, 3, 5)) and torch.equal(draws[1:], crop_draws(keys[1:], 3, 5))
    assert torch.equal(draws, crop_draws(keys, 3, 9)[:, :5])  # whatever the batch
    assert not torch.equal(draws, crop_draws(keys, 4, 5)) and not torch.equal(draws[0], draws[1])


SIZES = [(500, 375), (60, 300), (40, 40), (1000, 90)]  # width, height; the second and fourth hardly ever fit


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_crops_lie_inside_the_image_and_have_torchvisions_distribution(width, height):
    n = 3000
    mine = np.array([resized_crop(row, width, height) for row in crop_draws(torch.tensor([1]), 0, n)[0].tolist()], dtype=float)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blank = Image.new("L", (width, height))
        get = torchvision_transforms().RandomResizedCrop.get_params
        theirs = np.array([get(blank, list(AREA), list(RATIO)) for _ in range(n)], dtype=float)
    top, left, h, w = mine.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all() and (h > 0).all() and (w > 0).all()
    error = 5 * np.sqrt((mine.var(0) + theirs.var(0)) / n) + 0.01  # 5 standard errors of each mean
    assert (abs(mine.mean(0) - theirs.mean(0)) < error).all()
    assert (abs(mine.std(0) - theirs.std(0)) < 0.1 * theirs.std(0) + 0.5).all()
    assert abs((h * w).mean() - (theirs[:, 2] * theirs[:, 3]).mean()) < 0.03 * width * height


@pytest.mark.parametrize(("width", "height", "crop"), [(1000, 50, (0, 466, 50, 67)), (50, 1000, (466, 0, 67, 50))])
def test_where_no_try_fits_the_centre_is_taken(width, height, crop):
    never = [0.999] * DRAWS
    blank, get = Image.new("L", (width, height)), torchvision_transforms().RandomResizedCrop.get_params
    assert resized_crop(never, width, height) == crop == get(blank, [50.0, 50.0], list(RATIO))


# ---- errors --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_file_that_is_no_image_is_named(root, content):
    data, file = small(root), root / "imagenet" / "val" / "n02" / "1.JPEG"
    file.write_bytes(file.read_bytes()[:200] if content is None else content)  # None: cut short
    with pytest.raises(UserError) as caught:
        data.test.x[0 : len(data.test)]
    assert str(caught.value).startswith(f"{file} cannot be read as an image (") and "\n" not in str(caught.value)


def test_classes_of_both_parts_must_agree(root):
    (root / "imagenet" / "val" / "n02").rename(root / "imagenet" / "val" / "n99")
    with pytest.raises(UserError, match="class folder n02 and 1 more in train but not in val; both must hold the same classes"):
        load("imagenet", root)


def test_a_class_without_images_and_a_part_without_classes(root):
    for file in (root / "imagenet" / "train" / "n01").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="train: Found no valid file for the classes n01"):
        load("imagenet", root)
    for folder in list((root / "imagenet" / "train").iterdir()):
        folder.rename(root / folder.name)
    with pytest.raises(UserError, match="Couldn't find any class folder in .*; it must hold one folder of images a class"):
        load("imagenet", root)


@pytest.mark.parametrize("mode", ["auto", "local", "DIR"])
def test_where_it_is_not_there_nothing_stands_in(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path))
    with pytest.raises(DataMissingError) as caught:
        load("imagenet", tmp_path if mode == "DIR" else mode)
    assert f"not found in {tmp_path}" in str(caught.value) and "imagenet/train/CLASS/*.JPEG" in str(caught.value)
    assert "nothing downloads it" in str(caught.value) and "\n" not in str(caught.value)


def test_half_of_it_is_an_error_of_its_own(root):
    os.rename(root / "imagenet" / "val", root / "elsewhere")
    with pytest.raises(UserError, match="imagenet/val missing in") as caught:
        load("imagenet", root)
    assert not isinstance(caught.value, DataMissingError)


@pytest.mark.parametrize("options", [{"pixels": 3}, {"size": 0}, {"size": 30, "resize": 20}, {"size": "big"}])
def test_options_are_checked(root, options):
    with pytest.raises(UsageError, match="imagenet"):
        load("imagenet", root, **options)


# ---- data list, fetch, verify --------------------------------------------------------------------------------
def test_the_data_verb(root, tmp_path):
    def row(rows):
        return next(r for r in rows if r["name"] == "imagenet")

    found = row(data_verb.list_sets(root))
    assert (found["status"], found["where"], found["n_train"], found["n_test"], found["fingerprint"]) == ("ok", str(root), 12, 6, None)
    verified = row(data_verb.verify(["imagenet"], root))
    assert verified["fingerprint"] == load("imagenet", root).fingerprint and "3 classes, 12 + 6 images" in verified["advice"]
    gone = row(data_verb.list_sets(tmp_path))
    assert gone["status"] == "missing" and "nothing downloads it" in gone["advice"] and row(data_verb.fetch(["imagenet"], tmp_path)) == gone
    (root / "imagenet" / "val" / "n02").rename(root / "imagenet" / "val" / "n99")
    assert row(data_verb.verify(["imagenet"], root))["status"] == "damaged"
    os.rename(root / "imagenet" / "val", root / "elsewhere")
    assert row(data_verb.list_sets(root))["status"] == "incomplete"


def test_photos_ship_with_a_dependency():
    data = photos()
    assert (len(data.train), len(data.test)) == DATASETS["photos"].sizes and data.input_shape == (3, 32, 32) and data.classes == 2
    x = data.prepare(data.test.x[0:2])
    assert data.decoded and x.shape == (2, 3, 32, 32) and -1 <= x.min() < -0.5 and 0.5 < x.max() <= 1 and not torch.equal(x[0], x[1])
