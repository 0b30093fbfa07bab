"""A metric against the rewind point (Figs 4 and 7 of Frankle et al. 2019), beside the dense net."""
from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from bench import plot_style
from bench.measurement import RunInfo
from bench.plot_data import far_apart
from bench.plot_style import OVER_TRIALS
from bench.plot_sweep_data import Sweep, SweepLine

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS = {"it": "iterations", "ep": "epochs"}


def figures(made: Sequence[Sweep], run: RunInfo) -> dict[str, Callable[[], Figure]]:
    """File name -> figure, one per sweep."""
    return {plot_style.file_name(s.protocol, s.variant, s.metric, s.at, "rewind" + ("" if s.unit == "it" else f"_{s.unit}")):
            functools.partial(sweep_figure, s, run) for s in made}  # fmt: skip


def sweep_figure(sweep: Sweep, run: RunInfo) -> Figure:
    """The figure of one sweep."""
    comparable = not run.comparable.get(sweep.protocol, "")
    with plot_style.defaults():
        fig = plot_style.new_figure(8.0, 4.8)
        draw_sweep(fig.add_subplot(), sweep, comparable)
        plot_style.around(fig, title(sweep, run), _small_print(sweep, comparable))
    return fig


def title(sweep: Sweep, run: RunInfo) -> list[str]:
    """What is said above a sweep."""
    seen = [p.n for line in sweep.ours for p in line.points if p.n is not None]
    name = f"{sweep.protocol} {sweep.variant}".strip()
    return plot_style.title(f"{name} at {sweep.size}", sweep.protocol, seen, run)


def draw_sweep(axes: Axes, sweep: Sweep, comparable: bool) -> None:
    """Draw one sweep: rewind points from 0 on, logarithmic beyond the first; the paper's lines beneath ours."""
    plot_style.draw_paper(plot_style.beneath_ours(axes, _own_axis(sweep, comparable)), sweep.paper)
    plot_style.draw_ours(axes, sweep.ours, sweep.dense)
    _rewind_axis(axes, sweep)
    axes.set_ylabel(sweep.label)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6, zorder=0)


def _own_axis(sweep: Sweep, comparable: bool) -> bool:
    return not comparable and far_apart(_means(sweep.ours), _means(sweep.paper))


def _means(lines: Iterable[SweepLine]) -> list[float]:
    return [p.mean for line in lines for p in line.points if math.isfinite(p.mean)]


def _rewind_axis(axes: Axes, sweep: Sweep) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter

    first = min((x for x in sweep.xs if x > 0), default=1.0)
    axes.set_xscale("symlog", linthresh=first, linscale=0.5)  # a logarithm has no 0
    labelled = _apart(axes, sweep.xs)
    axes.set_xticks(labelled, [f"{x:,.10g}" for x in labelled])
    axes.xaxis.set_minor_locator(FixedLocator([x for x in sweep.xs if x not in labelled]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(-0.25 * first if 0 in sweep.xs else 0.8 * first, sweep.xs[-1] * 1.25)
    axes.set_xlabel(f"rewound to ({UNITS[sweep.unit]})")


def _apart(axes: Axes, xs: Sequence[float]) -> list[float]:
    """The points that can be labelled without running into each other; the others get a tick only."""
    places = axes.xaxis.get_transform().transform(list(xs))
    kept = [0]
    for i in range(1, len(xs)):
        if places[i] - places[kept[-1]] >= 0.06 * (places[-1] - places[0]):
            kept.append(i)
    return [xs[i] for i in kept]


def _small_print(sweep: Sweep, comparable: bool) -> list[str]:
    said = [f"bands and bars: {OVER_TRIALS}", *sweep.notes]
    if any(p.censored for line in sweep.ours for p in line.points):
        said.append("hollow marks: in some trial the minimum lies at the last evaluation (censored)")
    if _own_axis(sweep, comparable):
        said.append("grey axis at the right: the paper's lines, whose numbers lie elsewhere")
    return said
