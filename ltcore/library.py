"""What names in a recipe mean: the built-in models, criteria and data sets, and what a user's file adds to them."""
from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ltcore.criteria import CRITERIA, Criterion
from ltcore.errors import UsageError, UserError
from ltcore.models import MODELS
from ltcore.names import nearest


@dataclass(frozen=True)
class Library:
    """Plain dicts by name; ``user`` holds {(table, name): sha256 of the file that brought it}, ``file`` its path."""

    models: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: MODELS)
    criteria: Mapping[str, Criterion] = field(default_factory=lambda: CRITERIA)
    datasets: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # a user's; the built-in ones are in ltcore.data
    arms: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    user: Mapping[tuple[str, str], str] = field(default_factory=dict)
    file: str = ""

    def model(self, name: str) -> Callable[..., Any]:
        return _look_up("model", name, self.models)

    def criterion(self, name: str) -> Criterion:
        return _look_up("criterion", name, self.criteria)

    def source(self, table: str, name: str) -> dict[str, str]:
        """What a stage's parameters must say of a user's piece: the hash of its file; nothing for built-in ones."""
        digest = self.user.get((table, name))
        return {"source": digest} if digest else {}


def _look_up(what: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise UsageError(f"unknown {what} {name!r}{nearest(name, table)}")
    return table[name]


@functools.cache
def load(path: str | None = None) -> Library:
    """The built-in library, with the dicts MODELS, CRITERIA, DATASETS and ARMS of a user's file on top.

    Raises:
        UserError: the file is missing, can't be run, or holds none of the four dicts.
    """
    if path is None:
        return Library()
    module, digest = _run(Path(path)), hashlib.sha256(Path(path).read_bytes()).hexdigest()
    tables = {t: _table(module, t.upper(), path) for t in ("models", "criteria", "datasets", "arms")}
    if not any(tables.values()):
        raise UserError(f"{path} defines none of MODELS, CRITERIA, DATASETS, ARMS: add a dict, such as CRITERIA = {{'mine': mine}}")
    return Library(
        models=MODELS | tables["models"], criteria=CRITERIA | tables["criteria"], datasets=tables["datasets"], arms=tables["arms"],
        user={(table, name): digest for table, entries in tables.items() for name in entries}, file=str(path),
    )  # fmt: skip


def _table(module: ModuleType, name: str, path: str) -> dict[str, Any]:
    found = getattr(module, name, {})
    if not isinstance(found, dict):
        raise UserError(f"{name} in {path} is a {type(found).__name__}: it must be a dict, such as {name} = {{'mine': mine}}")
    for key, value in found.items():
        if not isinstance(key, str) or not callable(value):
            raise UserError(f"{name} in {path} must name functions or classes: {key!r} is a {type(value).__name__}")
    return dict(found)


@contextlib.contextmanager
def of_user(what: str, file: str) -> Iterator[None]:
    """Whatever a user's own code raises is theirs to mend: one line that says what failed and at which line of their file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = next((f for f in reversed(frames) if f.filename == file), frames[-1])
        line, name = (error.lineno, error.filename) if isinstance(error, SyntaxError) else (last.lineno, last.filename)
        said = str(error.msg if isinstance(error, SyntaxError) else error).splitlines() or ["no message"]
        raise UserError(f"{what}: {type(error).__name__}: {said[0]} (line {line} of {Path(name or file).name})") from error


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"ltcore_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    with of_user(f"{path} can't be run", str(path)):
        spec.loader.exec_module(module)
    return module
