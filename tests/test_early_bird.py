"""The early-bird arms: a cut dense run is the straight one, a search stops where its rule draws, tickets train on as smaller networks."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from bench import execute
from ltcore import cost, data, drawing, early_bird, jobs, ranks
from ltcore.epochs import Schedule
from ltcore.errors import UsageError, UserError
from ltcore.imp import DataFacts, Trial
from ltcore.kinds import Env, Job, run
from ltcore.library import Library
from ltcore.models import MODELS, draw_state
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, changed
from ltcore.training.loop import Checkpoints, Replicate, Segment, Stopped, train
from ltcore.training.supervised import Streams
from tests.conftest import bench, run_all

RECIPE = Recipe(
    Model("vgg", "slimming", {"depth": 11, "width": 2}), Data("digits"), Optimizer("sgd", 0.05, 0.9, weight_decay=1e-4, drops_it=(8, 12), bn_l1=1e-2),
    32, "16it", Evaluate(16, ("end",)), Pruning({"channel": 0.5}, "bn-scale", "global-keep-one", "channels"), precision="fp64",
)  # fmt: skip
PLAN = Schedule(16, (1, 5))
HALF = {"plan": PLAN, "channels_remaining_pct": 50}


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits", "auto")


def trial(digits: data.Dataset, seed: int = 0, **changes: object) -> Trial:
    facts = DataFacts(digits.name, digits.fingerprint, len(digits.train), digits.input_shape, digits.classes)
    return Trial(changed(RECIPE, changes), facts, seed)


@pytest.fixture(scope="module")
def done(digits):
    """One graph with every arm, run once."""
    t = trial(digits)
    arms = {
        "dense": early_bird.dense(t, plan=PLAN), "at 5": early_bird.at_epoch(t, **HALF, epoch_drawn=5),
        "train": early_bird.train(t, **HALF), "fresh": early_bird.train(t, **HALF, init="fresh"),
        "slimmed": early_bird.slimmed(t, **HALF), "one-shot": early_bird.one_shot(t, **HALF), "snip": early_bird.snip(t, **HALF),
        "distances": early_bird.distances(t, **HALF), "detected": early_bird.detected(t, **HALF), "newest": early_bird.detected(t, **HALF, rule="newest"),
        "train cost": early_bird.train_cost(t, **HALF), "fresh cost": early_bird.train_cost(t, **HALF, init="fresh"),
        "at 5 cost": early_bird.at_epoch_cost(t, **HALF, epoch_drawn=5), "dense cost": early_bird.dense_cost(t, plan=PLAN),
        "one-shot cost": early_bird.two_dense_cost(t, plan=PLAN),
    }  # fmt: skip
    results = run_all(arms.values(), digits)
    return {name: (stage, results[stage]) for name, stage in arms.items()} | {"all": results}


def values(result) -> dict[str, float]:
    return {v.metric: v.value for v in result.values}


# ---- the dense run -------------------------------------------------------------------------------------------
def test_a_cut_run_takes_the_same_steps_as_a_straight_one(digits, done):
    straight = trial(digits).train(trial(digits).init(), start=0)
    state, cut = run_all([straight], digits)[straight].artefacts["state"], done["dense"][1].artefacts["state"]
    assert all(torch.equal(t, cut[n]) for n, t in state.items())


def test_l1_on_the_scales_is_said_where_it_is_used_and_pulls_them_down(digits, done):
    t = trial(digits, **{"optimizer.bn_l1": 0.0})
    plain = t.train(t.init(), start=0)
    without = run_all([plain], digits)[plain].artefacts["state"]
    assert "bn_l1" not in plain.params["optimizer"] and "track" not in plain.params
    scales = [n for n in without if n.startswith("norm") and n.endswith("weight")]
    assert sum(float(done["dense"][1].artefacts["state"][n].abs().sum()) for n in scales) < sum(
        float(without[n].abs().sum()) for n in scales
    )


def test_one_step_of_l1_is_the_sign_of_the_scale(digits):
    """SGD without momentum: the step with L1 differs from that without by lr x strength x sign, on batch-norm scales only."""
    model = Model("vgg", "slimming", {"depth": 11, "width": 2})
    state = {n: t.double() if t.is_floating_point() else t for n, t in draw_state(MODELS["vgg"], model, (1, 8, 8), 10, [0, "init"]).items()}
    state["norm.3.weight"][0] = -0.4
    module, ends = MODELS["vgg"]((1, 8, 8), 10, **model.options), []
    for l1 in (0.0, 0.25):
        segment = Segment(Optimizer("sgd", 0.1, bn_l1=l1), 32, 0, 1, Evaluate(1, ()), 0, "fp64")
        ends.append(train(module, digits, segment, [Replicate(state, {}, Streams([0, "split"], [0, "order"]))])[0].state)
    for n, a in ends[0].items():
        scale = n.startswith("norm") and n.endswith("weight")
        torch.testing.assert_close(ends[1][n], a - 0.1 * 0.25 * state[n].sign() if scale else a, rtol=0, atol=1e-12)


# ---- the search ----------------------------------------------------------------------------------------------
def test_a_search_ends_where_the_measure_of_the_dense_run_says(digits, done):
    search = done["train"][0].inputs["clock"].stage
    stopped = int(done["all"][search].artefacts["search"]["it"])
    assert stopped == values(done["detected"][1])["epoch_drawn_ep"] < 16  # an epoch is one iteration here
    assert values(done["train cost"][1])["search_length_pct"] == 100 * stopped / 16
    before = early_bird.segments(dataclasses.replace(trial(digits), _memo={}), Schedule(16, (stopped,)))[0]
    state = run_all([before], digits)[before].artefacts["state"]
    assert all(torch.equal(t, state[n]) for n, t in done["all"][search].artefacts["state"].items())


def test_scales_are_noted_after_every_epoch(done):
    stages = [out.stage for _, out in sorted(done["distances"][0].inputs.items())]
    assert [len(done["all"][s].artefacts["search"]["norm.0.weight"]) for s in stages] == [1, 4, 11]
    for stage in stages:
        noted, end = done["all"][stage].artefacts["search"], done["all"][stage].artefacts["state"]
        assert torch.equal(noted["norm.3.weight"][-1].double(), end["norm.3.weight"].float().double())


def test_a_search_that_never_draws_runs_to_the_end_and_says_so(digits):
    t = trial(digits, **{"optimizer.lr": 3.0})  # masks that jump about
    found, plan = early_bird.detected(t, plan=Schedule(4), channels_remaining_pct=50), Schedule(4)
    search = early_bird.search(t, plan, 50)
    done = run_all([found, search], digits)
    assert [(v.value, v.censored) for v in done[found].values] == [(4, True), (100, True)]
    assert int(done[search].artefacts["search"]["it"]) == 16


def test_a_search_goes_on_after_a_stop_as_if_nothing_had_happened(digits):
    """Checkpoints hold the scales noted so far: without them the rule would look at zeros."""
    model = Model("vgg", "slimming", {"depth": 11, "width": 2})
    module, state = MODELS["vgg"]((1, 8, 8), 10, **model.options), draw_state(MODELS["vgg"], model, (1, 8, 8), 10, [0, "init"])
    segment = Segment(Optimizer("sgd", 0.05, 0.9), 32, 0, 80, Evaluate(80, ()), 0, track=drawing.Draw(20, 0.5, "newest", 0.5))
    one, kept = [Replicate(state, {}, Streams([0, "split"], [0, "order"]))], {}
    (straight,) = train(module, digits, segment, one)
    with pytest.raises(Stopped):
        asked = iter([False, True])  # at iterations 1 and 65
        train(module, digits, segment, one, Checkpoints(save=kept.update, stop=lambda: next(asked)))
    (resumed,) = train(module, digits, segment, one, Checkpoints(load=lambda: {n: t.clone() for n, t in kept.items()}))
    assert straight.tracked["norm.0.weight"].shape == (4, 2)
    assert all(torch.equal(t, resumed.tracked[n]) for n, t in straight.tracked.items()) and straight.facts == resumed.facts


def test_searches_can_not_be_stacked(digits):
    t = trial(digits)
    search = early_bird.search(t, PLAN, 50)
    state = run_all([search.inputs["state"].stage], digits)[search.inputs["state"].stage].artefacts["state"]
    with pytest.raises(ValueError, match="can't be stacked"):
        run([Job("train", search.params, {"state": state})] * 2, Env(Library(), lambda _: digits, backend="loop"))


def test_scales_of_a_stack_are_those_of_its_copies_alone(digits):
    runs = [early_bird.segments(trial(digits, seed), PLAN)[0] for seed in (0, 1)]
    states = run_all([r.inputs["state"].stage for r in runs], digits)
    jobs = [Job("train", r.params, {"state": states[r.inputs["state"].stage].artefacts["state"]}) for r in runs]
    together, alone = run(jobs, Env(Library(), lambda _: digits)), [run([job], Env(Library(), lambda _: digits))[0] for job in jobs]
    for a, b in zip(together, alone):
        assert all(torch.equal(t, b.artefacts["search"][n]) for n, t in a.artefacts["search"].items())


def test_what_differs_in_shape_or_length_is_never_stacked_and_searches_are_kept(digits):
    t = trial(digits)
    ticket, search, plain = early_bird.train(t, **HALF), early_bird.search(t, PLAN, 50), early_bird.dense(t, plan=PLAN)
    assert [execute.most_stacked(stage, 64) for stage in (ticket, search, plain)] == [1, 1, 64]
    assert [execute._all_artefacts(stage) for stage in (ticket, search)] == [("state", "optimizer"), ("state", "optimizer", "search")]


def test_a_search_at_8_bit_is_a_run_of_its_own_and_its_ticket_goes_on_at_full_precision(digits):
    t = trial(digits, precision="fp32")
    low, high = (early_bird.train(t, **HALF, search=at) for at in ("8bit", "fp32"))
    assert (low.inputs["clock"].stage.params["precision"], low.params["precision"]) == ("bfp8", "fp32")
    assert low.inputs["clock"].stage.inputs["state"] == high.inputs["clock"].stage.inputs["state"]  # the same first weights
    done = run_all([low], digits)
    assert done[low].facts["density_channels"] == 0.5 and execute.most_stacked(low.inputs["clock"].stage, 64) == 1
    with pytest.raises(UsageError, match="unknown precision '4bit' of a search: fp32 or 8bit"):
        early_bird.train(t, **HALF, search="4bit")


def test_8_bit_retraining_is_averaged_over_the_last_eighth_and_said_only_there(digits):
    """EB Train LL: the code's --swa_start 140 of 160; epochs 15 and 16 of these 16."""
    t = trial(digits, precision="fp32")
    ll, lf = (early_bird.train(t, **HALF, search="8bit", retrain=at) for at in ("8bit", "fp32"))
    assert (ll.params["precision"], ll.params["average"]) == ("bfp8", {"from_it": 14, "every_it": 1})
    assert "average" not in lf.params and ll.inputs["clock"] == lf.inputs["clock"] and ll.inputs["state"] == lf.inputs["state"]
    paper = early_bird.averaged(trial(digits, length=f"{160 * 195}it"), Schedule(160))
    assert paper == {"from_it": 27_300, "every_it": 195}
    done = run_all([ll], digits)[ll]
    read = {(v.metric, v.at) for v in done.values}
    assert {("test_accuracy_pct", "end"), ("test_accuracy_pct", "last-iterate")} <= read and done.facts["density_channels"] == 0.5
    assert int(done.artefacts["state"]["norm.0.num_batches_tracked"]) == 1437 // 32  # statistics of one epoch
    assert execute.most_stacked(ll, 64) == 1
    with pytest.raises(UsageError, match="unknown precision '4bit' of a retraining: fp32 or 8bit"):
        early_bird.train(t, **HALF, retrain="4bit")


# ---- tickets -------------------------------------------------------------------------------------------------
def test_a_ticket_is_the_smaller_network_of_the_drawn_mask(digits, done):
    for name in ("at 5", "train", "fresh", "slimmed"):
        stage, result = done[name]
        mask = done["all"][stage.inputs["channels"].stage].artefacts["mask"]
        assert sum(int(m.sum()) for m in mask.values()) == 43  # of the 86 scales of this VGG-11
        assert result.facts["density_channels"] == 0.5 and 0 < result.facts["density_all"] < 0.5
        assert {n: t.shape[0] for n, t in result.artefacts["state"].items() if n in mask} == result.facts["channels_kept"]


def test_kept_weights_go_on_at_the_drawn_epoch_and_fresh_ones_from_the_start(done):
    stopped = values(done["detected"][1])["epoch_drawn_ep"]
    steps = {name: int(done[name][1].artefacts["optimizer"]["step"]) for name in ("train", "fresh", "at 5", "slimmed")}
    assert steps == {"train": 16 - stopped, "fresh": 16, "at 5": 16, "slimmed": 16}
    start = done["all"][done["fresh"][0].inputs["state"].stage].artefacts["state"]
    assert start["norm.0.weight"].unique().tolist() == [0.5]


def test_arms_share_the_dense_run(digits):
    t = trial(digits)
    first = early_bird.at_epoch(t, **HALF, epoch_drawn=5).inputs["channels"].stage.inputs["scores"].stage.inputs["weights"].stage
    assert first == early_bird.segments(t, PLAN)[1] == early_bird.segments(trial(digits, **{"pruning.rates": {"channel": 0.3}}), PLAN)[1]


def test_single_weights_that_go_are_as_many_as_the_share_says(done):
    for name in ("one-shot", "snip"):
        mask = done["all"][done[name][0].inputs["mask"].stage].artefacts["mask"]
        assert sum(int(m.sum()) for m in mask.values()) * 2 == pytest.approx(sum(m.numel() for m in mask.values()), abs=1)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda t: early_bird.at_epoch(t, **HALF, epoch_drawn=7),
            "no ticket can be drawn after epoch 7: the dense run is cut after 1, 5 and 16",
        ),
        (lambda t: early_bird.dense(t, plan=Schedule(5)), "does not divide into the schedule's 5 epochs"),
        (lambda t: early_bird.train(t, **HALF, init="old"), "unknown init 'old'"),
    ],
)
def test_what_can_not_be_built_is_said_in_one_line(digits, build, says):
    with pytest.raises(UsageError, match=says):
        build(trial(digits))


def test_a_net_that_says_nothing_of_its_channels_can_not_be_scored(digits):
    t = trial(digits, model=Model("conv", options={"depth": 2, "width": 2, "hidden": [4]}))
    with pytest.raises(UserError, match="model 'conv' has no attribute channel_links"):
        run_all([early_bird.drawn(t, t.init(), 50).stage], digits)


# ---- measures ------------------------------------------------------------------------------------------------
def test_the_matrix_is_that_of_the_noted_scales(done):
    stages = [out.stage for _, out in sorted(done["distances"][0].inputs.items())]
    scales = {
        n: torch.cat([done["all"][s].artefacts["search"][n] for s in stages])
        for n in done["all"][stages[0]].artefacts["search"]
        if n != "it"
    }
    table = drawing.distances(drawing.masks_of(scales, 0.5))
    told = {(v.condition["from_epoch"], v.condition["to_epoch"]): v.value for v in done["distances"][1].values}
    assert told == {(a, b): float(table[a - 1, b - 1]) for a in range(1, 17) for b in range(a + 1, 17)}


def test_shuffled_masks_lie_further_apart(digits, done):
    control = early_bird.distances(trial(digits, control="shuffled-mask"), **HALF)
    broken = {tuple(v.condition.values()): v.value for v in run_all([control], digits)[control].values}
    whole = {tuple(v.condition.values()): v.value for v in done["distances"][1].values}
    assert broken.keys() == whole.keys() and sum(broken.values()) > 2 * sum(whole.values())
    assert {control.inputs[r].stage.hash for r in control.inputs} == {done["distances"][0].inputs[r].stage.hash for r in control.inputs}


def test_costs_add_up(digits, done):
    per_image = cost.forward_flops(MODELS["vgg"]((1, 8, 8), 10, depth=11, width=2), (1, 8, 8))
    dense = values(done["dense cost"][1])
    assert dense["training_flops"] == dense["retraining_flops"] == 3 * 16 * 32 * per_image and dense["parameters_remaining_pct"] == 100
    assert values(done["one-shot cost"][1])["training_flops"] == 2 * dense["training_flops"]
    epoch = {name: values(done[name][1]) for name in ("train cost", "fresh cost", "at 5 cost")}
    stopped = int(epoch["train cost"]["epoch_drawn_ep"])
    small = epoch["train cost"]["flops_remaining_pct"] / 100
    assert epoch["train cost"]["training_flops"] == pytest.approx(dense["training_flops"] * (stopped + small * (16 - stopped)) / 16)
    assert epoch["fresh cost"]["training_flops"] == pytest.approx(dense["training_flops"] * (stopped / 16 + small))
    assert epoch["at 5 cost"]["search_flops"] == dense["training_flops"] * 5 / 16 and "epoch_drawn_ep" not in epoch["at 5 cost"]
    assert epoch["train cost"]["parameters_count"] == sum(
        t.numel() for n, t in done["train"][1].artefacts["state"].items() if "running" not in n and "num_batches" not in n
    )


# ---- top-5 accuracy ------------------------------------------------------------------------------------------
def test_the_class_must_be_among_the_largest_and_ties_go_to_lower_classes():
    out = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.2, 0.2]])
    ranked = [[ranks.hits(out, torch.full((2,), c), k).tolist() for c in range(3)] for k in (1, 2)]
    assert ranked == [[[False, True], [True, False], [False, False]], [[False, True], [True, True], [True, False]]]
    assert not ranks.hits(torch.tensor([[0.9, float("nan")]]), torch.tensor([0]), 2)  # a net that diverged is right nowhere


def test_top_5_is_read_of_the_network_that_an_arm_leaves(digits, done):
    t = trial(digits)
    arms = {"dense": early_bird.dense_top5(t, plan=PLAN), "train": early_bird.train_top5(t, **HALF), "slimmed": early_bird.slimmed_top5(t, **HALF)}
    results = run_all(arms.values(), digits)
    for name, stage in arms.items():
        (value,) = results[stage].values
        assert (value.metric, value.at, value.resolution) == ("test_top5_pct", "end", pytest.approx(100 / 360))
        state = results[stage.inputs["state"].stage].artefacts["state"]
        assert all(torch.equal(w, state[n]) for n, w in done[name][1].artefacts["state"].items())
        top1 = next(v.value for v in done[name][1].values if v.metric == "test_accuracy_pct")
        found = [ranks.read(_net(stage, results), digits, Streams([0, "split"], [0, "order"]), state, k)[0] for k in (1, 5, 10)]
        assert found == [pytest.approx(top1), value.value, 100] and top1 < value.value < 100
        assert results[stage].facts["failed"] == done[name][1].facts["failed"]


@pytest.mark.parametrize(("value", "failed"), [(0.0, "stayed at chance"), (float("nan"), "diverged"), (float("inf"), "diverged")])
def test_top_5_of_a_network_that_learned_nothing_is_no_good_trial(digits, done, value, failed):
    """Half of the ten classes are among the five that a network gives most which gives all alike."""
    stage = early_bird.dense_top5(trial(digits), plan=PLAN)
    whole = done["dense"][1].artefacts["state"]
    spoilt = {n: torch.full_like(t, value) if t.dim() == 2 else t for n, t in whole.items()}  # the linear layer
    result = run([Job("measure", stage.params, {"state": spoilt})], Env(Library(), lambda _: digits))[0]
    assert result.facts["failed"] == failed and result.values[0].value < 70


def _net(stage, results):
    kept = results[stage.inputs["channels"].stage].artefacts["mask"] if "channels" in stage.inputs else None
    return jobs.module_of(stage.params, Env(Library(), lambda _: None), kept)


# ---- the command line ----------------------------------------------------------------------------------------
def test_smoke_runs_every_mechanism_and_resumes_to_the_same_table(tmp_path):
    """Search, draw, smaller networks, costs and maps by subprocess; a second call has nothing to do and prints the same."""
    run_it = (
        "replicate",
        "earlybird2020",
        "--scale",
        "smoke",
        "--experiment",
        "mask-distance-cifar100",
        "--experiment",
        "vgg16-cifar10",
        "--json",
    )
    first, second = (bench(*run_it, "--store", tmp_path / "store") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    arms = {json.dumps(a["condition"]): a for a in json.loads(first.stdout)["arms"]}
    ticket = arms['{"arm": "early-bird", "channels_remaining_pct": 50}']
    assert ticket["density"] == 0.5 and {"training_flops", "test_accuracy_pct", "epoch_drawn_ep"} <= {v["metric"] for v in ticket["values"]}
    drawn = bench("plot", "earlybird2020", "--store", tmp_path / "store", "-o", tmp_path / "plots")
    assert drawn.returncode == 0 and (tmp_path / "plots" / "mask-distance-cifar100-mask-distance.png").stat().st_size > 1000
