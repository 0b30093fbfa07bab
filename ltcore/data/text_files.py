"""Corpora in text files, a sentence or paragraph a line: which files, whether they are whole, how Hugging Face's hub has them."""

import functools
import hashlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltcore.data.corpus import Corpus
from ltcore.data.download import locked, reachable
from ltcore.data.files import damaged, guarded
from ltcore.errors import UserError

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Known:
    """What is known of a file: its lines, and the md5 of its words, white space aside ("" where the file has many forms)."""

    lines: int
    md5: str = ""


@dataclass(frozen=True, eq=False)
class TextSet:
    """What is known of a corpus before it is read."""

    label: str  # as in texts
    folder: str  # below the root
    files: Mapping[str, Known]
    hub: tuple[str, ...]  # arguments of ``datasets.load_dataset``
    lines: Callable[[Any], Mapping[str, Iterable[str]]]  # what that gives -> the lines of each file
    read: Callable[[str, Mapping[str, Path], Mapping[str, Any], str], Corpus]  # (name, files, options, source)
    sizes: tuple[int, int]  # training and test part: tokens, or pairs
    options: Mapping[str, int] = field(default_factory=dict)  # what is taken where nothing is said
    fallback: str = ""


def locate(source: TextSet, root: Path) -> dict[str, Path]:
    """The files that are there."""
    return {name: root / source.folder / name for name in source.files if (root / source.folder / name).is_file()}


def check(source: TextSet, found: Mapping[str, Path]) -> None:
    """Raises UserError naming the first file that is not whole."""
    for name, known in source.files.items():
        digest, count = hashlib.md5(usedforsecurity=False), 0
        for line in lines(found[name]):
            digest.update((b"\n" if count else b"") + " ".join(line.split()).encode())
            count += 1
        if count != known.lines:
            raise damaged(found[name], f"it has {count:,} lines, {source.label}'s has {known.lines:,}")
        if known.md5 and digest.hexdigest() != known.md5:
            raise damaged(found[name], f"the md5 of its words is {digest.hexdigest()}, {source.label}'s is {known.md5}")


def lines(path: Path) -> Iterable[str]:
    """The lines of a UTF-8 file, cut at line feeds alone. Raises UserError where it can't be read."""
    with guarded(path), open(path, "rb") as file:
        for number, line in enumerate(file, 1):  # decoded line by line: a reader of text knows the place within its buffer only
            try:
                yield line.removesuffix(b"\n").decode()
            except UnicodeDecodeError as error:
                raise damaged(path, f"it is not UTF-8 ({error.reason} in line {number:,})") from error


def read(name: str, source: TextSet, found: Mapping[str, Path], kind: str, options: Mapping[str, Any]) -> Corpus:
    """The corpus, checked. Kept in memory while the files stay as they are."""
    stamps = tuple((file, path, path.stat().st_mtime_ns, path.stat().st_size) for file, path in found.items())
    return _read_cached(name, source, kind, stamps, tuple(sorted({**source.options, **options}.items())))


@functools.lru_cache(maxsize=4)
def _read_cached(
    name: str, source: TextSet, kind: str, stamps: tuple[tuple[str, Path, int, int], ...], options: tuple[tuple[str, Any], ...]
) -> Corpus:
    found = {file: path for file, path, *_ in stamps}
    _checked(source, stamps)
    return source.read(name, found, dict(options), kind)


@functools.lru_cache(maxsize=8)
def _checked(source: TextSet, stamps: tuple[tuple[str, Path, int, int], ...]) -> None:
    check(source, {file: path for file, path, *_ in stamps})


# ---- download ------------------------------------------------------------------------------------------------
def download(source: TextSet, root: Path, again: bool = False) -> None:
    """Writes the set's files below `root` from what Hugging Face's ``datasets`` loads, one process at a time, all files or none.

    Raises UserError saying why it could not.
    """
    library = _datasets(source)
    url = f"{HUB}/datasets/{source.hub[0]}/resolve/main/README.md"
    if not reachable([url]):
        raise UserError(f"{source.label} cannot be downloaded: no answer from {url}")
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f".{source.folder}.lock"), tempfile.TemporaryDirectory(dir=root, prefix=".part-") as scratch:
        if again or len(locate(source, root)) < len(source.files):
            _write(source, _fetched(library, source), Path(scratch))
            check(source, {name: Path(scratch) / name for name in source.files})
            (root / source.folder).mkdir(exist_ok=True)
            for name in source.files:
                os.replace(Path(scratch) / name, root / source.folder / name)


def _datasets(source: TextSet) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(
            f"{source.label} cannot be downloaded without the package datasets: pip install datasets"
        ) from error


def _fetched(library: Any, source: TextSet) -> Mapping[str, Iterable[str]]:
    """The library raises errors of a dozen kinds, its own, those of its HTTP client and of its file formats; each means the same here."""
    try:
        return source.lines(library.load_dataset(*source.hub))
    except Exception as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{source.label} cannot be downloaded: {said[0]}") from error


def _write(source: TextSet, texts: Mapping[str, Iterable[str]], folder: Path) -> None:
    for name in source.files:
        with guarded(folder / name), open(folder / name, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in texts[name])
