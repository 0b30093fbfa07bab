"""elastic2021's ImageNet recipe on a made folder of images: every kind of arm of Table 1, RigL, and the move to another data set."""

from __future__ import annotations

import math
import types

import pytest
import torch

from bench import execute
from ltcore import arms, kinds, masks
from ltcore.data import load
from ltcore.imp import DataFacts, Source, Trial
from ltcore.library import Library
from ltcore.recipe import changed
from ltcore.stages import with_ancestors
from ltcore.training import supervised
from replications import elastic2021_imagenet as ours
from tests.conftest import image_folder
from tests.nets import needs_torchvision

pytestmark = needs_torchvision
SMALL = {**ours.SMALL, "data.name": "imagenet", "batch_size": 6}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = image_folder(tmp_path_factory.mktemp("images") / "imagenet", 3, 6, 2).parent
    return {"imagenet": load("imagenet", root, size=32, resize=36), "digits": load("digits", "auto", channels=3)}


def facts(data) -> DataFacts:
    return DataFacts(data.name, data.fingerprint, len(data.train), data.input_shape, data.classes, data.decoded)


def run(stages, sets) -> dict:
    env, done = kinds.Env(Library(), lambda said: sets[said["name"]]), {}
    for stage in with_ancestors(stages):
        inputs = {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}
        done[stage] = kinds.run([kinds.Job(stage.kind, stage.params, inputs)], env)[0]
    return done


@pytest.fixture(scope="module")
def one(sets) -> Trial:
    return Trial(changed(ours.IMAGENET, SMALL), facts(sets["imagenet"]), 0)


@pytest.fixture(scope="module")
def done(one, sets) -> dict:
    """One graph: tickets from ResNet-101 and SNIP's on the images in files, and a ticket that moves on to digits."""
    body = changed(one.recipe, {"pruning": ours.BODY})
    giver = {"imagenet": Source(body, facts(sets["imagenet"]))}
    taker = Trial(changed(ours.ENLARGED, ours.SMALL_TAKER), facts(sets["digits"]), 0, sources=giver)
    stages = {"ett": arms.ett(one, 1, source="resnet101"), "snip": arms.snip(one, 1)}
    stages["moved"] = arms.ett_transfer(taker, 1, source="imagenet", network="resnet101")
    results = run(stages.values(), sets)
    return {name: results[stage] for name, stage in stages.items()} | {"stages": stages, "all": results}


def test_every_arm_trains_to_the_end_at_its_sparsity(done):
    for name in ("ett", "snip", "moved"):
        at_end = {v.metric: v.value for v in done[name].values if v.at == "end"}
        assert math.isfinite(at_end["test_loss"]) and 0 <= at_end["test_accuracy_pct"] <= 100, name
        assert done[name].facts["density_prunable"] == pytest.approx(0.8, abs=1e-4 if name == "snip" else 0.02), name
        assert all(t.isfinite().all() for t in done[name].artefacts["state"].values()), name


def test_the_transform_went_stage_by_stage_and_starts_at_the_rewind_step(one, done):
    stage = done["stages"]["ett"]
    moved = {role: out.stage for role, out in stage.inputs.items()}
    maps = done["all"][moved["mask"]].facts["block_maps"]
    assert maps == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 1, 2]]  # of 3, 4, 23 and 3 blocks
    mask = done["all"][moved["mask"]].artefacts["mask"]
    assert {"conv1.weight", "fc.weight", "layer3.5.conv3.weight", "layer4.0.downsample.0.weight"} <= set(mask)
    assert done["ett"].facts["density_prunable"] == masks.kept(mask) / masks.size(mask)
    assert stage.params["start"] == one.rewind_it == 2
    start = done["all"][moved["state"]].artefacts["state"]
    source = done["all"][moved["state"].inputs["state"].stage].artefacts["state"]
    assert torch.equal(start["layer3.5.bn2.running_mean"], source["layer3.5.bn2.running_mean"]) and "layer3.22.bn2.running_mean" in source


def test_a_ticket_moves_on_to_another_data_set_with_a_fresh_output_layer(done):
    stage, found = done["stages"]["moved"], done["all"]
    state, mask = (found[stage.inputs[role].stage].artefacts[role] for role in ("state", "mask"))
    carried = found[stage.inputs["state"].stage.inputs["state"].stage].artefacts["state"]
    assert state["fc.weight"].shape[0] == 10 and carried["fc.weight"].shape[0] == 3 and "fc.weight" not in mask
    assert all(torch.equal(t, carried[n]) for n, t in state.items() if not n.startswith("fc."))


def test_rigl_stretches_drops_and_warm_up(one):
    o = arms.rigl(one, 1, length="2x").params
    assert (o["stop"], o["optimizer"]["drops_it"], o["optimizer"]["warmup_it"]) == (8, (6,), 4)
    assert (one.length_it, one.recipe.optimizer.drops_it, one.recipe.optimizer.warmup_it) == (4, (3,), 2)


def test_epoch_5_is_where_the_warm_up_ends():
    whole = Trial(ours.IMAGENET, DataFacts("imagenet", "made-up", 1_281_167, (3, 224, 224), 1000, True), 0)
    assert whole.rewind_it == ours.IMAGENET.optimizer.warmup_it == 5 * 1251 and whole.length_it == 90 * 1251


def test_table_7_is_not_compared_number_by_number():
    """Whose optimiser, batch size and epochs the paper does not print."""
    assert "does not say" in ours.TO_CIFAR10.scaled["paper", "cifar10"].note


# ---- images that the network enlarges --------------------------------------------------------------------------
def test_a_stack_is_small_where_the_network_enlarges_images():
    """2^26 numbers a batch: 128 images of 3 x 224 x 224 are 19 million."""
    cifar10 = DataFacts("cifar10", "made-up", 50_000, (3, 32, 32), 10)
    recipes = (ours.ENLARGED, changed(ours.ENLARGED, {"model.options": {"arch": "resnet18"}}))
    large, small = (Trial(recipe, cifar10, 0).ticket(0) for recipe in recipes)
    assert [execute.most_stacked(stage, 256) for stage in (large, small)] == [3, 170]


@pytest.mark.parametrize("device, copies, enlarge, expected", [
    ("cuda", 1, 224, 128), ("cuda", 3, 224, 42), ("cuda", 1000, 224, 1), ("cpu", 1, 224, 128),
    ("cuda", 1, 0, 5000), ("cpu", 1, 0, 500), ("cpu", 1, 32, 500),
])  # fmt: skip
def test_an_evaluation_takes_as_many_images_as_the_network_can_enlarge(device, copies, enlarge, expected):
    x = torch.empty(9, 3, 32, 32)
    data = types.SimpleNamespace(decoded=False, input_shape=(3, 32, 32), train=types.SimpleNamespace(x=x))
    batches = types.SimpleNamespace(data=data, device=torch.device(device), streams=[None] * copies)
    assert supervised.examples_a_pass(batches, enlarge) == expected


def test_training_and_linear_paths_ask_the_network_whether_it_enlarges(sets, monkeypatch):
    asked, real = [], supervised.examples_a_pass
    monkeypatch.setattr(supervised, "examples_a_pass", lambda batches, enlarge=0: asked.append(enlarge) or real(batches, enlarge))
    one = Trial(changed(ours.ENLARGED, {**ours.SMALL_TAKER, "length": "0it", "rewind": "0it"}), facts(sets["digits"]), 0)
    dense = one.ticket(0)
    path = one.measure("linear-path", {role: dense.out("state") for role in "ab"}, points=2, **one.on_data())
    run([path], sets)
    assert len(asked) >= 3 and set(asked) == {32}
