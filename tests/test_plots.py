"""Plots: what is drawn (numbers first, then axes), and that the files are the same every time."""
from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bench.measurement import Measurement, RunInfo
from bench.plot_data import Point, frame, needs_own_axis, notes, panels, percent, smallest_pct, ticks
from bench.plot_style import ARM_COLOURS, styles
from bench.plots import overview_figure, panel_figure, plot, title
from ltcore.errors import UserError
from replications.papers import load

LEVELS, TRIALS = 16, 3
READINGS = (("test_accuracy_pct", "early-stop"), ("test_accuracy_pct", "end"), ("early_stop_it", None))


@pytest.fixture(scope="module")
def paper():
    return load("frankle2019")


def _three(arm, condition, base, trial, draw, accuracy, stop_it, density=None):
    return [Measurement("lenet-mnist", {"arm": arm, **condition}, base, trial, draw, metric, at, stop_it if metric == "early_stop_it" else accuracy,
                        0.01, density=density) for metric, at in READINGS]


def _measurements(dense_pct=98.0, drop=0.02):
    """Three trials of ticket, reinit (three draws), random-mask at levels 1-15, and one-shot at four sizes; straight lines, easy to check."""
    made = []
    for trial in range(TRIALS):
        made += _three("dense", {}, {"level": 0, "weights_remaining_pct": 100.0}, trial, 0, dense_pct + 0.1 * trial, 4500 + 100 * trial, 1.0)
        for level in range(1, LEVELS):
            at, kept = {"level": level}, 0.8 ** level
            made += _three("ticket", at, {}, trial, 0, dense_pct + drop * level + 0.1 * trial, 4000 + 100 * trial, kept)
            for draw in range(3):
                made += _three("reinit", at, {}, trial, draw, dense_pct - drop * level + 0.3 * draw, 5000 + 300 * level, kept)
            made += _three("random-mask", at | {"weights": "fresh"}, {}, trial, 0, dense_pct - 2 * drop * level, 6000 + 300 * level, kept)
        for pct in (50.1, 20.2, 10.2, 5.2):
            made += _three("one-shot", {"weights_remaining_pct": pct}, {}, trial, 0, dense_pct, 4500)
    return made


def _run(comparable=True):
    why = "" if comparable else "scale quick: 8000 of 50000 iterations; data: MNIST-1D instead of MNIST"
    return RunInfo("frankle2019", "paper" if comparable else "quick", {"lenet-mnist": TRIALS}, {"lenet-mnist": why}, {},
                   provenance={"data": {"name": "MNIST" if comparable else "MNIST-1D"}})


def _panel(made, metric="test_accuracy_pct", at="early-stop"):
    return next(p for p in made if (p.metric, p.at) == (metric, at))


# ---- numbers ------------------------------------------------------------------------------------------------------------------------

def test_panels_hold_every_reading_with_the_arms_in_fixed_order(paper):
    made = panels(paper, _measurements())
    assert [(p.metric, p.at) for p in made] == [("early_stop_it", None), ("test_accuracy_pct", "early-stop"), ("test_accuracy_pct", "end")]
    assert [c.label for c in made[1].ours] == ["ticket", "reinit", "random-mask (weights fresh)", "one-shot"]
    assert [c.label for c in made[1].paper] == ["ticket", "reinit"]
    assert made[1].name == "lenet-mnist-test_accuracy_pct-early-stop"


def test_draws_are_averaged_within_a_trial_before_the_spread_is_taken(paper):
    reinit = _panel(panels(paper, _measurements())).ours[1]
    assert reinit.points[0] == Point(pytest.approx(80.0), pytest.approx(98.0 - 0.02 + 0.3), pytest.approx(98.28), pytest.approx(98.28), 3, False)


def test_curves_of_tickets_start_at_the_dense_net_and_those_of_reinits_do_not(paper):
    panel = _panel(panels(paper, _measurements()))
    starts = {c.arm: c.points[0].x_pct for c in panel.ours}
    assert starts == {"ticket": 100.0, "reinit": pytest.approx(80.0), "random-mask": pytest.approx(80.0), "one-shot": 100.0}
    dense, ticket = panel.dense.points[0], panel.ours[0]
    assert (dense.mean, dense.low, dense.high, dense.n) == (pytest.approx(98.1), 98.0, pytest.approx(98.2), 3)
    assert ticket.points[0] == dense and len(ticket.points) == LEVELS


def test_a_size_is_drawn_where_it_was_measured_else_where_it_was_declared(paper):
    xs = {c.arm: [p.x_pct for p in c.points] for c in _panel(panels(paper, _measurements())).ours}
    assert xs["ticket"][3] == pytest.approx(51.2)                      # measured 0.8 ** 3, not the ladder's 51.3
    assert xs["one-shot"] == [100.0, 50.1, 20.2, 10.2, 5.2]
    undensified = [replace(m, density=None) for m in _measurements()]
    ticket = _panel(panels(paper, undensified)).ours[0]
    assert [p.x_pct for p in ticket.points[:4]] == [100.0, 80.0, 64.1, 51.3]


def test_the_papers_points_stand_as_printed_and_end_where_ours_end(paper):
    panel = _panel(panels(paper, _measurements()))
    ticket = panel.paper[0]
    assert ticket.points[0] == Point(100.0, 97.93, 97.77, 98.06) and ticket.points[-1].x_pct == 3.6
    assert panel.paper_goes_on and "the paper's curves go on to smaller sizes, not drawn" in notes(panel, True)


def test_a_failed_trial_is_left_out_and_named(paper):
    def broken(m):
        return (m.condition["arm"], m.condition.get("level"), m.trial) == ("ticket", 7, 2)

    made = panels(paper, [replace(m, failed="diverged", value=math.nan) if broken(m) else m for m in _measurements()])
    ticket = _panel(made).ours[0]
    assert ticket.points[7].n == 2 and ticket.points[7].mean == pytest.approx(98.0 + 0.14 + 0.05)
    assert notes(_panel(made), True)[0] == "ticket at 21.0 %: trial 2 left out (diverged)"
    assert "(2 at some points)" in title(_panel(made), _run())[0]


def test_an_arm_of_which_no_trial_counts_and_a_size_that_is_unknown_are_named(paper):
    dead = [replace(m, failed="diverged") if m.condition["arm"] == "one-shot" else m for m in _measurements()]
    unknown = Measurement("lenet-mnist", {"arm": "ticket", "level": 40}, {}, 0, 0, "test_accuracy_pct", "early-stop", 90.0, 0.01)
    panel = _panel(panels(paper, [*dead, unknown]))
    assert [c.arm for c in panel.ours] == ["ticket", "reinit", "random-mask"] and len(panel.ours[0].points) == LEVELS
    said = notes(panel, True)
    assert "one-shot at 5.2 %: trial 0 left out (diverged)" in said and "ticket at level 40: not drawn, its size is not known" in said


def test_nothing_is_drawn_of_an_arm_at_one_size(paper):
    assert panels(paper, [m for m in _measurements() if m.condition.get("level", 5) == 5 and m.condition["arm"] != "one-shot"]) == []


def test_ticks_are_the_papers(paper):
    panel = _panel(panels(paper, _measurements()))
    assert [percent(x) for x in ticks(panel, 9)] == ["100", "51.3", "26.3", "13.5", "7.0", "3.6"]
    assert [percent(x) for x in ticks(panel, 16)][7:13:5] == ["21.1", "7.0"] and len(ticks(panel, 16)) == 16
    assert [percent(x) for x in ticks(replace(panel, ladder=()), 9)] == ["100", "50.0", "20.0", "10.0", "5.0"]
    assert [percent(x) for x in (100.0, 35.2, 1.0, 0.96, 0.5)] == ["100", "35.2", "1.0", "0.96", "0.5"]


def test_an_axis_of_its_own_for_the_paper_only_where_numbers_lie_elsewhere(paper):
    near, far = _panel(panels(paper, _measurements())), _panel(panels(paper, _measurements(dense_pct=62.0, drop=0.2)))
    assert not needs_own_axis(near, comparable=False)
    assert needs_own_axis(far, comparable=False)
    assert not needs_own_axis(far, comparable=True)  # comparable numbers always share one


def test_an_arm_at_chance_does_not_set_the_frame_and_is_named(paper):
    def collapsed(m):
        return m.condition["arm"] == "random-mask" and m.condition["level"] >= 13

    panel = _panel(panels(paper, [replace(m, value=11.35) if collapsed(m) else m for m in _measurements()]))
    low, high = frame(panel, True)
    assert 90 < low < min(p.mean for c in panel.ours[:2] for p in c.points) and high > 98.3
    assert "below the frame (early-stop): random-mask (weights fresh) at 5.5, 4.4, 3.5 %" in notes(panel, True)
    assert frame(_panel(panels(paper, _measurements())), True) is None


# ---- axes ---------------------------------------------------------------------------------------------------------------------------

def test_axes_are_logarithmic_reversed_and_hold_every_curve(paper):
    panel = _panel(panels(paper, _measurements()))
    axes, = panel_figure(panel, _run()).axes
    left, right = axes.get_xlim()
    assert axes.get_xscale() == "log" and left > 100 > right and right < smallest_pct(panel)
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["paper: ticket", "paper: reinit", "dense", "ticket", "reinit", "random-mask (weights fresh)", "one-shot"]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["ticket"].get_color() == ARM_COLOURS["ticket"] and lines["paper: ticket"].get_linestyle() == "--"
    assert lines["paper: ticket"].get_zorder() < lines["ticket"].get_zorder()
    assert list(lines["paper: ticket"].get_ydata()[:2]) == [97.93, 98.03]
    assert [t.get_text() for t in axes.get_xticklabels()][:4] == ["100", "80.0", "64.1", "51.3"]
    assert axes.get_ylabel() == "test accuracy (%) at early-stop"


def test_title_says_what_was_run_and_whether_it_may_be_compared(paper):
    panel = _panel(panels(paper, _measurements()))
    assert title(panel, _run()) == ["frankle2019, lenet-mnist: scale paper, MNIST, n = 3 trials"]
    assert title(panel, _run(False)) == [
        "frankle2019, lenet-mnist: scale quick, MNIST-1D, n = 3 trials",
        "not comparable number by number: scale quick: 8000 of 50000 iterations; data: MNIST-1D instead of MNIST"]
    drawn = [t.get_text() for t in panel_figure(panel, _run(False)).texts]
    assert "not comparable number by number" in drawn[0]


def test_text_legend_and_axes_do_not_overlap(paper):
    made = panels(paper, _measurements(dense_pct=62.0, drop=0.2))
    fig = overview_figure(made, _run(False))
    fig.draw_without_rendering()
    renderer = fig.canvas.get_renderer()
    head, small = (t.get_window_extent(renderer) for t in fig.texts)
    legend = fig.legends[0].get_window_extent(renderer)
    boxes = [a.get_tightbbox(renderer) for a in fig.axes]
    assert all(box.y1 <= head.y0 + 1 and box.y0 >= legend.y1 - 1 for box in boxes) and legend.y0 >= small.y1 - 1
    assert small.y0 >= 0 and head.y1 <= fig.bbox.y1 and small.x0 >= 0 and head.x1 <= fig.bbox.x1
    assert len(fig.axes) == 5  # the paper has a grey axis of its own beside both accuracies; our iterations lie among the paper's


def test_censored_times_are_hollow(paper):
    made = panels(paper, [replace(m, censored=m.metric == "early_stop_it" and m.condition["arm"] == "reinit" and m.condition["level"] > 13)
                          for m in _measurements()])
    axes, = panel_figure(made[0], _run()).axes
    hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert len(hollow) == 1 and len(hollow[0].get_xdata()) == 2
    assert any("censored" in note for note in notes(made[0], True))


def test_colours_are_fixed_by_arm_and_unknown_arms_get_their_own(paper):
    curves = _panel(panels(paper, _measurements())).ours
    unknown = [replace(curves[0], arm=f"mine-{i}", label=f"mine-{i}") for i in range(3)]
    got = styles([*curves, *unknown])
    assert [s["color"] for s in got[:4]] == [ARM_COLOURS[c.arm] for c in curves]
    assert len({s["color"] for s in got}) == 7
    many = [replace(curves[0], label=f"ticket (lr {i})") for i in range(8)]
    assert len({s["color"] for s in styles(many)}) == 8


# ---- files --------------------------------------------------------------------------------------------------------------------------

def test_files_are_pngs_and_byte_for_byte_repeatable(paper, tmp_path):
    first = plot(paper, _measurements(), _run(), tmp_path / "a")
    assert [f.name for f in first] == ["lenet-mnist-early_stop_it.png", "lenet-mnist-test_accuracy_pct-early-stop.png",
                                       "lenet-mnist-test_accuracy_pct-end.png", "lenet-mnist-overview.png", "lenet-mnist-published.png"]
    for again, file in zip(plot(paper, _measurements(), _run(), tmp_path / "b"), first, strict=True):
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and file.stat().st_size > 20_000
        assert again.read_bytes() == file.read_bytes()


def test_variants_of_a_protocol_get_figures_of_their_own(paper, tmp_path):
    def vgg(variant):
        return [Measurement("vgg19-cifar10", {"arm": arm, "level": level, "variant": variant}, {}, trial, 0, "test_accuracy_pct", "30000it",
                            90 - 0.1 * level, 0.01) for arm in ("ticket", "reinit") for level in (1, 3, 5) for trial in range(2)]

    files = plot(paper, vgg("vgg19-lr0.1") + vgg("vgg19-lr0.01"), _run(), tmp_path)
    assert [f.name for f in files] == [
        "vgg19-cifar10-vgg19-lr0.01-test_accuracy_pct-30000it.png", "vgg19-cifar10-vgg19-lr0.1-test_accuracy_pct-30000it.png",
        "vgg19-cifar10-vgg19-lr0.01-overview.png", "vgg19-cifar10-vgg19-lr0.1-overview.png"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(paper, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*; name another folder"):
        plot(paper, _measurements(), _run(), tmp_path / "file" / "plots")
