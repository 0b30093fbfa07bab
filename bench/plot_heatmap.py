"""Heat maps of mask distances between epochs, one for each share of channels (the mask-distance figure of You et al. 2020)."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import plot_style
from bench.measurement import Measurement, RunInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIR = ("from_epoch", "to_epoch")
SIDE_IN = 3.1  # of one map
RULES = {"queue": ("o", "drawn by the paper's rule"), "newest": ("s", "drawn by the code's rule")}


@dataclass(frozen=True)
class Map:
    """One map: ``cells`` (first epoch, second epoch) -> mean distance over trials, at every pair of ``epochs``.

    Args:
        drawn: rule -> mean epoch at which it draws, where that was measured.
    """

    protocol: str
    label: str
    epochs: tuple[int, ...]
    cells: Mapping[tuple[int, int], float]
    drawn: Mapping[str, float]
    n: int


# ---- numbers --------------------------------------------------------------------------------------------------
def maps(measured: Iterable[Measurement]) -> list[Map]:
    """The maps of a run, in the order of the measurements."""
    measured = list(measured)
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for m in measured:
        if m.metric == "mask_distance" and "to_epoch" in m.condition:
            groups.setdefault((m.protocol, _label(m)), []).append(m)
    return [_map(key, group, measured) for key, group in groups.items()]


def _label(m: Measurement) -> str:
    told = {k: v for k, v in m.condition.items() if k not in (*PAIR, "arm", "rule")}
    kept = told.pop("channels_remaining_pct", None)
    return ", ".join([*map(str, told.values()), *([f"{kept:g} % of the channels"] if kept is not None else [])])


def _map(key: tuple[str, str], group: Sequence[Measurement], measured: Sequence[Measurement]) -> Map:
    values: dict[tuple[int, int], list[float]] = {}
    for m in group:
        values.setdefault((m.condition["from_epoch"], m.condition["to_epoch"]), []).append(m.value)
    first, last = min(a for a, _ in values), max(b for _, b in values)
    between = sorted(b for a, b in values if a == first and b != last and (b, last) in values)
    drawn: dict[str, list[float]] = {}
    for m in measured:
        if m.metric == "epoch_drawn_ep" and (m.protocol, _label(m)) == key:
            drawn.setdefault(m.condition.get("rule", "queue"), []).append(m.value)
    return Map(*key, (first, *between, last), {pair: statistics.fmean(v) for pair, v in values.items()},
               {rule: statistics.fmean(v) for rule, v in drawn.items()}, len({m.trial for m in group}))  # fmt: skip


# ---- figures --------------------------------------------------------------------------------------------------
def figures(made: Sequence[Map], run: RunInfo) -> dict[str, Callable[[], Figure]]:
    """File name -> figure: the maps of one protocol side by side, four in a row."""
    protocols = dict.fromkeys(m.protocol for m in made)
    return {
        plot_style.file_name(p, "mask-distance"): functools.partial(heat_figure, [m for m in made if m.protocol == p], run)
        for p in protocols
    }


def heat_figure(shown: Sequence[Map], run: RunInfo) -> Figure:
    """Maps on one colour scale, from 0 to the largest distance shown."""
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    top = max(max(m.cells.values()) for m in shown)
    with plot_style.defaults():
        fig = plot_style.new_figure(SIDE_IN * max(columns, 2) + 0.8, SIDE_IN * rows)
        grid = fig.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        drawn = [draw(axes, m, top) for axes, m in zip(grid.flat, shown)]
        fig.colorbar(drawn[0], ax=grid, label="mask distance", shrink=0.9)
        head = plot_style.title(f"{shown[0].protocol}, mask distance between epochs", shown[0].protocol, [m.n for m in shown], run)
        plot_style.around(fig, head, ["mean over trials; epochs as the paper counts them, of the whole schedule"])
    return fig


def draw(axes: Axes, m: Map, top: float) -> Any:
    """One map, symmetric, with what the rules draw on its diagonal."""
    import numpy as np

    cells = np.full((len(m.epochs), len(m.epochs)), np.nan)
    for i, a in enumerate(m.epochs):
        for j, b in enumerate(m.epochs):
            cells[i, j] = 0.0 if a == b else m.cells.get((min(a, b), max(a, b)), np.nan)
    mesh = axes.pcolormesh(m.epochs, m.epochs, cells, shading="nearest", vmin=0, vmax=top or 1, cmap="viridis")
    for rule, (marker, label) in RULES.items():
        at = m.drawn.get(rule)
        axes.plot(
            [] if at is None else [at],
            [] if at is None else [at],
            marker,
            color="white",
            markeredgecolor="#D55E00",
            markersize=6,
            label=label,
        )
    axes.set_title(m.label, fontsize=9.5)
    axes.set_xlabel("epoch")
    axes.set_ylabel("epoch")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    return mesh
