"""Published numbers beside ours, as plain numbers: the rows that no panel of curves tells, by protocol, metric and reading point."""
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.compare import CONTRASTS, find_row
from bench.joins import NOT_CONDITIONS, SIZES, Found, Join, Series, versus
from bench.measurement import Measurement, RunInfo
from bench.plot_data import METRIC_LABELS, STARTS_DENSE, Panel, percent, triple
from replications.papers import same_pct, same_value
from replications.vocabulary import SAME_METRIC

ROW_LABELS = {
    **METRIC_LABELS,
    "early_stop_it": "early-stop iteration",
    "stability_l2": "L2 distance of the trained weights",
    "stability_l2_ratio": "ratio of the L2 distances",
    "stability_angle_deg": "angle between the trained weights (degrees)",
    "stability_angle_ratio": "ratio of the angles",
    "early_stop_it_ratio": "ratio of the early-stop iterations",
    "test_accuracy_gain_pp": "gain in test accuracy (percentage points)",
    "val_accuracy_gain_pp": "gain in validation accuracy (percentage points)",
    "max_accuracy_drop_on_path_pp": "largest drop of accuracy on the path (percentage points)",
}
_NOT_SAID = frozenset({"arm", "at", "variant", *SIZES, *NOT_CONDITIONS})


@dataclass(frozen=True)
class Beside:
    """One published row: our mean with its range over trials, and the paper's number with its spread (NaN where none is printed)."""

    arm: str
    label: str
    variant: str
    mean: float
    low: float
    high: float
    n: int
    censored: bool
    published: float
    published_low: float
    published_high: float
    relation: str = "="
    spread: str = ""


@dataclass(frozen=True)
class RowPanel:
    """All that one pair of axes shows: the rows of a (protocol, metric, at), those of one variant together.

    Args:
        common: what holds for every row of a pruned network, and is therefore said once.
        notes: trials and rows left out.
    """

    protocol: str
    metric: str
    at: str | None
    common: str
    rows: tuple[Beside, ...]
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return ROW_LABELS.get(self.metric, self.metric.replace("_", " ")) + (f" at {self.at}" if self.at else "")

    @property
    def reference(self) -> float | None:
        """The value at which both sides of a comparison are equal."""
        return 1.0 if self.metric.endswith("_ratio") else 0.0 if self.metric.endswith(("_gain_pp", "_drop_pp")) else None


def row_panels(paper: Any, measurements: Iterable[Measurement], run: RunInfo, told: Sequence[Panel] = ()) -> list[RowPanel]:
    """The measured rows in the paper's order, one panel per (protocol, metric, at); a panel without a single row is left out.

    Args:
        told: panels of curves; a row is left out where one holds our value as well as the paper's.
    """
    join = Join(paper, measurements, run)
    groups: dict[tuple[str, str, str | None], list[tuple[Any, Series]]] = {}
    for row in paper.published:
        protocol, found = _first_measured(row, join)
        if found and not any(_tells(panel, row, protocol, paper) for panel in told):
            groups.setdefault((protocol, _metric(row), row.condition.get("at")), []).append((row, found.trials))
    made = (_panel(key, rows, paper) for key, rows in sorted(groups.items(), key=lambda item: item[0][0]))
    return [panel for panel in made if panel.rows]


def _metric(printed: Any) -> str:
    """The name under which a printed row's or curve's metric is measured."""
    return SAME_METRIC.get(printed.metric, printed.metric)


def _first_measured(row: Any, join: Join) -> tuple[str, Found | None]:
    tried = ((protocol, find_row(row, protocol, join)) for protocol in row.protocols)
    return next(((p, f) for p, f in tried if f.status == "measured"), ("", None))


# ---- which rows ---------------------------------------------------------------------------------------------------------------------

def _tells(panel: Panel, row: Any, protocol: str, paper: Any) -> bool:
    """Whether a panel of curves holds our value of a row and the paper's: nothing is drawn twice, nothing is lost."""
    condition = row.condition
    key = (protocol, _metric(row), condition.get("at"), condition.get("variant", ""))
    if "versus" in condition or (panel.protocol, panel.metric, panel.at, panel.variant) != key:
        return False
    dense = condition.get("arm") == "dense"
    ours = panel.dense is not None if dense else any(c.arm == condition.get("arm") for c in panel.ours)
    return ours and any(_is_point(curve, row, protocol, paper) for curve in paper.figure_data if curve.protocol == protocol)


def _is_point(curve: Any, row: Any, protocol: str, paper: Any) -> bool:
    """Whether a row is a point of a curve of the paper's figures, number and all; the first point of a ticket's curve is the dense net."""
    want, have = dict(row.condition), dict(curve.condition)
    if (_metric(row), want.get("at"), want.get("variant")) != (_metric(curve), have.get("at"), have.get("variant")):
        return False
    dense = want.get("arm") == "dense"
    same_arm = have.get("arm") in STARTS_DENSE if dense else have.get("arm") == want.get("arm")
    differ = any(not same_value(k, want[k], v) for k, v in have.items() if k in want and k != "arm")
    size = 100.0 if dense else _pct(want, paper.ladder(protocol))
    points = curve.points.items() if curve.x in (None, "weights_remaining_pct") and size is not None else ()
    same = (same_pct(size, float(x)) and math.isclose(triple(p)[0], row.value, rel_tol=1e-4) for x, p in points)
    return same_arm and not differ and any(same)


def _pct(condition: Mapping[str, Any], ladder: Mapping[int, float]) -> float | None:
    pct = condition.get("weights_remaining_pct", ladder.get(condition.get("level")))  # type: ignore[arg-type]
    return float(pct) if isinstance(pct, (int, float)) else None


# ---- rows -> panels -----------------------------------------------------------------------------------------------------------------

def _panel(key: tuple[str, str, str | None], rows: Sequence[tuple[Any, Series]], paper: Any) -> RowPanel:
    ladder = paper.ladder(key[0])
    common = _common([row.condition for row, _ in rows if row.condition.get("arm") != "dense"], ladder)
    labels = _labels([row for row, _ in rows], common, ladder)
    made = [_beside(row, label, trials) for (row, trials), label in zip(rows, labels, strict=True)]
    notes = [note for (_, trials), label in zip(rows, labels, strict=True) for note in _left_out(label, trials)]
    variants = list(dict.fromkeys(b.variant for b in made if b))
    kept = tuple(sorted((b for b in made if b), key=lambda b: variants.index(b.variant)))
    return RowPanel(*key, ", ".join(common.values()), kept, tuple(notes))


def _words(condition: Mapping[str, Any], ladder: Mapping[int, float]) -> dict[str, str]:
    """What is said of a row besides its arm: its size and every other condition, by key."""
    pct, level = _pct(condition, ladder), condition.get("level")
    size = f"{percent(pct)} % left" if pct is not None else f"level {level}" if level is not None else ""
    dense = condition.get("arm") == "dense" and pct in (100.0, None)
    return ({"size": size} if size and not dense else {}) | {k: f"{k} {v}" for k, v in condition.items() if k not in _NOT_SAID}


def _common(conditions: Sequence[Mapping[str, Any]], ladder: Mapping[int, float]) -> dict[str, str]:
    """The words that all rows share; none where there is one row only, which is then said in full beside it."""
    told = [_words(c, ladder) for c in conditions]
    return {k: v for k, v in told[0].items() if all(t.get(k) == v for t in told)} if told else {}


def _labels(rows: Sequence[Any], common: Mapping[str, str], ladder: Mapping[int, float]) -> list[str]:
    """One short label a row; rows of a variant that would read the same give their id in the paper's file."""
    plain = [_label(row, common, ladder) for row in rows]
    times = Counter((row.condition.get("variant"), label) for row, label in zip(rows, plain, strict=True))
    again = [times[row.condition.get("variant"), label] > 1 for row, label in zip(rows, plain, strict=True)]
    return [f"{label} ({row.id})" if twice else label for row, label, twice in zip(rows, plain, again, strict=True)]


def _label(row: Any, common: Mapping[str, str], ladder: Mapping[int, float]) -> str:
    words = {k: v for k, v in _words(row.condition, ladder).items() if common.get(k) != v}
    one = " ".join([str(row.condition.get("arm", "?")), *([words.pop("size")] if "size" in words else [])])
    return ", ".join([_against(row, one, common, ladder), *words.values()])


def _against(row: Any, one: str, common: Mapping[str, str], ladder: Mapping[int, float]) -> str:
    """Both sides of a printed comparison, in the order in which they are divided or subtracted."""
    if not isinstance(row.condition.get("versus"), Mapping):
        return one
    mine, other = _words(row.condition, ladder), versus(row.condition)
    theirs = [v for k, v in _words(other, ladder).items() if mine.get(k) != v and common.get(k) != v]
    two = " ".join([str(other.get("arm", "?")), *theirs])
    contrast = next((c for c in CONTRASTS if row.metric.endswith(c.ending)), None)
    if contrast is None:
        return f"{one} against {two}"
    return (" / " if contrast.ratio else " − ").join((two, one) if contrast.turned else (one, two))


def _beside(row: Any, label: str, trials: Series) -> Beside | None:
    """None where no trial counts."""
    good = [v.value for v in trials.values() if not v.failed]
    if not good:
        return None
    arm, variant = row.condition.get("arm", "?"), row.condition.get("variant", "")
    censored = any(v.censored for v in trials.values() if not v.failed)
    return Beside(str(arm), label, str(variant), math.fsum(good) / len(good), min(good), max(good), len(good), censored,
                  float(row.value), *_printed_range(row), row.relation or "=", row.spread.kind if row.spread else "")


def _printed_range(row: Any) -> tuple[float, float]:
    """The ends of what is printed around a number, whatever it is said to be."""
    s = row.spread
    if s is None:
        return math.nan, math.nan
    if s.min is not None and s.max is not None:
        return float(s.min), float(s.max)
    return float(row.value - s.value), float(row.value + s.value)


def _left_out(label: str, trials: Series) -> list[str]:
    lost = [f"{label}: trial {t} left out ({v.failed})" for t, v in sorted(trials.items()) if v.failed]
    return lost + ([f"{label}: not drawn, no trial counts"] if trials and len(lost) == len(trials) else [])


# ---- panels -> files ----------------------------------------------------------------------------------------------------------------

def pages(made: Sequence[RowPanel], most: int = 36) -> list[list[RowPanel]]:
    """Panels of one protocol, at most ``most`` rows a page; a panel is cut only where it alone has more."""
    found: list[list[RowPanel]] = []
    for panel in (part for whole in made for part in _cut(whole, most)):
        room = most - sum(len(p.rows) for p in found[-1]) if found and found[-1][0].protocol == panel.protocol else 0
        if len(panel.rows) <= room:
            found[-1].append(panel)
        else:
            found.append([panel])
    return found


def _cut(panel: RowPanel, most: int) -> list[RowPanel]:
    n = max(1, math.ceil(len(panel.rows) / most))
    size = math.ceil(len(panel.rows) / n)
    return [replace(panel, rows=panel.rows[i:i + size]) for i in range(0, len(panel.rows), size)]
