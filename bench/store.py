"""The store: a folder with one sub-folder per stage hash, whole or not there at all.

A stage is written under a temporary name and renamed when complete. Tensors are safetensors. Locks are ``flock``, which dies with
its process, so a killed run leaves nothing to clean up. ``journal.jsonl`` gets a line per stage that was computed.
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ltcore.errors import UserError

LAYOUT = 1
MANIFEST = 2  # raised when the manifest's fields change; older ones are read
MANIFEST_KEYS = {
    1: ("paper", "scale", "wanted", "flags", "experiments", "data", "points"),  # one data set a paper
    2: ("paper", "scale", "flags", "experiments", "skipped", "points"),
}
POINT_KEYS = ("label", "protocol", "condition", "base", "trial", "draw", "stage")
RECORD_KEYS = ("stage", "values", "curves", "facts", "machine")


class StoreError(UserError):
    """The disk refuses: nothing more can be written, so a run stops."""


def default_root() -> Path:
    """``$LTCORE_STORE``, else ``results-store`` in the current folder."""
    return Path(os.environ.get("LTCORE_STORE", "results-store"))


class Store:
    """Opens a store, or makes one.

    Raises:
        StoreError: the folder can't be made, read or written. UserError: it holds another layout, or (not ``create``) none.
    """

    def __init__(self, root: str | Path, create: bool = True):
        self.root = Path(root)
        with self.errors():
            if not create and not (self.root / "layout.json").exists():
                raise UserError(f"no store at {self.root}: run 'python -m bench replicate' first, or name one with --store")
            layout = self.root / "layout.json"
            for name in ("stages", "tmp", "locks", "partial", "manifests") if create else ():
                (self.root / name).mkdir(parents=True, exist_ok=True)
            if not layout.exists():
                self._write_json(layout, {"layout": LAYOUT})
            found = self._read_json(layout).get("layout")
        if found != LAYOUT:
            raise UserError(f"the store {self.root} has layout {found!r}, this program writes {LAYOUT}: name another with --store")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Disk trouble as one line. Nothing is lost: what is in the store is whole."""
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "free some space and run the same command again; what is done is kept" if full else "check the folder's permissions or name another with --store"
            raise StoreError(f"store {self.root}: {error.strerror or error} ({error.filename or 'while writing'}); {advice}") from error

    # ---- stages ----------------------------------------------------------------------------------------------
    def folder(self, stage_hash: str) -> Path:
        return self.root / "stages" / stage_hash

    def stages(self) -> list[str]:
        """Hashes of all stages that are done, sorted."""
        return sorted(path.parent.name for path in (self.root / "stages").glob("*/record.json"))

    def has(self, stage_hash: str, artefact: str | None = None) -> bool:
        """Is the stage done (and this artefact still kept)?"""
        folder = self.folder(stage_hash)
        return (folder / "record.json").exists() and (artefact is None or (folder / f"{artefact}.safetensors").exists())

    def record(self, stage_hash: str) -> dict[str, Any]:
        """What the stage measured, and how.

        Raises:
            UserError: the record is missing or damaged.
        """
        folder = self.folder(stage_hash)
        return self._read_json(folder / "record.json", folder, RECORD_KEYS)

    def load(self, stage_hash: str, artefact: str) -> dict[str, Any]:
        """One artefact's tensors."""
        from ltcore.tickets import load_tensors

        try:
            return load_tensors(self.folder(stage_hash) / f"{artefact}.safetensors")[0]
        except UserError as error:
            raise UserError(f"{error}; {_again(self.folder(stage_hash))}") from error

    def commit(self, stage_hash: str, record: Mapping[str, Any], artefacts: Mapping[str, Mapping[str, Any]]) -> None:
        """Puts a finished stage in place; of one that is there already only missing artefacts are added."""
        from ltcore.tickets import save_tensors

        tmp, final = self.root / "tmp" / stage_hash, self.folder(stage_hash)
        with self.errors():
            shutil.rmtree(tmp, ignore_errors=True)  # of a process that was killed here: whoever commits holds the stage's lock
            try:
                tmp.mkdir()
                for name, tensors in artefacts.items():
                    save_tensors(tmp / f"{name}.safetensors", tensors)
                self._write_json(tmp / "record.json", record)
                if final.exists():
                    for name in artefacts:
                        os.replace(tmp / f"{name}.safetensors", final / f"{name}.safetensors")
                else:
                    os.rename(tmp, final)
            finally:
                shutil.rmtree(tmp, ignore_errors=True)
            self._note({"stage": stage_hash, "kind": record["stage"]["kind"], "pid": os.getpid()})

    def drop(self, stage_hash: str, artefact: str) -> None:
        """Forgets an artefact that nobody waits for."""
        with self.errors():
            (self.folder(stage_hash) / f"{artefact}.safetensors").unlink(missing_ok=True)

    def _note(self, line: Mapping[str, Any]) -> None:
        with open(self.root / "journal.jsonl", "a", encoding="utf-8") as journal:
            journal.write(json.dumps(line) + "\n")

    # ---- locks and checkpoints -------------------------------------------------------------------------------
    @contextlib.contextmanager
    def lock(self, stage_hash: str) -> Iterator[bool]:
        """Holds the stage's lock inside the block; False where another process holds it."""
        path = self.root / "locks" / stage_hash
        with self.errors():
            path.touch()
        with open(path, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def save_checkpoint(self, stage_hash: str, tensors: Mapping[str, Any]) -> None:
        """The state of a long stage in its middle; replaces the one before."""
        from ltcore.tickets import save_tensors

        folder = self.root / "partial" / stage_hash
        with self.errors():
            folder.mkdir(exist_ok=True)
            save_tensors(folder / "new", tensors)
            os.replace(folder / "new", folder / "state.safetensors")

    def drop_checkpoint(self, stage_hash: str) -> None:
        shutil.rmtree(self.root / "partial" / stage_hash, ignore_errors=True)

    def load_checkpoint(self, stage_hash: str) -> dict[str, Any] | None:
        from ltcore.tickets import load_tensors

        path = self.root / "partial" / stage_hash / "state.safetensors"
        return load_tensors(path)[0] if path.exists() else None

    # ---- manifests -------------------------------------------------------------------------------------------
    def write_manifest(self, name: str, manifest: Mapping[str, Any]) -> None:
        with self.errors():
            self._write_json(self.root / "manifests" / f"{name}.json", manifest)

    def manifests(self, prefix: str) -> list[Path]:
        """Manifest files whose name starts so, the latest last."""
        return sorted((self.root / "manifests").glob(f"{prefix}*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name))

    def read_manifest(self, path: Path) -> dict[str, Any]:
        """Raises UserError where it is damaged, or of another version of this program."""
        found = self._read_json(path, path)
        keys = next((fields for version, fields in MANIFEST_KEYS.items() if version == found.get("version")), None)
        if keys is None:
            again = "run the same 'replicate' command again to write it anew; stages that are done are kept"
            raise UserError(f"manifest {path} has version {found.get('version')!r}, this program reads {MANIFEST}: {again}")
        if not _has(found, keys) or not all(_has(p, POINT_KEYS) for p in found["points"]):
            raise UserError(f"{path} is damaged; {_again(path)}")
        return found

    # ---- json ------------------------------------------------------------------------------------------------
    def _write_json(self, path: Path, value: Any) -> None:
        tmp = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        tmp.write_text(json.dumps(finite(value), allow_nan=False), encoding="utf-8")
        os.replace(tmp, path)

    def _read_json(self, path: Path, remove: Path | None = None, keys: Iterable[str] = ()) -> dict[str, Any]:
        """``remove`` is what has to go where the file is damaged, so that the next run makes it anew."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} is missing from the store: run 'python -m bench replicate' again to make it") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} can't be read ({error}); {_again(remove or path)}") from error
        if not _has(value, keys):
            raise UserError(f"{path} is damaged; {_again(remove or path)}")
        return value


def _has(value: Any, keys: Iterable[str]) -> bool:
    return isinstance(value, dict) and all(k in value for k in keys)


def _again(path: Path) -> str:
    return f"remove {path} and run the same 'replicate' command again to make it anew"


def finite(value: Any) -> Any:
    """The same JSON value with null for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def merge(source: Store, target: Store) -> dict[str, int]:
    """Brings the stages and manifests of one store into another.

    Same hash and same values keep one; same hash with other values (another device) keeps both, the newcomer under
    ``<hash>~<device>``, which no comparison reads together with the first.
    """
    counts = {"new": 0, "same": 0, "tagged": 0}
    for stage in source.stages():
        what, name = _meet(source, target, stage)
        counts[what] += 1
        if what != "same":
            with target.errors():
                shutil.copytree(source.folder(stage), target.root / "tmp" / name, dirs_exist_ok=True)
                os.rename(target.root / "tmp" / name, target.folder(name))
    for path in source.manifests(""):
        if not (target.root / "manifests" / path.name).exists():
            target.write_manifest(path.stem, source.read_manifest(path))
    return counts


def _meet(source: Store, target: Store, name: str) -> tuple[str, str]:
    if not target.has(name):
        return "new", name
    theirs, ours = source.record(name), target.record(name)
    if theirs["values"] == ours["values"]:
        return "same", name
    tagged = f"{name}~{theirs['machine']['device'].replace('/', '-').replace(' ', '-')}"
    return ("same" if target.has(tagged) else "tagged"), tagged
