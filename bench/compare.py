"""Measured beside published: one row a published number, one verdict a claim, one line a figure's curve. Nothing is left out.

The result is plain JSON values: no NaN, no wall-clock, the order of the paper's file; the same inputs give the same text.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import statistics as st
from bench import verdicts
from bench.joins import Found, Join, Series, TrialValue, incomplete, versus
from bench.measurement import Measurement, RunInfo

if TYPE_CHECKING:
    from replications.papers import PaperData
    from replications.papers_schema import Curve, Row


def compare(paper: PaperData, measurements: Iterable[Measurement], run: RunInfo) -> dict[str, Any]:
    """The comparison of a run with its paper.

    Returns:
        {paper, scale, rows, claims, gates, curves, provenance}, JSON values only. ``rows`` has one entry a published number:
        measured {mean, sd, n, ci95} or None, status (measured, not-run, not-covered), comparable, why_not, agrees
        (`bench.statistics.agrees`; None where not comparable).
    """
    join = Join(paper, measurements, run)
    gates = verdicts.gate_results(join)
    return tidy({"paper": paper.key, "scale": run.scale,
                 "rows": [_row(r, join, gates) for r in paper.published],
                 "claims": verdicts.judge(paper, join),
                 "gates": [g.shown() for g in gates],
                 "curves": [_curve(c, join) for c in paper.figure_data],
                 "provenance": run.provenance})


def tidy(value: Any) -> Any:
    """Plain JSON values: numpy scalars to Python's, tuples to lists, NaN and infinities to None, keys to text."""
    if isinstance(value, Mapping):
        return {str(k): tidy(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [tidy(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- rows -------------------------------------------------------------------------------------------------------
def _row(row: Row, join: Join, gates: Sequence[verdicts.Gated]) -> dict[str, Any]:
    tried = [(p, find_row(row, p, join)) for p in row.protocols]
    protocol, found = next(((p, f) for p, f in tried if f.status == "measured"), _closest(tried))
    out = {"id": row.id, "protocol": row.protocol, "condition": row.condition, "metric": row.metric, "published": row.value,
           "relation": row.relation or "=", "published_spread": row.spread and row.spread.model_dump(exclude_none=True),
           "published_n": row.n, "quality": row.quality, "source": row.source, "measured": None, "status": found.status,
           "comparable": False, "why_not": found.why or None, "agrees": None}
    return out if found.status != "measured" else {**out, **_beside(row, protocol, found.trials, join, gates)}


def _closest(tried: list[tuple[str, Found]]) -> tuple[str, Found]:
    """Of the protocols without a measurement, the one that was at least run; all reasons where they differ."""
    protocol, found = min(tried, key=lambda t: t[1].status == "not-run")
    reasons = dict.fromkeys(f.why for _, f in tried)
    return protocol, Found({}, found.status, found.why if len(reasons) == 1 else "; ".join(f"{p}: {f.why}" for p, f in tried))


def _beside(row: Row, protocol: str, trials: Series, join: Join, gates: Sequence[verdicts.Gated]) -> dict[str, Any]:
    """The measured half of a row: summary over the trials that count, and whether it may be held against the number."""
    good = [v for _, v in sorted(trials.items()) if not v.failed]
    if not good:
        return {"status": "measured", "why_not": _notes(trials, join, protocol) or "no trial counts"}
    values, resolution = np.array([v.value for v in good]), max(v.resolution for v in good)
    why = [join.run.comparable.get(protocol, "not declared comparable")]
    if row.condition.get("arm") != "dense":
        sides = [row.condition, *([versus(row.condition)] if isinstance(row.condition.get("versus"), Mapping) else [])]
        why += dict.fromkeys(verdicts.gate_problem(gates, protocol, side) for side in sides)
    comparable, notes = not any(why), _notes(trials, join, protocol)
    agrees = st.agrees(values, resolution, row.value, row.n, row.relation or "=") if comparable and not notes else None
    few = "one trial has no interval" if comparable and not notes and agrees is None else ""
    return {"measured": st.summary(values, resolution), "comparable": comparable, "agrees": agrees,
            "why_not": "; ".join(w for w in [*why, notes, few] if w) or None}


def _notes(trials: Series, join: Join, protocol: str) -> str:
    """What is wrong with the trials behind a mean: failed ones (left out), lower bounds, missing ones."""
    failed = [f"trial {t} {v.failed}, left out" for t, v in sorted(trials.items()) if v.failed]
    censored = sum(v.censored for v in trials.values())
    late = [f"{censored} of {len(trials)} trials end before their minimum (censored)"] if censored else []
    return "; ".join([*failed, *late, *incomplete(trials, join.run.n.get(protocol, 0))])


@dataclass(frozen=True)
class _Contrast:
    """How a metric that only a comparison has is made of a base metric: ``test_accuracy_gain_pp`` of ``test_accuracy_pct``."""

    ending: str
    ratio: bool
    turned: bool            # the other side's value comes first

    def of(self, a: TrialValue, b: TrialValue) -> TrialValue:
        x, y = (b, a) if self.turned else (a, b)
        failed = ", ".join(dict.fromkeys(f for f in (a.failed, b.failed) if f))
        if self.ratio and y.value == 0:
            return TrialValue(math.nan, 0.0, a.censored or b.censored, failed or "no ratio, divided by 0", a.draws)
        value = x.value / y.value if self.ratio else x.value - y.value
        resolution = max(x.resolution, abs(value) * y.resolution) / abs(y.value) if self.ratio else max(x.resolution, y.resolution)
        return TrialValue(value, resolution, a.censored or b.censored, failed, a.draws)


CONTRASTS = (_Contrast("_gain_pp", False, False), _Contrast("_drop_pp", False, True), _Contrast("_saving_ratio", True, True),
             _Contrast("_ratio", True, False))
_BASE_ENDINGS = ("", "_pct", "_deg")


_OFF_A_CURVE = "read off a curve of means, no number of single trials: "
# Numbers that no trial has, and what says the same of our runs.
OF_SEVERAL = {
    "smallest_matching_weights_remaining_pct": _OFF_A_CURVE + "the sparsest matching level is given with its interval beside the tables",
    **dict.fromkeys(("rewind_above_dense_it", "rewind_above_dense_ep", "rewind_reaching_dense_ep", "rewind_reaching_dense_pct",
                     "rewind_point_pct"), _OFF_A_CURVE + "the claims on rewinding test it"),
    "networks_trained_count": "says how much the paper ran",
}


def find_row(row: Row, protocol: str, join: Join) -> Found:
    """The per-trial values a published row speaks of; comparisons (``versus``) are computed trial by trial."""
    if row.metric in OF_SEVERAL and join.metrics(protocol):
        return Found({}, "not-covered", OF_SEVERAL[row.metric])
    want = {k: v for k, v in row.condition.items() if k != "at"}
    direct = join.find(protocol, row.metric, row.condition.get("at"), want)
    contrast = next((c for c in CONTRASTS if row.metric.endswith(c.ending)), None)
    if "versus" not in row.condition or contrast is None or row.metric in join.metrics(protocol):
        return direct
    return _find_contrast(row, protocol, contrast, join)


def _find_contrast(row: Row, protocol: str, contrast: _Contrast, join: Join) -> Found:
    stem = row.metric.removesuffix(contrast.ending)
    metric = next((stem + e for e in _BASE_ENDINGS if stem + e in join.metrics(protocol)), stem + _BASE_ENDINGS[not contrast.ratio])
    sides = []
    for condition in (row.condition, versus(row.condition)):
        want = {k: v for k, v in condition.items() if k not in ("at", "versus", "protocol")}
        sides.append(join.find(condition.get("protocol", protocol), metric, condition.get("at"), want))
    missing = next((s for s in sides if s.status != "measured"), None)
    if missing:
        return Found({}, missing.status, missing.why if missing is sides[0] else f"versus: {missing.why}")
    left, right = (s.trials for s in sides)
    return Found({t: contrast.of(left[t], right[t]) for t in sorted(left.keys() & right.keys())})


# ---- curves -----------------------------------------------------------------------------------------------------
def _curve(curve: Curve, join: Join) -> dict[str, Any]:
    """How many of a curve's points were measured, at how many our mean lies in the paper's band, and the mean distance."""
    looked = {x: _find_point(curve, x, join) for x in curve.points}
    ours = {x: float(np.mean([v.value for v in f.trials.values() if not v.failed]))
            for x, f in looked.items() if any(not v.failed for v in f.trials.values())}
    bands = {x: _band(curve.points[x]) for x in ours}
    inside = [x for x, (_, low, high) in bands.items() if low is not None and low - 1e-9 <= ours[x] <= high + 1e-9]
    distances = [abs(ours[x] - mean) for x, (mean, _, _) in bands.items() if mean is not None]
    first = next(iter(looked.values()), Found({}, "not-covered", "no point"))
    status, why = ("measured", join.run.comparable.get(curve.protocol, "not declared comparable")) if ours else (first.status, first.why)
    if status == "measured" and not ours:                     # looked up, and every trial failed
        why = "no trial counts"
    return {"id": curve.id, "protocol": curve.protocol, "condition": curve.condition, "metric": curve.metric,
            "x": curve.x or "weights_remaining_pct", "source": curve.source, "quality": curve.quality, "status": status,
            "points": len(curve.points), "measured": len(ours), "with_band": sum(low is not None for _, low, _ in bands.values()),
            "inside": len(inside), "mean_distance": math.fsum(distances) / len(distances) if distances else None,
            "comparable": bool(ours) and not why, "why_not": why or None}


def _find_point(curve: Curve, x: Any, join: Join) -> Found:
    """The measurement at one point of a curve; at 100 % every arm is the dense net."""
    want = {k: v for k, v in curve.condition.items() if k != "at"}
    axis = curve.x or "weights_remaining_pct"
    if not isinstance(x, (int, float)):
        return Found({}, "not-covered", f"point {x!r} is not a place on an axis")
    for unit in ("it", "ep"):                                # rewind_it: 25 is the condition rewind: 25it
        if axis.endswith(f"_{unit}"):
            axis, x = axis.removesuffix(f"_{unit}"), f"{x:g}{unit}"
    if axis == "weights_remaining_pct" and x == 100:
        want["arm"] = "dense"
    return join.find(curve.protocol, curve.metric, curve.condition.get("at"), {**want, axis: x})


def _band(point: Any) -> tuple[float | None, float | None, float | None]:
    """(mean, min, max) of a curve's point, written as a number, [low, high] or [mean, min, max]."""
    ends = point if isinstance(point, list) else [point, None, None]
    mean, low, high = ends if len(ends) == 3 else (None, *ends) if len(ends) == 2 else (ends[0], None, None)
    return mean, (low if high is not None else None), (high if low is not None else None)
