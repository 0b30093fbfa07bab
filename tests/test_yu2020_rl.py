"""yu2020's control tasks: budgets, optimisers and networks are the file's, and its claims find what the experiments declare."""
from __future__ import annotations

import importlib.util
import json

import pytest

from bench import plan
from bench.catalogue import card, render_card
from bench.effort import steps
from bench.flags import Flags
from bench.joins import Join
from bench.measurement import Measurement, RunInfo
from ltcore.arms import ARMS
from ltcore.errors import PackageMissingError, UsageError
from ltcore.imp import DataFacts, Trial
from ltcore.models import MODELS, layer_sizes, skeleton
from ltcore.recipe import changed
from ltcore.rl import a2c
from ltcore.rl.worlds import ENDLESS, WORLDS, Environment
from ltcore.stages import Stage
from replications import papers, registry
from tests.conftest import bench
from tests.made_up import every_part_is_found

DATA, PAPER = papers.load("yu2020"), registry.load("yu2020")
PROTOCOLS = [p["id"] for p in DATA.protocols if p["id"].startswith("rl-")]
N = 3


def _of(protocol):
    return [e for e in PAPER.experiments if e.protocol == protocol]


def _facts(name):
    world = WORLDS[name]
    return DataFacts(name, "made-up", len(ENDLESS), world.input_shape, world.actions, played=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_recipes_are_those_of_the_file(protocol):
    said = DATA.protocol(protocol)
    budget, optimizer, algorithm = said["budget"], said["optimizer"], said["algorithm"]
    units = budget.get("episodes_per_epoch_M") or budget["batches_per_epoch_M"]
    for e in _of(protocol):
        recipe, scaled = e.recipe, e.scaled["paper", e.recipe.data.name]
        window = budget.get("reward_window_L_episodes")
        assert recipe.length == f"{budget['epochs_N'] * units}it"
        assert recipe.rewind == ("0it" if e.condition.get("rewind") == "0it" else f"{units}it")
        assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.eps) == (optimizer["name"].lower(), optimizer["lr"], optimizer["eps"])
        assert recipe.optimizer.alpha == optimizer.get("alpha", 0.99) and recipe.batch_size == algorithm["batch_size"]
        assert (scaled.trials, scaled.levels, recipe.pruning.scope) == (said["trials"], said["pruning"]["rounds"], "global")
        assert set(recipe.pruning.rates.values()) == {said["pruning"]["rate_per_round"]}
        task = a2c.settings(recipe.task.options, recipe.batch_size)
        assert task.unit == ("batches" if "batches_per_epoch_M" in budget else "episodes") and task.window == window
        assert task.reward_scale == algorithm.get("reward_scale", 1.0) and task.reward_clip == algorithm.get("reward_clip", [0, 0])[1]
        assert task.advantage_clip == algorithm.get("advantage_clip", [0, 0])[1] and algorithm.get("entropy_weight", task.entropy) == task.entropy


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_weights_and_biases_are_pruned_together(protocol):
    recipe = _of(protocol)[0].recipe
    module = skeleton(MODELS[recipe.model.name], recipe.model, WORLDS[recipe.data.name].input_shape, WORLDS[recipe.data.name].actions)
    total, sizes = sum(p.numel() for p in module.parameters()), layer_sizes(module)
    assert sum(n for n, _ in Trial(recipe, _facts(recipe.data.name), 0).prunable().values()) == total == sum(sizes.values())
    policy = DATA.protocol(protocol)["model"].get("policy_params")
    assert policy is None or sum(n for name, n in sizes.items() if not name.startswith("value")) == policy


def test_every_protocol_has_the_arms_that_the_paper_has():
    for protocol in PROTOCOLS:
        ablated = {e.condition.get("rewind") for e in _of(protocol)} == {None, "0it"}
        arms = {a.arm for e in _of(protocol) for a in e.scaled["paper", e.recipe.data.name].arms}
        assert {"dense", "ticket", "random-ticket"} <= arms and ("one-shot" in arms) == ablated
    assert sum(1 for e in PAPER.experiments if e.condition.get("rewind") == "0it" and e.protocol in PROTOCOLS) == 6  # Figs 6 and 7


def _measured():
    """A made-up measurement of every point that scale paper has, with the conditions that a run would write down."""
    for e in PAPER.experiments:
        if e.protocol not in PROTOCOLS:
            continue
        scaled, trials = e.scaled["paper", e.recipe.data.name], [Trial(e.recipe, _facts(e.recipe.data.name), t) for t in range(N)]
        for arm in scaled.arms:
            for p in plan._points(e, arm, scaled, trials):
                ladder = DATA.ladder(p.protocol)
                base = {**p.base, **({"weights_remaining_pct": ladder[p.condition["level"]]} if "level" in p.condition else {})}
                yield Measurement(p.protocol, p.condition, base, p.trial, 0, "episode_return", "end", 100.0 + p.trial, 0.01, stage=p.stage.hash)


@pytest.fixture(scope="module")
def join():
    return Join(DATA, list(_measured()), RunInfo("yu2020", "paper", dict.fromkeys(PROTOCOLS, N), dict.fromkeys(PROTOCOLS, ""), {}, {}))


@pytest.mark.parametrize("claim", [c.id for c in DATA.claims if c.id.startswith("rl-")])
def test_claims_find_what_the_experiments_declare(claim, join):
    every_part_is_found(DATA, claim, join, N)


def test_random_tickets_of_the_claims_are_those_of_the_permuted_mask(join):
    wanted = {"arm": "random-ticket", "level": 8}
    permuted = join.find("rl-cartpole-v0", "episode_return", "end", wanted).trials
    kept = join.find("rl-cartpole-v0", "episode_return", "end", {**wanted, "mask": "unpermuted"}).trials
    assert len(permuted) == len(kept) == N
    trial = Trial(_of("rl-cartpole-v0")[0].recipe, _facts("cartpole-v0"), 0)
    ticket, random, unpermuted = (ARMS[name](trial, 8) for name in ("ticket", "random-ticket", "reinit"))
    assert unpermuted.inputs["mask"] == ticket.inputs["mask"] != random.inputs["mask"]
    assert ticket.params["start"] == 160 and random.params["start"] == unpermuted.params["start"] == 0


def test_a_one_shot_ticket_is_pruned_from_the_dense_nets_scores_alone():
    trial = Trial(_of("rl-cartpole-v0")[0].recipe, _facts("cartpole-v0"), 0)
    masks = [ARMS["one-shot-level"](trial, level).inputs["mask"].stage for level in (1, 3)]
    assert masks[1].inputs["scores"] == masks[0].inputs["scores"] and masks[1].inputs["mask"].stage.inputs["mask"].stage == masks[0]
    assert masks[0].inputs["scores"].stage.inputs["weights"].stage == trial.ticket(0)


def test_the_protocol_card_can_be_printed():
    text = render_card(card("yu2020", "quick"))
    assert "RL: networks" in text and "1,600 inputs" in text


def test_a_missing_package_is_said_once_and_the_rest_goes_on(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == "Box2D" else found(name, *of))
    made = plan.make(PAPER, Flags("smoke", ("rl-cartpole-v0", "rl-acrobot-v1")))
    assert {p.protocol for p in made.points} == {"rl-cartpole-v0", "rl-acrobot-v1"}
    everything = plan.make(PAPER, Flags("smoke"))
    said = [note for note in everything.notes if "Box2D" in note]
    assert said == ["environment LunarLander-v3 needs the package Box2D: pip install 'gymnasium[box2d]': rl-lunarlander-v2 skipped"]
    assert "rl-lunarlander-v2" in everything.skipped and "rl-atari-breakout" in {p.protocol for p in everything.points}
    with pytest.raises(PackageMissingError, match="needs the package Box2D"):
        plan.make(PAPER, Flags("smoke", ("rl-lunarlander-v2",)))


@pytest.mark.parametrize(("changes", "data", "message"), [
    ({"task.options.entropie": 0.1}, "cartpole-v0", "unexpected keyword argument 'entropie'"),
    ({"data.name": "mnist"}, "mnist", "task a2c needs an environment, such as cartpole-v0; mnist is a data set"),
    ({"task.name": "classify"}, "cartpole-v0", "cartpole-v0 is an environment: nothing to classify, name task a2c"),
    ({"data.val": 5}, "cartpole-v0", "knows no validation examples"),
])  # fmt: skip
def test_recipes_that_mean_nothing(changes, data, message):
    recipe = changed(_of("rl-cartpole-v0")[0].recipe, changes)
    facts = _facts(data) if data in WORLDS else DataFacts(data, "made-up", 1000, (1, 28, 28), 10)
    with pytest.raises(UsageError, match=message):
        Trial(recipe, facts, 0)


def test_plan_reckons_episodes_as_the_steps_that_they_take():
    made = plan.make(PAPER, Flags("quick"))
    stage = next(s for s in made.stages if s.kind == "train" and s.params["stop"] == 160)
    cartpole = Environment("cartpole-v0", WORLDS["cartpole-v0"], {})
    assert steps(stage, cartpole) == -(-160 * WORLDS["cartpole-v0"].episode_steps // 128)
    game = Stage("train", {"start": 10, "stop": 30, "batch_size": 128, "task": {"name": "a2c", "options": {"unit": "batches"}}})
    assert steps(game, cartpole) == 20


def test_smoke_by_the_command_line(tmp_path):
    """Replicate, break nothing, and the plan has nothing left to time."""
    call = ("yu2020", "--scale", "smoke", "--experiment", "rl-cartpole-v0", "--store", tmp_path / "store")
    done = bench("replicate", *call, "--json")
    assert done.returncode == 0, done.stderr
    arms = [a for a in json.loads(done.stdout)["arms"] if a["protocol"] == "rl-cartpole-v0"]
    assert len(arms) == 7 and all(a["n"] == 1 and 9 <= a["values"][0]["mean"] < 200 for a in arms)
    assert {v["metric"] for a in arms for v in a["values"]} == {"episode_return"}
    assert "no training to do" in bench("plan", *call).stdout
