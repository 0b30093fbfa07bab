"""Negative controls on MNIST-1D: with the mechanism broken no headline claim replicates, beside a positive run in which it does.

The dearest test of the suite: many hundreds of small networks are trained, in one store, so that what two papers share is trained once.
"""
from __future__ import annotations

import dataclasses
import types

import pytest

from bench import claims, controls
from bench.measurement import Measurement
from bench.store import Store
from ltcore.errors import UserError
from ltcore.training import supervised
from replications import papers, registry
from replications.papers_schema import Test
from replications.schema import Arm, Control, Scaled


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("controls"))


def test_without_arms_of_its_own_a_control_runs_what_scale_quick_has():
    paper = registry.load("morcos2019")
    control = Control(("optimizer-transfer",), "no-training", "mnist1d", "optimizer-transfer-vgg19", Scaled(2, 1, (), {"length": "10it"}))
    found = list(controls._run_by(paper, control, "no-training"))
    assert [e.condition for e, _ in found] == [{"target_optimizer": "sgd"}, {"target_optimizer": "adam"}]
    for e, scaled in found:
        assert scaled.arms == e.scaled["quick", "mnist1d"].arms and scaled.sources.keys() == {"sgd", "adam"}
        assert (scaled.trials, scaled.levels, scaled.changes["length"], scaled.changes["control"]) == (2, 1, "10it", "no-training")
        assert scaled.changes["data.name"] == "mnist1d"


def on_lenet(key: str) -> set[str]:
    """Headline claims of which some test is about LeNet on MNIST."""
    headline = [c for c in papers.load(key).claims if c.strength == "headline" and c.tests]
    return {c.id for c in headline if "lenet-mnist" in claims.names(c)}


@pytest.mark.parametrize("key", ["frankle2019", "stabilizing2019"])
def test_every_headline_claim_on_lenet_has_a_control(key):
    assert on_lenet(key) == {claim for control in registry.load(key).controls for claim in control.claims} != set()


@pytest.mark.parametrize("key", ["frankle2019", "stabilizing2019"])
def test_positive_replicates_and_control_does_not(store, key):
    found = controls.run(key, store)
    assert {v.claim for v in found} == on_lenet(key)
    broken = [v for v in found if not v.holds]
    assert not broken, controls.render(broken)


def test_channel_masks_settle_and_shuffled_ones_do_not(store):
    """earlybird2020: the claims about mask distance, on a narrow VGG-11 and scikit-learn's digits."""
    found = controls.run("earlybird2020", store)
    assert {v.claim for v in found} == {"mask-distance-settles", "detector-fires-early"}
    broken = [v for v in found if not v.holds]
    assert not broken, controls.render(broken)


def test_global_pruning_wins_and_with_untrained_nets_it_does_not(store):
    """morcos2019 on MNIST-1D. Its other control, of same-distribution, takes six minutes of a core: ``python -m bench.controls`` runs it."""
    paper = registry.load("morcos2019")
    halves, scopes = paper.controls
    assert (halves.claims, scopes.claims) == (("same-distribution",), ("global-beats-layerwise",))
    (found,) = controls._pair(paper, papers.load("morcos2019"), scopes, store)
    assert found.holds, controls.render([found])


def test_winning_tickets_translate_better_and_untrained_ones_do_not(store):
    """yu2020 on number words. Its other controls take four minutes of a core and more: ``python -m bench.controls`` runs them."""
    paper, claim = registry.load("yu2020"), "nlp-transformer-wt-beats-rt"
    (control,) = (c for c in paper.controls if claim in c.claims)
    (found,) = controls._pair(paper, papers.load("yu2020"), control, store)
    assert found.holds, controls.render([found])


def test_of_a_broken_pipeline_networks_at_chance_count_and_diverged_ones_do_not():
    at = Measurement("p", {}, {}, 0, 0, "test_accuracy_pct", "end", 10.0, 0.01, failed="stayed at chance")
    assert controls._at_chance_too(at).failed == "" and controls._at_chance_too(at).value == 10.0
    assert controls._at_chance_too(dataclasses.replace(at, failed="diverged")).failed == "diverged"
    untrained = {"val_accuracy_pct": 9.0, "test_accuracy_pct": 10.2}
    sizes = types.SimpleNamespace(size=lambda part: 10_000, data=types.SimpleNamespace(classes=10))
    assert supervised.failure({"end": untrained}, sizes) == controls.AT_CHANCE


def test_a_control_may_be_narrowed_to_the_network_that_it_runs():
    claim = claims.by_id(papers.load("earlybird2020"), "mask-distance-settles")
    own = controls._on_protocol(claim, "mask-distance-cifar100", {"network": ("vgg16",), "rewind": ("0it",)})
    parts = list(claims.parts(claims.tree(own)))
    assert len(parts) == 8 and {w["network"] for p in parts for o in p.operands for w in o.wants} == {"vgg16"}
    assert "rewind" not in parts[0].operands[0].wants[0]


def test_a_control_runs_and_judges_the_network_that_it_names():
    """Of five experiments of one id that of the target, and of the claim its tests: ResNet-56, not ResNet-32 and no VGG."""
    paper, claim = registry.load("elastic2021"), claims.by_id(papers.load("elastic2021"), "ett-near-imp")
    scaled, only = Scaled(2, 1, (Arm("dense"),)), {"target": ("resnet56",)}
    control = Control((claim.id,), "shuffled-mask", "mnist1d", "cifar10-resnet-all-pairs", scaled, only)
    assert [e.condition for e, _ in controls._run_by(paper, control, "none")] == [{"target": "resnet56"}]
    own = controls._on_protocol(claim, "cifar10-resnet-all-pairs", control.only)
    wants = [w for p in claims.parts(claims.tree(own)) for o in p.operands for w in o.wants]
    assert {(w["target"], w["level"]) for w in wants} == {("resnet56", n) for n in (3, 6, 10)} and len(wants) == 6
    with pytest.raises(UserError, match="name another experiment"):
        controls._on_protocol(claim, "cifar10-resnet-all-pairs", {"target": ("resnet20",)})


A, B = {"arm": "ticket"}, {"arm": "reinit"}
NARROWED = [  # a test, and the networks that are left of it for a pair that runs vgg16 alone; None: it speaks of another
    ({"difference": [A, B], "for_any": {"network": ["vgg16", "resnet18"]}}, {"vgg16"}),
    ({"difference": [A, B], "for_any": {"network": ["resnet18"]}}, None),
    ({"difference": [A, B], "for_each": {"network": ["vgg16", "resnet18"]}, "for_any": {"level": [1, 2]}}, {"vgg16"}),
    ({"difference": [A, B], "mean_over": {"network": ["vgg16", "resnet18"]}}, None),
    ({"difference": [{**A, "network": "vgg16"}, {**B, "network": "resnet18"}]}, None),
    ({"difference": [{**A, "network": "vgg16"}, B]}, {"vgg16"}),
    ({"difference": [{"difference": [A, {**A, "network": "resnet18"}]}, B], "network": "vgg16"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("said", "left"), NARROWED)
def test_choices_operands_and_means_are_narrowed_too(said, left):
    over = {"mean_over": said["mean_over"]} if "mean_over" in said else {}
    difference = [{**operand, **over} for operand in said["difference"]]
    more = {"difference": difference, "metric": "test_accuracy_pct", "greater_than": 0}
    test = Test(**{k: v for k, v in said.items() if k != "mean_over"} | more)
    claim = claims.by_id(papers.load("earlybird2020"), "mask-distance-settles").model_copy(update={"tests": [test], "protocols": ["p"]})
    narrowed = controls._narrowed(test, claim, {"network": ("vgg16",)})
    assert (narrowed is None) == (left is None)
    if left is not None:
        parts = claims.parts(claims.tree(claim.model_copy(update={"tests": [narrowed]})))
        assert {w["network"] for p in parts for o in p.operands for w in o.wants if "network" in w} == left


def test_a_control_that_fits_no_experiment_is_one_line():
    scaled, only = Scaled(2, 1, (Arm("dense"),)), {"target": ("resnet1000",)}
    control = Control(("ett-near-imp",), "shuffled-mask", "mnist1d", "cifar10-resnet-all-pairs", scaled, only)
    with pytest.raises(UserError, match="no experiment cifar10-resnet-all-pairs of elastic2021 has target resnet1000"):
        list(controls._run_by(registry.load("elastic2021"), control, "none"))


def test_a_control_is_judged_by_the_tests_of_its_own_network_alone():
    claim = claims.by_id(papers.load("stabilizing2019"), "s4-winning-is-stable")
    own = controls._on_protocol(claim, "lenet-mnist")
    assert [p.protocol for p in claims.parts(claims.tree(own))] == ["lenet-mnist"] * 2
    assert len(list(claims.parts(claims.tree(claim)))) == 8
