"""What the plots show, as plain numbers: measurements and the paper's ``figure_data`` become ``Panel``s of ``Curve``s of ``Point``s.

Draws (reinitialisations, random masks) are averaged within a trial; mean, minimum and maximum are then taken over trials.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.measurement import Measurement

# metric -> axis label; the order is that of the files and of the overview's panels
METRIC_LABELS = {
    "early_stop_it": "early-stop iteration (minimum of validation loss)",
    "test_accuracy_pct": "test accuracy (%)",
    "train_accuracy_pct": "training accuracy (%)",
    "val_accuracy_pct": "validation accuracy (%)",
    "test_loss": "test loss",
    "log_perplexity": "log perplexity (nats a token)",
    "bleu": "BLEU",
    "episode_return": "episode return",
}
ARM_ORDER = ("ticket", "reinit", "random-mask", "one-shot", "one-shot-reinit", "continued", "random-prune")  # in the legend; others follow
# arms whose size 100 % is the dense net itself, as in the paper's curves; a reinitialised or random net has no such point
STARTS_DENSE = frozenset({"ticket", "one-shot", "continued", "continued-reset", "random-prune", "ticket-noise"})
FRAMED = STARTS_DENSE | {"reinit", "one-shot-reinit"}  # arms that an accuracy axis always holds whole
_SIZE_KEYS = ("level", "weights_remaining_pct")


@dataclass(frozen=True)
class Point:
    """One size of one curve: x in percent of weights remaining; low and high over trials, NaN where the paper's could not be read."""

    x_pct: float
    mean: float
    low: float
    high: float
    n: int | None = None
    censored: bool = False

    @property
    def x(self) -> float:
        """Where it is drawn."""
        return self.x_pct


@dataclass(frozen=True)
class Curve:
    """One arm under one setting, from the largest network to the smallest; ``notes`` names the trials left out."""

    arm: str
    label: str
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """All that one pair of axes shows: our curves, the dense net (its one point) and the paper's curves."""

    protocol: str
    variant: str
    metric: str
    at: str | None
    ours: tuple[Curve, ...]
    dense: Curve | None
    paper: tuple[Curve, ...]
    ladder: tuple[float, ...]  # percent of weights remaining, level by level; empty where the protocol has no ladder
    lost: tuple[str, ...] = ()  # what is said of arms of which no trial counts, and which are therefore not drawn
    paper_goes_on: bool = False  # the paper has sizes smaller than any of ours, which are not drawn

    @property
    def name(self) -> str:
        parts = (self.protocol, self.variant, self.metric, self.at or "")
        return "-".join(part.replace("/", "_").replace(" ", "_") for part in parts if part)


def panels(paper: Any, measurements: Iterable[Measurement]) -> list[Panel]:
    """One panel per (protocol, variant, metric, at) in which some arm was measured at two sizes or more, in file order."""
    groups: dict[tuple[str, str, str, str | None], list[Measurement]] = {}
    for m in measurements:
        if m.metric in METRIC_LABELS:
            groups.setdefault((m.protocol, _named(m, "variant") or "", m.metric, m.at), []).append(m)
    made = (_panel(paper, key, group) for key, group in sorted(groups.items(), key=_file_order))
    return [panel for panel in made if panel.ours]


def _file_order(item: tuple[tuple[str, str, str, str | None], Any]) -> tuple[Any, ...]:
    protocol, variant, metric, at = item[0]
    return protocol, variant, list(METRIC_LABELS).index(metric), at or ""


def _named(m: Measurement, key: str) -> Any:
    return m.condition.get(key, m.base.get(key))


def _panel(paper: Any, key: tuple[str, str, str, str | None], group: Sequence[Measurement]) -> Panel:
    protocol, variant, metric, at = key
    ladder = dict(paper.ladder(protocol) or {})
    by_arm: dict[tuple[str, tuple[tuple[str, Any], ...]], list[Measurement]] = {}
    for m in group:
        by_arm.setdefault((str(m.condition.get("arm", "?")), _setting(m.condition)), []).append(m)
    dense = {setting: _curve("dense", setting, ms, ladder) for (arm, setting), ms in by_arm.items() if arm == "dense"}
    curves = [_from_dense(_curve(arm, setting, ms, ladder), dense.get(setting))
              for (arm, setting), ms in by_arm.items() if arm != "dense" and _n_sizes(ms) >= 2]
    drawn = tuple(sorted((c for c in curves if c.points), key=_arm_order))
    panel = Panel(protocol, variant, metric, at, drawn, next(iter(dense.values())) if len(dense) == 1 else None,
                  _paper_curves(paper, protocol, variant, metric, at), tuple(v for _, v in sorted(ladder.items())),
                  tuple(note for c in curves if not c.points for note in c.notes))
    return _within_ours(panel) if drawn else panel


def _within_ours(panel: Panel) -> Panel:
    """Cut the paper's curves at our smallest size, so that what we did not run does not set the scale of what we did."""
    end = 0.97 * smallest_pct(panel)  # printed percentages are truncated
    inside = tuple(replace(c, points=tuple(p for p in c.points if p.x_pct >= end)) for c in panel.paper)
    return replace(panel, paper=tuple(c for c in inside if c.points), paper_goes_on=inside != panel.paper)


def _setting(condition: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What tells curves of one arm apart: every key but the arm, its size and the variant (which has a figure of its own)."""
    return tuple(sorted((k, v if isinstance(v, (str, int, float)) else str(v)) for k, v in condition.items()
                        if k not in ("arm", "variant", "at", *_SIZE_KEYS)))


def _size(m: Measurement) -> tuple[str, Any]:
    """Points join by level, else by percent: what a miniature calls level 7 is level 7 whatever its own percentage."""
    level = _named(m, "level")
    return ("level", level) if level is not None else ("pct", _named(m, "weights_remaining_pct"))


def _n_sizes(group: Iterable[Measurement]) -> int:
    return len({_size(m) for m in group})


def _x_pct(group: Sequence[Measurement], ladder: Mapping[int, float]) -> float | None:
    """Weights remaining: as measured where the records hold it, else as declared; None where neither is known."""
    densities = [m.density for m in group if m.density is not None]
    if len(densities) == len(group):
        return 100.0 * math.fsum(densities) / len(densities)
    named = _named(group[0], "weights_remaining_pct")
    return float(named) if named is not None else ladder.get(_named(group[0], "level"))


def _curve(arm: str, setting: tuple[tuple[str, Any], ...], group: Sequence[Measurement], ladder: Mapping[int, float]) -> Curve:
    by_size: dict[tuple[str, Any], list[Measurement]] = {}
    for m in group:
        by_size.setdefault(_size(m), []).append(m)
    label = arm + (f" ({', '.join(f'{k} {v}' for k, v in setting)})" if setting else "")
    points, notes = [], []
    for ms in by_size.values():
        x = _x_pct(ms, ladder)
        if x is None:
            notes.append(f"{label} at level {_named(ms[0], 'level')}: not drawn, its size is not known")
            continue
        good = [m for m in ms if not m.failed and math.isfinite(m.value)]
        lost = sorted({(m.trial, m.failed or "not finite") for m in ms if m not in good})
        notes += [f"{label} at {percent(x)} %: trial {trial} left out ({why})" for trial, why in lost]
        if good:
            points.append(_point(x, good))
    return Curve(arm, label, tuple(sorted(points, key=lambda p: -p.x_pct)), tuple(notes))


def _point(x_pct: float, group: Sequence[Measurement]) -> Point:
    by_trial: dict[int, list[float]] = {}
    for m in group:
        by_trial.setdefault(m.trial, []).append(m.value)
    trials = [math.fsum(values) / len(values) for values in by_trial.values()]  # draws averaged within a trial
    return Point(x_pct, math.fsum(trials) / len(trials), min(trials), max(trials), len(trials), any(m.censored for m in group))


def _from_dense(curve: Curve, dense: Curve | None) -> Curve:
    if dense is None or curve.arm not in STARTS_DENSE or not dense.points or not curve.points or any(p.x_pct >= 99.95 for p in curve.points):
        return curve
    return replace(curve, points=dense.points[:1] + curve.points)


def _arm_order(curve: Curve) -> tuple[int, str]:
    return (ARM_ORDER.index(curve.arm) if curve.arm in ARM_ORDER else len(ARM_ORDER)), curve.label


def _paper_curves(paper: Any, protocol: str, variant: str, metric: str, at: str | None) -> tuple[Curve, ...]:
    found = []
    for entry in paper.figure_data:
        condition = entry.condition
        same = (entry.protocol, entry.metric, condition.get("at"), condition.get("variant", "")) == (protocol, metric, at, variant)
        if same and entry.x in (None, "weights_remaining_pct"):
            found.append(_paper_curve(str(condition.get("arm", "?")), condition, entry.points))
    return tuple(sorted(found, key=_arm_order))


def _paper_curve(arm: str, condition: Mapping[str, Any], points: Mapping[Any, Any]) -> Curve:
    setting = ", ".join(f"{k} {v}" for k, v in _setting(condition))
    read = [Point(float(x), *triple(point)) for x, point in points.items()]
    return Curve(arm, arm + (f" ({setting})" if setting else ""), tuple(sorted(read, key=lambda p: -p.x_pct)))


def triple(point: Any) -> tuple[float, float, float]:
    """(mean, low, high) of a point given as mean, [low, high] or [mean, low, high]; NaN for what the figure does not tell."""
    values = [math.nan if v is None else float(v) for v in (point if isinstance(point, list) else [point])]
    if len(values) == 1:
        return values[0], math.nan, math.nan
    return (math.nan, *values) if len(values) == 2 else tuple(values)


def percent(x_pct: float) -> str:
    """A percentage of weights as the papers print it: 100, 51.3, 7.0, 0.96."""
    return "100" if x_pct >= 99.95 else f"{x_pct:.1f}" if x_pct >= 0.995 else f"{x_pct:.2g}"


def smallest_pct(panel: Panel) -> float:
    """The smallest network measured, in percent of weights remaining; the axis ends there."""
    return min(p.x_pct for c in panel.ours for p in c.points)


def ticks(panel: Panel, most: int) -> list[float]:
    """At most ``most`` sizes to label: every level of the ladder or every third (as in the paper's Fig 4), or 1-2-5 steps without one."""
    end = 0.97 * smallest_pct(panel)
    sizes = [x for x in panel.ladder if x >= end]
    if len(sizes) < 2:
        sizes = [x for x in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if x >= end]
    return sizes if len(sizes) <= most else sizes[::3 * math.ceil(len(sizes) / (3 * most))]


def _means(curves: Iterable[Curve]) -> list[float]:
    return [p.mean for c in curves for p in c.points if math.isfinite(p.mean)]


def _core(curves: Sequence[Curve]) -> list[float]:
    """Means of the arms that matter most (tickets and their kin), or of all where there are none."""
    return _means([c for c in curves if c.arm in STARTS_DENSE]) or _means(curves)


def needs_own_axis(panel: Panel, comparable: bool) -> bool:
    """True where our numbers lie so far from the paper's (other data, shorter training) that one axis would flatten both."""
    return not comparable and far_apart(_core(panel.ours), _core(panel.paper))


def far_apart(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """True where two sets of numbers lie further apart than half of what the wider one spans."""
    if not ours or not theirs:
        return False
    gap = max(min(ours) - max(theirs), min(theirs) - max(ours))
    return gap > 0.5 * max(max(ours) - min(ours), max(theirs) - min(theirs))


def frame(panel: Panel, comparable: bool) -> tuple[float, float] | None:
    """Limits of an accuracy axis, (low, high) in %: an arm that collapses to chance must not flatten all others. None where all fits."""
    if not panel.metric.endswith("_accuracy_pct"):
        return None
    beneath = () if needs_own_axis(panel, comparable) else panel.paper
    core = (_means(c for c in panel.ours if c.arm in FRAMED) or _means(panel.ours)) + _means(beneath)
    span = max(max(core) - min(core), 0.5)
    low = min(core) - span
    if min(_means(panel.ours)) >= low:
        return None
    highs = [p.high for c in (*panel.ours, *beneath) for p in c.points if math.isfinite(p.high)]
    return low, max(highs + core) + 0.15 * span


def notes(panel: Panel, comparable: bool) -> list[str]:
    """What a reader must be told beside the picture: trials left out, censored times, points outside the frame, a second axis."""
    limits = frame(panel, comparable)
    said = [*panel.lost, *(note for c in (*panel.ours, *([panel.dense] if panel.dense else [])) for note in c.notes)]
    if any(p.censored for c in panel.ours for p in c.points):
        said.append("hollow marks: in some trial the minimum lies at the last evaluation (censored)")
    if limits:
        out = {c.label: [p.x_pct for p in c.points if p.mean < limits[0]] for c in panel.ours}
        said += [f"below the frame ({panel.at}): {label} at {', '.join(percent(x) for x in xs)} %" for label, xs in out.items() if xs]
    if needs_own_axis(panel, comparable):
        said.append("grey axis at the right: the paper's curves, whose numbers lie elsewhere")
    if panel.paper_goes_on:
        said.append("the paper's curves go on to smaller sizes, not drawn")
    return said
