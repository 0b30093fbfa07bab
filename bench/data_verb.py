"""What `python -m bench data list|fetch|verify` does: one plain row a data set, for the command line to print.

Every row has the keys of `_row`. status: "ok", "built in" (needs no file), "missing", "incomplete" or "damaged"; `advice` says what to do, "" if nothing.
Nothing here raises for a bad set: the row says it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltcore.errors import UserError

if TYPE_CHECKING:
    from ltcore.data.files import FileSet
    from ltcore.data.folder import ImageFolders
    from ltcore.data.text_files import TextSet

Row = dict[str, Any]


def list_sets(folder: str | Path | None = None) -> list[Row]:
    """Every known set: where it lies and whether its structure is sound. Reads no arrays, so `fingerprint` stays None."""
    from ltcore.data.sources import DATASETS

    return [_look(name, folder) for name in DATASETS]


def verify(names: Iterable[str] = (), folder: str | Path | None = None) -> list[Row]:
    """As `list_sets` for `names` (none: all), and reads them: md5 of every file, labels, fingerprint.

    Of an image folder names and lengths of the files only: its contents have no published md5, and reading them takes hours.
    """
    return [_verified(name, folder) for name in _chosen(names)]


def fetch(names: Iterable[str] = (), folder: str | Path | None = None) -> list[Row]:
    """Downloads those of `names` (none: all that are files) that are missing or damaged.

    They go into `folder`; without one, a broken set is mended where it lies and a missing one goes to the user's cache folder.
    """
    return [_fetched(name, folder) for name in _chosen(names)]


def _chosen(names: Iterable[str]) -> list[str]:
    """Raises UsageError for an unknown name, before anything is done."""
    from ltcore.data.sources import DATASETS, named

    chosen = list(names)
    for name in chosen:
        named(name)
    return chosen or list(DATASETS)


def _row(name: str, status: str, where: str = "", n: tuple[int, int] | None = None, fingerprint: str | None = None, advice: str = "") -> Row:
    n_train, n_test = n or (None, None)
    return {"name": name, "status": status, "where": where, "n_train": n_train, "n_test": n_test, "fingerprint": fingerprint, "advice": advice}


def _look(name: str, folder: str | Path | None) -> Row:
    from ltcore.data.folder import ImageFolders
    from ltcore.data.sources import DATASETS, Made, World
    from ltcore.data.text_files import TextSet
    from ltcore.rl.worlds import lacking

    source = DATASETS[name]
    if isinstance(source, Made):
        return _row(name, "built in", "no file needed", source.sizes)
    if isinstance(source, World):
        return _row(name, "missing", advice=lacking(source)) if lacking(source) else _row(name, "built in", "an environment: no file needed")
    try:
        if isinstance(source, TextSet):
            return _look_at_text(name, source, folder)
        if isinstance(source, ImageFolders):
            return _look_at_folders(name, source, folder)
        return _look_at_files(name, source, folder)
    except UserError as error:  # the folder itself is not there
        return _row(name, "missing", advice=str(error))


def _look_at_folders(name: str, source: ImageFolders, folder: str | Path | None) -> Row:
    from ltcore.data.folder import check_folders, find, where_to_put
    from ltcore.data.sources import VARIABLE, places

    for _, root in _places(folder, places):
        try:
            base = find(source, root)
        except UserError as error:
            return _row(name, "incomplete", str(root), advice=str(error))
        if base is None:
            continue
        try:
            return _row(name, "ok", str(root), check_folders(base))
        except UserError as error:
            return _row(name, "damaged", str(root), advice=str(error))
    return _row(name, "missing", advice=f"{where_to_put(source)}, below the folder named in {VARIABLE}")


def _look_at_text(name: str, source: TextSet, folder: str | Path | None) -> Row:
    """Files are small but for WMT'14's, and their lines are the only structure that they have: `verify` counts them."""
    from ltcore.data.sources import VARIABLE, places
    from ltcore.data.text_files import locate

    for _, root in _places(folder, places):
        found = locate(source, root)
        if len(found) == len(source.files):
            return _row(name, "ok", str(root), source.sizes)
        if found:
            absent = next(file for file in source.files if file not in found)
            return _row(name, "incomplete", str(root), advice=f"{source.folder}/{absent} missing; python -m bench data fetch {name}")
    return _row(name, "missing", advice=f"python -m bench data fetch {name}, or name a folder that has {source.folder} in {VARIABLE}")


def _look_at_files(name: str, source: FileSet, folder: str | Path | None) -> Row:
    from ltcore.data.files import locate, missing
    from ltcore.data.sources import VARIABLE, places

    for _, root in _places(folder, places):
        found = locate(source, root)
        absent = missing(source, found)
        if not absent:
            try:
                return _row(name, "ok", str(root), source.check(source, found))
            except UserError as error:
                return _row(name, "damaged", str(root), advice=str(error))
        if len(absent) < len(source.files):
            return _row(name, "incomplete", str(root), advice=f"{source.folder}/{absent[0]} missing; python -m bench data fetch {name}")
    return _row(name, "missing", advice=f"python -m bench data fetch {name}, or name a folder that has {source.folder} in {VARIABLE}")


def _places(folder: str | Path | None, places: Any) -> list[tuple[str, Path]]:
    """A folder named on the command line is the only one; it need not exist yet where data are to be fetched into it."""
    return [("folder", Path(folder))] if folder else places()


def _verified(name: str, folder: str | Path | None) -> Row:
    from ltcore.data.files import check_md5, locate
    from ltcore.data.folder import ImageFolders
    from ltcore.data.sources import DATASETS, Made, World, load, read
    from ltcore.data.text_files import TextSet

    source, row = DATASETS[name], _look(name, folder)
    if isinstance(source, World):
        return row
    try:
        if isinstance(source, Made):
            data = load(name)
        elif row["status"] == "ok" and isinstance(source, (ImageFolders, TextSet)):
            data = load(name, row["where"])
        elif row["status"] == "ok":
            found = locate(source, Path(row["where"]))
            check_md5(source, found)
            data = read(name, found, "folder")
        else:
            return row
    except UserError as error:
        return row | {"status": "damaged", "advice": str(error)}
    return row | {"n_train": len(data.train), "n_test": len(data.test), "fingerprint": data.fingerprint, "advice": data.note}


def _fetched(name: str, folder: str | Path | None) -> Row:
    from ltcore.data import download, text_files
    from ltcore.data.folder import ImageFolders
    from ltcore.data.sources import DATASETS, World, downloads

    row, source = _look(name, folder), DATASETS[name]
    if row["status"] in ("ok", "built in") or isinstance(source, (ImageFolders, World)):  # nothing downloads those; the advice says so
        return row
    try:
        bring = text_files.download if isinstance(source, text_files.TextSet) else download.download
        bring(source, Path(folder or row["where"] or downloads()), again=True)
    except UserError as error:
        return row | {"advice": str(error)}
    return _look(name, folder)
