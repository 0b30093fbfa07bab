"""Our curves drawn over the paper's own: accuracy and early stopping against weights remaining (Fig 4 of Frankle & Carbin 2019).

``plot_data`` says what is shown, as plain numbers; here ``draw`` fills one pair of axes, ``panel_figure`` and ``overview_figure`` make a
figure that a caller may change, ``plot`` writes PNG files. The other kinds of figure have the same two halves: published rows
(``plot_row_data``, ``plot_rows``), rewinding sweeps (``plot_sweep_data``, ``plot_sweeps``) and maps of mask distances (``plot_heatmap``).
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plot_heatmap, plot_rows, plot_style, plot_sweeps
from bench.measurement import Measurement, RunInfo
from bench.plot_data import METRIC_LABELS, Panel, frame, needs_own_axis, notes, panels, percent, smallest_pct, ticks
from bench.plot_row_data import row_panels
from bench.plot_style import OVER_TRIALS, around, beneath_ours, defaults, draw_ours, draw_paper, file_name, new_figure, save
from bench.plot_sweep_data import sweeps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OVERVIEW = (("early_stop_it", None), ("test_accuracy_pct", "early-stop"), ("test_accuracy_pct", "end"))


# ---- panels -> axes -----------------------------------------------------------------------------------------------------------------

def draw(axes: Axes, panel: Panel, comparable: bool, most_ticks: int = 16) -> None:
    """Draw one panel: log x axis from 100 % down, the paper's curves beneath ours, on their own grey axis where one scale cannot serve both."""
    draw_paper(beneath_ours(axes, needs_own_axis(panel, comparable)), panel.paper)
    draw_ours(axes, panel.ours, panel.dense.points[0].mean if panel.dense and panel.dense.points else None)
    limits = frame(panel, comparable)
    if limits:
        axes.set_ylim(*limits)
    _size_axis(axes, panel, most_ticks)
    axes.set_ylabel(METRIC_LABELS[panel.metric] + (f" at {panel.at}" if panel.at else ""))
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6, zorder=0)


def _size_axis(axes: Axes, panel: Panel, most_ticks: int) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter

    labelled = ticks(panel, most_ticks)
    axes.set_xscale("log")
    axes.set_xticks(labelled, [percent(x) for x in labelled])
    axes.xaxis.set_minor_locator(FixedLocator([x for x in panel.ladder if x not in labelled]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(115, smallest_pct(panel) / 1.15)
    axes.set_xlabel("weights remaining (%)")


# ---- figures and files --------------------------------------------------------------------------------------------------------------

def title(panel: Panel, run: RunInfo) -> list[str]:
    """What is said above a panel."""
    seen = [p.n for c in panel.ours for p in c.points if p.n is not None]
    return plot_style.title(f"{panel.protocol} {panel.variant}".strip(), panel.protocol, seen, run)


def overview_figure(shown: Sequence[Panel], run: RunInfo) -> Figure:
    """The panels of one protocol side by side, as in the paper's Fig 4."""
    single, comparable = len(shown) == 1, not run.comparable.get(shown[0].protocol, "")
    with defaults():
        fig = new_figure(*((8.0, 4.8) if single else (4.8 * len(shown), 4.2)))
        for i, panel in enumerate(shown):
            draw(fig.add_subplot(1, len(shown), i + 1), panel, comparable, most_ticks=16 if single else 9)
        around(fig, title(shown[0], run), [f"bands and bars: {OVER_TRIALS}", *(note for panel in shown for note in notes(panel, comparable))])
    return fig


def panel_figure(panel: Panel, run: RunInfo) -> Figure:
    """The figure of one (protocol, variant, metric, at)."""
    return overview_figure([panel], run)


def plot(paper: Any, measurements: Iterable[Measurement], run: RunInfo, folder: Path) -> list[Path]:
    """Write all figures: curves against sizes with an overview per protocol and variant, published rows, sweeps, maps of mask distances.

    Args:
        paper: the paper's data; its ``figure_data`` is drawn beneath and its ``ladder(protocol)`` labels the axis.
        folder: made if missing.

    Returns:
        The files, in the order written; empty where nothing that is drawn was measured.

    Raises:
        UserError: the folder cannot be written.
    """
    measured = list(measurements)
    made = panels(paper, measured)
    figures = {**_curve_figures(made, run), **plot_rows.figures(row_panels(paper, measured, run, made), run),
               **plot_sweeps.figures(sweeps(paper, measured, run), run),
               **plot_heatmap.figures(plot_heatmap.maps(measured), run)}  # fmt: skip
    return [save(draw_it(), Path(folder) / name) for name, draw_it in figures.items()]


def _curve_figures(made: Sequence[Panel], run: RunInfo) -> dict[str, Callable[[], Figure]]:
    """File name -> figure: one per panel, then the overviews."""
    found = {f"{panel.name}.png": functools.partial(panel_figure, panel, run) for panel in made}
    for protocol, variant in dict.fromkeys((p.protocol, p.variant) for p in made):
        mine = {(p.metric, p.at): p for p in made if (p.protocol, p.variant) == (protocol, variant)}
        shown = [mine[key] for key in OVERVIEW if key in mine] or list(mine.values())[:3]
        found[file_name(protocol, variant, "overview")] = functools.partial(overview_figure, shown, run)
    return found
