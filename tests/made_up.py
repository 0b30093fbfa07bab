"""A made-up paper and made-up measurements: small enough that every expected number can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import claims, verdicts
from bench.compare import compare
from bench.joins import Join
from bench.measurement import Gate, Measurement, RunInfo
from replications.papers import PaperData, load

HEAD = """\
key: toy2000
title: 'A toy''s title'
authors: [A. Body]
venue: Nowhere 2000
arxiv: "0000.00000"
official_code: none
conventions: {}
protocols:
  - {id: net, pct_counts: prunable, trials: 5, ladder: {0: 100.0, 1: 80.0, 2: 64.0, 7: 21.1}, source: Sec 1}
  - {id: other, same_as: net, optimizer: SGD}
published:
"""
TAIL = """\
compute: {}
notes: []
"""
ROW = (
    "  - {id: r1, protocol: net, condition: {arm: dense, level: 0, at: end}, metric: test_accuracy_pct, "
    "value: 90.5, spread: null, n: 5, source: Tab 1, quality: table}\n"
)
CLAIM = """\
  - id: c1
    statement: Tickets match.
    source: Sec 1
    strength: secondary
    protocols: [net]
    tests:
"""


def text(claims: str = "", rows: str = ROW, figures: str = "") -> str:
    """The paper's file; ``claims`` are whole claim entries, ``rows`` published rows, ``figures`` curves."""
    listed = f"claims:\n{claims}" if claims else "claims: []\n"
    return HEAD + rows + listed + (f"figure_data:\n{figures}" if figures else "") + TAIL


def paper(folder: Path, claims: str = "", rows: str = ROW, figures: str = "") -> PaperData:
    """The made-up paper, written to ``folder`` and loaded."""
    (folder / "toy2000.yaml").write_text(text(claims, rows, figures))
    return load("toy2000", folder)


def claim(*tests: str, more: str = "") -> str:
    """One claim with these tests (flow mappings)."""
    return CLAIM + "".join(f"      - {{{t}}}\n" for t in tests) + (f"    {more}\n" if more else "")


def values(
    arm: str,
    numbers: list[float],
    metric: str = "test_accuracy_pct",
    at: str | None = "end",
    level: int | None = None,
    protocol: str = "net",
    draw: int = 0,
    resolution: float = 0.0,
    censored: tuple[int, ...] = (),
    failed: dict[int, str] | None = None,
    **more: object,
) -> list[Measurement]:
    """One measurement a trial, trial 0 first."""
    condition = {"arm": arm, **({} if level is None else {"level": level}), **more}
    base = {"level": 0, "weights_remaining_pct": 100.0} if arm == "dense" else {}
    return [
        Measurement(protocol, condition, base, t, draw, metric, at, v, resolution, t in censored, (failed or {}).get(t, ""))
        for t, v in enumerate(numbers)
    ]


def run(
    n: int = 5,
    scale: str = "paper",
    comparable: str = "",
    not_run: dict[str, str] | None = None,
    gates: dict[str, tuple[Gate, ...]] | None = None,
    looks: int = 1,
) -> RunInfo:
    """A run of both protocols with n declared trials."""
    return RunInfo(
        "toy2000",
        scale,
        {"net": n, "other": n},
        {"net": comparable, "other": comparable},
        not_run or {},
        gates or {},
        looks,
        {"device": "cpu"},
    )


def row_of(
    condition: str,
    metric: str = "test_accuracy_pct",
    value: str = "90.5",
    more: str = "",
    name: str = "r1",
    protocol: str = "net",
    n: str = "5",
) -> str:
    """One published row with this condition."""
    return (
        f"  - {{id: {name}, protocol: {protocol}, condition: {{{condition}}}, metric: {metric}, "
        f"value: {value}, {more}spread: null, n: {n}, "
        "source: Tab 1, quality: table}\n"
    )


def compared(folder: Path, row: str, measurements: list[Measurement], info: Any = None) -> dict[str, Any]:
    """The comparison's row for it."""
    return compare(paper(folder, rows=row), measurements, info or run(3))["rows"][0]


def every_part_is_found(data: PaperData, claim_id: str, join: Join, n: int) -> None:
    """Every operand of every part of a claim finds its measurements in all n trials."""
    parts = list(claims.parts(claims.tree(claims.by_id(data, claim_id))))
    looked = [(p.text, verdicts.look_up(o, join)) for p in parts for o in p.operands]
    assert looked and all(not why and sorted(found) == list(range(n)) for _, (found, why) in looked), [(t, w) for t, (_, w) in looked if w]
