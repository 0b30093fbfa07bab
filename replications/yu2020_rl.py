"""The reinforcement-learning half of Yu et al. 2020: classic control and Atari by advantage actor-critic. Values only, joined by ``yu2020``.

A segment's clock counts episodes (classic control) or batches (Atari), so that "1ep", one epoch of Table A1, is its M.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, Task, changed
from ltcore.rl.worlds import HUMAN, REGISTRY, WORLDS
from replications.schema import Arm, Control, Deviation, Experiment, Scaled, Setting
from replications.yu2020_arms import DENSE, one_shot, random, unpermuted

TRIALS, ROUNDS, BATCH = 3, 20, 128
CLAIMED, ABLATED = (8, 10, 12, 14, 16), (8, 10, 12, 14)  # levels that the claims name
PRUNED = Pruning(dict.fromkeys(("conv", "fc", "output", "value", "bias"), 0.2), scope="global")
# Not printed in the paper; chosen once on the dense CartPole net, see DEVIATIONS, and kept for all levels and environments.
CHOSEN: Mapping[str, Any] = {"discount": 0.99, "gae": 1.0, "value": 0.5}
CONTROL_TASK = Task("a2c", {**CHOSEN, "unit": "episodes", "steps": 4, "window": 100, "entropy": 0.001, "reward_scale": 0.01})
ATARI_TASK = Task("a2c", {**CHOSEN, "unit": "batches", "steps": 4, "window": 1024, "entropy": 0.01, "reward_clip": 1.0, "advantage_clip": 1.0})


@dataclass(frozen=True)
class _Budget:
    """N epochs of M episodes or batches (Table A1)."""

    epochs: int
    units: int

    @property
    def fields(self) -> dict[str, Any]:
        """Of a recipe: length, rewind point and the spacing of the return's curve, all on the segment's clock."""
        return {"length": f"{self.epochs * self.units}it", "rewind": f"{self.units}it", "evaluate": Evaluate(self.units // 4, ("end",))}


def _control(world: str, width: int, units: int) -> Recipe:
    return Recipe(
        model=Model("actor-critic", "module", {"hidden": [width] * 3}), data=Data(world), optimizer=Optimizer("rmsprop", 1e-4, eps=1e-8),
        batch_size=BATCH, pruning=PRUNED, task=CONTROL_TASK, **_Budget(20, units).fields,
    )  # fmt: skip


def _game(world: str) -> Recipe:
    return Recipe(
        model=Model("actor-critic-conv", "module"), data=Data(world), optimizer=Optimizer("adam", 1e-3, eps=1e-3),
        batch_size=BATCH, pruning=PRUNED, task=ATARI_TASK, **_Budget(25, 1000).fields,
    )  # fmt: skip


# ---- arms: what claims name first, then the whole curves --------------------------------------------------------
TICKET = "ticket"
ALL = tuple(range(1, ROUNDS + 1))


def _arms(ablated: bool, everything: bool = True) -> tuple[Arm, ...]:
    claimed = (DENSE, Arm(TICKET, levels=CLAIMED), random(*CLAIMED), *((one_shot(*ABLATED),) if ablated else ()), unpermuted(*CLAIMED))
    curves = (Arm(TICKET, levels=ALL), random(*ALL), *((one_shot(*ALL),) if ablated else ()), unpermuted(*ALL))
    return claimed + (curves if everything else ())


UNREWOUND = (Arm(TICKET, levels=ABLATED), Arm(TICKET, levels=ALL))
SMOKE_ARMS = (DENSE, Arm(TICKET, levels=(1, 2)), random(2), one_shot(2), unpermuted(2))
SMOKE: Mapping[str, Any] = {
    "model.options": {"hidden": [16, 16]}, "batch_size": 32, "length": "60it", "rewind": "20it", "evaluate.every_it": 10, "task.options.window": 20,
}  # fmt: skip
SMOKE_GAME: Mapping[str, Any] = {
    "model.options": {"width": 4, "hidden": [16]}, "batch_size": 16, "length": "16it", "rewind": "8it", "evaluate.every_it": 4, "task.options.window": 4,
    "data.options": {"max_frames": 100},
}  # fmt: skip
ONLY_CARTPOLE = "its budget takes minutes a training; quick runs CartPole"
NEEDS_GPU = "needs a GPU: 3.2 million frames of a game through a convolutional net for each of some 60 trainings"


def _experiments(protocol: str, recipe: Recipe, ablated: bool, scaled: Mapping[tuple[str, str], Scaled], unrewound: Mapping[tuple[str, str], Scaled],
                 why: str) -> tuple[Experiment, ...]:  # fmt: skip
    """The protocol with late rewinding and, where the paper has that ablation, its tickets without."""
    world = recipe.data.name
    late = {("paper", world): Scaled(TRIALS, ROUNDS, _arms(ablated)), **scaled}
    zero = {("paper", world): Scaled(TRIALS, ROUNDS, UNREWOUND), **unrewound}
    found = [Experiment(protocol, recipe, late, base={"rewind": "1ep"}, why_not_quick=why)]
    found += [Experiment(protocol, changed(recipe, {"rewind": "0it"}), zero, condition={"rewind": "0it"}, why_not_quick=why)] if ablated else []
    return tuple(found)


def _classic(protocol: str, recipe: Recipe) -> tuple[Experiment, ...]:
    world = recipe.data.name
    short = {**SMOKE, **({"data.options": {"max_steps": 100}} if world == "acrobot-v1" else {})}
    return _experiments(protocol, recipe, True, {("smoke", world): Scaled(1, 2, (DENSE, Arm(TICKET, levels=(1,))), short)}, {}, ONLY_CARTPOLE)


GAMES = ("assault", "breakout", "seaquest", "berzerk", "centipede", "kangaroo", "krull", "qbert", "spaceinvaders")
ABLATED_GAMES = frozenset({"assault", "breakout", "seaquest"})  # Figs 6 and 7


def _atari(game: str) -> tuple[Experiment, ...]:
    smoke = {("smoke", f"atari-{game}"): Scaled(1, 1, (DENSE, Arm(TICKET, levels=(1,)), random(1)), SMOKE_GAME)} if game == "breakout" else {}
    return _experiments(f"rl-atari-{game}", _game(f"atari-{game}"), game in ABLATED_GAMES, smoke, {}, NEEDS_GPU)


CARTPOLE = _control("cartpole-v0", 128, 160)
CARTPOLE_SCALED = {("quick", "cartpole-v0"): Scaled(TRIALS, 16, _arms(True, everything=False)), ("smoke", "cartpole-v0"): Scaled(1, 2, SMOKE_ARMS, SMOKE)}
CARTPOLE_UNREWOUND = {
    ("quick", "cartpole-v0"): Scaled(TRIALS, 14, UNREWOUND[:1]),
    ("smoke", "cartpole-v0"): Scaled(1, 2, (Arm(TICKET, levels=(2,)),), {**SMOKE, "rewind": "0it"}),
}

EXPERIMENTS = (
    *_experiments("rl-cartpole-v0", CARTPOLE, True, CARTPOLE_SCALED, CARTPOLE_UNREWOUND, ""),
    *_classic("rl-acrobot-v1", _control("acrobot-v1", 256, 320)),
    *_classic("rl-lunarlander-v2", _control("lunarlander-v3", 256, 640)),
    *(e for game in GAMES for e in _atari(game)),
)


def _returns() -> str:
    return "; ".join(f"{w.label} {w.random:g} / {w.solved:g}" for w in WORLDS.values())


SETTINGS = (
    Setting("RL: returns to compare with", "none printed", "none", f"random / solved or human play: {_returns()}", f"{REGISTRY}. {HUMAN}"),
    Setting("RL: networks", "MLP of three hidden layers; CNN for Atari (Table A1)", "none", "the same, with one value beside the logits on the shared trunk",
            "the value head is not described; the policy alone has the 33,922 (CartPole), 134,147 and 134,916 parameters of the paper's layers"),
    Setting("RL: init", "not stated", "none", "PyTorch's own (uniform, fan in), biases too", "the frameworks are in PyTorch"),
    Setting("RL: algorithm", "A2C: FLARE, 32 threads x 4 steps (classic control); ELF, 1,024 threads (Atari)", "none", "synchronous A2C, 32 environments x 4 steps, an update a batch of 128"),
    Setting("RL: optimisers", "RMSprop 1e-4, alpha 0.99, eps 1e-8; Atari Adam 1e-3, eps 1e-3", "none", "the same; constant rates"),
    Setting("RL: rewards", "scaled by 0.01 (classic control); clipped to [-1, 1], advantages too (Atari)", "none", "the same, for learning only; returns are reported as the environment gives them"),
    Setting("RL: length", "N epochs of M episodes: 20 x 160, 320, 640; Atari 25 x 1,000 batches (Table A1)", "none",
            "the same; a run ends with the update in which its last episode ends"),
    Setting("RL: time limits", "not stated", "none", "an episode that is cut is worth the value of what was seen last; nothing follows a termination"),
    Setting("RL: Atari frames", "not stated", "none", "frame skip 4 with maximum of two, grey 84 x 84, stack of 4, up to 30 idle steps and FIRE, no sticky actions; a lost life is an end to the learner, not to the game"),
    Setting("RL: pruning", "magnitude, 20 % a round, all layers pooled with their biases, 20 rounds", "none", "the same; the value's weights and bias too"),
    Setting("RL: rewind", "to the end of epoch 1, M episodes or batches", "none", "the same; every segment begins with fresh environments from a stream of its own, for dense nets, tickets and controls alike"),
    Setting("RL: one-shot", "the dense net pruned once", "none", "to the ticket's exact count, rewound to epoch 1"),
    Setting("RL: random tickets", "parameter-matched random initialisation", "none", "fresh weights, the ticket's mask permuted over all layers (morcos2019); beside it the mask as it is", "the text does not say whether the mask is permuted"),
    Setting("RL: trials", "3", "n/a", "3"),
)  # fmt: skip

DEVIATIONS = (
    Deviation("RL: discount, entropy and value weights", "not printed", "discount 0.99, returns of up to 4 steps, value weight 0.5, entropy weight 0.001 (classic control)",
              "a small sweep on the dense CartPole net, 3 trials; the same for all levels and environments. Atari keeps the printed entropy weight 0.01"),
    Deviation("RL: LunarLander", "LunarLander-v2", "LunarLander-v3", "v2 is no longer offered; v3 mends the reset of its wind"),
    Deviation("RL: inputs to Atari's fully connected layers", "1,920 inputs", "1,600 inputs", "84 x 84 frames; the paper's size of frame is not stated"),
    Deviation("RL: Atari's threads", "1,024 asynchronous, blocked every 6 steps, importance factors up to 1.5", "32 environments in step, 4 steps, no factor",
              "the policy that acts is the one that learns; 128 is no multiple of 6"),
    Deviation("RL: environments at the rewind point", "not stated", "begun afresh", "an emulator's state can't be saved; dense nets and tickets do the same"),
)  # fmt: skip

CONTROLS = (
    Control(("rl-classic-wt-beats-rt",), "no-training", "cartpole-v0", "rl-cartpole-v0",
            Scaled(TRIALS, 16, (DENSE, Arm(TICKET, levels=CLAIMED), random(*CLAIMED)))),
)  # fmt: skip

NOT_COVERED: Mapping[str, str] = {}
