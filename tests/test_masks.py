"""Masks: exact counts (rule 9: a density is the fraction kept), a distance that is a metric, overlap against chance, weights on a path."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltcore import masks, seeds


def mask(*rows: str, name: str = "w") -> dict[str, torch.Tensor]:
    """``mask("110", "001")`` is one layer of two outputs and three inputs."""
    return {name: torch.tensor([[c == "1" for c in row] for row in rows])}


def chain(*layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {f"l{i}": mask(*rows)["w"] for i, rows in enumerate(layers)}


@st.composite
def same_shaped(draw, n: int):
    """n masks of the same two layers."""
    sizes = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    return [{f"l{i}": torch.tensor(draw(st.lists(st.booleans(), min_size=k, max_size=k))) for i, k in enumerate(sizes)} for _ in range(n)]


# ---- counts --------------------------------------------------------------------------------------------------
def test_counts_of_a_literal_mask():
    m = chain(("110", "001"), ("00",))
    assert masks.kept(m) == 3 and masks.size(m) == 8
    assert masks.densities(m) == {"l0": 0.5, "l1": 0.0} and masks.collapsed(m) == ["l1"]


def test_rule_9_report_tells_prunable_from_all_weights():
    r = masks.report(chain(("110", "001"), ("10",)), all_weights=16)
    assert (r.kept_prunable, r.prunable, r.density_prunable, r.density_all) == (4, 8, 0.5, 12 / 16)


def test_full_mask_keeps_everything():
    m = masks.full({"a": torch.Size([2, 3]), "b": torch.Size([4])})
    assert masks.kept(m) == masks.size(m) == 10 and masks.report(m, 10).density_all == 1.0


def test_is_subset():
    assert masks.is_subset(mask("100"), mask("101")) and not masks.is_subset(mask("110"), mask("101"))


# ---- distance ------------------------------------------------------------------------------------------------
def test_distance_is_the_share_of_places_that_differ():
    assert masks.distance(mask("1100"), mask("1010")) == 0.5


@given(same_shaped(3))
def test_distance_is_a_metric(three):
    a, b, c = three
    assert masks.distance(a, a) == 0 and masks.distance(a, b) == masks.distance(b, a)
    assert 0 <= masks.distance(a, c) <= masks.distance(a, b) + masks.distance(b, c) + 1e-12
    assert (masks.distance(a, b) == 0) == all(torch.equal(a[n], b[n]) for n in a)


# ---- overlap -------------------------------------------------------------------------------------------------
def test_overlap_is_intersection_over_union_beside_chance():
    share, chance = masks.overlap(mask("11000000"), mask("10100000"))
    assert share == 1 / 3 and chance == (2 * 2 / 8) / (4 - 2 * 2 / 8)


def test_overlap_of_random_masks_is_chance_layer_by_layer():
    """A dense and a sparse layer: chance over the pooled weights would be wrong."""
    base = {"a": torch.arange(4000) < 3600, "b": torch.arange(4000) < 400}
    share, chance = masks.overlap(*(masks.shuffled(base, seeds.stream(s)) for s in (1, 2)))
    assert chance == pytest.approx((3240 + 40) / (8000 - 3280)) and share == pytest.approx(chance, rel=0.02)


def test_overlap_of_a_mask_with_itself_is_whole():
    assert masks.overlap(mask("1011"), mask("1011"))[0] == 1.0


# ---- shuffled ------------------------------------------------------------------------------------------------
@given(same_shaped(1), st.integers(0, 5))
def test_shuffled_keeps_every_layers_count_and_shape(one, seed):
    (m,) = one
    out = masks.shuffled(m, seeds.stream(seed, "test"))
    assert {n: (int(t.sum()), t.shape) for n, t in out.items()} == {n: (int(t.sum()), t.shape) for n, t in m.items()}


def test_shuffled_moves_weights_evenly_and_by_its_stream_alone():
    m = {"a": torch.arange(1000).reshape(20, 50) < 200}
    torch.manual_seed(1)
    first = masks.shuffled(m, seeds.stream(0, "x"))["a"]
    torch.manual_seed(2)
    assert torch.equal(first, masks.shuffled(m, seeds.stream(0, "x"))["a"])
    assert not torch.equal(first, masks.shuffled(m, seeds.stream(1, "x"))["a"])
    assert 15 <= int(first.flatten()[:200].sum()) <= 65  # 40 by chance, sd 5.1


# ---- effective density ---------------------------------------------------------------------------------------
def on_a_path(layers: list[torch.Tensor]) -> int:
    """Weights on some path from an input to an output, by walking every path there is."""
    widths, used = [layers[0].shape[1], *(m.shape[0] for m in layers)], set()
    for path in itertools.product(*(range(w) for w in widths)):
        if all(layers[i][path[i + 1], path[i]] for i in range(len(layers))):
            used |= {(i, path[i + 1], path[i]) for i in range(len(layers))}
    return len(used)


def test_effective_density_of_hand_made_chains():
    assert masks.effective(chain(("11", "11"), ("11",))) == 1.0
    assert masks.effective(chain(("11", "00"), ("11",))) == 3 / 6  # hidden unit 2 has no input: its output weight is dead
    assert masks.effective(chain(("11", "11"), ("10",))) == 3 / 6  # hidden unit 2 leads nowhere: its two inputs are dead
    assert masks.effective(chain(("10", "01"), ("10", "01"), ("00",))) == 0.0
    assert masks.effective(chain(("10", "00"), ("01", "11"), ("11",))) == 3 / 10  # deadness runs through two layers


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_effective_density_equals_walking_every_path(data):
    widths = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    layers = [
        torch.tensor(data.draw(st.lists(st.lists(st.booleans(), min_size=a, max_size=a), min_size=b, max_size=b)))
        for a, b in itertools.pairwise(widths)
    ]
    m = {str(i): t for i, t in enumerate(layers)}
    assert masks.effective(m) == on_a_path(layers) / masks.size(m)


def test_effective_density_leaves_the_mask_alone_and_is_none_off_a_chain():
    m = chain(("11", "00"), ("11",))
    masks.effective(m)
    assert masks.kept(m) == 4
    assert masks.effective({"conv": torch.ones(2, 1, 3, 3, dtype=torch.bool), "fc": torch.ones(2, 2, dtype=torch.bool)}) is None
    assert masks.effective(chain(("11",), ("11",))) is None
