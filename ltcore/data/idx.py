"""MNIST and Fashion-MNIST: idx files, unpacked or gzipped. torchvision reads them; here they are checked first, so that errors name the file.

An idx file is a big-endian header (magic number, then one 4-byte size a dimension) followed by the bytes of the array.
"""

import gzip
import math
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ltcore.data.dataset import Split
from ltcore.data.files import FileSet, damaged, guarded
from ltcore.data.torchvision_compat import torchvision_datasets

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801  # unsigned bytes in 3 dimensions, in 1


def check_idx(source: FileSet, paths: Mapping[str, Path]) -> tuple[int, int]:
    """Headers, lengths and counts, without reading the arrays: (number of training examples, number of test examples)."""
    train, test = (_check_pair(source, paths[f"{part}-images-idx3-ubyte"], paths[f"{part}-labels-idx1-ubyte"]) for part in ("train", "t10k"))
    return train, test


def read_idx(source: FileSet, paths: Mapping[str, Path]) -> tuple[Split, Split]:
    """(train, test) with x (N, 1, H, W) uint8 and y (N,) int64."""
    check_idx(source, paths)
    with tempfile.TemporaryDirectory() as scratch:  # torchvision reads unpacked files only
        unpacked = {name: _unpack(path, Path(scratch) / name) for name, path in paths.items()}
        check_idx(source, unpacked)
        return _read_part(source, unpacked, paths, "train"), _read_part(source, unpacked, paths, "t10k")


def _read_part(source: FileSet, unpacked: Mapping[str, Path], paths: Mapping[str, Path], part: str) -> Split:
    reader = torchvision_datasets().mnist
    images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    with guarded(paths[images]):
        x = reader.read_image_file(str(unpacked[images])).unsqueeze(1)  # (N, 1, H, W)
    with guarded(paths[labels]):
        y = reader.read_label_file(str(unpacked[labels]))
    if int(y.max()) >= source.classes:
        raise damaged(paths[labels], f"it holds label {int(y.max())}, {source.label} has 0 to {source.classes - 1}")
    return Split(x, y)


def _check_pair(source: FileSet, images: Path, labels: Path) -> int:
    n, height, width = _sizes(images, IMAGES_MAGIC, 3)
    (n_labels,) = _sizes(labels, LABELS_MAGIC, 1)
    if (height, width) != source.image[1:]:
        raise damaged(images, f"its images are {height} x {width}, {source.label}'s are {source.image[1]} x {source.image[2]}")
    if n != n_labels or n == 0:
        raise damaged(labels, f"it has {n_labels} labels for {n} images")
    return n


def _sizes(path: Path, magic: int, dimensions: int) -> tuple[int, ...]:
    """Sizes from the header, once the magic number and the length of the file fit it."""
    header_bytes = 4 * (1 + dimensions)
    header = _header(path, header_bytes)
    if len(header) < header_bytes:
        raise damaged(path, "it ends inside the header")
    found, *sizes = struct.unpack(f">{1 + dimensions}I", header)
    if found != magic:
        raise damaged(path, f"it starts with {found:#x} where an idx file of this kind starts with {magic:#x}")
    expected, length = header_bytes + math.prod(sizes), _length(path)
    if length != expected:
        raise damaged(path, f"it holds {length} bytes where its header asks for {expected}")
    return tuple(sizes)


def _header(path: Path, count: int) -> bytes:
    with guarded(path), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        return stream.read(count)


def _length(path: Path) -> int:
    """Bytes of the unpacked file; a gzip file states them in its last four bytes (RFC 1952), so that nothing need be unpacked."""
    with guarded(path), open(path, "rb") as stream:
        if path.suffix != ".gz":
            return path.stat().st_size
        stream.seek(-4, 2)
        return struct.unpack("<I", stream.read(4))[0]


def _unpack(path: Path, target: Path) -> Path:
    if path.suffix != ".gz":
        return path
    with guarded(path), gzip.open(path, "rb") as packed, open(target, "wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    return target
