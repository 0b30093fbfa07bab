"""A data set that lies in files, torchvision's layout: which files, where they are, and whether they are the official ones."""

import contextlib
import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ltcore.data.dataset import Split
from ltcore.errors import UserError


@dataclass(frozen=True, eq=False)
class FileSet:
    """What is known of one data set before it is read."""

    label: str  # as in texts: "MNIST"
    torchvision_name: str  # the class in torchvision.datasets that downloads it
    folder: str  # below the root, e.g. "MNIST/raw"
    files: tuple[str, ...]
    md5: Mapping[str, tuple[str, ...]]  # file name -> accepted md5s
    image: tuple[int, int, int]  # (C, H, W)
    classes: int
    scale: float | tuple[float, ...]
    shift: float | tuple[float, ...]
    fallback: str  # the set that stands in when this one cannot be had
    check: Callable[["FileSet", Mapping[str, Path]], tuple[int, int]]  # structure only -> numbers of training and test examples
    read: Callable[["FileSet", Mapping[str, Path]], tuple[Split, Split]]
    splits: tuple[str, ...] = ()  # where torchvision's class downloads them one by one
    fingerprint: str = ""  # of the official set; "" where `read` itself demands the official md5s


def locate(source: FileSet, root: Path) -> dict[str, Path | None]:
    """Where each file lies below `root`, unpacked or as .gz; None for one that is not there."""
    base = root / source.folder
    candidates = {name: [base / name] + ([base / f"{name}.gz"] if f"{name}.gz" in source.md5 else []) for name in source.files}
    return {name: next((path for path in paths if path.is_file()), None) for name, paths in candidates.items()}


def missing(source: FileSet, found: Mapping[str, Path | None]) -> list[str]:
    """The names of the files not found."""
    return [name for name in source.files if found[name] is None]


def check_md5(source: FileSet, paths: Mapping[str, Path]) -> None:
    """Raises UserError naming the first file that is not the official one."""
    for path in paths.values():
        with guarded(path), open(path, "rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found not in source.md5[path.name]:
            raise damaged(path, f"its md5 is {found}, {source.label}'s is {' or '.join(source.md5[path.name])}")


def damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is damaged: {why}; delete it and fetch it again")


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turns an operating-system error on `path` into a UserError that names it, and what gzip says of a broken file into "damaged"."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise damaged(path, f"gzip says: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; check the file and its permissions") from error
