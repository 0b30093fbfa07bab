"""Rewinding to k, stability to pruning and to data order, random pruning from W_k, and SNIP: against hand-made values and straight runs."""

from __future__ import annotations

import math

import pytest
import torch

from ltcore import arms, data, kinds, measures
from ltcore.criteria import CRITERIA
from ltcore.errors import UsageError
from ltcore.kinds import Job
from ltcore.library import Library
from ltcore.recipe import changed
from tests.conftest import RECIPE, run_all, trial

REWOUND = changed(RECIPE, {"length": "24it", "rewind": "10it"})


def alike(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# ---- the measure -----------------------------------------------------------------------------------------------
def measured(a: list[float], b: list[float], mask: list[bool]) -> dict[str, float]:
    inputs = {"a": {"w": torch.tensor(a)}, "b": {"w": torch.tensor(b)}, "mask": {"w": torch.tensor(mask)}}
    return {v.metric: v.value for v in measures.MEASURES["stability"](Job("measure", {"what": "stability"}, inputs)) if v.at == "end"}


def test_distance_and_angle_on_kept_weights_only():
    found = measured([3.0, 0.0, 100.0], [0.0, 4.0, -100.0], [True, True, False])
    assert found["stability_l2"] == 5.0 and found["stability_angle_deg"] == pytest.approx(90.0)


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 22.7, 90.0, 179.99])
def test_angle_is_exact_for_small_and_large_angles(degrees):
    r = math.radians(degrees)
    found = measured([2.0, 0.0], [3 * math.cos(r), 3 * math.sin(r)], [True, True])
    assert found["stability_angle_deg"] == pytest.approx(degrees, abs=2e-5)


def test_a_network_is_at_no_distance_from_itself():
    assert measured([1.0, 2.0], [1.0, 2.0], [True, True]) == {"stability_l2": 0.0, "stability_angle_deg": 0.0}


# ---- the arms --------------------------------------------------------------------------------------------------
def test_stability_to_pruning_is_against_the_dense_net_of_the_same_data_order(small_data):
    one = trial(small_data, recipe=REWOUND)
    stage = arms.ticket_stability(one, 2, noise="pruning")
    done = run_all([stage, one.mask(2).stage], small_data)
    a, b, mask = done[one.ticket(2)].artefacts["state"], done[one.ticket(0)].artefacts["state"], done[one.mask(2).stage].artefacts["mask"]
    by_hand = math.sqrt(sum(float((((a[n] - b[n]) * m) ** 2).double().sum()) for n, m in mask.items()))
    assert {v.metric: v.value for v in done[stage].values}["stability_l2"] == pytest.approx(by_hand, rel=1e-6) and by_hand > 0


@pytest.mark.parametrize("build", [arms.ticket_stability, arms.random_prune_stability])
def test_copies_for_data_order_differ_in_the_order_alone(small_data, build):
    one = trial(small_data, recipe=REWOUND)
    a, b = (build(one, 2, noise="data-order").inputs[role].stage for role in "ab")
    order = {s.params["streams"].pop("order")[-1] for s in (a, b)}
    assert order == {"order", 1} and a.params == b.params and a.inputs == b.inputs


def test_six_pairs_need_four_orders(small_data):
    one = trial(small_data, recipe=REWOUND)
    pairs = [frozenset(arms.ticket_stability(one, 1, draw).inputs[role].stage.hash for role in "ab") for draw in range(6)]
    assert len(set(pairs)) == 6 and len(frozenset.union(*pairs)) == 4 and all(len(p) == 2 for p in pairs)


def test_an_unknown_noise_is_named(small_data):
    with pytest.raises(UsageError, match="sideways"):
        arms.ticket_stability(trial(small_data), 1, noise="sideways")


def test_random_pruning_starts_from_w_k_with_the_tickets_counts(small_data):
    one = trial(small_data, recipe=REWOUND)
    stage = arms.random_prune(one, 2)
    done = run_all([stage, one.mask(2).stage], small_data)
    ticket_mask, mask = (done[o.stage].artefacts["mask"] for o in (one.mask(2), stage.inputs["mask"]))
    assert stage.inputs["state"] == one.rewound() and stage.params["start"] == 10
    assert all(int(m.sum()) == int(mask[n].sum()) for n, m in ticket_mask.items()) and not alike(mask, ticket_mask)


@pytest.fixture(scope="module")
def image_data():
    """200 + 60 noisy images of 1 x 4 x 4 in 3 classes."""
    g = torch.Generator().manual_seed(7)
    y = torch.randint(3, (260,), generator=g)
    x = (80 * y[:, None] + torch.randint(90, (260, 16), generator=g)).to(torch.uint8).reshape(260, 1, 4, 4)
    return data.from_user("small", (x[:200], y[:200], x[200:], y[200:]))


def test_augmentation_of_what_is_no_image_is_refused(small_data):
    with pytest.raises(UsageError, match="needs images"):
        trial(small_data, recipe=changed(RECIPE, {"data.augment": "crop-flip"}))


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
@pytest.mark.parametrize("optimizer", [{"name": "adam"}, {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-3, "warmup_it": 12, "drops_it": (18,)}])
def test_rule_4_rewinding_at_k_equals_a_straight_run_pruned_at_k(image_data, optimizer, augment):
    """[0, k) then [k, T) under the ticket's mask, with the optimiser kept, against one run that is masked at k by hand."""
    recipe = changed(REWOUND, {f"optimizer.{k}": v for k, v in optimizer.items()} | {"optimizer_state": "kept", "data.augment": augment})
    one = trial(image_data, recipe=recipe)
    dense = one.train(one.init(), start=0)
    done = run_all([one.ticket(1), one.ticket(0), dense, one.mask(1).stage], image_data)
    assert alike(done[one.ticket(0)].artefacts["state"], done[dense].artefacts["state"])  # the dense net does not notice the cut
    first, mask = done[one.rewound().stage], done[one.mask(1).stage].artefacts["mask"]
    state = {n: t * mask[n] if n in mask else t for n, t in first.artefacts["state"].items()}
    slots = {n: t * mask[n.partition("/")[2]] if n.partition("/")[2] in mask else t for n, t in first.artefacts["optimizer"].items()}
    params = {**one.ticket(1).params, "start": 10}
    straight = kinds.run([Job("train", params, {"state": state, "mask": mask, "optimizer": slots})], env(image_data))[0]
    assert alike(done[one.ticket(1)].artefacts["state"], straight.artefacts["state"])
    t0 = done[one.ticket(1)].curves["it"]
    assert min(t0) > 10 and max(t0) == 24


def env(given) -> kinds.Env:
    return kinds.Env(Library(), lambda _: given)


# ---- SNIP ------------------------------------------------------------------------------------------------------
def test_snip_is_the_gradient_of_the_loss_times_the_weight_by_hand(small_data):
    """A linear softmax model, whose gradient is (p − onehot)ᵀ x / B: written out here in float64."""
    one = trial(small_data, recipe=changed(RECIPE, {"model.options": {"hidden": []}}))
    scored = one.score(one.init(), one.init(), None, "snip", criterion="snip").stage
    done = run_all([scored], small_data)
    weight, bias = (done[one.init().stage].artefacts["state"][f"output.{n}"].double() for n in ("weight", "bias"))
    from ltcore.training.supervised import Batches, Streams

    batches = Batches(small_data, scored.params["data"]["val"], scored.params["batch_size"], [Streams(**scored.params["streams"])], torch.float64)
    x, y = (t[0] for t in batches.fetch(batches.index(0)))
    p = torch.softmax(x.flatten(1) @ weight.T + bias, 1)
    p[torch.arange(len(y)), y] -= 1
    by_hand = (weight * (p.T @ x.flatten(1)) / len(y)).abs()
    assert torch.allclose(done[scored].artefacts["scores"]["output.weight"].double(), by_hand, rtol=1e-4, atol=1e-8) and by_hand.max() > 0


def test_snip_prunes_at_initialisation_to_the_tickets_counts(small_data):
    one = trial(small_data, recipe=changed(RECIPE, {"length": "24it"}))
    stage = arms.snip(one, 2)
    done = run_all([stage, one.mask(2).stage], small_data)
    ticket, mask = (done[o.stage].artefacts["mask"] for o in (one.mask(2), stage.inputs["mask"]))
    assert {n: int(m.sum()) for n, m in ticket.items()} == {n: int(m.sum()) for n, m in mask.items()}
    assert stage.inputs["state"] == one.init() and not any(s.kind == "train" for s in done if s is not stage and s in ancestors(stage))


def ancestors(stage) -> set:
    found = {out.stage for out in stage.inputs.values()}
    return found.union(*(ancestors(s) for s in found)) if found else found


def test_a_criterion_without_need_of_data_gets_none(small_data):
    one = trial(small_data)
    assert "data" not in one.score(one.init(), one.init(), None).stage.params
    assert "data" in one.score(one.init(), one.init(), None, criterion="snip").stage.params
    assert CRITERIA["snip"].needs_gradient
