"""What names in a recipe mean: the built-in models, criteria and data sets, and what a user's file adds to them."""
from __future__ import annotations

import functools
import hashlib
import importlib.util
import traceback
from collections.abc import Callable, Mapping
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
    """Plain dicts by name; ``user`` holds {(table, name): sha256 of the file that brought it}."""

    models: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: MODELS)
    criteria: Mapping[str, Criterion] = field(default_factory=lambda: CRITERIA)
    datasets: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # a user's; the built-in ones are in ltcore.data
    arms: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    user: Mapping[tuple[str, str], str] = field(default_factory=dict)

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
    tables = {t: dict(getattr(module, t.upper(), {})) for t in ("models", "criteria", "datasets", "arms")}
    if not any(tables.values()):
        raise UserError(f"{path} defines none of MODELS, CRITERIA, DATASETS, ARMS: add a dict, such as CRITERIA = {{'mine': mine}}")
    return Library(
        models=MODELS | tables["models"], criteria=CRITERIA | tables["criteria"], datasets=tables["datasets"], arms=tables["arms"],
        user={(table, name): digest for table, entries in tables.items() for name in entries},
    )  # fmt: skip


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"ltcore_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own code raises is theirs to mend, with the line where it happened
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{path} can't be run: {type(error).__name__}: {error} (line {where.lineno} of {Path(where.filename).name})") from error
    return module
