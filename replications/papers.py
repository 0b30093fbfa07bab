"""The papers' data files: what was published, as data, validated on load.

``keys()`` and ``titles()`` scan lines and need neither PyYAML nor pydantic, so that a listing stays fast; ``load(key)``
parses and checks one file. Every defect of a file is one `UserError` line: file, place, what is wrong.
"""
from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ltcore.errors import UsageError, UserError

if TYPE_CHECKING:
    from replications.papers_schema import Claim, Curve, Row, Statement

FOLDER = Path(__file__).resolve().parent / "published"
_TOP = re.compile(r"^([A-Za-z_]+):\s*(.*)$")
_COUNTED = ("protocols", "published", "claims", "figure_data")


class Title(NamedTuple):
    """What a listing shows of a paper; the counts are numbers of entries in the file."""

    title: str
    venue: str
    arxiv: str
    protocols: int
    numbers: int
    claims: int
    curves: int


@dataclass(frozen=True)
class PaperData:
    """One paper's file, checked. Treat as read-only: `load` hands the same object to every caller.

    ``protocols`` are the entries as written; `protocol` gives one with everything it inherits.
    """

    key: str
    title: str
    authors: str
    venue: str
    arxiv: str
    official_code: str
    protocols: tuple[Mapping[str, Any], ...]
    published: tuple[Row, ...]
    claims: tuple[Claim, ...]
    figure_data: tuple[Curve, ...]
    statements: tuple[Statement, ...]
    arms: Mapping[str, str]
    metrics: Mapping[str, str]
    controls: Mapping[str, str]
    conventions: Mapping[str, Any]
    compute: Mapping[str, Any]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    resolved: Mapping[str, Mapping[str, Any]] = field(repr=False)  # protocol id -> entry with all it inherits
    path: Path = field(default=Path(), compare=False)

    def protocol(self, name: str) -> Mapping[str, Any]:
        """The protocol with the fields of its ``same_as`` chain filled in."""
        if name not in self.resolved:
            raise UsageError(f"{self.key} has no protocol {name!r}{_nearest(name, self.resolved)}")
        return self.resolved[name]

    def ladder(self, protocol: str) -> dict[int, float]:
        """{level: percent of weights kept} of a protocol; empty where the paper fixes none."""
        return dict(self.protocol(protocol).get("ladder") or {})

    def level_of(self, protocol: str, pct: float) -> int | None:
        """Number of prunings that leaves ``pct`` percent, or None where the ladder has no such step.

        Nearest step within the papers' truncation (0.15 or 1.5 % of the value); 100 % is level 0 everywhere.
        """
        if pct == 100:
            return 0
        near = sorted((abs(v - pct), level) for level, v in self.ladder(protocol).items() if same_pct(v, pct))
        return near[0][1] if near else None


def same_pct(a: float, b: float) -> bool:
    """Whether two percentages mean one size: within 0.15 or 1.5 % of the larger (papers truncate 16.78 to 16.7)."""
    return abs(a - b) <= max(0.15, 0.015 * max(abs(a), abs(b)))


def same_value(key: str, a: Any, b: Any) -> bool:
    """Whether two condition values mean one thing; keys ending in ``_pct`` match within the papers' truncation."""
    if key.endswith("_pct") and _is_number(a) and _is_number(b):
        return same_pct(a, b)
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _is_number(v: Any) -> bool:
    return isinstance(v, (int, float)) and not isinstance(v, bool)


# ---- listing ----------------------------------------------------------------------------------------------------
def keys(folder: Path = FOLDER) -> list[str]:
    """Keys of all papers with a data file, sorted."""
    return sorted(f.stem for f in folder.glob("*.yaml"))


def titles(folder: Path = FOLDER) -> dict[str, Title]:
    """{key: Title} of every paper, by scanning lines: milliseconds for all files, nothing is validated."""
    return {k: _scan(read_text(folder / f"{k}.yaml")) for k in keys(folder)}


def _scan(text: str) -> Title:
    heads: dict[str, str] = {}
    counts = dict.fromkeys(_COUNTED, 0)
    indents: dict[str, int] = {}
    section = ""
    for line in text.splitlines():
        top = _TOP.match(line)
        if top:
            section = top[1]
            heads[section] = top[2]
        elif section in counts:
            body = line.lstrip(" ")
            if body.startswith("- ") and indents.setdefault(section, len(line) - len(body)) == len(line) - len(body):
                counts[section] += 1
        elif section == "title" and line[:1] == " ":
            heads["title"] += " " + line.strip()
    return Title(_plain(heads.get("title", "")), _plain(heads.get("venue", "")), _plain(heads.get("arxiv", "")), *counts.values())


def _plain(scalar: str) -> str:
    """Text of a YAML scalar that stands on one line (plain or quoted)."""
    scalar = scalar.strip()
    for quote in "'\"":
        if len(scalar) > 1 and scalar[0] == quote and quote in scalar[1:]:
            return scalar[1:scalar.rindex(quote)].replace(quote * 2 if quote == "'" else '\\"', quote)
    return re.sub(r"\s+#.*$", "", scalar)


# ---- loading ----------------------------------------------------------------------------------------------------
def load(key: str, path: str | Path | None = None) -> PaperData:
    """One paper's data, checked.

    Args:
        key: the paper, e.g. ``frankle2019``.
        path: another file, or folder with ``<key>.yaml``, to read instead of the one that ships with the program.

    Raises:
        UsageError: there is no such paper (names the nearest).
        UserError: the file is missing, unreadable or defective; one line that names file, place and defect.
    """
    if path is None and key not in keys():
        raise UsageError(f"no paper {key!r}{_nearest(key, keys())}; `python -m bench list` shows all")
    file = Path(path) if path is not None else FOLDER
    file = file / f"{key}.yaml" if file.is_dir() else file
    try:
        stat = file.stat()
    except OSError as e:
        raise UserError(f"{file}: {e.strerror or e}") from e
    return _load(key, file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=32)
def _load(key: str, file: Path, _mtime_ns: int, _size: int) -> PaperData:
    from replications import papers_schema, papers_yaml
    raw = papers_yaml.parse(read_text(file), file.name)
    paper = papers_schema.validate(raw, key, file)
    return PaperData(
        key=paper.key, title=paper.title, authors=paper.authors if isinstance(paper.authors, str) else ", ".join(paper.authors),
        venue=paper.venue, arxiv=paper.arxiv, official_code=paper.official_code, protocols=tuple(paper.protocols),
        published=tuple(paper.published), claims=tuple(paper.claims), figure_data=tuple(paper.figure_data or ()),
        statements=tuple(paper.statements or ()), arms=paper.arms or {}, metrics=paper.metrics or {}, controls=paper.controls or {},
        conventions=paper.conventions, compute=paper.compute, notes=tuple(paper.notes), missing=tuple(paper.missing or ()),
        resolved=_resolve(paper.protocols, file), path=file)


def _resolve(protocols: list[Mapping[str, Any]], file: Path) -> dict[str, Mapping[str, Any]]:
    """Every protocol with the fields of its ``same_as`` chain filled in; ``other/id`` reads ``other.yaml`` beside the file."""
    def merged(name: str, where: Path, entries: Mapping[str, Mapping[str, Any]], chain: tuple[str, ...]) -> Mapping[str, Any]:
        if (here := f"{where.stem}/{name}") in chain:
            raise UserError(f"{file.name}: protocol {chain[0].split('/')[1]}: same_as goes round in a circle")
        if name not in entries:
            raise UserError(f"{file.name}: protocol {chain[-1].split('/')[1] if chain else name}: same_as {name!r} does not exist")
        own = entries[name]
        other, _, base = str(own.get("same_as", "")).rpartition("/")
        if not base:
            return own
        inherited = merged(base, *((where, entries) if not other else _other(where.parent / f"{other}.yaml", file)), (*chain, here))
        return {**inherited, **{k: v for k, v in own.items() if k != "same_as"}}

    entries = {p["id"]: p for p in protocols}
    return {name: merged(name, file, entries, ()) for name in entries}


def _other(path: Path, file: Path) -> tuple[Path, dict[str, Mapping[str, Any]]]:
    from replications.papers_yaml import parse
    if not path.exists():
        raise UserError(f"{file.name}: same_as names {path.name}, which is not beside it")
    listed = parse(read_text(path), path.name).get("protocols")
    return path, {p["id"]: p for p in listed if isinstance(p, dict) and "id" in p} if isinstance(listed, list) else {}


def read_text(file: Path) -> str:
    """The file's text; a file that is missing, unreadable or not UTF-8 is a `UserError`."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"{file.name}: not UTF-8 text (byte {e.start})") from e
    except OSError as e:
        raise UserError(f"{file}: {e.strerror or e}") from e


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
