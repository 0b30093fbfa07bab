"""Which measurements a wanted thing means: a published row, an operand of a claim, a point of a curve.

A wanted thing is a dict of conditions. It means a measurement of the same protocol, metric and reading point (``at``) where
every wanted key holds, and every key of the measurement's own `condition` is named. Sizes are joined by level: a percentage
names a level through the paper's ladder, and a miniature is joined by that level whatever its own percentage; a measurement
without a level (one-shot) is joined by percentage, within the papers' truncation.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.measurement import Measurement, RunInfo
from ltcore.errors import UserError
from replications.papers import PaperData, same_pct, same_value
from replications.vocabulary import SAME_METRIC

SIZES = ("level", "weights_remaining_pct")
NOT_CONDITIONS = frozenset({"table", "versus"})   # where a number stands, and the other side of a printed comparison
# What only a pruned network has; a dense net that inherits such a key from its partner is meant without it.
OF_PRUNED = frozenset({*SIZES, "channels_remaining_pct", "log10_compression", "rewind", "epoch_drawn"})


@dataclass(frozen=True)
class TrialValue:
    """One trial's value, averaged over its draws.

    Args:
        resolution: coarsest of the draws.
        censored: some draw sits at its last evaluation, so the value is a lower bound.
        failed: why the trial does not count, or empty.
        draws: numbers of the draws averaged.
        density: measured fraction of weights kept, counted as the protocol does; None where it is not known, or of a mean over conditions.
    """

    value: float
    resolution: float
    censored: bool
    failed: str
    draws: frozenset[int]
    density: float | None = None


Series = dict[int, TrialValue]   # by trial


@dataclass(frozen=True)
class Found:
    """Outcome of a look-up: the trials, or why there are none (``status`` not-run or not-covered)."""

    trials: Series
    status: str = "measured"
    why: str = ""


@dataclass(frozen=True)
class _Group:
    """Measurements that share protocol, metric, reading point, condition and base."""

    condition: Mapping[str, Any]
    base: Mapping[str, Any]
    measurements: tuple[Measurement, ...]

    @cached_property
    def have(self) -> dict[str, Any]:
        return {**self.base, **self.condition}


class Join:
    """The measurements of a run, ready to be looked up. Pure: built once, never changed."""

    def __init__(self, paper: PaperData, measurements: Iterable[Measurement], run: RunInfo) -> None:
        self.paper, self.run = paper, run
        self._groups = _group(measurements)                                   # (protocol, metric, at) -> groups
        self._by_protocol: dict[str, list[tuple[str, str | None, _Group]]] = {}
        for (protocol, metric, at), groups in self._groups.items():
            self._by_protocol.setdefault(protocol, []).extend((metric, at, g) for g in groups)

    def protocols(self) -> list[str]:
        """Protocols that something was measured of."""
        return sorted(self._by_protocol)

    def nothing_of(self, protocol: str) -> bool:
        """Whether the run says why nothing of the protocol was run, and nothing was measured of it."""
        return protocol in self.run.not_run and protocol not in self._by_protocol

    def metrics(self, protocol: str) -> set[str]:
        """Metrics measured of a protocol."""
        return {m for m, _, _ in self._by_protocol.get(protocol, ())}

    def conditions(self, protocol: str, metric: str, at: str | None) -> list[dict[str, Any]]:
        """All that holds for each measured thing (its condition and base), in a fixed order."""
        return [dict(g.have) for g in self._groups.get((protocol, SAME_METRIC.get(metric, metric), at), ())]

    def find(self, protocol: str, metric: str, at: str | None, want: Mapping[str, Any]) -> Found:
        """Per-trial values of a wanted thing; trials beyond the declared number are left out.

        Args:
            want: conditions without metric, ``at`` and protocol.
        """
        metric = SAME_METRIC.get(metric, metric)
        if self.nothing_of(protocol):
            return Found({}, "not-run", self.run.not_run[protocol])
        fits = [(d, g) for g in self._groups.get((protocol, metric, at), ()) if (d := self._distance(protocol, want, g)) is not None]
        if not fits:
            return Found({}, *self._why_missing(protocol, metric, at, want))
        nearest = min(d for d, _ in fits)
        declared = self.run.n.get(protocol, math.inf)
        return Found(series([m for d, g in fits if d == nearest for m in g.measurements if m.trial < declared], _label(protocol, want)))

    def _distance(self, protocol: str, want: Mapping[str, Any], group: _Group) -> float | None:
        """None where the group is not meant; else how far its percentage is from the wanted one (0 where joined by level)."""
        plain = _plain(want, group)
        if not all(k in group.have and same_value(k, group.have[k], v) for k, v in plain.items() if k not in SIZES):
            return None
        if any(k not in plain for k in group.condition if k not in SIZES):
            return None
        return self._size_distance(protocol, plain, group)

    def _size_distance(self, protocol: str, want: Mapping[str, Any], group: _Group) -> float | None:
        if not any(k in want for k in SIZES):
            return None if any(k in group.condition for k in SIZES) else 0.0
        level, pct = self._size(protocol, want)
        if "level" in group.have and level is not None:
            return 0.0 if group.have["level"] == level else None
        have = group.have.get("weights_remaining_pct")
        return abs(have - pct) if have is not None and pct is not None and same_pct(have, pct) else None

    def _size(self, protocol: str, want: Mapping[str, Any]) -> tuple[int | None, float | None]:
        """(level, percentage) of a wanted size, each through the protocol's ladder where only the other is named."""
        level, pct = want.get("level"), want.get("weights_remaining_pct")
        known = protocol in self.paper.resolved
        if level is None and pct is not None:
            level = self.paper.level_of(protocol, pct) if known else 0 if pct == 100 else None
        if pct is None and level is not None and known:
            pct = self.paper.ladder(protocol).get(level)
        return level, pct

    def _why_missing(self, protocol: str, metric: str, at: str | None, want: Mapping[str, Any]) -> tuple[str, str]:
        """(status, reason), from the coarsest to the finest reason."""
        here = self._by_protocol.get(protocol, [])
        if not here:
            return "not-run", f"nothing of {protocol} was run"
        here = [(a, g) for m, a, g in here if m == metric]
        if not here:
            if self.run.scale != "paper":
                return "not-run", f"{metric} is not read at scale {self.run.scale}"
            return "not-covered", f"{metric} is not measured"
        if at not in {a for a, _ in here}:
            return "not-covered", f"{metric} is not read at {at}" if at else f"no reading point named for {metric}"
        groups = [g for a, g in here if a == at]
        for key in sorted(want, key=lambda k: (k != "arm", str(k))):
            kept = [g for g in groups if key in SIZES or key not in _plain(want, g)
                    or key in g.have and same_value(key, g.have[key], want[key])]
            if not kept:
                return ("not-run", f"{key} {want[key]} not run") if any(key in g.have for g in groups) else (
                    "not-covered", f"{key} {want[key]} is not told apart")
            groups = kept
        return self._why_size(protocol, want, groups)

    def _why_size(self, protocol: str, want: Mapping[str, Any], groups: Sequence[_Group]) -> tuple[str, str]:
        unnamed = sorted({k for g in groups for k in g.condition if k not in SIZES and k not in _plain(want, g)})
        if "arm" not in want:
            return "not-covered", "no arm named"
        if not any(k in want for k in SIZES) and all(any(k in g.condition for k in SIZES) for g in groups):
            return "not-covered", "no size named"
        if any(k in want for k in SIZES) and all(self._size_distance(protocol, _plain(want, g), g) is None for g in groups):
            level, pct = self._size(protocol, want)
            return "not-run", f"level {level} not run at this scale" if level is not None else f"{pct} % not run at this scale"
        if unnamed:
            return "not-covered", f"{', '.join(unnamed)} not named"
        return "not-run", "this combination was not run"


def _plain(want: Mapping[str, Any], group: _Group) -> dict[str, Any]:
    """The wanted keys that count for a group; a dense net is never rewound, so a rewind named beside it means its partner's."""
    dense = want.get("arm") == "dense" and "rewind" not in group.condition
    return {k: v for k, v in want.items() if k not in NOT_CONDITIONS and not (dense and k == "rewind")}


def _group(measurements: Iterable[Measurement]) -> dict[tuple[str, str, str | None], list[_Group]]:
    found: dict[tuple[str, str, str | None], dict[str, list[Measurement]]] = {}
    for m in measurements:
        key = json.dumps([dict(m.condition), dict(m.base)], sort_keys=True, default=str)
        found.setdefault((m.protocol, m.metric, m.at), {}).setdefault(key, []).append(m)
    order = sorted(found, key=str)
    return {k: [_Group(ms[0].condition, ms[0].base, tuple(ms)) for _, ms in sorted(found[k].items())] for k in order}


def series(measurements: Iterable[Measurement], label: str = "") -> Series:
    """Values by trial, draws within a trial averaged first.

    Raises:
        UserError: one draw was measured twice with different numbers (two devices in one store); they are never averaged.
    """
    draws: dict[tuple[int, int], Measurement] = {}
    for m in measurements:
        other = draws.setdefault((m.trial, m.draw), m)
        if other.value != m.value and not (math.isnan(other.value) and math.isnan(m.value)):
            raise UserError(f"{label}: trial {m.trial} was measured twice with different results (stages {other.stage or '?'} and "
                            f"{m.stage or '?'}); compare a store of one device")
    trials: dict[int, list[Measurement]] = {}
    for _, m in sorted(draws.items()):
        trials.setdefault(m.trial, []).append(m)
    return {trial: _average(ms) for trial, ms in trials.items()}


def _average(ms: Sequence[Measurement]) -> TrialValue:
    reasons = [m.failed or "no number" for m in ms if m.failed or not math.isfinite(m.value)]
    good = [m.value for m in ms if not m.failed and math.isfinite(m.value)]
    return TrialValue(math.fsum(good) / len(good) if good else math.nan, max(m.resolution for m in ms),
                      any(m.censored for m in ms), ", ".join(sorted(set(reasons))), frozenset(m.draw for m in ms), ms[0].density)


def mean_of(parts: Sequence[Series]) -> Series:
    """Mean over conditions, trial by trial; a trial counts where every condition has it."""
    common = set.intersection(*(set(p) for p in parts)) if parts else set()
    return {t: _mean([p[t] for p in parts]) for t in sorted(common)}


def _mean(values: Sequence[TrialValue]) -> TrialValue:
    return TrialValue(math.fsum(v.value for v in values) / len(values), max(v.resolution for v in values), any(v.censored for v in values),
                      ", ".join(sorted({v.failed for v in values if v.failed})), frozenset().union(*(v.draws for v in values)))


def incomplete(trials: Series, declared: int) -> list[str]:
    """What is missing of the declared trials 0 … n−1: whole trials, and draws that other trials have."""
    all_draws = frozenset().union(*(v.draws for v in trials.values())) if trials else frozenset()
    gone = [t for t in range(declared) if t not in trials]
    partial = [f"trial {t} has {len(v.draws)} of {len(all_draws)} draws" for t, v in sorted(trials.items()) if v.draws != all_draws]
    return ([f"trial{'s' if len(gone) > 1 else ''} {', '.join(map(str, gone))} missing"] if gone else []) + partial


def versus(condition: Mapping[str, Any]) -> dict[str, Any]:
    """The other side of a printed comparison: keys it does not name are those of the condition.

    A dense net beside a pruned one inherits nothing that only a pruned one has; numbers of the other side (a metric as key)
    are no conditions.
    """
    other = {k: v for k, v in condition["versus"].items() if not k.startswith("test_") and not k.startswith("val_")}
    inherited = {k: v for k, v in condition.items() if k not in ("versus", *(SIZES if any(k in other for k in SIZES) else ()))}
    if other.get("arm") == "dense" and condition.get("arm") != "dense":
        inherited = {k: v for k, v in inherited.items() if k not in OF_PRUNED}
    return {**inherited, **other}


def _label(protocol: str, want: Mapping[str, Any]) -> str:
    return f"{protocol} {' '.join(f'{k}={v}' for k, v in sorted(want.items(), key=str))}"
