import gzip
import hashlib
import os
import pickle
import struct
import sys
import time
import types
from urllib.error import URLError

import numpy as np
import pytest
import torch

from bench import data_verb
from ltcore.data import DATASETS, is_official, load, torchvision_compat
from ltcore.data import download as download_module
from ltcore.data import mnist1d as mnist1d_module
from ltcore.data.cifar import read_cifar
from ltcore.data.files import FileSet
from ltcore.data.sources import Made
from ltcore.errors import UsageError, UserError

MNIST_FINGERPRINT = "cf17c6b4e874392e40f48fe59d9282d45ed9241a5861937a0171335ca1668f8b"
N_TRAIN, N_TEST = 20, 12


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch, tmp_path):
    """Own cache folder, no network, nothing remembered from another test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LTCORE_DATA", raising=False)
    monkeypatch.setattr(download_module, "reachable", lambda urls: [])
    download_module.download_once.cache_clear()
    mnist1d_module.mnist1d.cache_clear()


def idx_images(n, height=28, width=28, magic=0x803):
    pixels = np.random.default_rng(n).integers(0, 256, (n, height, width), dtype=np.uint8)
    return struct.pack(">4I", magic, n, height, width) + pixels.tobytes(), pixels


def idx_labels(n, magic=0x801, labels=None):
    values = np.arange(n, dtype=np.uint8) % 10 if labels is None else np.asarray(labels, dtype=np.uint8)
    return struct.pack(">2I", magic, len(values)) + values.tobytes()


def write_mnist(root, packed=False, **replaced):
    """Four idx files below `root`; `replaced` gives other contents for train_images, train_labels, t10k_images, t10k_labels."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    contents = {
        "train_images": idx_images(N_TRAIN)[0], "train_labels": idx_labels(N_TRAIN),
        "t10k_images": idx_images(N_TEST)[0], "t10k_labels": idx_labels(N_TEST),
    } | replaced
    for name, content in contents.items():
        part, kind = name.split("_")
        file = f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
        if packed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / file).write_bytes(content)
    return folder


# Files of the idx format

@pytest.mark.parametrize("packed", [False, True])
def test_reads_idx_files_unpacked_and_gzipped(tmp_path, packed):
    write_mnist(tmp_path, packed)
    data = load("mnist", tmp_path)
    assert (data.name, data.source, data.classes, data.input_shape) == ("mnist", "folder", 10, (1, 28, 28))
    assert data.train.x.dtype == torch.uint8 and data.train.y.dtype == torch.int64
    assert np.array_equal(data.train.x[:, 0].numpy(), idx_images(N_TRAIN)[1])
    assert np.array_equal(data.test.x[:, 0].numpy(), idx_images(N_TEST)[1])
    assert data.test.y.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert data.fallback_for is None and data.note == "" and not is_official(data)


def test_fingerprint_does_not_depend_on_place_or_packing(tmp_path, monkeypatch):
    write_mnist(tmp_path / "a")
    write_mnist(tmp_path / "b", packed=True)
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path / "b"))
    assert load("mnist", tmp_path / "a").fingerprint == load("mnist").fingerprint == load("mnist", "local").fingerprint


def test_a_changed_file_is_read_again(tmp_path):
    folder = write_mnist(tmp_path)
    before = load("mnist", tmp_path)
    assert load("mnist", tmp_path) is before
    file = folder / "train-labels-idx1-ubyte"
    file.write_bytes(idx_labels(N_TRAIN, labels=[9] * N_TRAIN))
    os.utime(file, ns=(1, 1))
    after = load("mnist", tmp_path)
    assert after.train.y.tolist() == [9] * N_TRAIN and after.fingerprint != before.fingerprint


BROKEN = {
    "truncated": ({"train_images": idx_images(N_TRAIN)[0][:-1]}, "train-images", "holds 15695 bytes where its header asks for 15696"),
    "too long": ({"t10k_labels": idx_labels(N_TEST) + b"x"}, "t10k-labels", "holds 21 bytes"),
    "empty": ({"train_labels": b""}, "train-labels", "ends inside the header"),
    "wrong magic": ({"t10k_images": idx_images(N_TEST, magic=0x802)[0]}, "t10k-images", "starts with 0x802"),
    "images as labels": ({"train_labels": idx_images(N_TRAIN)[0]}, "train-labels", "starts with 0x803"),
    "label count": ({"train_labels": idx_labels(N_TRAIN - 1)}, "train-labels", "has 19 labels for 20 images"),
    "no examples": ({"train_images": idx_images(0)[0], "train_labels": idx_labels(0)}, "train-labels", "has 0 labels for 0 images"),
    "other images": ({"train_images": idx_images(N_TRAIN, 8, 8)[0]}, "train-images", "images are 8 x 8, MNIST's are 28 x 28"),
    "label out of range": ({"t10k_labels": idx_labels(N_TEST, labels=[10] * N_TEST)}, "t10k-labels", "holds label 10"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("mode", ["auto", "local", "DIR"])
def test_a_damaged_file_is_named_and_never_replaced_silently(tmp_path, monkeypatch, case, packed, mode):
    replaced, file, why = BROKEN[case]
    write_mnist(tmp_path, packed, **replaced)
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path))
    with pytest.raises(UserError) as caught:
        load("mnist", tmp_path if mode == "DIR" else mode)
    assert why in str(caught.value) and file in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 3, 9, 100, -9, -1])
def test_a_truncated_gzip_file_is_named(tmp_path, cut):
    file = write_mnist(tmp_path, packed=True) / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        load("mnist", tmp_path)


def test_a_gzip_file_with_a_flipped_byte_is_named(tmp_path):
    file = write_mnist(tmp_path, packed=True) / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is damaged: gzip says"):
        load("mnist", tmp_path)


def test_a_gzip_file_of_two_members_whose_length_only_seems_right(tmp_path):
    whole = idx_images(N_TRAIN)[0]
    file = write_mnist(tmp_path, packed=True) / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(whole[:16]) + gzip.compress(bytes(len(whole))))
    with pytest.raises(UserError, match="holds 15712 bytes where its header asks for 15696"):
        load("mnist", tmp_path)


def test_an_incomplete_folder_names_the_missing_file(tmp_path, monkeypatch):
    (write_mnist(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path))
    for mode in ("auto", "local", tmp_path):
        with pytest.raises(UserError, match="MNIST/raw/t10k-labels-idx1-ubyte missing in"):
            load("mnist", mode)


# Modes, download and stand-ins

def test_auto_without_folder_or_network_stands_in_and_says_so():
    data = load("fashion-mnist")
    assert (data.name, data.fallback_for, data.source) == ("digits", "fashion-mnist", "shipped with scikit-learn")
    assert data.note == "Fashion-MNIST not found and no download possible: using scikit-learn's digits"
    assert data.fingerprint == load("digits").fingerprint and not is_official(data)


def test_mnist_is_replaced_by_mnist1d(monkeypatch):
    monkeypatch.setattr(mnist1d_module, "_make", lambda *_: tiny_mnist1d())
    data = load("mnist")
    assert (data.name, data.fallback_for) == ("mnist1d", "mnist")
    assert data.note == "MNIST not found and no download possible: using MNIST-1D"
    assert load("mnist1d").note == "" and load("mnist1d").fallback_for is None


def tiny_mnist1d():
    return {"x_train": torch.zeros(4, 40), "y_train": torch.arange(4), "x_test": torch.ones(2, 40), "y_test": torch.arange(2)}


def test_local_forbids_download_and_stand_in(monkeypatch):
    monkeypatch.setattr(download_module, "reachable", lambda urls: pytest.fail("the network was asked"))
    with pytest.raises(UserError, match="MNIST: MNIST/raw/train-images-idx3-ubyte and 3 more missing in .*LTCORE_DATA.*--data auto"):
        load("mnist", "local")


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--data atuo: there is no such folder"):
        load("mnist", "atuo")
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="LTCORE_DATA=.*gone: there is no such folder"):
        load("mnist")


def test_a_failing_download_is_tried_once_and_falls_back(monkeypatch, caplog):
    asked = []

    def refuse(self):
        asked.append(self.mirrors)
        raise URLError("name or service not known")

    monkeypatch.setattr(download_module, "reachable", lambda urls: urls)
    monkeypatch.setattr(torchvision_compat.torchvision_datasets().MNIST, "download", refuse)
    assert load("fashion-mnist").fallback_for == "fashion-mnist"
    assert load("fashion-mnist").fallback_for == "fashion-mnist"
    assert len(asked) == 1
    assert "Fashion-MNIST cannot be downloaded: <urlopen error name or service not known>" in caplog.text


def test_a_download_lands_in_the_cache_whole_and_is_found_again(tmp_path, monkeypatch):
    def write(self):
        write_mnist(tmp_path / "source")
        os.renames(tmp_path / "source" / "MNIST", os.path.join(self.root, "MNIST"))

    monkeypatch.setattr(download_module, "reachable", lambda urls: urls[1:])
    monkeypatch.setattr(torchvision_compat.torchvision_datasets().MNIST, "download", write)
    first = load("mnist")
    assert (first.source, first.note, len(first.train)) == ("download", "", N_TRAIN)
    monkeypatch.setattr(download_module, "reachable", lambda urls: pytest.fail("the network was asked"))
    download_module.download_once.cache_clear()
    assert load("mnist").fingerprint == load("mnist", "local").fingerprint == first.fingerprint
    assert sorted(p.name for p in (tmp_path / "cache/ltcore/data").iterdir()) == [".MNIST.lock", "MNIST"]


def test_a_silent_network_costs_no_more_than_the_limit(monkeypatch):
    monkeypatch.undo()  # the real `reachable`
    monkeypatch.setattr(download_module, "PROBE_S", 0.2)
    monkeypatch.setattr(download_module, "_answers", lambda url: url == "good" or bool(time.sleep(3)))
    start = time.monotonic()
    assert download_module.reachable(["hangs", "good", "hangs too"]) == ["good"]
    assert time.monotonic() - start < 1.5


def test_names_and_options():
    with pytest.raises(UsageError, match="unknown data set 'mnsit'; did you mean 'mnist'"):
        load("mnsit")
    with pytest.raises(UsageError, match="mnist1d has no option 'n'; it takes num_train, num_test, seed"):
        load("mnist1d", n=3)
    with pytest.raises(UsageError, match="mnist takes no options, got num_train"):
        load("mnist", num_train=3)
    with pytest.raises(UsageError, match="num_train is a whole number, not '5k'"):
        load("mnist1d", num_train="5k")


@pytest.mark.parametrize("source", [one for one in DATASETS.values() if isinstance(one, FileSet)], ids=lambda one: one.label)
def test_every_stand_in_is_made_without_files_and_every_file_has_an_md5(source):
    assert isinstance(DATASETS[source.fallback], Made)
    assert set(source.files) <= set(source.md5)
    assert all(len(md5) == 32 for accepted in source.md5.values() for md5 in accepted)


# torchvision

def test_the_empty_module_is_placed_only_for_the_operator_error(monkeypatch):
    outcomes = [RuntimeError("operator torchvision::nms does not exist"), types.ModuleType("datasets")]

    def import_module(name):
        assert name == "torchvision.datasets"
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(torchvision_compat.importlib, "import_module", import_module)
    monkeypatch.setitem(sys.modules, torchvision_compat._META, None)
    assert not torchvision_compat.shimmed()
    assert torchvision_compat.torchvision_datasets().__name__ == "datasets"
    assert torchvision_compat.shimmed() and outcomes == []
    outcomes[:] = [RuntimeError("something else")]
    with pytest.raises(UserError, match="something else"):
        torchvision_compat.torchvision_datasets()
    outcomes[:] = [ModuleNotFoundError("No module named 'torchvision'")]
    with pytest.raises(UserError, match="pip install torchvision"):
        torchvision_compat.torchvision_datasets()


# CIFAR

def write_cifar100(root):
    folder = root / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    parts = {
        "train": {"data": rng.integers(0, 256, (6, 3072), dtype=np.uint8), "fine_labels": [0, 99, 1, 2, 3, 4]},
        "test": {"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), "fine_labels": [5, 6]},
        "meta": {"fine_label_names": [str(i) for i in range(100)]},
    }
    for name, content in parts.items():
        (folder / name).write_bytes(pickle.dumps(content))
    return folder, parts


def tiny_cifar100(folder):
    official = DATASETS["cifar100"]
    md5 = {name: (*official.md5[name], hashlib.md5((folder / name).read_bytes()).hexdigest()) for name in official.files}
    return FileSet(**{**vars(official), "md5": md5})


def test_cifar_is_read_channels_first(tmp_path, monkeypatch):
    folder, parts = write_cifar100(tmp_path)
    source = tiny_cifar100(folder)
    monkeypatch.setattr(torchvision_compat.torchvision_datasets().CIFAR100, "meta",
                        {"filename": "meta", "key": "fine_label_names", "md5": source.md5["meta"][-1]})
    train, test = read_cifar(source, {name: folder / name for name in source.files})
    assert train.x.shape == (6, 3, 32, 32) and train.x.dtype == torch.uint8 and train.x.is_contiguous()
    assert np.array_equal(train.x.numpy().reshape(6, 3072), parts["train"]["data"])
    assert train.y.tolist() == [0, 99, 1, 2, 3, 4] and test.y.dtype == torch.int64


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a file with a wrong md5 was unpickled",)


def test_cifar_is_not_unpickled_before_its_md5_is_right(tmp_path):
    folder, _ = write_cifar100(tmp_path)
    source = tiny_cifar100(folder)
    (folder / "test").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="cifar-100-python/test is damaged: its md5 is"):
        read_cifar(source, {name: folder / name for name in source.files})
    with pytest.raises(UserError, match="cifar-100-python/train is damaged"):
        load("cifar100", tmp_path)


# python -m bench data

def row(rows, name):
    return next(one for one in rows if one["name"] == name)


def test_list_says_what_is_where(tmp_path):
    folder = write_mnist(tmp_path, packed=True)
    rows = data_verb.list_sets(tmp_path)
    assert [one["name"] for one in rows] == list(DATASETS)
    assert row(rows, "mnist") == {"name": "mnist", "status": "ok", "where": str(tmp_path), "n_train": N_TRAIN, "n_test": N_TEST,
                                  "fingerprint": None, "advice": ""}
    assert row(rows, "digits")["status"] == "built in" and row(rows, "digits")["n_train"] == 1437
    assert row(rows, "cifar10")["status"] == "missing" and "data fetch cifar10" in row(rows, "cifar10")["advice"]
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert row(data_verb.list_sets(tmp_path), "mnist")["status"] == "incomplete"
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"short")
    damaged = row(data_verb.list_sets(tmp_path), "mnist")
    assert damaged["status"] == "damaged" and "t10k-labels-idx1-ubyte is damaged" in damaged["advice"]


def test_verify_wants_the_official_md5(tmp_path):
    write_mnist(tmp_path)
    (found,) = data_verb.verify(["mnist"], tmp_path)
    assert found["status"] == "damaged" and "train-images-idx3-ubyte is damaged: its md5 is" in found["advice"]
    (found,) = data_verb.verify(["digits"], tmp_path)
    assert found["fingerprint"] == load("digits").fingerprint and (found["n_train"], found["n_test"]) == (1437, 360)
    with pytest.raises(UsageError, match="unknown data set"):
        data_verb.verify(["digitz"])


def test_fetch_mends_what_is_broken_and_says_why_it_cannot(tmp_path, monkeypatch):
    folder = write_mnist(tmp_path / "data", train_images=b"broken")
    (told,) = data_verb.fetch(["mnist"], tmp_path / "data")
    assert told["status"] == "damaged" and "MNIST cannot be downloaded: no answer from https://" in told["advice"]

    def write(self):
        write_mnist(tmp_path / "source")
        os.renames(tmp_path / "source" / "MNIST", os.path.join(self.root, "MNIST"))

    monkeypatch.setattr(download_module, "reachable", lambda urls: urls)
    monkeypatch.setattr(torchvision_compat.torchvision_datasets().MNIST, "download", write)
    (mended,) = data_verb.fetch(["mnist"], tmp_path / "data")
    assert mended["status"] == "ok" and (folder / "train-images-idx3-ubyte").stat().st_size == 16 + N_TRAIN * 784


# The real thing, where it is at hand

REAL = os.environ.get("LTCORE_DATA", "")
needs_mnist = pytest.mark.skipif(not (REAL and os.path.isdir(os.path.join(REAL, "MNIST", "raw"))), reason="LTCORE_DATA has no MNIST")


@needs_mnist
def test_the_real_mnist():
    data = load("mnist", REAL)
    assert data.fingerprint == MNIST_FINGERPRINT and is_official(data)
    assert (data.train.x.shape, data.test.x.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    prepared = data.prepare(data.train.x)
    assert (round(prepared.mean().item(), 4), round(prepared.std().item(), 4)) == (0.1307, 0.3081)
    assert (prepared.min(), prepared.max()) == (0, 1)
    assert torch.bincount(data.train.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    (found,) = data_verb.verify(["mnist"], REAL)
    assert (found["status"], found["fingerprint"]) == ("ok", MNIST_FINGERPRINT)
