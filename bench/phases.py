"""What finding a network cost on the clock and, where a counter answers, in energy, and what training it cost, beside each other.

Part of ``python -m bench.costs PAPER``. A search that several arms share counts for each of them: it is what one of them would cost alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.store import Store

HEADS = ("experiment", "arm", "n", "search, s", "retraining, s", "total, s", "search, J", "retraining, J", "total, J")
PHASES = ("search", "retraining")
COUNTED = ("train", "score")  # kinds of stage that take time worth a line
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Spent:
    """Seconds of wall time, evaluations included, and joules; None where no counter answered throughout."""

    wall_s: float
    energy_J: float | None


@dataclass(frozen=True)
class Row:
    """One arm of trained networks: means over its ``n`` trials, of which each is the mean of its draws."""

    label: str
    arm: str
    n: int
    search: Spent
    retraining: Spent


def rows(manifest: Mapping[str, Any], store: Store) -> list[Row]:
    """Arms that train a network, in order; those of which the store lacks something that came before are left out, unless the manifest tells."""
    told = manifest.get("phases") or noted(manifest["points"], store)
    found: dict[tuple[str, str], dict[int, list[Mapping[str, Any]]]] = {}
    for p in manifest["points"]:
        if p["stage"] in told:
            found.setdefault((p["label"], _name(p["condition"])), {}).setdefault(p["trial"], []).append(told[p["stage"]])
    return [Row(label, arm, len(t), *(_over_trials(t.values(), phase) for phase in PHASES)) for (label, arm), t in found.items()]


def _over_trials(trials: Iterable[Sequence[Mapping[str, Any]]], phase: str) -> Spent:
    return _mean([_mean([Spent(**draw[phase]) for draw in draws]) for draws in trials])


def noted(points: Iterable[Mapping[str, Any]], store: Store) -> dict[str, dict[str, dict[str, float | None]]]:
    """Stage -> phase -> what it took, as a packed manifest keeps it, which has no records of what came before its points."""
    trained = [p["stage"] for p in points if store.has(p["stage"]) and store.record(p["stage"])["stage"]["kind"] == "train"]
    found = {stage: phases(stage, store) for stage in dict.fromkeys(trained)}
    return {stage: dict(zip(PHASES, map(asdict, both))) for stage, both in found.items() if both}


def phases(stage: str, store: Store) -> tuple[Spent, Spent] | None:
    """(search, retraining) of a training stage: what came before it, and it with the segments that it goes on from; None where a record is gone."""
    own = _segments(stage, store)
    before = None if own is None else _ancestors(own, store)
    if own is None or before is None:
        return None
    return _spent([r for r in before if r["stage"]["kind"] in COUNTED]), _spent([store.record(s) for s in own])


def _segments(stage: str, store: Store) -> list[str] | None:
    """A training stage and those whose optimiser state it took over: one run, cut."""
    found = [stage]
    while "optimizer" in (inputs := store.record(found[-1])["stage"]["inputs"]):
        if not store.has(inputs["optimizer"][0]):
            return None
        found.append(inputs["optimizer"][0])
    return found


def _ancestors(own: Sequence[str], store: Store) -> list[Record] | None:
    seen, waiting, found = set(own), list(own), []
    while waiting:
        for stage, _ in store.record(waiting.pop())["stage"]["inputs"].values():
            if not store.has(stage):
                return None
            if stage not in seen:
                seen.add(stage)
                waiting.append(stage)
                found.append(store.record(stage))
    return found


def _spent(records: Sequence[Record]) -> Spent:
    joules = [r["machine"].get("energy_J") for r in records]
    return Spent(sum(r["machine"]["wall_s"] for r in records), None if None in joules else sum(joules))


def _mean(each: Sequence[Spent]) -> Spent:
    joules = [s.energy_J for s in each]
    return Spent(statistics.fmean(s.wall_s for s in each), None if None in joules else statistics.fmean(joules))


def _name(condition: Mapping[str, Any]) -> str:
    told = ", ".join(f"{k} {v}" for k, v in condition.items() if k not in ("arm", "network", "dataset"))
    return f"{condition['arm']}: {told}" if told else condition["arm"]


def render(found: Iterable[Row]) -> str:
    """The rows as a Markdown table; energy only where some row has it."""
    from tabulate import tabulate

    cells = [(r.label, r.arm, str(r.n), *_cells(r.search.wall_s, r.retraining.wall_s), *_cells(r.search.energy_J, r.retraining.energy_J)) for r in found]
    columns = len(HEADS) if any(c[-2] != "–" for c in cells) else len(HEADS) - 3
    return tabulate([c[:columns] for c in cells], headers=HEADS[:columns], tablefmt="github", disable_numparse=True)


def _cells(search: float | None, retraining: float | None) -> tuple[str, str, str]:
    total = None if search is None or retraining is None else search + retraining
    return tuple("–" if x is None else f"{x:.1f}" for x in (search, retraining, total))
