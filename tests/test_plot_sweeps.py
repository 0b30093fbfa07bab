"""The rewinding sweep: which networks are taken, at which size, and how the axis holds 0."""
from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.measurement import Measurement
from bench.plot_style import ARM_COLOURS
from bench.plot_sweep_data import Spot, sweeps
from bench.plot_sweeps import figures, sweep_figure, title
from bench.plots import plot
from tests import made_up
from tests.made_up import run, values

POINTS = (0, 25, 500, 2000)


def _rewound(arm: str, level: int, k: int, numbers: list[float], unit: str = "it", **more: object) -> list[Measurement]:
    """Point 0 is a default, so that it stands in the base; the others are named."""
    made = values(arm, numbers, level=level, **({} if k == 0 else {"rewind": f"{k}{unit}"}), **more)  # type: ignore[arg-type]
    return [replace(m, base={"rewind": "0it"}) if k == 0 else m for m in made]


def _tickets(levels: tuple[int, ...] = (1, 2, 7), points: tuple[int, ...] = POINTS) -> list[Measurement]:
    return [m for level in levels for i, k in enumerate(points) for m in _rewound("ticket", level, k, [90.0 + i, 91.0 + i, 92.0 + i])]


RANDOM = [m for k in POINTS for m in _rewound("random-prune", 2, k, [85.0, 86.0, 87.0])]
DENSE = values("dense", [93.0, 94.0, 95.0])


def _only(tmp_path: Path, measured: list[Measurement], n: int = 3, **more: str):
    made = sweeps(made_up.paper(tmp_path, **more), measured, run(n))
    assert len(made) == 1
    return made[0]


# ---- numbers --------------------------------------------------------------------------------------------------------

def test_lines_run_from_rewind_point_0_in_the_order_of_the_points(tmp_path):
    sweep = _only(tmp_path, [*reversed(_tickets()), *DENSE, *RANDOM])
    assert [line.label for line in sweep.ours] == ["ticket"] and sweep.dense == 94.0  # no random subnetwork has the smallest size
    assert [p.x for p in sweep.ours[0].points] == [0, 25, 500, 2000]
    assert sweep.ours[0].points[1] == Spot(25, 92.0, 91.0, 93.0, 3)


def test_the_size_is_the_smallest_that_all_points_share(tmp_path):
    assert _only(tmp_path, _tickets()).size == "level 7"
    assert _only(tmp_path, _tickets((1, 2)) + _tickets((7,), POINTS[:3])).size == "level 2"
    sweep = _only(tmp_path, _tickets((1, 2)) + RANDOM)
    assert sweep.size == "level 2" and [line.arm for line in sweep.ours] == ["ticket", "random-prune"]


def test_the_size_that_the_paper_analyses_goes_first_and_missing_points_are_named(tmp_path):
    text = made_up.text().replace("ladder: {0: 100.0", "analysed: {level: 7, weights_remaining_pct: 21.1}, ladder: {0: 100.0")
    (tmp_path / "toy2000.yaml").write_text(text)
    paper = made_up.load("toy2000", tmp_path)
    sweep, = sweeps(paper, _tickets((1, 2)) + _tickets((7,), POINTS[:3]), run(3))
    assert sweep.size == "level 7" and sweep.xs == [0, 25, 500] and sweep.notes == ("rewound to 2,000: not measured at this size",)


def test_two_points_or_no_shared_size_make_no_sweep(tmp_path):
    paper = made_up.paper(tmp_path)
    assert sweeps(paper, _tickets(points=(0, 500)) + DENSE, run(3)) == []
    assert sweeps(paper, _tickets((1,), (0, 25)) + _tickets((2,), (500, 2000)), run(3)) == []


def test_failed_trials_are_left_out_and_named_and_censored_points_kept(tmp_path):
    broken = [*_tickets((7,), POINTS[:3]), *_rewound("ticket", 7, 2000, [90.0, 91.0, math.nan], failed={2: "diverged"}),
              *_rewound("random-prune", 7, 25, [80.0] * 3, failed=dict.fromkeys(range(3), "stayed at chance")),
              *_rewound("random-prune", 7, 500, [80.0, 81.0, 82.0], censored=(0,))]
    sweep = _only(tmp_path, broken)
    ticket, random = sweep.ours
    assert ticket.points[-1] == Spot(2000, 90.5, 90.0, 91.0, 2)
    assert random.points == (Spot(500, 81.0, 80.0, 82.0, 3, True),)
    assert sweep.notes == ("ticket rewound to 2,000: trial 2 left out (diverged)",
                           *(f"random-prune rewound to 25: trial {t} left out (stayed at chance)" for t in range(3)))
    assert "(2 at some points)" in title(sweep, run(3))[0]


def test_trials_beyond_the_declared_number_do_not_count(tmp_path):
    assert _only(tmp_path, _tickets(), n=2).ours[0].points[0] == Spot(0, 90.5, 90.0, 91.0, 2)


def test_noise_makes_lines_and_variants_and_units_make_figures(tmp_path):
    noisy = [m for k in POINTS for noise in ("pruning", "data-order")
             for m in _rewound("ticket", 7, k, [20.0] * 3, metric="stability_l2", noise=noise)]
    assert [line.label for line in _only(tmp_path, noisy).ours] == ["ticket (noise data-order)", "ticket (noise pruning)"]
    variants = [m for v in ("low", "standard") for k in POINTS for m in _rewound("ticket", 7, k, [90.0] * 3, variant=v)]
    epochs = [m for k in (2, 4, 6) for m in _rewound("ticket", 7, k, [90.0] * 3, "ep", variant="low")]
    made = sweeps(made_up.paper(tmp_path), variants + epochs, run(3))
    assert list(figures(made, run(3))) == ["net-low-test_accuracy_pct-end-rewind.png", "net-low-test_accuracy_pct-end-rewind_ep.png",
                                           "net-standard-test_accuracy_pct-end-rewind.png"]
    assert made[1].xs == [0, 2, 4, 6]


def test_the_papers_sweep_at_this_size_is_drawn_beneath(tmp_path):
    def curve(name: str, level: int) -> str:
        return (f"  - {{id: {name}, protocol: net, condition: {{arm: ticket, level: {level}, at: end}}, metric: test_accuracy_pct, "
                "x: rewind_it, source: Fig 4, quality: read-from-figure, points: {500: [92.0, 91.0, 93.0], 0: 90.0}}\n")

    sweep = _only(tmp_path, _tickets(), figures=curve("f1", 7) + curve("f2", 2))
    line, = sweep.paper
    assert [(p.x, p.mean) for p in line.points] == [(0.0, 90.0), (500.0, 92.0)]
    assert (line.points[1].low, line.points[1].high) == (91.0, 93.0)


# ---- axes -----------------------------------------------------------------------------------------------------------

def test_the_axis_shows_0_and_labels_do_not_run_into_each_other(tmp_path):
    close = (0, 25, 500, 510, 2000)
    fig = sweep_figure(_only(tmp_path, _tickets((7,), close) + DENSE), run(3))
    axes, = fig.axes
    fig.draw_without_rendering()
    labels = [t for t in axes.get_xticklabels() if t.get_text()]
    assert [t.get_text() for t in labels] == ["0", "25", "500", "2,000"] and list(axes.xaxis.get_minorticklocs()) == [510]
    boxes = [t.get_window_extent() for t in labels]
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:])) and boxes[0].x0 >= 0 and boxes[-1].x1 <= fig.bbox.x1
    left, right = axes.get_xlim()
    assert left < 0 and right > 2000 and axes.get_xscale() == "symlog" and axes.get_xlabel() == "rewound to (iterations)"


def test_lines_have_the_colours_of_their_arms_and_the_legend_holds_them_all(tmp_path):
    fig = sweep_figure(_only(tmp_path, _tickets((1, 2)) + RANDOM + DENSE), run(3))
    drawn = {line.get_label(): line for line in fig.axes[0].get_lines()}
    assert drawn["ticket"].get_color() == ARM_COLOURS["ticket"] and list(drawn["ticket"].get_ydata()) == [91.0, 92.0, 93.0, 94.0]
    assert set(drawn["dense"].get_ydata()) == {94.0}
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["dense", "ticket", "random-prune"]


@pytest.mark.parametrize(("why", "axes"), [("", 1), ("scale quick: 50 of 5000 iterations", 2)])
def test_the_paper_has_an_axis_of_its_own_where_numbers_may_not_be_compared(tmp_path, why, axes):
    far = ("  - {id: f1, protocol: net, condition: {arm: ticket, level: 7, at: end}, metric: test_accuracy_pct, x: rewind_it, "
           "source: Fig 4, quality: read-from-figure, points: {0: 40.0, 500: 41.0}}\n")
    fig = sweep_figure(_only(tmp_path, _tickets(), figures=far), run(3, comparable=why))
    assert len(fig.axes) == axes and (f"not comparable number by number: {why}" in fig.texts[0].get_text()) == bool(why)
    assert ("grey axis at the right" in fig.texts[1].get_text()) == bool(why)


def test_plot_writes_the_sweep_the_same_every_time(tmp_path):
    paper = made_up.paper(tmp_path)
    one, two = (plot(paper, _tickets((7,)), run(3), tmp_path / name)[-1] for name in "ab")
    assert one.name == "net-test_accuracy_pct-end-rewind.png" and one.read_bytes() == two.read_bytes()
