"""Our curves drawn over the paper's own: accuracy and early stopping against weights remaining (Fig 4 of Frankle & Carbin 2019).

``plot_data`` says what is shown, as plain numbers; here ``draw`` fills one pair of axes, ``panel_figure`` and ``overview_figure`` make a
figure that a caller may change, ``plot`` writes PNG files.
"""
from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measurement import Measurement, RunInfo
from bench.plot_data import METRIC_LABELS, Curve, Panel, frame, needs_own_axis, notes, panels, percent, smallest_pct, ticks
from bench.tables import data_name
from ltcore.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# the palette of Okabe & Ito, told apart with every common kind of colour blindness (jfly.uni-koeln.de/color), without its pale yellow
ARM_COLOURS = {
    "dense": "#000000", "ticket": "#0072B2", "reinit": "#D55E00", "random-mask": "#009E73", "one-shot": "#CC79A7",
    "one-shot-reinit": "#E69F00", "continued": "#56B4E9", "random-prune": "#8C6D1F",
}
ARM_MARKERS = {"ticket": "o", "reinit": "s", "random-mask": "^", "one-shot": "D", "one-shot-reinit": "v", "continued": "P", "random-prune": "X"}
FALLBACK_COLOURS = ("#7F3C8D", "#8A8C00", "#E73F74", "#4B4B8F", "#3B6E6E", "#A0522D")
SETTING_COLOURS = (*list(ARM_COLOURS.values())[1:], *FALLBACK_COLOURS)
FALLBACK_MARKERS = ("p", "h", "<", ">", "*", "d")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)))
GREYS = ("#6f6f6f", "#a3a3a3", "#8a8a8a", "#bdbdbd")

OVERVIEW = (("early_stop_it", None), ("test_accuracy_pct", "early-stop"), ("test_accuracy_pct", "end"))


# ---- panels -> axes -----------------------------------------------------------------------------------------------------------------

def styles(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Colour by arm, dash by setting; where one arm has more settings than dashes, colour by setting and marker by arm."""
    arms = list(dict.fromkeys(c.arm for c in curves))
    suffixes = list(dict.fromkeys(c.label.removeprefix(c.arm) for c in curves))
    by_setting = any(sum(c.arm == arm for c in curves) > len(DASHES) for arm in arms)
    unknown = [a for a in arms if a not in ARM_COLOURS]
    seen: dict[str, int] = {}
    made = []
    for c in curves:
        nth = seen[c.arm] = seen.get(c.arm, -1) + 1
        spare = unknown.index(c.arm) if c.arm in unknown else 0
        colour = ARM_COLOURS.get(c.arm, FALLBACK_COLOURS[spare % len(FALLBACK_COLOURS)])
        if by_setting:
            colour = SETTING_COLOURS[suffixes.index(c.label.removeprefix(c.arm)) % len(SETTING_COLOURS)]
        marker = ARM_MARKERS.get(c.arm, FALLBACK_MARKERS[spare % len(FALLBACK_MARKERS)])
        dash = DASHES[arms.index(c.arm) % len(DASHES)] if by_setting else DASHES[nth % len(DASHES)]
        made.append({"color": colour, "marker": marker, "linestyle": dash})
    return made


def _draw_paper(axes: Axes, panel: Panel) -> None:
    for i, c in enumerate(panel.paper):
        x, mean = [p.x_pct for p in c.points], [p.mean for p in c.points]
        grey, low, high = GREYS[i % len(GREYS)], [p.low for p in c.points], [p.high for p in c.points]
        axes.fill_between(x, low, high, color=grey, alpha=0.16, linewidth=0, zorder=1)
        # the paper draws bars; they also show a size whose neighbours' bars could not be read, where a band shows nothing
        axes.vlines(x, low, high, color=grey, alpha=0.5, linewidth=0.7, zorder=1)
        axes.plot(x, mean, color=grey, linestyle="--", linewidth=1.2, marker=ARM_MARKERS.get(c.arm, "."), markersize=2.8,
                  zorder=1.5, label=f"paper: {c.label}")


def _draw_ours(axes: Axes, panel: Panel) -> None:
    if panel.dense and panel.dense.points:
        axes.axhline(panel.dense.points[0].mean, color=ARM_COLOURS["dense"], linewidth=0.9, linestyle=(0, (6, 2, 1, 2)), zorder=2, label="dense")
    for c, style in zip(panel.ours, styles(panel.ours)):
        x = [p.x_pct for p in c.points]
        axes.fill_between(x, [p.low for p in c.points], [p.high for p in c.points], color=style["color"], alpha=0.15, linewidth=0, zorder=2.5)
        axes.vlines(x, [p.low for p in c.points], [p.high for p in c.points], color=style["color"], alpha=0.55, linewidth=0.8, zorder=2.6)
        axes.plot(x, [p.mean for p in c.points], linewidth=1.6, markersize=4.5, zorder=3, label=c.label, **style)
        cut = [p for p in c.points if p.censored]
        axes.plot([p.x_pct for p in cut], [p.mean for p in cut], linestyle="none", marker=style["marker"], markersize=4.5, zorder=3.5,
                  markerfacecolor="white", markeredgecolor=style["color"])


def draw(axes: Axes, panel: Panel, comparable: bool, most_ticks: int = 16) -> None:
    """Draw one panel: log x axis from 100 % down, the paper's curves beneath ours, on their own grey axis where one scale cannot serve both."""
    own_axis = needs_own_axis(panel, comparable)
    beneath = axes.twinx() if own_axis else axes
    _draw_paper(beneath, panel)
    _draw_ours(axes, panel)
    if own_axis:
        axes.set_zorder(beneath.get_zorder() + 1)  # matplotlib puts the twin on top; the paper belongs beneath
        axes.patch.set_visible(False)
        beneath.set_ylabel("paper's scale", color=GREYS[0])
        beneath.tick_params(axis="y", colors=GREYS[0])
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
    """Paper, protocol, scale, data set and trials; a second sentence where numbers may not be compared."""
    why = run.comparable.get(panel.protocol, "")
    seen = [p.n for c in panel.ours for p in c.points if p.n is not None]
    n = run.n.get(panel.protocol, max(seen, default=0))
    trials = f"n = {n} trials" + (f" ({min(seen)} at some points)" if seen and min(seen) < n else "")
    name = f"{panel.protocol} {panel.variant}".strip()
    head = f"{run.paper}, {name}: scale {run.scale}, {data_name(run.provenance, panel.protocol)}, {trials}"
    return [head] + ([f"not comparable number by number: {why}"] if why else [])


def _wrapped(lines: Iterable[str], width: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, width)]


def _entries(fig: Figure) -> dict[str, Any]:
    """Legend entries of all axes, each label once, ours before the paper's."""
    found: dict[str, Any] = {}
    for axes in fig.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            found.setdefault(label, handle)
    return dict(sorted(found.items(), key=lambda item: item[0].startswith("paper: ")))


def _around(fig: Figure, shown: Sequence[Panel], run: RunInfo) -> None:
    """Title above; legend and small print below the axes, where they hide no data. The figure grows by what they need, the axes do not shrink."""
    comparable = not run.comparable.get(shown[0].protocol, "")
    width_in, axes_in = fig.get_size_inches()
    head = _wrapped(title(shown[0], run), int(12.5 * width_in))
    said = dict.fromkeys(note for panel in shown for note in notes(panel, comparable))
    small = _wrapped(["; ".join(["bands and bars: minimum and maximum over trials, draws averaged within a trial", *said])], int(17 * width_in))
    entries = _entries(fig)
    columns = max(1, int(14 * width_in / (8 + max(len(label) for label in entries))))
    legend_in, small_in, head_in = 0.2 * -(-len(entries) // columns) + 0.1, 0.14 * len(small) + 0.08, 0.2 * len(head) + 0.08
    height_in = axes_in + legend_in + small_in + head_in
    fig.set_size_inches(width_in, height_in)
    fig.get_layout_engine().set(rect=(0, (legend_in + small_in) / height_in, 1, axes_in / height_in))
    fig.text(0.5, 1 - 0.06 / height_in, "\n".join(head), ha="center", va="top", fontsize=10)
    fig.text(0.5, 0.05 / height_in, "\n".join(small), ha="center", va="bottom", fontsize=7, color="#444444")
    legend = fig.legend(list(entries.values()), list(entries), loc="lower center", bbox_to_anchor=(0.5, small_in / height_in), ncols=columns,
                        fontsize=8, frameon=False, borderaxespad=0, handlelength=3.2)  # long enough to tell dashes
    legend.set_in_layout(False)


def _defaults() -> Any:
    """Matplotlib's own defaults, so that the reader's matplotlibrc does not change the picture."""
    import matplotlib.style

    return matplotlib.style.context("default")


def overview_figure(shown: Sequence[Panel], run: RunInfo) -> Figure:
    """The panels of one protocol side by side, as in the paper's Fig 4. Made without pyplot: no window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    single = len(shown) == 1
    with _defaults():
        fig = Figure(figsize=(8.0, 4.8) if single else (4.8 * len(shown), 4.2), dpi=120, layout="constrained")
        FigureCanvasAgg(fig)
        for i, panel in enumerate(shown):
            axes = fig.add_subplot(1, len(shown), i + 1)
            draw(axes, panel, comparable=not run.comparable.get(panel.protocol, ""), most_ticks=16 if single else 9)
        _around(fig, shown, run)
    return fig


def panel_figure(panel: Panel, run: RunInfo) -> Figure:
    """The figure of one (protocol, variant, metric, at)."""
    return overview_figure([panel], run)


def _save(fig: Figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _defaults():
            fig.savefig(path, metadata={"Software": None})  # the version of matplotlib is no part of the result
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name another folder with -o") from error
    return path


def plot(paper: Any, measurements: Iterable[Measurement], run: RunInfo, folder: Path) -> list[Path]:
    """Write one PNG per (protocol, variant, metric, at) and one overview per protocol and variant.

    Args:
        paper: the paper's data; its ``figure_data`` is drawn beneath and its ``ladder(protocol)`` labels the axis.
        folder: made if missing.

    Returns:
        The files, in the order written; empty where no arm was measured at two sizes.

    Raises:
        UserError: the folder cannot be written.
    """
    made, paths = panels(paper, measurements), []
    for panel in made:
        paths.append(_save(panel_figure(panel, run), Path(folder) / f"{panel.name}.png"))
    for protocol, variant in dict.fromkeys((p.protocol, p.variant) for p in made):
        mine = {(p.metric, p.at): p for p in made if (p.protocol, p.variant) == (protocol, variant)}
        shown = [mine[key] for key in OVERVIEW if key in mine] or list(mine.values())[:3]
        name = "-".join(part for part in (protocol, variant, "overview") if part).replace("/", "_").replace(" ", "_")
        paths.append(_save(overview_figure(shown, run), Path(folder) / f"{name}.png"))
    return paths
