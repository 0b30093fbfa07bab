"""Masks of channels: exact counts with no layer cut off, mask distance as a metric, and when a ticket is drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltcore import drawing, masks
from ltcore.pruning import count, prune

NAMES = ("a", "b", "c")


def bits(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


# ---- the global threshold --------------------------------------------------------------------------------------
@st.composite
def layers(draw):
    """Scores of up to three layers with many ties, and what is kept of each."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    values = st.sampled_from([0.0, 0.1, 0.1, 0.5, 2.0, float("nan"), float("inf"), float("-inf")])
    scores = {n: torch.tensor(draw(st.lists(values, min_size=k, max_size=k))) for n, k in zip(NAMES, sizes)}
    return scores, {n: torch.tensor(draw(st.lists(st.booleans(), min_size=k, max_size=k))) for n, k in zip(NAMES, sizes)}


def test_the_lowest_scales_of_the_whole_network_go():
    scores = {"a": torch.tensor([0.9, 0.1, 0.2]), "b": torch.tensor([0.3, 0.8, 0.05])}
    left = prune(scores, masks.full({n: s.shape for n, s in scores.items()}), {"a": 0.5, "b": 0.5}, "global-keep-one")
    assert left["a"].tolist() == [True, False, False] and left["b"].tolist() == [True, True, False]


def test_a_layer_keeps_its_best_and_others_go_in_its_place():
    scores = {"a": torch.tensor([0.1, 0.2, 0.15]), "b": torch.tensor([0.3, 0.5, 0.4])}
    full = masks.full({n: s.shape for n, s in scores.items()})
    assert prune(scores, full, dict.fromkeys(scores, 0.5), "global")["a"].tolist() == [False] * 3
    left = prune(scores, full, dict.fromkeys(scores, 0.5), "global-keep-one")
    assert left["a"].tolist() == [False, True, False] and left["b"].tolist() == [False, True, True]


def test_equal_scales_go_by_index_and_the_last_stays():
    scores = {"a": torch.full((3,), 0.5), "b": torch.full((2,), 0.5)}
    left = prune(scores, masks.full({n: s.shape for n, s in scores.items()}), dict.fromkeys(scores, 0.4), "global-keep-one")
    assert left["a"].tolist() == [False, False, True] and left["b"].tolist() == [True, True]


@given(layers(), st.floats(0, 1))
def test_rule_1_exactly_k_channels_go_and_no_layer_loses_all(given_layers, rate):
    scores, mask = given_layers
    left = prune(scores, mask, dict.fromkeys(scores, rate), "global-keep-one")
    held, live = masks.kept(mask), sum(bool(m.any()) for m in mask.values())
    assert masks.kept(left) == held - min(count(rate, held), held - live)
    assert masks.is_subset(left, mask) and all(bool(left[n].any()) == bool(m.any()) for n, m in mask.items())


@given(layers(), st.floats(0, 0.7))
def test_where_no_layer_is_threatened_it_is_the_plain_global_threshold(given_layers, rate):
    scores, mask = given_layers
    plain = prune(scores, mask, dict.fromkeys(scores, rate), "global")
    if all(bool(plain[n].any()) == bool(m.any()) for n, m in mask.items()) and not any(
        s.isinf().any() or s.isnan().any() for s in scores.values()
    ):
        kept = prune(scores, mask, dict.fromkeys(scores, rate), "global-keep-one")
        assert sum(float(scores[n][m].sum()) for n, m in kept.items()) == pytest.approx(
            sum(float(scores[n][m].sum()) for n, m in plain.items())
        )


# ---- mask distance ---------------------------------------------------------------------------------------------
def three_masks():
    bools = st.lists(st.booleans(), min_size=7, max_size=7)
    return st.lists(bools.map(lambda b: {"a": bits(*b[:3]), "b": bits(*b[3:])}), min_size=3, max_size=3)


@given(three_masks())
def test_mask_distance_is_a_metric(found):
    a, b, c = found
    d = drawing.distances(found)
    assert d.diagonal().tolist() == [0, 0, 0] and torch.equal(d, d.T) and float(d.min()) >= 0 and float(d.max()) <= 1
    assert (float(d[0, 1]) == 0) == all(torch.equal(a[n], b[n]) for n in a)  # only equal masks lie at 0
    assert float(d[0, 2]) <= float(d[0, 1] + d[1, 2]) + 1e-12  # the triangle
    assert float(d[0, 1]) == pytest.approx(masks.distance(a, b), abs=1e-15)


def test_mask_distance_is_the_share_of_channels_that_differ():
    a, b = {"x": bits(1, 1, 0, 0), "y": bits(1)}, {"x": bits(1, 0, 1, 0), "y": bits(1)}
    assert drawing.distances([a, b]).tolist() == [[0, 0.4], [0.4, 0]]


# ---- drawing rules ---------------------------------------------------------------------------------------------
def walk(*flips: int) -> list[dict[str, torch.Tensor]]:
    """Masks of ten channels: from one to the next so many flip, always others in turn."""
    now, at, found = [True] * 10, 0, []
    for n in (0, *flips):
        for _ in range(n):
            now[at % 10], at = not now[at % 10], at + 1
        found.append({"a": bits(*now)})
    return found


def test_the_papers_queue_wants_five_distances_below_epsilon_in_a_row():
    found = walk(3, 0, 0, 0, 0, 0)
    assert drawing.first(found, "queue", 0.1) == 6  # the distance 0.3 has left the queue
    assert drawing.first(found[:6], "queue", 0.1) is None and drawing.first(walk(0, 0, 0, 0), "queue", 0.1) is None


def test_the_papers_bound_is_strict_and_the_codes_is_not():
    assert drawing.first(walk(1, 1, 1, 1, 1), "queue", 0.1) is None
    assert drawing.first(walk(1, 0, 0, 0), "newest", 0.1) == 4


def test_the_codes_rule_holds_the_newest_against_the_four_before_it():
    slow = walk(1, 1, 1, 1, 1, 1)  # neighbours are 0.1 apart, four steps 0.4
    assert drawing.first(slow, "queue", 0.11) == 5 and drawing.first(slow, "newest", 0.11) is None
    assert drawing.first(slow, "newest", 0.4) == 4


@given(st.lists(st.integers(0, 3), min_size=5, max_size=12), st.sampled_from([0.05, 0.15, 0.25]))
def test_a_queue_drawn_ticket_has_five_small_steps_behind_it(flips, epsilon):
    found = walk(*flips)
    at = drawing.first(found, "queue", epsilon)
    small = [masks.distance(a, b) < epsilon for a, b in zip(found, found[1:])]
    runs = [t for t in range(5, len(found)) if all(small[t - 5 : t])]
    assert at == (runs[0] if runs else None)


# ---- masks along a run, and which pairs are noted ----------------------------------------------------------------
def test_masks_of_a_run_use_magnitudes_of_scales():
    scales = {"a": torch.tensor([[0.5, -0.1], [0.2, -0.3]]), "b": torch.tensor([[0.2, 0.4], [0.4, 0.1]])}
    assert [{n: m.tolist() for n, m in mask.items()} for mask in drawing.masks_of(scales, 0.5)] == [
        {"a": [True, False], "b": [False, True]}, {"a": [False, True], "b": [True, False]},
    ]  # fmt: skip


@pytest.mark.parametrize("epochs", [2, 5, 40, 41, 160])
def test_noted_pairs_hold_all_neighbours_and_a_grid(epochs):
    pairs = drawing.chosen_pairs(epochs)
    assert {(e, e + 1) for e in range(1, epochs)} <= set(pairs) and all(1 <= a < b <= epochs for a, b in pairs)
    assert (1, epochs) in pairs and len(pairs) == len(set(pairs)) <= 42 * 41 // 2 + epochs


def test_noted_pairs_of_the_papers_schedule_hold_those_of_its_figure_and_claims():
    assert {(1, 2), (20, 21), (80, 160), (1, 160), (20, 160), (40, 160), (100, 160)} <= set(drawing.chosen_pairs(160))
