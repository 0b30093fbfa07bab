"""Tickets that travel (Morcos et al. 2019): to their own network nothing changes, elsewhere mask and early weights come along."""
from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltcore import arms, data, kinds, masks
from ltcore.errors import UsageError, UserError
from ltcore.imp import DataFacts, Source, Trial
from ltcore.models import VGG, layer_sizes
from ltcore.recipe import Optimizer, changed
from ltcore.stages import with_ancestors
from tests.conftest import RECIPE, make_small

# Half an epoch is the rewind step: 160 training examples, batches of 10. The output layer is not pruned, as it may be drawn anew.
SHORT = changed(RECIPE, {"length": "24it", "evaluate.train": (), "evaluate.test": ("end",), "rewind": "8it", "pruning.rates": {"fc": 0.2},
                         "pruning.scope": "global"})  # fmt: skip


def sets() -> dict[str, data.Dataset]:
    """Three sets of one input shape: ``other`` has other examples, ``two`` but two classes; ``wide`` has longer inputs."""
    small = make_small()
    x, y = small.train.x.flip(0), (small.train.y.flip(0) + 1) % 3
    few = y < 2
    made = {"other": (x, y, x[:60], y[:60]), "two": (x[few], y[few], x[few][:60], y[few][:60]),
            "wide": (torch.cat([x, x], 1), y, torch.cat([x, x], 1)[:60], y[:60])}  # fmt: skip
    return {"small": small} | {name: data.from_user(name, arrays) for name, arrays in made.items()}


SETS = sets()


def facts(name: str) -> DataFacts:
    d = SETS[name]
    return DataFacts(d.name, d.fingerprint, len(d.train), d.input_shape, d.classes)


def source(changes: dict, name: str = "small") -> Source:
    return Source(changed(SHORT, {"data.name": name, **changes}), facts(name))


SOURCES = {
    "small": source({}), "other": source({}, "other"), "two": source({}, "two"), "wide": source({}, "wide"), "late": source({"rewind": "16it"}, "other"),
    "sgd": source({"optimizer": Optimizer("sgd", 0.05, 0.9)}), "output": source({"pruning.rates": {"fc": 0.2, "output": 0.2}}, "two"),
}  # fmt: skip


def target(name: str = "small", seed: int = 0, **changes) -> Trial:
    return Trial(changed(SHORT, {"data.name": name, **changes}), facts(name), seed, sources=SOURCES)


def run_all(stages) -> dict:
    env, done = kinds.Env(target().library, lambda params: SETS[params["name"]]), {}
    for stage in with_ancestors(stages):
        inputs = {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}
        done[stage] = kinds.run([kinds.Job(stage.kind, stage.params, inputs)], env)[0]
    return done


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# ---- the identity ----------------------------------------------------------------------------------------------
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(0, 3), st.sampled_from(["0it", "1it", "8it", "1ep"]), st.sampled_from(["none", "shuffled-mask", "no-training"]))
def test_transfer_to_where_it_came_from_is_the_identity(level, seed, rewind, control):
    recipe = changed(SHORT, {"rewind": rewind, "control": control})
    trial = Trial(recipe, facts("small"), seed, sources={"own": Source(recipe, facts("small"))})
    assert arms.transfer(trial, level, source="own") == trial.ticket(level) == arms.transfer(trial, level)


def test_a_ticket_of_an_equal_network_and_set_is_trained_bit_for_bit_as_the_own_one():
    """The same data under another fingerprint: the path through the transfer is taken, and every number is the own ticket's."""
    twin = dataclasses.replace(facts("small"), fingerprint="another")
    trial = Trial(SHORT, facts("small"), 0, sources={"twin": Source(SHORT, twin)})
    moved, own = arms.transfer(trial, 2, source="twin"), trial.ticket(2)
    done = run_all([moved, own])
    assert moved != own and same(done[moved].artefacts["state"], done[own].artefacts["state"]) and done[moved].values == done[own].values


# ---- other data ------------------------------------------------------------------------------------------------
def test_mask_and_early_weights_come_from_the_source_and_training_from_the_target():
    giver, trial = target().source("other"), target()
    moved = arms.transfer(trial, 2, source="other")
    assert moved.inputs["mask"] == giver.mask(2) and moved.inputs["state"] == giver.rewound()
    assert giver.mask(2).stage.inputs["scores"].stage.inputs["weights"].stage.params["data"]["name"] == "other"
    assert (moved.params["data"]["name"], moved.params["start"], moved.params["stop"]) == ("small", 8, 24)
    done = run_all([moved])
    mask, end = done[giver.mask(2).stage].artefacts["mask"], done[moved].artefacts["state"]
    assert all(not end[n][~mask[n]].any() for n in mask) and done[moved].facts["kept"] == masks.kept(mask)


def test_the_sources_rewind_step_is_taken_on_the_targets_clock():
    assert [arms.transfer(target(), 1, source=s).params["start"] for s in ("other", "late", "small")] == [8, 16, 8]


def test_another_number_of_classes_gets_the_targets_own_fresh_output_layer():
    trial = target("two")
    moved = arms.transfer(trial, 2, source="other")
    done = run_all([moved, trial.init().stage])
    start, early, fresh = (done[out.stage].artefacts["state"] for out in (moved.inputs["state"], trial.source("other").rewound(), trial.init()))
    assert start["output.weight"].shape == (2, 8) and torch.equal(start["output.weight"], fresh["output.weight"])
    assert torch.equal(start["output.bias"], fresh["output.bias"])
    hidden = [n for n in start if not n.startswith("output")]
    assert len(hidden) == 4 and all(torch.equal(start[n], early[n]) and not torch.equal(start[n].float(), fresh[n]) for n in hidden if n.endswith("weight"))


def test_level_0_is_the_sources_early_weights_without_a_mask():
    moved = arms.transfer(target(), 0, source="other")
    assert set(moved.inputs) == {"state"} and moved.inputs["state"] == target().source("other").rewound()


def test_what_can_not_travel_is_refused():
    with pytest.raises(UsageError, match="from two can't move to small: its output layer is drawn anew for 3 classes, so leave 'output' out"):
        arms.transfer(target(), 1, source="output")
    with pytest.raises(UsageError, match="no source 'othr' of tickets.*other"):
        arms.transfer(target(), 1, source="othr")
    with pytest.raises(UserError, match=r"hidden\.0\.weight is \(16, 24\) in the source, \(16, 12\) in the target; .*data\.options\.channels=3"):
        run_all([arms.transfer(target(), 1, source="wide")])


# ---- another optimiser -----------------------------------------------------------------------------------------
def test_across_optimisers_the_network_is_one_and_weights_come_as_they_are():
    trial = target()
    moved, giver = arms.transfer(trial, 1, source="sgd"), trial.source("sgd")
    assert moved.inputs["state"] == giver.rewound() and moved.params["optimizer"]["name"] == "adam"
    assert giver.rewound().stage.params["optimizer"]["name"] == "sgd" and "optimizer" not in moved.inputs
    assert giver.init() == trial.init()  # one seed, one draw


# ---- random tickets --------------------------------------------------------------------------------------------
def test_a_random_ticket_has_fresh_weights_and_the_tickets_count_over_all_layers():
    trial = target()
    stages = [arms.random_ticket(trial, 3, draw) for draw in range(2)]
    done = run_all([*stages, trial.ticket(3)])
    own = done[trial.mask(3).stage].artefacts["mask"]
    drawn = [done[s.inputs["mask"].stage].artefacts["mask"] for s in stages]
    assert [masks.kept(m) for m in drawn] == [masks.kept(own)] * 2 and not same(*drawn) and not same(drawn[0], own)
    assert masks.densities(drawn[0]) != masks.densities(own)
    assert [(s.params["start"], s.params["stop"]) for s in stages] == [(0, 24)] * 2
    assert stages[0].inputs["state"].stage.params["path"] == [0, "random-ticket", 3, 0]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 9))
def test_a_global_permutation_keeps_the_count_and_is_uniform_over_layers(sizes, seed):
    g = torch.Generator().manual_seed(seed)
    mask = {str(i): torch.rand(n, generator=g) < 0.3 for i, n in enumerate(sizes)}
    moved = masks.shuffled_globally(mask, g)
    assert masks.kept(moved) == masks.kept(mask) and {n: m.shape for n, m in moved.items()} == {n: m.shape for n, m in mask.items()}


def test_a_global_permutation_moves_weights_between_layers():
    mask = {"a": torch.ones(1000, dtype=torch.bool), "b": torch.zeros(3000, dtype=torch.bool)}
    moved = masks.shuffled_globally(mask, torch.Generator().manual_seed(0))
    assert abs(int(moved["a"].sum()) - 250) < 60  # hypergeometric, sd 11.9


# ---- networks --------------------------------------------------------------------------------------------------
def test_rule_8_parameters_of_the_papers_vgg19():
    """20,040,522 for 10 classes with biases (the paper's file); the first layer has 1,792 (Sec 3.1)."""
    with torch.device("meta"):
        net = VGG((3, 32, 32), 10, bias=True)
    assert sum(p.numel() for p in net.parameters()) == 20_040_522
    assert sum(p.numel() for p in net.conv[0].parameters()) == 1792 and sum(layer_sizes(net).values()) == 20_018_880 + 5_120


def test_biases_leave_the_other_vgg_as_it_was():
    with torch.device("meta"):
        assert not any(n.startswith("conv") and n.endswith("bias") for n, _ in VGG((3, 32, 32), 10).named_parameters())


def test_layer_densities_are_numbered_within_their_kind():
    params = target().net() | {"what": "layer-density"}
    mask = {"hidden.0.weight": torch.tensor([True, False]), "hidden.1.weight": torch.tensor([True, False, False, False])}
    result = kinds.run([kinds.Job("measure", params, {"mask": mask})], kinds.Env(target().library, lambda _: None))[0]
    assert [(v.metric, v.value, v.at, v.condition) for v in result.values] == [
        ("layer_weights_remaining_pct", 50.0, "end", {"layer": "fc1"}), ("layer_weights_remaining_pct", 25.0, "end", {"layer": "fc2"}),
    ]  # fmt: skip
