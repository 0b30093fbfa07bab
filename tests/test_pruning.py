"""Rule 1 of the engine: a prune step removes exactly k weights, the lowest, ties by flat index; literal masks and properties."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltcore import masks
from ltcore.pruning import count, drop_lowest, prune
from ltcore.recipe import Evaluate, changed
from tests.conftest import RECIPE, run_all, trial

RATES = st.floats(0, 1)
NAMES = ("a", "b", "c")


def bools(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


@st.composite
def scored_masks(draw, values=st.sampled_from([-1.0, 0.0, 0.5, 0.5, 2.0, math.nan, math.inf, -math.inf])):
    """Up to three layers of up to 12 weights with few distinct scores (many ties), and a mask of each."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    scores = {n: torch.tensor(draw(st.lists(values, min_size=k, max_size=k))) for n, k in zip(NAMES, sizes)}
    mask = {n: torch.tensor(draw(st.lists(st.booleans(), min_size=k, max_size=k))) for n, k in zip(NAMES, sizes)}
    return scores, mask


# ---- k -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rate", "remaining", "k"),
    [(0.2, 10, 2), (0.2, 12, 2), (0.2, 13, 3), (0.5, 5, 3), (0.5, 7, 4), (0.1, 5, 1), (0.1, 4, 0), (0, 9, 0), (1, 9, 9), (0.2, 0, 0)],
)
def test_rule_1_k_is_rounded_half_up_not_half_to_even(rate, remaining, k):
    assert count(rate, remaining) == k


def test_rule_1_k_is_of_what_remains_not_of_the_layer():
    mask = {"a": bools(1, 1, 1, 1, 1, 0, 0, 0, 0, 0)}
    assert masks.kept(prune({"a": torch.arange(10.0)}, mask, {"a": 0.2}, "layerwise")) == 4  # 1 of 5, not 2 of 10


# ---- which ---------------------------------------------------------------------------------------------------
def test_rule_1_the_lowest_go():
    assert torch.equal(drop_lowest(torch.tensor([3.0, 1.0, 2.0, 0.5]), bools(1, 1, 1, 1), 2), bools(1, 0, 1, 0))


def test_rule_1_pruned_weights_do_not_count_again():
    assert torch.equal(drop_lowest(torch.tensor([0.0, 3.0, 1.0, 2.0]), bools(0, 1, 1, 1), 1), bools(0, 1, 0, 1))


def test_rule_1_all_equal_scores_lose_the_first_k():
    assert torch.equal(drop_lowest(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), 4), bools(0, 0, 0, 0, 1, 1).reshape(2, 3))


def test_rule_1_ties_go_by_flat_index_across_a_mask():
    assert torch.equal(drop_lowest(torch.tensor([1.0, 0.0, 1.0, 1.0, 5.0]), bools(1, 0, 1, 1, 1), 2), bools(0, 0, 0, 1, 1))


def test_rule_1_ties_are_stable_in_a_large_layer():
    """Unstable sorts keep the order of small arrays by luck."""
    out = drop_lowest(torch.ones(10_000), torch.ones(10_000, dtype=torch.bool), 3_333)
    assert not out[:3_333].any() and out[3_333:].all()


def test_rule_1_minus_zero_ties_with_zero():
    assert torch.equal(drop_lowest(torch.tensor([0.0, -0.0, 0.0]), bools(1, 1, 1), 1), bools(0, 1, 1))


def test_rule_1_nan_scores_go_first_whatever_their_sign():
    scores = {"a": torch.tensor([-5.0, math.nan, math.inf, -math.nan, 1.0])}
    assert torch.equal(prune(scores, {"a": bools(1, 1, 1, 1, 1)}, {"a": 0.4}, "layerwise")["a"], bools(1, 0, 1, 0, 1))


def test_layerwise_takes_each_layers_own_share_and_leaves_layers_without_a_rate():
    scores = {"a": torch.arange(10.0), "b": torch.arange(10.0) + 100, "c": torch.zeros(10)}
    out = prune(scores, masks.full({n: s.shape for n, s in scores.items()}), {"a": 0.2, "b": 0.1}, "layerwise")
    assert {n: int(m.sum()) for n, m in out.items()} == {"a": 8, "b": 9, "c": 10}
    assert not out["a"][:2].any() and not out["b"][0]


def test_global_ranks_all_layers_together_ties_by_layer_then_index():
    scores = {"a": torch.tensor([[1.0, 9.0]]), "b": torch.tensor([1.0, 1.0, 8.0]), "c": torch.zeros(2)}
    out = prune(scores, masks.full({n: s.shape for n, s in scores.items()}), {"a": 0.4, "b": 0.4}, "global")  # 2 of 5; c has no rate
    assert torch.equal(out["a"], bools(0, 1).reshape(1, 2)) and torch.equal(out["b"], bools(0, 1, 1)) and out["c"].all()


def test_global_refuses_two_rates():
    with pytest.raises(ValueError, match="one rate"):
        prune({"a": torch.ones(2), "b": torch.ones(2)}, masks.full({"a": (2,), "b": (2,)}), {"a": 0.1, "b": 0.2}, "global")


def test_pruning_leaves_its_inputs_alone():
    scores, mask = {"a": torch.tensor([1.0, math.nan])}, {"a": bools(1, 1)}
    prune(scores, mask, {"a": 0.5}, "layerwise")
    assert mask["a"].all() and scores["a"].isnan().any()


# ---- properties ----------------------------------------------------------------------------------------------
@given(scored_masks(), RATES)
def test_rule_1_layerwise_count_is_exact_in_every_layer(case, rate):
    scores, mask = case
    out = prune(scores, mask, dict.fromkeys(mask, rate), "layerwise")
    for n, m in mask.items():
        assert int(out[n].sum()) == int(m.sum()) - math.floor(rate * int(m.sum()) + 0.5)


@given(scored_masks(), RATES)
def test_rule_1_global_count_is_exact_over_all_layers(case, rate):
    scores, mask = case
    assert masks.kept(prune(scores, mask, dict.fromkeys(mask, rate), "global")) == masks.kept(mask) - count(rate, masks.kept(mask))


@given(scored_masks(), RATES, st.sampled_from(["layerwise", "global"]))
def test_rule_1_masks_only_shrink(case, rate, scope):
    scores, mask = case
    assert masks.is_subset(prune(scores, mask, dict.fromkeys(mask, rate), scope), mask)


@given(scored_masks(), RATES)
def test_rule_1_only_the_lowest_go_and_of_equals_the_first(case, rate):
    """Against an independent ranking: Python's sort of (score, place)."""
    scores, mask = case
    places = [(n, i) for n in mask for i in range(len(mask[n])) if mask[n][i]]
    value = {(n, i): -math.inf if math.isnan(scores[n][i]) else float(scores[n][i]) for n, i in places}
    gone = set(sorted(places, key=lambda p: (value[p], places.index(p)))[: count(rate, len(places))])
    out = prune(scores, mask, dict.fromkeys(mask, rate), "global")
    assert {(n, i) for n in mask for i in range(len(mask[n])) if mask[n][i] and not out[n][i]} == gone


@given(scored_masks(), st.lists(RATES, min_size=2, max_size=5))
def test_rule_1_rounds_chain(case, rates):
    scores, mask = case
    chain = list(itertools.accumulate(rates, lambda m, r: prune(scores, m, dict.fromkeys(m, r), "layerwise"), initial=mask))
    assert all(masks.is_subset(b, a) for a, b in itertools.pairwise(chain))


# ---- through the graph ---------------------------------------------------------------------------------------
def test_rule_1_and_10_the_recipe_prunes_by_kind_and_never_biases(small_data):
    one = trial(small_data, length="8it")
    done = run_all([one.mask(2).stage], small_data)
    first, second = (done[one.mask(level).stage] for level in (1, 2))
    assert {n: int(m.sum()) for n, m in first.artefacts["mask"].items()} == {
        "hidden.0.weight": 154,
        "hidden.1.weight": 102,
        "output.weight": 22,
    }
    assert {n: int(m.sum()) for n, m in second.artefacts["mask"].items()} == {
        "hidden.0.weight": 123,
        "hidden.1.weight": 82,
        "output.weight": 20,
    }
    assert second.facts["kept"] == 225 and second.facts["density_all"] == 225 / 344  # 12 × 16 + 16 × 8 + 8 × 3 weights


def test_rule_1_what_remains_is_of_the_prunable_kinds_only(small_data):
    """Where a kind has no rate its weights are neither pruned nor counted as prunable; density_all still counts them."""
    one = trial(small_data, recipe=changed(RECIPE, {"pruning.rates": {"fc": 0.5}, "pruning.scope": "global", "length": "8it"}))
    result = run_all([one.mask(1).stage], small_data)[one.mask(1).stage]
    assert result.facts["kept"] == 160 and result.facts["density_prunable"] == 0.5 and result.facts["density_all"] == (160 + 24) / 344
    assert sorted(result.artefacts["mask"]) == ["hidden.0.weight", "hidden.1.weight"]


def test_rates_that_name_no_kind_of_the_model_are_refused(small_data):
    from ltcore.errors import UserError

    one = trial(small_data, recipe=changed(RECIPE, {"pruning.rates": {"conv": 0.5}, "evaluate": Evaluate(8), "length": "8it"}))
    with pytest.raises(UserError, match="nothing to prune.*fc, output.*conv"):
        run_all([one.mask(1).stage], small_data)
