"""Published rows beside ours: which rows are drawn, with which numbers and words, and that a figure of many rows stays readable."""
from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.measurement import Measurement
from bench.plot_data import panels
from bench.plot_row_data import RowPanel, pages, row_panels
from bench.plot_rows import draw_rows, figures, row_figure
from bench.plot_style import ARM_COLOURS, GREYS
from bench.plots import plot
from tests import made_up
from tests.made_up import row_of, run, values

AT = "level: 7, weights_remaining_pct: 21.1, rewind: 0it, at: end"


def _row(name: str, condition: str, metric: str = "stability_l2", value: str = "20.0", spread: str = "null") -> str:
    return row_of(condition, metric, value, name=name).replace("spread: null", f"spread: {spread}")


STABILITY = "".join([
    _row("dense", "arm: dense, level: 0, at: end", "test_accuracy_pct", "90.5"),
    _row("ticket", f"arm: ticket, {AT}, noise: data-order", spread="{kind: half-width, value: 0.6}"),
    _row("random", f"arm: random-prune, {AT}, noise: data-order", value="58.0", spread="{kind: min-max, min: 50.0, max: 60.0}"),
    _row("other", f"arm: ticket, {AT}, noise: pruning", value="48.0"),
    _row("ratio", f"arm: random-prune, versus: {{arm: ticket}}, {AT}, noise: data-order", "stability_l2_ratio", "2.8"),
])  # fmt: skip


def _distances(arm: str, numbers: list[float], noise: str = "data-order", **more: object) -> list[Measurement]:
    made = values(arm, numbers, "stability_l2", level=7, noise=noise, **more)  # type: ignore[arg-type]
    return [replace(m, base={"rewind": "0it"}) for m in made]


MEASURED = [*values("dense", [90.0, 91.0, 92.0]), *_distances("ticket", [20.0, 22.0, 21.0]),
            *_distances("random-prune", [60.0, 66.0, 63.0])]


def _made(tmp_path: Path, measured: list[Measurement] = MEASURED, rows: str = STABILITY) -> list[RowPanel]:
    return row_panels(made_up.paper(tmp_path, rows=rows), measured, run(3))


# ---- which rows -----------------------------------------------------------------------------------------------------

def test_measured_rows_are_gathered_by_metric_in_the_papers_order(tmp_path):
    made = _made(tmp_path)
    assert [(p.metric, p.at, p.common, [r.label for r in p.rows]) for p in made] == [
        ("test_accuracy_pct", "end", "", ["dense"]),
        ("stability_l2", "end", "21.1 % left, rewind 0it, noise data-order", ["ticket", "random-prune"]),
        ("stability_l2_ratio", "end", "21.1 % left, rewind 0it, noise data-order", ["random-prune / ticket"])]


def test_a_row_holds_our_mean_and_range_and_what_is_printed(tmp_path):
    ticket, random = _made(tmp_path)[1].rows
    assert (ticket.mean, ticket.low, ticket.high, ticket.n) == (21.0, 20.0, 22.0, 3)
    assert (ticket.published, ticket.published_low, ticket.published_high, ticket.spread) == (20.0, 19.4, 20.6, "half-width")
    assert (random.published_low, random.published_high) == (50.0, 60.0)
    ratio = _made(tmp_path)[2].rows[0]
    assert (ratio.low, ratio.high) == (3.0, 3.0) and math.isnan(ratio.published_low)  # 60 / 20, 66 / 22, 63 / 21: trial by trial


def test_what_tells_rows_apart_stands_in_their_labels(tmp_path):
    panel = _made(tmp_path, [*MEASURED, *_distances("ticket", [48.0] * 3, "pruning")])[1]
    assert panel.common == "21.1 % left, rewind 0it"
    assert [r.label for r in panel.rows] == ["ticket, noise data-order", "random-prune, noise data-order", "ticket, noise pruning"]


def test_differences_say_both_sides_and_twins_give_their_ids(tmp_path):
    gain = "arm: ticket, level: 7, weights_remaining_pct: 21.1, at: end, versus: {arm: dense, level: 0}"
    smaller = gain.replace("level: 7, weights_remaining_pct: 21.1", "level: 2")
    rows = _row("a", gain, "test_accuracy_gain_pp", "0.3") + _row("b", smaller, "test_accuracy_gain_pp", "0.1")
    twins = _row("c", "arm: dense, level: 0, at: end", "test_accuracy_pct", "90.5")
    twins += _row("d", "arm: dense, level: 0, at: end, table: Tab 2", "test_accuracy_pct", "91")
    tickets = [*values("ticket", [92.0, 92.5, 93.0], level=7), *values("ticket", [91.0] * 3, level=2)]
    made = _made(tmp_path, [*MEASURED, *tickets], rows + twins)
    assert [r.label for r in made[0].rows] == ["ticket 21.1 % left − dense", "ticket 64.0 % left − dense"] and made[0].reference == 0.0
    assert [r.label for r in made[1].rows] == ["dense (c)", "dense (d)"] and made[1].reference is None


def test_failed_trials_are_left_out_and_named_and_a_row_without_any_is_not_drawn(tmp_path):
    broken = [*_distances("ticket", [20.0, 22.0, math.nan], failed={2: "diverged"}),
              *_distances("random-prune", [60.0] * 3, failed=dict.fromkeys(range(3), "diverged"))]
    panel = _made(tmp_path, broken)[0]
    assert [(r.label, r.mean, r.n) for r in panel.rows] == [("ticket", 21.0, 2)]
    assert panel.notes[0] == "ticket: trial 2 left out (diverged)" and panel.notes[-1] == "random-prune: not drawn, no trial counts"


def test_rows_that_a_panel_of_curves_tells_are_not_drawn_again(tmp_path):
    """Told: our value and the paper's own number both stand in the panel. A number that only resembles a curve's point does not."""
    point = "arm: ticket, level: {}, weights_remaining_pct: {}, at: end"
    rows = (_row("upon", point.format(7, 21.1), "test_accuracy_pct", "91.0")
            + _row("beside", point.format(2, 64.0), "test_accuracy_pct", "89.9")
            + _row("dense", "arm: dense, level: 0, at: end", "test_accuracy_pct", "90.0"))
    curve = ("  - {id: f1, protocol: net, condition: {arm: ticket, at: end}, metric: test_accuracy_pct, source: Fig 1, "
             "quality: read-from-figure, points: {100: 90.0, 64.0: 90.5, 21.1: [91.0, 90.0, 92.0]}}\n")
    paper = made_up.paper(tmp_path, rows=rows, figures=curve)
    measured = [*values("dense", [90.0] * 3), *values("ticket", [91.0] * 3, level=2), *values("ticket", [91.0] * 3, level=7)]
    told = panels(paper, measured)
    assert [r.published for p in row_panels(paper, measured, run(3), told) for r in p.rows] == [89.9]
    assert [r.published for p in row_panels(paper, measured, run(3)) for r in p.rows] == [91.0, 89.9, 90.0]


def test_many_rows_go_to_several_pages_and_protocols_never_share_one(tmp_path):
    panel = _made(tmp_path)[1]
    many = [panel, panel, panel]
    assert [[len(p.rows) for p in page] for page in pages(many, most=4)] == [[2, 2], [2]]
    assert [[len(p.rows) for p in page] for page in pages([panel], most=1)] == [[1], [1]]
    assert list(figures([*_made(tmp_path)] * 10, run(3))) == ["net-published.png", "net-published-2.png"]


# ---- axes -----------------------------------------------------------------------------------------------------------

def _texts(fig):
    fig.draw_without_rendering()
    return [t for a in fig.axes for t in (*a.texts, *a.get_yticklabels(), a.title, a._left_title) if t.get_text()] + list(fig.texts)


def test_dots_stand_at_the_numbers_first_row_on_top_and_digits_beside_them(tmp_path):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw_rows(_made(tmp_path)[1], axes, axes)
    dots = [(line.get_xdata()[0], line.get_color()) for line in axes.get_lines()]
    assert dots == [(21.0, ARM_COLOURS["ticket"]), (20.0, GREYS[0]), (63.0, ARM_COLOURS["random-prune"]), (58.0, GREYS[0])]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["ticket", "random-prune"] and axes.get_ylim()[0] > axes.get_ylim()[1]
    assert [t.get_text() for t in axes.texts] == ["21.0", "20", "63.0", "58"]


def test_numbers_that_may_not_be_compared_stand_in_columns_of_their_own(tmp_path):
    made = _made(tmp_path)
    together, apart = row_figure(made, run(3)), row_figure(made, run(3, "quick", "scale quick: 50 of 5000 iterations"))
    assert len(together.axes) == 3 and len(apart.axes) == 6
    ours, paper = apart.axes[2:4]
    assert {line.get_color() for line in paper.get_lines()} == {GREYS[0]}
    assert ours.get_lines()[0].get_color() == ARM_COLOURS["ticket"] and ours.get_xlim() != paper.get_xlim()
    assert "not comparable number by number: scale quick" in apart.texts[0].get_text()


@pytest.mark.parametrize("why", ["", "scale quick: 50 of 5000 iterations"])
def test_no_text_is_cut_and_title_legend_and_small_print_are_apart(tmp_path, why):
    fig = row_figure(_made(tmp_path, [*MEASURED, *_distances("ticket", [48.0] * 3, "pruning")]), run(3, comparable=why))
    texts = _texts(fig)
    renderer = fig.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in texts]
    assert all(b.x0 >= -0.5 and b.x1 <= fig.bbox.x1 + 0.5 and b.y0 >= -0.5 and b.y1 <= fig.bbox.y1 + 0.5 for b in boxes)
    head, small = (t.get_window_extent(renderer) for t in fig.texts)
    legend = fig.legends[0].get_window_extent(renderer)
    assert all(a.get_tightbbox(renderer).y1 <= head.y0 + 1 and a.get_tightbbox(renderer).y0 >= legend.y1 - 1 for a in fig.axes)
    assert legend.y0 >= small.y1 - 1
    columns = [t.get_window_extent(renderer) for t in fig.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(columns) for b in columns[:i])


def test_variants_stand_together_under_their_names(tmp_path):
    condition = "arm: ticket, variant: {}, level: {}, at: end"
    which = [("a", 7), ("b", 7), ("a", 2)]
    rows = "".join(_row(f"r{i}", condition.format(v, level), "test_accuracy_pct") for i, (v, level) in enumerate(which))
    measured = [m for v in "ab" for level in (2, 7) for m in values("ticket", [90.0] * 3, level=level, variant=v)]
    fig = row_figure(_made(tmp_path, measured, rows), run(3))
    labels = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert labels == ["a", "ticket 21.1 % left", "ticket 64.0 % left", "b", "ticket 21.1 % left"]


def test_bounds_and_censored_times_are_marked_and_explained(tmp_path):
    rows = row_of("arm: dense, level: 0", "early_stop_it", "500", "relation: '>', ")
    fig = row_figure(_made(tmp_path, values("dense", [400.0, 600.0], "early_stop_it", None, censored=(1,)), rows), run(2))
    ours, paper = fig.axes[0].get_lines()[:2]
    assert ours.get_markerfacecolor() == "white" and paper.get_marker() == ">"
    assert "(censored)" in fig.texts[1].get_text() and "triangles: the paper prints a bound" in fig.texts[1].get_text()


def test_plot_writes_the_rows_even_where_no_arm_has_two_sizes(tmp_path):
    files = plot(made_up.paper(tmp_path, rows=STABILITY), MEASURED, run(3), tmp_path / "plots")
    assert [f.name for f in files] == ["net-published.png"] and files[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
