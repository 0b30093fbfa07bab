"""What the figures share: palette, curves, title above, legend and small print below, matplotlib's own defaults, files."""
from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench.measurement import RunInfo
from bench.tables import data_name
from ltcore.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

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
OVER_TRIALS = "minimum and maximum over trials, draws averaged within a trial"


class Line(Protocol):
    """A curve against sizes or against rewind points."""

    @property
    def arm(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def points(self) -> Sequence[Any]: ...  # each with x, mean, low, high and, where they are ours, censored


def styles(curves: Sequence[Line]) -> list[dict[str, Any]]:
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


def draw_paper(axes: Axes, curves: Sequence[Line]) -> None:
    """The paper's curves, in grey."""
    for i, c in enumerate(curves):
        x, mean = [p.x for p in c.points], [p.mean for p in c.points]
        grey, low, high = GREYS[i % len(GREYS)], [p.low for p in c.points], [p.high for p in c.points]
        axes.fill_between(x, low, high, color=grey, alpha=0.16, linewidth=0, zorder=1)
        # the paper draws bars; they also show a size whose neighbours' bars could not be read, where a band shows nothing
        axes.vlines(x, low, high, color=grey, alpha=0.5, linewidth=0.7, zorder=1)
        axes.plot(x, mean, color=grey, linestyle="--", linewidth=1.2, marker=ARM_MARKERS.get(c.arm, "."), markersize=2.8,
                  zorder=1.5, label=f"paper: {c.label}")


def draw_ours(axes: Axes, curves: Sequence[Line], dense: float | None) -> None:
    """Our curves, hollow where a value is censored; the dense net is a level line."""
    if dense is not None:
        axes.axhline(dense, color=ARM_COLOURS["dense"], linewidth=0.9, linestyle=(0, (6, 2, 1, 2)), zorder=2, label="dense")
    for c, style in zip(curves, styles(curves)):
        x = [p.x for p in c.points]
        axes.fill_between(x, [p.low for p in c.points], [p.high for p in c.points], color=style["color"], alpha=0.15, linewidth=0, zorder=2.5)
        axes.vlines(x, [p.low for p in c.points], [p.high for p in c.points], color=style["color"], alpha=0.55, linewidth=0.8, zorder=2.6)
        axes.plot(x, [p.mean for p in c.points], linewidth=1.6, markersize=4.5, zorder=3, label=c.label, **style)
        cut = [p for p in c.points if p.censored]
        axes.plot([p.x for p in cut], [p.mean for p in cut], linestyle="none", marker=style["marker"], markersize=4.5, zorder=3.5,
                  markerfacecolor="white", markeredgecolor=style["color"])


def beneath_ours(axes: Axes, own_axis: bool) -> Axes:
    """The axes that the paper's curves go on: the same, or grey ones of their own beneath."""
    if not own_axis:
        return axes
    beneath = axes.twinx()
    axes.set_zorder(beneath.get_zorder() + 1)  # matplotlib puts the twin on top; the paper belongs beneath
    axes.patch.set_visible(False)
    beneath.set_ylabel("paper's scale", color=GREYS[0])
    beneath.tick_params(axis="y", colors=GREYS[0])
    return beneath


def title(name: str, protocol: str, seen: Sequence[int], run: RunInfo) -> list[str]:
    """Paper, protocol, scale, data set and trials; a second sentence where numbers may not be compared.

    Args:
        name: the protocol and what of it is shown.
        seen: numbers of trials behind the points.
    """
    why = run.comparable.get(protocol, "")
    n = run.n.get(protocol, max(seen, default=0))
    trials = f"n = {n} trials" + (f" ({min(seen)} at some points)" if seen and min(seen) < n else "")
    head = f"{run.paper}, {name}: scale {run.scale}, {data_name(run.provenance, protocol)}, {trials}"
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


def around(fig: Figure, head: Iterable[str], small: Iterable[str]) -> None:
    """Title above; legend and small print below the axes, where they hide no data. The figure grows by what they need, the axes do not shrink."""
    width_in, axes_in = fig.get_size_inches()
    above, below = _wrapped(head, int(12.5 * width_in)), _wrapped(["; ".join(dict.fromkeys(small))], int(17 * width_in))
    entries = _entries(fig)
    columns = max(1, int(14 * width_in / (8 + max(len(label) for label in entries))))
    legend_in, small_in, head_in = 0.2 * -(-len(entries) // columns) + 0.1, 0.14 * len(below) + 0.08, 0.2 * len(above) + 0.08
    height_in = axes_in + legend_in + small_in + head_in
    fig.set_size_inches(width_in, height_in)
    fig.get_layout_engine().set(rect=(0, (legend_in + small_in) / height_in, 1, axes_in / height_in))
    fig.text(0.5, 1 - 0.06 / height_in, "\n".join(above), ha="center", va="top", fontsize=10)
    fig.text(0.5, 0.05 / height_in, "\n".join(below), ha="center", va="bottom", fontsize=7, color="#444444")
    legend = fig.legend(list(entries.values()), list(entries), loc="lower center", bbox_to_anchor=(0.5, small_in / height_in), ncols=columns,
                        fontsize=8, frameon=False, borderaxespad=0, handlelength=3.2)  # long enough to tell dashes
    legend.set_in_layout(False)


def defaults() -> Any:
    """Matplotlib's own defaults, so that the reader's matplotlibrc does not change the picture."""
    import matplotlib.style

    return matplotlib.style.context("default")


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure, made without pyplot: no window, no global state. To be filled under `defaults`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width_in, height_in), dpi=120, layout="constrained")
    FigureCanvasAgg(fig)
    return fig


def file_name(*parts: str | None) -> str:
    """The parts that are there, joined to the name of a PNG file."""
    return "-".join(part.replace("/", "_").replace(" ", "_") for part in parts if part) + ".png"


def save(fig: Figure, path: Path) -> Path:
    """Write the figure as PNG; the same figure gives the same bytes.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _with_palette(fig).save(path, optimize=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name another folder with -o") from error
    return path


def _with_palette(fig: Figure) -> Image:
    """The picture in 256 colours: a third of the size of matplotlib's own file, and no version of a program is written into it."""
    from PIL import Image

    with defaults():
        fig.canvas.draw()
    drawn = Image.frombuffer("RGBA", fig.canvas.get_width_height(), fig.canvas.buffer_rgba())
    return drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
