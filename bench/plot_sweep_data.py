"""The rewinding sweep as plain numbers: a metric at one size against the iteration that subnetworks are rewound to."""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.joins import SIZES, Series, series
from bench.measurement import Measurement, RunInfo
from bench.plot_data import ARM_ORDER, METRIC_LABELS, percent, triple
from bench.plot_row_data import ROW_LABELS
from replications.papers import same_pct
from replications.vocabulary import SAME_METRIC

FEWEST = 3  # rewind points that make a sweep; two are a comparison, which tables and curves tell
SWEPT = tuple(dict.fromkeys((*METRIC_LABELS, "stability_l2", "stability_angle_deg", "max_accuracy_drop_on_path_pp")))
_POINT = re.compile(r"(\d+(?:\.\d+)?)(it|ep)")


@dataclass(frozen=True)
class Spot:
    """One rewind point of one line: x in iterations or epochs; low and high over trials, NaN where the paper's could not be read."""

    x: float
    mean: float
    low: float
    high: float
    n: int | None = None
    censored: bool = False


@dataclass(frozen=True)
class SweepLine:
    """One arm under one setting, from rewind point 0 on; ``notes`` names trials and points left out."""

    arm: str
    label: str
    points: tuple[Spot, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """All that one pair of axes shows: ``unit`` is it or ep, ``size`` says the size in words, ``dense`` is the dense net's mean."""

    protocol: str
    variant: str
    metric: str
    at: str | None
    unit: str
    size: str
    ours: tuple[SweepLine, ...]
    dense: float | None
    paper: tuple[SweepLine, ...]
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return ROW_LABELS.get(self.metric, self.metric) + (f" at {self.at}" if self.at else "")

    @property
    def xs(self) -> list[float]:
        """Our rewind points."""
        return sorted({p.x for line in self.ours for p in line.points})


def sweeps(paper: Any, measurements: Iterable[Measurement], run: RunInfo) -> list[Sweep]:
    """One sweep per (protocol, variant, metric, at, unit) of which one size was measured at three rewind points or more."""
    groups: dict[tuple[str, str, str, str | None], list[Measurement]] = {}
    for m in measurements:
        if m.metric in SWEPT and m.trial < run.n.get(m.protocol, math.inf):
            groups.setdefault((m.protocol, str(_have(m).get("variant", "")), m.metric, m.at), []).append(m)
    order = sorted(groups, key=lambda k: (k[0], k[1], SWEPT.index(k[2]), k[3] or ""))
    made = (_sweep(paper, key, unit, groups[key]) for key in order for unit in ("it", "ep"))
    return [sweep for sweep in made if sweep and len(sweep.xs) >= FEWEST]


def _have(m: Measurement) -> dict[str, Any]:
    return {**m.base, **m.condition}


def _rewind(m: Measurement) -> tuple[float, str] | None:
    """(point, unit) that a network was rewound to; None for a dense net, which starts at its own beginning."""
    found = _POINT.fullmatch(str(_have(m).get("rewind", "")))
    return (float(found[1]), found[2]) if found and m.condition.get("arm") != "dense" else None


def _sweep(paper: Any, key: tuple[str, str, str, str | None], unit: str, group: Sequence[Measurement]) -> Sweep | None:
    points = [(m, r[0]) for m in group if (r := _rewind(m)) and (r[0] == 0 or r[1] == unit)]
    if len({x for _, x in points}) < FEWEST or (size := _size(paper, key[0], points)) is None:
        return None
    shown = [(m, x) for m, x in points if _size_of(m) == size]
    lines = sorted(_lines(shown), key=lambda line: (_arm_rank(line.arm), line.label))
    missing = sorted({x for _, x in points} - {x for _, x in shown})
    notes = [f"rewound to {x:,.10g}: not measured at this size" for x in missing] + [note for line in lines for note in line.notes]
    return Sweep(*key, unit, _size_words(size, shown), tuple(line for line in lines if line.points), _dense(group),
                 _paper_lines(paper, key, unit, size), tuple(notes))


# ---- the size -----------------------------------------------------------------------------------------------------------------------

def _size_of(m: Measurement) -> tuple[str, Any]:
    have = _have(m)
    return ("level", have["level"]) if "level" in have else ("pct", have.get("weights_remaining_pct"))


def _size(paper: Any, protocol: str, points: Sequence[tuple[Measurement, float]]) -> tuple[str, Any] | None:
    """The size that the paper analyses where three points have it, else the smallest network that all points share."""
    at: dict[tuple[str, Any], set[float]] = {}
    for m, x in points:
        at.setdefault(_size_of(m), set()).add(x)
    analysed = [size for size, xs in at.items() if len(xs) >= FEWEST and _is_analysed(paper, protocol, size)]
    everywhere = {x for _, x in points}
    shared = [size for size, xs in at.items() if xs == everywhere]
    return next(iter(analysed), None) or min(shared, key=lambda s: _kept(paper, protocol, s), default=None)


def _is_analysed(paper: Any, protocol: str, size: tuple[str, Any]) -> bool:
    said: Mapping[str, Any] = paper.protocol(protocol).get("analysed") or {}
    if size[0] == "level":
        return size[1] == said.get("level")
    return size[1] is not None and "weights_remaining_pct" in said and same_pct(size[1], said["weights_remaining_pct"])


def _kept(paper: Any, protocol: str, size: tuple[str, Any]) -> float:
    """Percent of weights kept, to order sizes by; levels that the ladder lacks come in their own order."""
    kind, value = size
    return paper.ladder(protocol).get(value, 100 * 0.8 ** value) if kind == "level" else math.inf if value is None else value


def _size_words(size: tuple[str, Any], shown: Sequence[tuple[Measurement, float]]) -> str:
    densities = [100 * m.density for m, _ in shown if m.density is not None]
    named = next((pct for m, _ in shown if (pct := _have(m).get("weights_remaining_pct")) is not None), None)
    kept = math.fsum(densities) / len(densities) if densities else named
    words = [f"{percent(kept)} % of the weights"] if kept is not None else []
    return ", ".join(words + ([f"level {size[1]}"] if size[0] == "level" else []))


# ---- lines --------------------------------------------------------------------------------------------------------------------------

def _arm_rank(arm: str) -> int:
    return ARM_ORDER.index(arm) if arm in ARM_ORDER else len(ARM_ORDER)


def _setting(condition: Mapping[str, Any]) -> str:
    said = ", ".join(f"{k} {v}" for k, v in sorted(condition.items()) if k not in ("arm", "variant", "at", "rewind", *SIZES))
    return str(condition.get("arm", "?")) + (f" ({said})" if said else "")


def _lines(shown: Sequence[tuple[Measurement, float]]) -> list[SweepLine]:
    by_label: dict[str, dict[float, list[Measurement]]] = {}
    for m, x in shown:
        by_label.setdefault(_setting(m.condition), {}).setdefault(x, []).append(m)
    return [_line(label, at) for label, at in by_label.items()]


def _line(label: str, at: Mapping[float, Sequence[Measurement]]) -> SweepLine:
    trials = {x: series(ms, label) for x, ms in sorted(at.items())}
    lost = [f"{label} rewound to {x:,.10g}: trial {t} left out ({v.failed})"
            for x, found in trials.items() for t, v in sorted(found.items()) if v.failed]
    spots = (_spot(x, found) for x, found in trials.items())
    return SweepLine(label.split(" (")[0], label, tuple(s for s in spots if s), tuple(lost))


def _spot(x: float, trials: Series) -> Spot | None:
    """None where no trial counts."""
    good = [v for v in trials.values() if not v.failed]
    values = [v.value for v in good]
    return Spot(x, math.fsum(values) / len(values), min(values), max(values), len(values), any(v.censored for v in good)) if good else None


def _dense(group: Sequence[Measurement]) -> float | None:
    """Mean of the dense net; None where it was not measured, or under several settings."""
    dense = [m for m in group if m.condition.get("arm") == "dense"]
    spot = _spot(0, series(dense, "dense")) if len({_setting(m.condition) for m in dense}) == 1 else None
    return spot.mean if spot else None


def _paper_lines(paper: Any, key: tuple[str, str, str, str | None], unit: str, size: tuple[str, Any]) -> tuple[SweepLine, ...]:
    """The paper's own curves over rewind points, at this size."""
    found = []
    for curve in paper.figure_data:
        c = curve.condition
        same = (curve.protocol, c.get("variant", ""), SAME_METRIC.get(curve.metric, curve.metric), c.get("at"), curve.x) == (*key, f"rewind_{unit}")
        if same and (c.get("level"), c.get("weights_remaining_pct"))[size[0] != "level"] == size[1]:
            spots = tuple(Spot(float(x), *triple(p)) for x, p in curve.points.items() if isinstance(x, (int, float)))
            found.append(SweepLine(str(c.get("arm", "?")), _setting(c), tuple(sorted(spots, key=lambda s: s.x))))
    return tuple(found)
