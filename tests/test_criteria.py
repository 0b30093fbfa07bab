"""Criteria: each a pure function of the weights, in the weights' shapes."""

from __future__ import annotations

import pytest
import torch

from ltcore import seeds
from ltcore.criteria import CRITERIA, Scored
from ltcore.errors import UsageError, UserError
from ltcore.library import Library
from ltcore.recipe import changed
from tests.conftest import RECIPE, run_all, trial

WEIGHTS = {"a": torch.tensor([[1.0, -3.0], [0.0, -0.5]]), "b": torch.tensor([2.0, -2.0])}


def scored(seed: int = 0) -> Scored:
    full = {n: torch.ones_like(w, dtype=torch.bool) for n, w in WEIGHTS.items()}
    gradient = {"a": torch.tensor([[0.5, 1.0], [9.0, -2.0]]), "b": torch.tensor([-0.25, 0.0])}
    return Scored(WEIGHTS, {n: w * 10 for n, w in WEIGHTS.items()}, full, seeds.stream(seed, "score"), lambda: gradient)


def test_magnitude_is_the_absolute_value_of_the_final_weights():
    assert torch.equal(CRITERIA["magnitude"](scored())["a"], torch.tensor([[1.0, 3.0], [0.0, 0.5]]))


def test_largest_is_the_reverse_of_magnitude():
    low, high = CRITERIA["magnitude"](scored()), CRITERIA["largest"](scored())
    assert all(torch.equal(low[n], -high[n]) for n in WEIGHTS)


def test_rule_5_random_comes_from_its_stream_alone():
    torch.manual_seed(1)
    first = CRITERIA["random"](scored())
    torch.manual_seed(2)
    assert all(torch.equal(first[n], s) for n, s in CRITERIA["random"](scored()).items())
    assert not torch.equal(first["a"], CRITERIA["random"](scored(1))["a"])


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_weight_and_changes_none(name):
    before = {n: w.clone() for n, w in WEIGHTS.items()}
    assert {n: s.shape for n, s in CRITERIA[name](scored()).items()} == {n: w.shape for n, w in WEIGHTS.items()}
    assert all(torch.equal(before[n], w) for n, w in WEIGHTS.items())


def test_a_criterion_sees_the_end_the_start_and_the_mask(small_data):
    seen = []

    def spy(s: Scored) -> dict[str, torch.Tensor]:
        seen.append(s)
        return {n: w.abs() for n, w in s.weights.items()}

    one = trial(
        small_data, recipe=changed(RECIPE, {"pruning.criterion": "spy", "length": "8it"}), library=Library(criteria=CRITERIA | {"spy": spy})
    )
    done = run_all([one.mask(2).stage], small_data, one.library)
    init, mask = done[one.init().stage].artefacts["state"], done[one.mask(1).stage].artefacts["mask"]
    for level, s in enumerate(seen):
        end = done[one.ticket(level)].artefacts["state"]
        assert all(torch.equal(s.weights[n], end[n]) and torch.equal(s.start[n], init[n]) for n in mask)
    assert all(torch.equal(seen[1].mask[n], mask[n]) and seen[0].mask[n].all() for n in mask)
    assert sorted(seen[0].weights) == ["hidden.0.weight", "hidden.1.weight", "output.weight"]  # rule 10: no bias is ever scored


@pytest.mark.parametrize("given", [{}, {"hidden.0.weight": torch.ones(3)}])
def test_a_criterion_of_the_wrong_shape_is_the_users_error(small_data, given):
    library = Library(criteria={"bad": lambda s: given})
    one = trial(small_data, recipe=changed(RECIPE, {"pruning.criterion": "bad", "length": "8it"}), library=library)
    with pytest.raises(UserError, match=r"criterion 'bad' must give hidden\.0\.weight .*scores of shape \(16, 12\)"):
        run_all([one.mask(1).stage], small_data, library)


def test_an_unknown_criterion_names_the_nearest(small_data):
    with pytest.raises(UsageError, match="unknown criterion 'magnitud'; did you mean 'magnitude'"):
        trial(small_data, recipe=changed(RECIPE, {"pruning.criterion": "magnitud"}))
