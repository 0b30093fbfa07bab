"""Schema of the papers' data files: one strict model a section, and the checks that span sections.

Needs pydantic; `replications.papers` imports it only when a file is loaded.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ltcore.errors import UserError
from replications.papers_yaml import one_line
from replications.vocabulary import ARMS, CONTROLS, METRICS, OLD_KEYS, PCT_COUNTS, UNITS

BOUNDS = ("greater_than", "less_than", "within")
KINDS = ("difference", "ratio", "value")
TEST_KEYS = frozenset({*KINDS, *BOUNDS, "for_each", "for_any", "paired", "protocol"})   # all other keys of a test are conditions


# ---- values -----------------------------------------------------------------------------------------------------
def is_number(v: Any) -> bool:
    """A finite int or float; never a bool."""
    return isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= 1e300 and math.isfinite(v)


def _finite(v: Any) -> Any:
    if not is_number(v):
        raise ValueError(f"{str(v)[:40]} is not a finite number")
    return v


def _scalar(v: Any) -> Any:
    if not isinstance(v, (str, bool)) and not is_number(v):
        raise ValueError(f"{str(v)[:40]!r} is not a text, a number or true/false")
    return v


def _condition(c: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, v in c.items():
        if key in OLD_KEYS:
            raise ValueError(f"key {key!r} is not in use")
        for item in v.values() if key == "versus" and isinstance(v, dict) else v if isinstance(v, list) else [v]:
            _scalar(item)
        if key in ("weights_remaining_pct", "channels_remaining_pct") and not (is_number(v) and 0 <= v <= 100):
            raise ValueError(f"{key} {v!r} is not a percentage")
        if key == "level" and (not isinstance(v, int) or isinstance(v, bool) or v < 0):
            raise ValueError(f"level {v!r} is not a number of prunings")
    return c


def _ids(v: Any) -> list[Any]:
    return v if isinstance(v, list) else [v]


Text = Annotated[str, StringConstraints(min_length=1)]
Number = Annotated[StrictInt | StrictFloat, AfterValidator(_finite)]
Scalar = Annotated[Any, AfterValidator(_scalar)]
Condition = Annotated[dict[str, Any], AfterValidator(_condition)]
Choices = Annotated[dict[str, Annotated[list[Scalar], Field(min_length=1)]], Field(min_length=1)]
Names = Text | Annotated[list[Text], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


# ---- one model a section ----------------------------------------------------------------------------------------
class Spread(_Strict):
    """Spread of a published number: what it is (``kind``) and its value, or its two ends."""

    kind: Literal["sd", "half-width", "min-max", "unknown"]
    value: Number | None = None
    min: Number | None = None
    max: Number | None = None
    relation: Literal["<", "<=", ">", ">="] | None = None

    @model_validator(mode="after")
    def _has_value(self) -> Spread:
        if self.value is None and (self.min is None or self.max is None):
            raise ValueError("spread wants a value, or min and max")
        return self


class Row(_Strict):
    """One published number."""

    id: Text
    protocol: Names
    condition: Condition
    metric: Text
    value: Number
    relation: Literal[">", ">=", "<", "<=", "up-to", "about", "="] | None = None
    spread: Spread | None = None
    n: StrictInt | None = None
    source: Text
    quality: Literal["table", "stated-in-text", "released-data", "read-from-figure", "secondary-source"]
    n_note: str | None = None
    origin: str | None = None
    note: str | None = None
    caution: str | None = None
    delta_vs_base: Number | None = None
    at_alpha: Number | None = None
    n_records: StrictInt | None = None

    @property
    def protocols(self) -> list[str]:
        return _ids(self.protocol)


def _point(v: Any) -> Any:
    ends = v if isinstance(v, list) else [v]
    if not 1 <= len(ends) <= 3 or not all(x is None or is_number(x) for x in ends) or ends[0] is None:
        raise ValueError(f"point {str(v)[:40]} is not a number, [low, high] or [mean, min, max]")
    return v


class Curve(_Strict):
    """One curve of a figure: ``points`` {x: mean, [low, high] or [mean, min, max]}; x is a percentage where ``x`` is absent."""

    id: Text
    protocol: Text
    condition: Condition
    metric: Text
    x: str | None = None
    n: StrictInt | None = None
    n_note: str | None = None
    source: Text
    quality: Text
    points: dict[Any, Annotated[Any, AfterValidator(_point)]]
    retrain_epochs: dict[Any, Any] | None = None
    between_ticks: list[Any] | None = None


class Statement(_Strict):
    """What the paper says without a number."""

    id: Text
    protocol: Names
    condition: dict[str, Any]
    text: Text
    source: Text
    quality: str | None = None
    origin: str | None = None


class Test(_Strict):
    """One test of a claim; keys not listed here are conditions common to its operands (`common`)."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Scalar]
    __test__ = False                       # not a test class of pytest

    difference: list[dict[str, Any]] | None = None
    ratio: list[dict[str, Any]] | None = None
    value: dict[str, Any] | None = None
    greater_than: Number | None = None
    less_than: Number | None = None
    within: Number | None = None
    for_each: Choices | None = None
    for_any: Choices | None = None
    paired: bool = True
    protocol: Names | None = None

    @property
    def common(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})

    @property
    def kind(self) -> str:
        return next(k for k in KINDS if getattr(self, k) is not None)

    @property
    def bound_kind(self) -> str:
        return next(b for b in BOUNDS if getattr(self, b) is not None)

    @property
    def bound(self) -> float:
        return getattr(self, self.bound_kind)

    @property
    def operands(self) -> list[dict[str, Any]]:
        return [self.value] if self.value is not None else self.difference or self.ratio or []

    @model_validator(mode="after")
    def _grammar(self) -> Test:
        if sum(getattr(self, k) is not None for k in KINDS) != 1:
            raise ValueError("wants exactly one of difference, ratio, value")
        if sum(getattr(self, b) is not None for b in BOUNDS) != 1:
            raise ValueError("wants exactly one bound of greater_than, less_than, within")
        if self.within is not None and self.within <= 0:
            raise ValueError("within wants a margin above 0")
        if self.kind == "ratio" and (self.bound <= 0 or self.bound_kind == "within"):
            raise ValueError("a ratio wants greater_than or less_than a number above 0")
        if self.kind != "value" and len(self.operands) != 2:
            raise ValueError(f"{self.kind} wants two operands")
        for operand in self.operands:
            _check_operand(operand, nested=self.kind != "value")
        return self


def _check_operand(operand: Mapping[str, Any], nested: bool) -> None:
    for key, v in operand.items():
        if key == "difference":
            if not nested or not isinstance(v, list) or len(v) != 2 or not all(isinstance(o, dict) for o in v):
                raise ValueError("an operand's difference wants two operands, one level deep")
            for o in v:
                _check_operand(o, nested=False)
        elif key == "mean_over":
            if not isinstance(v, dict) or not v or not all(isinstance(k, str) and isinstance(x, list) and x for k, x in v.items()):
                raise ValueError("mean_over wants {key: [values]}")
            _condition({k: item for k, x in v.items() for item in x})
        elif not isinstance(key, str) or key in TEST_KEYS - {"protocol"}:
            raise ValueError(f"operand has the key {str(key)[:40]!r}")
        else:
            _condition({key: v})
            _scalar(v)


class Claim(_Strict):
    """A statement of the paper, with the tests that decide it."""

    id: Text
    statement: Text
    source: Text
    strength: Literal["headline", "secondary"]
    protocols: list[Text] | None = None
    tests: Annotated[list[Test], Field(min_length=1)] | None = None
    custom: Text | None = None
    ours: str | None = None
    negative_control: str | None = None
    any: bool = False
    needs_paper_scale: bool = False
    own_numbers: str | dict[str, Any] | None = None

    @model_validator(mode="after")
    def _grammar(self) -> Claim:
        if (self.tests is None) == (self.custom is None):
            raise ValueError("wants exactly one of tests, custom")
        if self.strength == "headline" and not self.negative_control:
            raise ValueError("headline claim without negative_control")
        return self


def _protocol(p: Mapping[str, Any]) -> Mapping[str, Any]:
    if not p.get("id") or any(not isinstance(p.get(k, ""), str) for k in ("id", "same_as")):
        raise ValueError("wants an id, and in same_as the id of another protocol")
    if p.get("experiment", True) and "same_as" not in p and p.get("pct_counts") not in PCT_COUNTS:
        raise ValueError(f"pct_counts is {p.get('pct_counts')!r}")
    ladder = p.get("ladder")
    if ladder is not None and not (isinstance(ladder, dict) and all(
            isinstance(k, int) and not isinstance(k, bool) and k >= 0 and is_number(v) and 0 <= v <= 100 for k, v in ladder.items())):
        raise ValueError("ladder wants {level: percent}")
    return p


Section = dict[str, str] | None
Protocols = Annotated[list[Annotated[dict[str, Any], AfterValidator(_protocol)]], Field(min_length=1)]


class Paper(_Strict):
    """The whole file. Further sections (free tables, provenance) are allowed and not interpreted."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    key: Text
    title: Text
    authors: Text | list[Text]
    venue: Text
    arxiv: Text
    official_code: Text
    conventions: dict[str, Any]
    protocols: Protocols
    published: list[Row]
    claims: list[Claim]
    compute: dict[str, Any]
    notes: list[str]
    missing: list[str] | None = None
    arms: Section = None
    metrics: Section = None
    controls: Section = None
    figure_data: list[Curve] | None = None
    statements: list[Statement] | None = None
    superseded_published: list[dict[str, Any]] | None = None


# ---- values to a checked paper ----------------------------------------------------------------------------------
def validate(raw: Mapping[str, Any], key: str, file: Path) -> Paper:
    """The checked paper; the first defect is a `UserError` that says how many more there are."""
    try:
        paper = Paper.model_validate(raw)
    except ValidationError as e:
        errors = e.errors(include_url=False)
        raise _defect(file.name, f"{_place(errors[0]['loc'], raw)}: {errors[0]['msg']}", len(errors)) from e
    found = [*_cross_checks(paper, key)]
    if found:
        raise _defect(file.name, found[0], len(found))
    return paper


def _defect(name: str, what: str, count: int) -> UserError:
    return UserError(one_line(f"{name}: {what}") + (f" (and {count - 1} more)" if count > 1 else ""))


def _place(loc: tuple[Any, ...], raw: Any) -> str:
    """Path to a value, list entries by their id where they have one: ``published lenet-es-speedup.value``."""
    out = ""
    for step in loc:
        raw = raw[step] if isinstance(raw, (dict, list)) and (step in raw if isinstance(raw, dict) else isinstance(step, int)) else None
        if isinstance(step, int):
            name = raw.get("id") if isinstance(raw, dict) else None
            out += f" {name}" if isinstance(name, str) else f"[{step}]"
        elif raw is not None or not out or str(step).isidentifier() and str(step) not in ("int", "float", "str"):
            out += f".{step}" if out else str(step)
    return out


def _cross_checks(paper: Paper, key: str) -> Iterator[str]:
    """Defects that one section alone cannot show: names that are not declared, ids that stand twice."""
    protocols = {p["id"] for p in paper.protocols}
    arms, metrics = ARMS | set(paper.arms or {}), METRICS | set(paper.metrics or {})
    if paper.key != key:
        yield f"key is {paper.key!r}, the file's name says {key!r}"
    yield from _twice("protocol", [p["id"] for p in paper.protocols])
    yield from _twice("id", [x.id for s in (paper.published, paper.claims, paper.statements or ()) for x in s]
                      + [str(x.get("id")) for x in paper.superseded_published or ()])
    yield from _twice("figure_data", [c.id for c in paper.figure_data or ()])
    for row in [*paper.published, *(paper.figure_data or ())]:
        yield from _check_named(f"{'row' if isinstance(row, Row) else 'curve'} {row.id}", _ids(row.protocol), protocols,
                                row.condition.get("arm"), arms, row.metric, metrics)
    yield from _same_rows(paper.published)
    for claim in paper.claims:
        yield from _check_claim(claim, protocols, arms, metrics, CONTROLS | set(paper.controls or {}))


def _twice(what: str, names: list[str]) -> Iterator[str]:
    yield from (f"{what} {n} stands twice" for n in sorted({n for n in names if names.count(n) > 1}))


def _same_rows(rows: list[Row]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for r in rows:
        key = repr((r.protocol, sorted(r.condition.items(), key=str), r.metric, r.relation))
        if key in seen:
            yield f"row {r.id}: same protocol, condition and metric as {seen[key]}"
        seen[key] = r.id


def _check_named(where: str, used: list[str], protocols: set[str], arm: Any, arms: set[str], metric: Any,
                 metrics: set[str]) -> Iterator[str]:
    yield from (f"{where}: protocol {p!r} does not exist" for p in used if p not in protocols)
    if arm is not None and arm not in arms:
        yield f"{where}: arm {arm!r} is not in the vocabulary"
    if metric not in metrics and not str(metric).endswith(UNITS):
        yield f"{where}: metric {metric!r} has no unit and is not listed"


def _check_claim(claim: Claim, protocols: set[str], arms: set[str], metrics: set[str], controls: set[str]) -> Iterator[str]:
    where = f"claim {claim.id}"
    if claim.negative_control and claim.negative_control not in controls:
        yield f"{where}: negative_control {claim.negative_control!r} is not in the vocabulary"
    yield from (f"{where}: protocol {p!r} does not exist" for p in claim.protocols or () if p not in protocols)
    for i, test in enumerate(claim.tests or ()):
        used = _ids(test.protocol) if test.protocol else claim.protocols or []
        if not used:
            yield f"{where}, test {i + 1}: no protocol"
        for leaf in plain_operands(test):
            yield from _check_named(f"{where}, test {i + 1}", [*used, *([leaf["protocol"]] if "protocol" in leaf else [])], protocols,
                                    leaf.get("arm"), arms, leaf.get("metric"), metrics)


def plain_operands(test: Test) -> list[dict[str, Any]]:
    """The plain operands of a test, left to right, each with the keys common to both sides filled in (its own keys win)."""
    out = []
    for o in test.operands:
        own = {k: v for k, v in o.items() if k != "difference"}
        out += [{**test.common, **own, **x} for x in o.get("difference") or [{}]]
    return out
