"""A data set that lies in an image folder, torchvision's layout: train/<class>/*.JPEG and val/<class>/*.JPEG. Nothing downloads it."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ltcore.data.dataset import Dataset, Split, constant
from ltcore.data.files import guarded
from ltcore.data.images import Images
from ltcore.data.torchvision_compat import torchvision_datasets
from ltcore.errors import UsageError, UserError

PARTS = ("train", "val")  # val is the test part here


@dataclass(frozen=True, eq=False)
class ImageFolders:
    """What is known of such a set before it is listed."""

    label: str  # as in texts
    folder: str  # below the root; the root itself may hold `PARTS` too
    classes: int
    sizes: tuple[int, int]  # training and test images of the whole set
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    options: Mapping[str, int]  # size of an image, and of its shorter side before the centre is cropped; in pixels
    at_root: bool = True  # whether the root itself may be the set


@dataclass(frozen=True)
class _Listed:
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]


def find(source: ImageFolders, root: Path) -> Path | None:
    """The folder that holds train and val: root/imagenet, else (where the set allows it) the root itself. Raises UserError where root/imagenet has one of them only."""
    own = root / source.folder
    for base in (own, root) if source.at_root else (own,):
        if all((base / part).is_dir() for part in PARTS):
            return base
    lacking = [part for part in PARTS if not (own / part).is_dir()]
    if len(lacking) == 1:
        raise UserError(f"{source.label}: {source.folder}/{lacking[0]} missing in {root}; it holds one folder of images a class")
    return None


def where_to_put(source: ImageFolders) -> str:
    """For the line that says it is not there."""
    return f"put it there as {source.folder}/train/CLASS/*.JPEG and {source.folder}/val/CLASS/*.JPEG (nothing downloads it)"


def check_folders(base: Path) -> tuple[int, int]:
    """Lists the files without a look at them: (number of training images, number of test images)."""
    train, val = _both(base)
    return len(train.files), len(val.files)


def read_folders(name: str, source: ImageFolders, base: Path, options: Mapping[str, int | str]) -> Dataset:
    """The set, its images left in their files; a process lists it once, and again where one of its folders changed.

    The fingerprint is the sha256 of the sorted names and byte counts of the files and of how they are prepared. Contents are not read: a
    file replaced by another of the same name and length goes unnoticed.

    Raises UserError: a class without images, or classes that train and val do not share. UsageError: a bad option.
    """
    unknown = sorted(set(options) - set(source.options))
    if unknown:
        raise UsageError(f"data set {name} has no option {unknown[0]!r}; it takes {', '.join(source.options)}")
    chosen = {**source.options, **options}
    if any(not isinstance(v, int) or v < 1 for v in chosen.values()) or chosen["resize"] < chosen["size"]:
        raise UsageError(f"data set {name}: size and resize are pixels, whole numbers with resize not below size, got {dict(options)}")
    return _read_cached(name, source, base, chosen["size"], chosen["resize"], _stamps(base))


def _stamps(base: Path) -> tuple[tuple[str, int], ...]:
    """A folder's time changes when a file comes or goes."""
    with guarded(base):
        return tuple((str(f), f.stat().st_mtime_ns) for part in PARTS for f in (base / part, *sorted((base / part).iterdir())) if f.is_dir())


@functools.lru_cache(maxsize=2)
def _read_cached(name: str, source: ImageFolders, base: Path, size: int, resize: int, stamps: tuple[tuple[str, int], ...]) -> Dataset:
    train, val = _both(base)
    return from_files(name, base, [(part.files, part.labels) for part in (train, val)], len(train.classes), size, resize,
                      shift=source.shift, scale=source.scale, source="folder", note=_note(source, train, val))  # fmt: skip


def from_files(name: str, base: Path, parts: Sequence[tuple[Sequence[str], Sequence[int]]], classes: int, size: int, resize: int, *,
               shift: Sequence[float], scale: Sequence[float], source: str, note: str = "") -> Dataset:  # fmt: skip
    """A Dataset of files below `base`: (files, labels) of the training and of the test part, and its fingerprint."""
    train, test = (Split(Images(files, size, resize), torch.tensor(labels)) for files, labels in parts)
    digest = hashlib.sha256(repr((size, resize, tuple(shift), tuple(scale))).encode())
    for split, (files, labels) in zip((train, test), parts):
        with guarded(base):
            for file, label in zip(files, labels):
                digest.update(f"{os.path.relpath(file, base)}\t{label}\t{os.stat(file).st_size}\n".encode())
        digest.update(f"{len(split)}\n".encode())
    return Dataset(name, train, test, classes, constant(scale), constant(shift), source, digest.hexdigest(), note=note)


def _note(source: ImageFolders, train: _Listed, val: _Listed) -> str:
    """What sets a folder apart from the whole set: counts only, contents are not looked at."""
    if (len(train.classes), len(train.files), len(val.files)) == (source.classes, *source.sizes):
        return ""
    whole = f"{source.classes:,} classes, {source.sizes[0]:,} + {source.sizes[1]:,} images"
    return f"{source.label}: {len(train.classes):,} classes, {len(train.files):,} + {len(val.files):,} images in the folder, the whole set has {whole}"


def _both(base: Path) -> tuple[_Listed, _Listed]:
    train, val = (_list(base / part) for part in PARTS)
    odd = sorted(set(train.classes) ^ set(val.classes))
    if odd:
        has, lacks = PARTS if odd[0] in train.classes else PARTS[::-1]
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise UserError(f"{base}: class folder {odd[0]}{more} in {has} but not in {lacks}; both must hold the same classes")
    return train, val


def _list(part: Path) -> _Listed:
    """torchvision's own listing: classes in the order of their names, in each the files in theirs."""
    folder = torchvision_datasets().folder
    with guarded(part):
        try:
            classes, index = folder.find_classes(str(part))
            found = folder.make_dataset(str(part), index, extensions=folder.IMG_EXTENSIONS)
        except FileNotFoundError as error:  # no class folder, or one without an image
            raise UserError(f"{part}: {str(error).splitlines()[0][:200]}; it must hold one folder of images a class") from error
    return _Listed(tuple(classes), tuple(file for file, _ in found), tuple(label for _, label in found))
