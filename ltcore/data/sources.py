"""Where data sets come from: the folder $LTCORE_DATA, a download, or a stand-in that needs neither.

The folder has torchvision's layout: MNIST/raw/..., FashionMNIST/raw/..., cifar-10-batches-py/..., cifar-100-python/..., train_32x32.mat (SVHN),
imagenet/train/..., places365/train/...; text beside it: wikitext-2/train.txt ..., multi30k/train.en ..., wmt14/train.en ...
"""

import dataclasses
import difflib
import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltcore.data import text_files
from ltcore.data.cache import cache_folder
from ltcore.data.cifar import check_cifar, read_cifar
from ltcore.data.corpus import Corpus
from ltcore.data.dataset import Dataset, build
from ltcore.data.digits import digits
from ltcore.data.download import download_once
from ltcore.data.files import FileSet, locate, missing
from ltcore.data.folder import ImageFolders, find, read_folders, where_to_put
from ltcore.data.idx import IDX_FILES, check_idx, read_idx
from ltcore.data.mnist1d import mnist1d
from ltcore.data.number_words import number_words
from ltcore.data.photos import photos
from ltcore.data.svhn import check_svhn, read_svhn
from ltcore.data.text_files import TextSet
from ltcore.data.text_sets import TEXT_SETS
from ltcore.data.topics import topics
from ltcore.data.variants import VARIANTS, varied
from ltcore.data.words import OPTIONS as WORD_OPTIONS
from ltcore.errors import DataMissingError, UsageError, UserError
from ltcore.rl import worlds
from ltcore.rl.worlds import WORLDS, Environment, World

VARIABLE = "LTCORE_DATA"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Made:
    """A data set that a dependency ships or makes."""

    label: str
    make: Callable[..., Dataset | Corpus]
    options: tuple[str, ...]
    sizes: tuple[int, int]  # training and test examples by default
    with_python: bool = False  # comes with the interpreter, and is not the same in all its versions


def _times_255(*values: float) -> tuple[float, ...]:
    """Constants are published for pixels of 0 ... 1; raw ones are 0 ... 255."""
    return tuple(255 * value for value in values)


DATASETS: dict[str, FileSet | ImageFolders | TextSet | Made | World] = {
    "mnist": FileSet(
        label="MNIST",
        torchvision_name="MNIST",
        folder="MNIST/raw",
        files=IDX_FILES,
        md5={  # .gz: torchvision.datasets.MNIST.resources; unpacked: the contents of those
            "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb",),
            "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624",),
            "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea",),
            "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637",),
            "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873",),
            "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432",),
            "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3",),
            "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f02629c",),
        },
        image=(1, 28, 28),
        classes=10,
        scale=255.0,  # our choice: frankle2019 does not state its input scaling (its code divides each image by its L2 norm)
        shift=0.0,
        fallback="mnist1d",
        check=check_idx,
        read=read_idx,
        fingerprint="cf17c6b4e874392e40f48fe59d9282d45ed9241a5861937a0171335ca1668f8b",
    ),
    "fashion-mnist": FileSet(
        label="Fashion-MNIST",
        torchvision_name="FashionMNIST",
        folder="FashionMNIST/raw",
        files=IDX_FILES,
        md5={  # as MNIST's
            "train-images-idx3-ubyte": ("f4a8712d7a061bf5bd6d2ca38dc4d50a",),
            "train-labels-idx1-ubyte": ("9018921c3c673c538a1fc5bad174d6f9",),
            "t10k-images-idx3-ubyte": ("8181f5470baa50b63fa0f6fddb340f0a",),
            "t10k-labels-idx1-ubyte": ("15d484375f8d13e6eb1aabb0c3f46965",),
            "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d",),
            "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe",),
            "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79",),
            "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310",),
        },
        image=(1, 28, 28),
        classes=10,
        scale=255.0,  # as MNIST, so that tickets move between the two
        shift=0.0,
        fallback="digits",
        check=check_idx,
        read=read_idx,
        fingerprint="59dd95aafe0b886e48d7c3eb0abb6868a65773046283fa71565d821643be524d",
    ),
    "cifar10": FileSet(
        label="CIFAR-10",
        torchvision_name="CIFAR10",
        folder="cifar-10-batches-py",
        files=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch", "batches.meta"),
        md5={  # torchvision.datasets.CIFAR10
            "data_batch_1": ("c99cafc152244af753f735de768cd75f",),
            "data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec",),
            "data_batch_3": ("54ebc095f3ab1f0389bbae665268c751",),
            "data_batch_4": ("634d18415352ddfa80567beed471001a",),
            "data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb",),
            "test_batch": ("40351d587109b95175f43aff81a1287e",),
            "batches.meta": ("5ff9c542aee3614f3951f8cda6e48888",),
        },
        image=(3, 32, 32),
        classes=10,
        # Mean and standard deviation of each channel over all pixels of the 50,000 training images, computed from the official files.
        shift=_times_255(0.4913997, 0.4821584, 0.4465309),
        scale=_times_255(0.2470322, 0.2434851, 0.2615878),
        fallback="digits",
        check=check_cifar,
        read=read_cifar,
    ),
    "cifar100": FileSet(
        label="CIFAR-100",
        torchvision_name="CIFAR100",
        folder="cifar-100-python",
        files=("train", "test", "meta"),
        md5={  # torchvision.datasets.CIFAR100, then the same images with each class's in the order of their file names
            "train": ("16019d7e3df5f24257cddd939b257f8d", "a19872f1eea00313db9d58a23dce524d"),
            "test": ("f0ef6b0ae62326f3e7ffdfab6717acfc", "66ab8d6d957b441f20d9b74bbd2073fd"),
            "meta": ("7973b15100ade9c7d40fb424638fde48",),
        },
        image=(3, 32, 32),
        classes=100,
        shift=_times_255(0.5070752, 0.4865489, 0.4409178),  # as CIFAR-10's
        scale=_times_255(0.2673343, 0.2564385, 0.2761505),
        fallback="digits",
        check=check_cifar,
        read=read_cifar,
    ),
    "svhn": FileSet(
        label="SVHN",
        torchvision_name="SVHN",
        folder=".",  # torchvision puts them into the root itself
        files=("train_32x32.mat", "test_32x32.mat"),
        md5={"train_32x32.mat": ("e26dedcc434d2e4c54c9b2d4a06d8373",), "test_32x32.mat": ("eb5a983be6a315427106f1b164d9cef3",)},  # torchvision.datasets.SVHN
        image=(3, 32, 32),
        classes=10,
        # The constants that are usual for SVHN (mean and standard deviation of each channel over the training images), not computed by us.
        shift=_times_255(0.4377, 0.4438, 0.4728),
        scale=_times_255(0.1980, 0.2010, 0.1970),
        fallback="digits",
        check=check_svhn,
        read=read_svhn,
        splits=("train", "test"),
    ),
    "imagenet": ImageFolders(
        label="ImageNet (ILSVRC-2012)",
        folder="imagenet",
        classes=1000,
        sizes=(1_281_167, 50_000),
        # The constants that torchvision's documentation gives for its ImageNet classifiers and everybody uses.
        shift=_times_255(0.485, 0.456, 0.406),
        scale=_times_255(0.229, 0.224, 0.225),
        options={"size": 224, "resize": 256},  # He et al. 2016, section 3.4: crops of 224, tested on the centre of images of 256
    ),
    "places365": ImageFolders(
        label="Places365-Standard",
        folder="places365",
        classes=365,
        sizes=(1_803_460, 36_500),
        shift=_times_255(0.485, 0.456, 0.406),  # ImageNet's, as is usual
        scale=_times_255(0.229, 0.224, 0.225),
        options={"size": 224, "resize": 256},  # as ImageNet
        at_root=False,  # a folder that is ImageNet itself would be taken for it
    ),
    "mnist1d": Made(label="MNIST-1D", make=mnist1d, options=("num_train", "num_test", "seed"), sizes=(4000, 10000)),
    "digits": Made(label="scikit-learn's digits", make=digits, options=(), sizes=(1437, 360)),
    "photos": Made(label="scikit-learn's sample photographs", make=photos, options=("size", "resize"), sizes=(64, 20)),
    **TEXT_SETS,
    "topics": Made(label="the Python documentation's topics", make=topics, options=WORD_OPTIONS, sizes=(59_839, 7_060), with_python=True),
    "number-words": Made(label="number words, English to German", make=number_words, options=("train", "test", "vocabulary"), sizes=(4000, 200)),
    **WORLDS,
}


def load(name: str, mode: str | Path = "auto", folder: str | Path | None = None, **options: int | str) -> Dataset | Corpus | Environment:
    """The data set `name`, a key of DATASETS; of those that are environments the environment, which needs its packages and nothing else.

    mode: "auto" takes `folder` (default $LTCORE_DATA), else an earlier or a new download, else the stand-in, and says so in `.note`;
    "local" takes the folder or an earlier download and nothing else; any other value is a folder, and only that is looked into.
    options go to the sets that are made (`num_train`, `num_test`, `seed` of mnist1d), to corpora (`vocabulary`, `tokens`, ...), or to sets that are decoded (`size`, `resize` in pixels); those of
    `variants.VARIANTS` (`half`, `channels`, `classes`) go to every set of tensors. What lies in an image folder has neither download nor
    stand-in, whatever the mode.
    Raises UsageError for an unknown name or option, UserError for a set that is incomplete or damaged,
    DataMissingError (one of them) where no file of it is there.
    """
    source = named(name)
    if isinstance(source, TextSet):
        return _text(name, source, mode, folder, options)
    variants = {key: value for key, value in options.items() if key in VARIANTS}
    return varied(_load(name, mode, folder, {key: value for key, value in options.items() if key not in VARIANTS}), variants)


def _load(name: str, mode: str | Path, folder: str | Path | None, options: Mapping[str, int | str]) -> Dataset | Environment:
    source = named(name)
    if isinstance(source, World):
        return worlds.load(name, options)
    if isinstance(source, Made):
        return _make(name, source, options)
    if isinstance(source, ImageFolders):
        return _from_folders(name, source, places(mode, folder), options)
    if options:
        raise UsageError(f"data set {name} takes no options, got {', '.join(sorted(options))}")
    candidates = places(mode, folder)
    for kind, root in candidates:
        found = locate(source, root)
        absent = missing(source, found)
        if not absent:
            return read(name, found, kind)
        if kind == "folder" and len(absent) < len(source.files):
            raise _absent(source, root, absent)
    if mode != "auto":
        raise _absent(source, candidates[0][1], list(source.files))
    root = downloads()
    if download_once(source, root) == "":
        return read(name, locate(source, root), "download")
    stand_in = load(source.fallback)
    note = f"{source.label} not found and no download possible: using {named(source.fallback).label}"
    _log.info("%s", note)
    return dataclasses.replace(stand_in, fallback_for=name, note=note)


def _text(name: str, source: TextSet, mode: str | Path, folder: str | Path | None, options: Mapping[str, int | str]) -> Corpus:
    """As `_load`, for a corpus in text files. What stands in takes no options: they are the wanted set's."""
    candidates = places(mode, folder)
    for kind, root in candidates:
        found = text_files.locate(source, root)
        if len(found) == len(source.files):
            return text_files.read(name, source, found, kind, options)
        if kind == "folder" and found:
            raise _text_not_there(source, root, found)
    if mode != "auto":
        raise _text_not_there(source, candidates[0][1], {})
    root = downloads()
    if download_once(source, root, text_files.download) == "":
        return text_files.read(name, source, text_files.locate(source, root), "download", options)
    stand_in = load(source.fallback)
    note = f"{source.label} not found and no download possible: using {named(source.fallback).label}"
    _log.info("%s", note)
    return dataclasses.replace(stand_in, fallback_for=name, note=note)


def _text_not_there(source: TextSet, root: Path, found: Mapping[str, Path]) -> UserError:
    return _absent(source, root, [file for file in source.files if file not in found])


def _from_folders(name: str, source: ImageFolders, candidates: list[tuple[str, Path]], options: Mapping[str, int | str]) -> Dataset:
    base = next(filter(None, (find(source, root) for _, root in candidates)), None)
    if base is None:
        raise DataMissingError(f"{source.label} not found in {candidates[0][1]}: {where_to_put(source)}, or name its folder in {VARIABLE} or --data")
    return read_folders(name, source, base, options)


def named(name: str) -> FileSet | ImageFolders | TextSet | Made | World:
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.4)
        raise UsageError(f"unknown data set {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(DATASETS)}"))
    return DATASETS[name]


def places(mode: str | Path = "auto", folder: str | Path | None = None) -> list[tuple[str, Path]]:
    """(kind, root) of the folders to look into, in their order; kind is "folder" or "download"."""
    if mode not in ("auto", "local"):
        return [("folder", _existing(Path(mode), f"--data {mode}"))]
    given = folder or os.environ.get(VARIABLE)
    what = f"folder {folder}" if folder else f"{VARIABLE}={given}"
    return ([("folder", _existing(Path(given), what))] if given else []) + [("download", downloads())]


def downloads() -> Path:
    """Where downloads are kept."""
    return cache_folder() / "data"


def read(name: str, found: Mapping[str, Path | None], kind: str) -> Dataset:
    """Reads a set whose files were all found. Kept in memory while the files stay as they are."""
    stamps = tuple((file, path, path.stat().st_mtime_ns, path.stat().st_size) for file, path in found.items())
    return _read_cached(name, kind, stamps)


def is_official(dataset: Dataset) -> bool:
    """Whether the tensors are those of the official set (CIFAR is not read at all otherwise); False for stand-ins and users' own."""
    source = DATASETS.get(dataset.name)
    return isinstance(source, FileSet) and source.fingerprint in ("", dataset.fingerprint)


@functools.lru_cache(maxsize=4)
def _read_cached(name: str, kind: str, stamps: tuple[tuple[str, Path, int, int], ...]) -> Dataset:
    source = DATASETS[name]
    train, test = source.read(source, {file: path for file, path, *_ in stamps})
    return build(name, train, test, source.classes, source=kind, scale=source.scale, shift=source.shift)


def _make(name: str, source: Made, options: Mapping[str, int | str]) -> Dataset:
    unknown = sorted(set(options) - set(source.options))
    if unknown:
        raise UsageError(f"data set {name} has no option {unknown[0]!r}; it takes {', '.join(source.options) or 'none'}")
    for option, value in options.items():
        if not isinstance(value, int):
            raise UsageError(f"data set {name}: option {option} is a whole number, not {value!r}")
    try:
        return source.make(**options)
    except ImportError as error:
        raise UserError(f"data set {name} needs the package {error.name}: pip install {error.name}") from error


def _existing(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise UserError(f"{what}: there is no such folder; give one that holds the data in torchvision's layout")
    return path


def _absent(source: FileSet | TextSet, root: Path, absent: list[str]) -> UserError:
    files = f"{source.folder}/{absent[0]}" + (f" and {len(absent) - 1} more" if len(absent) > 1 else "")
    kind = DataMissingError if len(absent) == len(source.files) else UserError
    return kind(f"{source.label}: {files} missing in {root}; put the files there, name their folder in {VARIABLE}, or download with --data auto")
