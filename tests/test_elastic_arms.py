"""Arms on elastic tickets, their control, and linear paths: what each starts from and wears."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ltcore import arms, kinds, masks
from ltcore.imp import Source, Trial
from ltcore.kinds import Job
from ltcore.library import Library
from ltcore.recipe import changed
from ltcore.stages import with_ancestors
from tests.conftest import RECIPE, run_all, trial


def alike(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# ---- the arms --------------------------------------------------------------------------------------------------
SHORT = changed(
    RECIPE,
    {
        "length": "24it",
        "rewind": "10it",
        "model.options": {"hidden": [8, 8, 8, 6]},
        "pruning.rates": {"fc": 0.2},
        "pruning.scope": "global",
    },
)


def outputs(stage, small, one, source="mlp-1") -> dict:
    """Artefacts of what an arm starts from and wears, and of the source's ticket."""
    other = arms._source(one, source)
    done = run_all([stage, other.mask(2).stage, other.rewound().stage, one.rewound().stage, arms.snip(one, 2)], small)
    found = {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}
    return found | {"source_mask": done[other.mask(2).stage].artefacts["mask"], "source_state": done[other.rewound().stage].artefacts["state"],
                    "own": done[one.rewound().stage].artefacts["state"], "result": done[stage],
                    "snip": done[arms.snip(one, 2).inputs["mask"].stage].artefacts["mask"]}  # fmt: skip


ORIGIN = {"hidden.0": "hidden.0", "hidden.1": "hidden.1", "hidden.2": "hidden.1", "hidden.3": "hidden.2", "output": "output"}  # from mlp-2


@pytest.fixture(scope="module")
def stretched(small_data):
    one = trial(small_data, recipe=SHORT)
    return one, outputs(arms.ett(one, 2, source="mlp-2"), small_data, one, "mlp-2")


def test_ett_carries_mask_weights_and_biases_from_the_rewind_step(stretched):
    one, found = stretched
    for n, w in found["state"].items():
        layer, _, leaf = n.rpartition(".")
        assert torch.equal(w, found["source_state"][f"{ORIGIN[layer]}.{leaf}"])
    for n, m in found["mask"].items():
        assert torch.equal(m, found["source_mask"][f"{ORIGIN[n.removesuffix('.weight')]}.weight"])
    assert arms.ett(one, 2, source="mlp-2").params["start"] == 10


def test_ett_reports_the_sparsity_that_it_achieved(stretched, small_data):
    one, found = stretched
    mask = found["mask"]
    assert found["result"].facts["density_prunable"] == masks.kept(mask) / masks.size(mask)
    stage = arms.ett(one, 2, source="mlp-2").inputs["mask"].stage
    facts = run_all([stage], small_data)[stage].facts
    assert facts["density_prunable"] == found["result"].facts["density_prunable"] and facts["block_maps"] == [[0, 1, 1], [0]]


def test_ett_without_a_source_is_the_ticket_itself(small_data):
    one = trial(small_data, recipe=SHORT)
    done = run_all([arms.ett(one, 2), one.ticket(2)], small_data)
    assert alike(done[arms.ett(one, 2)].artefacts["state"], done[one.ticket(2)].artefacts["state"])


def test_the_sources_ticket_is_that_of_an_experiment_on_the_source(small_data):
    one = trial(small_data, recipe=SHORT)
    other = trial(small_data, recipe=changed(SHORT, {"model.options": {"hidden": [8, 8, 6]}}))
    assert {s.hash for s in with_ancestors([other.ticket(1), other.mask(2).stage])} <= {
        s.hash for s in with_ancestors([arms.ett(one, 2, source="mlp-2")])
    }


def test_weights_are_moved_once_for_all_levels(small_data):
    one = trial(small_data, recipe=SHORT)
    assert arms.ett(one, 1, source="mlp-2").inputs["state"] == arms.ett(one, 3, source="mlp-2").inputs["state"]


def test_ett_transfer_moves_along_depth_and_then_to_other_data(small_data):
    """The source is another experiment, on other data, at this network's depth or at its own: its ticket is found there alone."""
    shallow = changed(SHORT, {"model.options": {"hidden": [8, 8, 6]}, "rewind": "6it", "batch_size": 20})
    there = dataclasses.replace(trial(small_data).data, name="there")
    one = trial(small_data, recipe=SHORT)
    one = dataclasses.replace(one, sources={"there": Source(changed(shallow, {"model.options": SHORT.model.options}), there)}, _memo={})
    found, stage = Trial(shallow, there, one.seed), arms.ett_transfer(one, 2, source="there", network="mlp-2")
    assert (stage.params["start"], stage.params["batch_size"], stage.params["data"]["name"]) == (6, SHORT.batch_size, one.data.name)
    moves = {role: stage.inputs[role].stage for role in ("state", "mask")}
    assert moves["mask"].inputs["mask"] == found.mask(2) and moves["state"].inputs["state"] == found.rewound()
    for move in moves.values():
        assert (move.params["op"], move.params["source"]["options"], move.params["model"]["options"]) == (
            "elastic", {"hidden": [8, 8, 6]}, SHORT.model.options)  # fmt: skip


def test_ett_transfer_from_its_own_data_is_ett_and_at_its_own_depth_transfer(small_data):
    one = trial(small_data, recipe=SHORT)
    elsewhere = dataclasses.replace(one.data, name="there")
    one = dataclasses.replace(one, sources={"here": Source(SHORT, one.data), "there": Source(SHORT, elsewhere)}, _memo={})
    assert arms.ett_transfer(one, 2, source="here", network="mlp-2") == arms.ett(one, 2, source="mlp-2")
    moved, plain = arms.ett_transfer(one, 2, source="there"), arms.transfer(one, 2, source="there")
    assert moved.params == plain.params and moved.inputs["mask"].stage.inputs["mask"] == plain.inputs["mask"]


def test_shuffled_mask_breaks_what_travels_to_other_data_too(small_data):
    plain, broken = (trial(small_data, recipe=changed(SHORT, {"control": c})) for c in ("none", "shuffled-mask"))
    there = dataclasses.replace(plain.data, name="there")
    plain, broken = (dataclasses.replace(t, sources={"there": Source(t.recipe, there)}, _memo={}) for t in (plain, broken))
    whole, other = (arms.ett_transfer(t, 2, source="there", network="mlp-2") for t in (plain, broken))
    assert whole.inputs["state"] == other.inputs["state"] and other.inputs["mask"].stage.inputs["mask"] == whole.inputs["mask"]


def test_ett_reinit_wears_the_transformed_mask_on_fresh_weights(small_data):
    one = trial(small_data, recipe=SHORT)
    stage = arms.ett_reinit(one, 2, source="mlp-2")
    assert stage.inputs["mask"] == arms.ett(one, 2, source="mlp-2").inputs["mask"] and stage.params["start"] == 0
    assert stage.inputs["state"] not in (one.init(), one.rewound()) and stage.inputs["state"].stage.kind == "init"


def test_ett_random_mask_keeps_the_weights_and_the_counts(stretched, small_data):
    one, found = stretched
    other = outputs(arms.ett_random_mask(one, 2, source="mlp-2"), small_data, one, "mlp-2")
    assert alike(other["state"], found["state"]) and not alike(other["mask"], found["mask"])
    assert masks.densities(other["mask"]) == masks.densities(found["mask"])


def test_ett_permuted_replicas_permutes_the_replicas_alone(stretched, small_data):
    one, found = stretched
    other = outputs(arms.ett_permuted_replicas(one, 2, source="mlp-2"), small_data, one, "mlp-2")
    differ = {n for n in other["mask"] if not torch.equal(other["mask"][n], found["mask"][n])}
    assert (
        differ == {"hidden.2.weight"}
        and masks.densities(other["mask"]) == masks.densities(found["mask"])
        and alike(other["state"], found["state"])
    )


def test_ett_source_mask_snip_takes_the_targets_own_for_the_extra_units(stretched, small_data):
    one, found = stretched
    other = outputs(arms.ett_source_mask_snip(one, 2, source="mlp-2"), small_data, one, "mlp-2")
    extra = "hidden.2."
    assert torch.equal(other["mask"][extra + "weight"], other["snip"][extra + "weight"]) and torch.equal(
        other["state"][extra + "bias"], other["own"][extra + "bias"]
    )
    assert all(torch.equal(other["mask"][n], m) for n, m in found["mask"].items() if not n.startswith(extra))
    assert all(torch.equal(other["state"][n], w) for n, w in found["state"].items() if not n.startswith(extra))


def test_baselines_are_scored_and_started_at_the_rewound_weights(small_data):
    one = trial(small_data, recipe=SHORT)
    for build in (arms.snip, arms.grasp, arms.synflow, arms.magnitude_at_rewind):
        stage = build(one, 2)
        score = next(s for s in with_ancestors([stage]) if s.kind == "score")
        assert stage.inputs["state"] == score.inputs["weights"] == one.rewound() and stage.params["start"] == 10


def test_control_shuffled_mask_breaks_transformed_masks_alone(small_data):
    plain, broken = (trial(small_data, recipe=changed(SHORT, {"control": c})) for c in ("none", "shuffled-mask"))
    assert arms.target_ticket(broken, 2) == arms.target_ticket(plain, 2) == plain.ticket(2)
    whole, other = (arms.ett(t, 2, source="mlp-2") for t in (plain, broken))
    assert whole.inputs["state"] == other.inputs["state"] and other.inputs["mask"].stage.params["op"] == "shuffle"
    assert other.inputs["mask"].stage.inputs["mask"] == whole.inputs["mask"]


def test_other_controls_break_the_sources_ticket_too(small_data):
    plain, broken = (trial(small_data, recipe=changed(SHORT, {"control": c})) for c in ("none", "largest-pruned"))
    assert arms.ett(plain, 2, source="mlp-2") != arms.ett(broken, 2, source="mlp-2")


# ---- linear paths ----------------------------------------------------------------------------------------------
def test_the_path_ends_in_the_two_networks_and_dips_between_strangers(small_data):
    one = trial(small_data, recipe=SHORT)
    stage = arms.ett_path(one, 2, source="mlp-2")
    a, b = (stage.inputs[role].stage for role in "ab")
    done = run_all([stage, a, b], small_data)
    accuracy = [next(v.value for v in done[s].values if (v.metric, v.at) == ("test_accuracy_pct", "end")) for s in (a, b)]
    curve, (value,) = done[stage].curves, done[stage].values
    assert len(curve["place"]) == len(curve["test_accuracy_pct"]) == 21 and curve["place"][5] == 0.25
    assert [curve["test_accuracy_pct"][0], curve["test_accuracy_pct"][-1]] == pytest.approx(accuracy)
    assert value.metric == "max_accuracy_drop_on_path_pp" and value.at is None and value.resolution == 100 / 60
    assert value.value == pytest.approx(sum(accuracy) / 2 - min(curve["test_accuracy_pct"]))
    assert {s.params["streams"]["order"][-1] for s in (a, b)} == {"order", 1} and a.inputs == b.inputs


def test_a_path_by_hand(small_data):
    """A linear net against its negative: at the middle all outputs are 0 and every example is taken for class 0."""
    env = kinds.Env(Library(), lambda _: small_data)
    g = torch.Generator().manual_seed(0)
    a = {"output.weight": torch.randn(3, 12, generator=g), "output.bias": torch.zeros(3)}
    b = {n: -t for n, t in a.items()}
    one = trial(small_data, recipe=changed(RECIPE, {"model.options": {"hidden": []}}))
    result = kinds.run([Job("measure", {"what": "linear-path", "points": 3, **one.on_data()}, {"a": a, "b": b})], env)[0]
    x, y = small_data.prepare(small_data.test.x, torch.float32).flatten(1), small_data.test.y
    expected = [
        100 * float((out.argmax(1) == y).double().mean()) for out in (x @ a["output.weight"].T, 0 * x[:, :3], x @ b["output.weight"].T)
    ]
    assert result.curves["test_accuracy_pct"] == pytest.approx(expected)
    assert result.values[0].value == pytest.approx((expected[0] + expected[2]) / 2 - min(expected))


@pytest.mark.parametrize(("spoilt", "failed"), [(0.0, "stayed at chance"), (float("nan"), "diverged")])
@pytest.mark.parametrize("end", ["a", "b"])
def test_a_path_from_or_to_a_network_that_learned_nothing_is_no_good_trial(small_data, spoilt, failed, end):
    one = trial(small_data, recipe=changed(RECIPE, {"length": "200it"}))
    results = run_all([one.ticket(0)], small_data)
    good = results[one.ticket(0)].artefacts["state"]
    states = {role: {n: torch.full_like(t, spoilt) for n, t in good.items()} if role == end else good for role in "ab"}
    run = [kinds.Job("measure", {"what": "linear-path", "points": 3, **one.on_data()}, given) for given in (states, {"a": good, "b": good})]
    found = [kinds.run([job], kinds.Env(Library(), lambda _: small_data))[0].facts["failed"] for job in run]
    assert found == [failed, ""]


def test_running_statistics_are_averaged_as_weights_are():
    from ltcore.paths import between

    a = {"w": torch.tensor([0.0, 1.0]), "running_var": torch.tensor([2.0]), "num_batches_tracked": torch.tensor(7)}
    b = {"w": torch.tensor([1.0, 5.0]), "running_var": torch.tensor([4.0]), "num_batches_tracked": torch.tensor(9)}
    middle = between(a, b, 0.25)
    assert middle["w"].tolist() == [0.25, 2.0] and middle["running_var"].tolist() == [2.5] and middle["num_batches_tracked"] == 7
    assert all(torch.equal(between(a, b, 1.0)[n], b[n]) for n in ("w", "running_var"))
