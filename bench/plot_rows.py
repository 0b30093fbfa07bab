"""Published numbers beside ours as dots, one line a row (Figs 3 and 10 of Frankle et al. 2019 are tables of such numbers)."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bench import plot_style
from bench.measurement import RunInfo
from bench.plot_row_data import Beside, RowPanel, pages
from bench.plot_style import ARM_COLOURS, ARM_MARKERS, FALLBACK_COLOURS, FALLBACK_MARKERS, GREYS, OVER_TRIALS
from bench.tables import RELATIONS, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_IN, AXES_IN, WIDTH_IN = 0.3, 0.62, 8.0  # height of a row; of the title and ticks of one pair of axes
_OFFSET = 0.17  # of a row: ours above, the paper's below, so that their bars do not hide each other
_SPREADS = {"half-width": "± half a range", "sd": "± sd", "min-max": "minimum and maximum", "unknown": "± of no stated kind"}
_BOUNDS = {">": ">", ">=": ">", "<": "<", "<=": "<", "up-to": "<"}  # which way a printed bound points
_INK = "#333333"


def figures(made: Sequence[RowPanel], run: RunInfo) -> dict[str, Callable[[], Figure]]:
    """File name -> figure: one per protocol, more where it has more rows than one page can show."""
    found: dict[str, Callable[[], Figure]] = {}
    for shown in pages(made):
        protocol = shown[0].protocol
        nth = sum(name.startswith(f"{protocol}-published") for name in found) + 1
        found[plot_style.file_name(protocol, "published", str(nth) if nth > 1 else None)] = functools.partial(row_figure, shown, run)
    return found


def row_figure(shown: Sequence[RowPanel], run: RunInfo) -> Figure:
    """The panels of one protocol below each other; where they may not be compared, the paper's numbers stand in a column of their own."""
    protocol = shown[0].protocol
    comparable = not run.comparable.get(protocol, "")
    heights = [ROW_IN * len(_slots(panel)) + AXES_IN for panel in shown]
    with plot_style.defaults():
        fig = plot_style.new_figure(WIDTH_IN, sum(heights))
        grid = fig.subplots(len(shown), 1 if comparable else 2, squeeze=False, height_ratios=[len(_slots(p)) for p in shown])
        for i, (panel, (ours, *own)) in enumerate(zip(shown, grid, strict=True)):
            draw_rows(panel, ours, own[0] if own else ours)
            _headings(i, ours, own[0] if own else None)
        plot_style.around(fig, _head(shown, run), _small_print(shown))
    return fig


def _slots(panel: RowPanel) -> list[Beside | str]:
    """The lines of a panel from the top: rows, and the name of each variant above its own."""
    slots: list[Beside | str] = []
    for i, row in enumerate(panel.rows):
        if row.variant and (i == 0 or panel.rows[i - 1].variant != row.variant):
            slots.append(row.variant)
        slots.append(row)
    return slots


# ---- one pair of axes ---------------------------------------------------------------------------------------------------------------

def draw_rows(panel: RowPanel, ours: Axes, paper: Axes) -> None:
    """Draw a panel: our dots on ``ours``, the paper's in grey on ``paper``, which may be the same axes."""
    slots = _slots(panel)
    unknown = [a for a in dict.fromkeys(row.arm for row in panel.rows) if a not in ARM_COLOURS]
    apart = paper is not ours
    for y, row in enumerate(slots):
        if not isinstance(row, str):
            _ours(ours, y - (0 if apart else _OFFSET), row, _style(row.arm, unknown))
            _paper(paper, y + (0 if apart else _OFFSET), row)
            _numbers(panel.metric, y, row, ours, paper)
    for axes in dict.fromkeys((ours, paper)):
        _frame(axes, len(slots), panel.reference)
    _labels(ours, slots)
    if apart:
        paper.set_yticks([])
        paper.tick_params(axis="x", colors=GREYS[0])
    ours.set_title(panel.label + (f": {panel.common}" if panel.common else ""), loc="left", fontsize=9.5)


def _style(arm: str, unknown: Sequence[str]) -> dict[str, Any]:
    """Colour and marker by arm, as in the curves."""
    spare = unknown.index(arm) if arm in unknown else 0
    return {"color": ARM_COLOURS.get(arm, FALLBACK_COLOURS[spare % len(FALLBACK_COLOURS)]),
            "marker": ARM_MARKERS.get(arm, "o" if arm == "dense" else FALLBACK_MARKERS[spare % len(FALLBACK_MARKERS)])}


def _ours(axes: Axes, y: float, row: Beside, style: dict[str, Any]) -> None:
    axes.hlines(y, row.low, row.high, color=style["color"], linewidth=2.2, alpha=0.55, zorder=2.5)
    inside = "white" if row.censored else style["color"]
    axes.plot([row.mean], [y], linestyle="none", markersize=5.5, zorder=3, markerfacecolor=inside, **style)


def _paper(axes: Axes, y: float, row: Beside) -> None:
    if math.isfinite(row.published_low):
        axes.hlines(y, row.published_low, row.published_high, color=GREYS[1], linewidth=2.2, alpha=0.7, zorder=1)
    marker, size = (_BOUNDS[row.relation], 5) if row.relation in _BOUNDS else ("D", 4)
    axes.plot([row.published], [y], linestyle="none", marker=marker, markersize=size, color=GREYS[0], zorder=1.5)


def _numbers(metric: str, y: float, row: Beside, ours: Axes, paper: Axes) -> None:
    """Both numbers at the right edge: dots show the pattern, digits the size of a difference."""
    mean, printed = _digits(row.mean, metric), f"{RELATIONS.get(row.relation, row.relation)}{row.published:.12g}"
    _at_edge(ours, y, mean, 44, _INK)
    _at_edge(paper, y, printed, 92 if paper is ours else 44, GREYS[0])


def _digits(value: float, metric: str) -> str:
    """As in the tables, but 22.0 where the others have three digits too: here numbers stand in a column."""
    exact = metric.endswith(("_pct", "_pp", "_it", "_ep"))
    return number(value, metric) if exact else f"{value:#.3g}".rstrip(".")


def _at_edge(axes: Axes, y: float, text: str, offset_pt: float, colour: str) -> None:
    axes.annotate(text, (1, y), (offset_pt, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", ha="right", va="center",
                  fontsize=8, color=colour, annotation_clip=False)


def _headings(nth: int, ours: Axes, own: Axes | None) -> None:
    """What the columns of numbers hold, above the first of them; legend entries that stand for all arms."""
    ours.plot([], [], marker="o", color=_INK, linewidth=2.2, markersize=5.5, label="ours: mean, colour by arm")
    (own or ours).plot([], [], marker="D", color=GREYS[0], linewidth=2.2, markersize=4, label="paper: as printed")
    if nth == 0:
        _heading(ours, "ours", 44, _INK)
        _heading(own or ours, "paper", 44 if own else 92, GREYS[0])


def _heading(axes: Axes, text: str, offset_pt: float, colour: str) -> None:
    """A line above the title of the axes, which may be as long as the figure is wide."""
    axes.annotate(text, (1, 1), (offset_pt, 24), xycoords="axes fraction", textcoords="offset points", ha="right", va="center", fontsize=8,
                  color=colour, weight="bold", annotation_clip=False)


def _frame(axes: Axes, n_slots: int, reference: float | None) -> None:
    if reference is not None:
        axes.axvline(reference, color=_INK, linewidth=0.8, linestyle=(0, (6, 2, 1, 2)), zorder=1)
    axes.set_ylim(n_slots - 0.5, -0.5)  # the first row on top
    axes.margins(x=0.06)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=8)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.locator_params(axis="x", nbins=7)


def _labels(axes: Axes, slots: Sequence[Beside | str]) -> None:
    axes.set_yticks(range(len(slots)), [s if isinstance(s, str) else s.label for s in slots], fontsize=8)
    axes.tick_params(axis="y", length=0)
    for y, (slot, text) in enumerate(zip(slots, axes.get_yticklabels(), strict=True)):
        if isinstance(slot, str):
            text.set_weight("bold")
            axes.axhline(y - 0.5, color="#cccccc", linewidth=0.6)


# ---- around -------------------------------------------------------------------------------------------------------------------------

def _head(shown: Sequence[RowPanel], run: RunInfo) -> list[str]:
    seen = [row.n for panel in shown for row in panel.rows]
    return plot_style.title(f"{shown[0].protocol}, measured beside published", shown[0].protocol, seen, run)


def _small_print(shown: Sequence[RowPanel]) -> list[str]:
    rows = [row for panel in shown for row in panel.rows]
    kinds = [_SPREADS[kind] for kind in dict.fromkeys(row.spread for row in rows) if kind]
    said = [f"bars, ours: {OVER_TRIALS}", *([f"bars, paper: as printed, {' or '.join(kinds)}"] if kinds else [])]
    if any(row.censored for row in rows):
        said.append("hollow marks: in some trial the minimum lies at the last evaluation (censored)")
    said += ["triangles: the paper prints a bound"] if any(row.relation in _BOUNDS for row in rows) else []
    return said + [note for panel in shown for note in panel.notes]
