"""The loops that ``perf --model a2c`` times against each other: A2C on classic control, an update of 32 environments x 4 steps, one thread.

Each is a function (seconds) -> (updates, seconds that they took), so that they can take turns.
"""
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical

from bench.contenders import ENDLESS_IT, UNREAD, Contender, Turn, _turns
from ltcore.models import ActorCritic, draw_state, skeleton
from ltcore.recipe import Model, Optimizer, Task
from ltcore.rl import a2c, environments, worlds
from ltcore.training.loop import Checkpoints, Replicate, Segment, Stopped
from ltcore.training.supervised import Streams

ENVIRONMENTS, STEPS = 32, 4
BATCH = ENVIRONMENTS * STEPS
DISCOUNT, ENTROPY, VALUE, SCALE, LR = 0.99, 0.001, 0.5, 0.01, 1e-4
OPTIONS = {"unit": "batches", "steps": STEPS, "discount": DISCOUNT, "entropy": ENTROPY, "value": VALUE, "reward_scale": SCALE}
WIDTHS = {"cartpole-v0": 128, "acrobot-v1": 256, "lunarlander-v3": 256}  # of three hidden layers (Yu et al. 2020)


def needed_flop(world: str) -> int:
    """Of the matrix products of an update: forward in every step and once more for the values that follow, backward over the batch."""
    sizes = _sizes(world)
    forward = 2 * sum(sizes) * (BATCH + ENVIRONMENTS)
    return forward + 2 * BATCH * (sum(sizes) + sum(sizes[1:]))


def _sizes(world: str) -> list[int]:
    """Weights of each layer; the last gives logits and a value."""
    w = worlds.WORLDS[world]
    widths = [w.input_shape[0], *[WIDTHS[world]] * 3, w.actions + 1]
    return [a * b for a, b in zip(widths, widths[1:])]


def _net(world: str) -> tuple[Any, Model, tuple[int, ...], int]:
    w = worlds.WORLDS[world]
    return ActorCritic, Model("actor-critic", "module", {"hidden": [WIDTHS[world]] * 3}), w.input_shape, w.actions


def engine(world: str, replicates: int = 1, device: str = "cpu") -> Contender:
    """``ltcore.rl.a2c.train`` itself under a mask of 21 %, timed where it asks whether to stop."""
    net, data = _net(world), worlds.load(world).to(device)
    segment = Segment(Optimizer("rmsprop", LR), BATCH, 0, ENDLESS_IT, UNREAD, 0, task=Task("a2c", OPTIONS))
    copies = [_replicate(net, seed) for seed in range(replicates)]

    def turn(seconds: float) -> Turn:
        asked: list[float] = []

        def stop() -> bool:
            asked.append(time.perf_counter())
            return len(asked) > 1 and asked[-1] - asked[0] >= seconds

        with contextlib.suppress(Stopped):
            a2c.train(skeleton(*net), data, segment, copies, Checkpoints(stop=stop))
        return (len(asked) - 1) * a2c.CHECK_EVERY, asked[-1] - asked[0]

    return turn


def _replicate(net: tuple[Any, ...], seed: int) -> Replicate:
    state, g = draw_state(*net, [seed, "init"]), torch.Generator().manual_seed(seed)
    mask = {name: torch.rand(t.shape, generator=g) < 0.21 for name, t in state.items()}
    return Replicate(state, mask, Streams([seed, "split"], [seed, "order"]))


def plain(world: str) -> Contender:
    """The loop that is usually written: gymnasium's vector environment, an nn.Module, Categorical, autograd and torch.optim.RMSprop."""
    module = skeleton(*_net(world))
    optimizer, env = torch.optim.RMSprop(module.parameters(), LR), gymnasiums(world)
    seen = [torch.as_tensor(env.reset(seed=0)[0])]

    def update() -> None:
        logs, entropies, values, rewards, alive = [], [], [], [], []
        for _ in range(STEPS):
            out = module(seen[0])
            policy = Categorical(logits=out[:, :-1])
            action = policy.sample()
            observation, reward, terminated, truncated, _ = env.step(action.numpy())
            seen[0] = torch.as_tensor(observation)
            logs.append(policy.log_prob(action))
            entropies.append(policy.entropy())
            values.append(out[:, -1])
            rewards.append(torch.as_tensor(reward, dtype=torch.float32) * SCALE)
            alive.append(torch.as_tensor(~(terminated | truncated), dtype=torch.float32))
        with torch.no_grad():
            following = module(seen[0])[:, -1]
        loss = _loss(logs, entropies, values, _returns(rewards, alive, following))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _turns(update)


def _returns(rewards: list[Tensor], alive: list[Tensor], following: Tensor) -> Tensor:
    out: list[Tensor] = []
    for reward, on in zip(reversed(rewards), reversed(alive)):
        following = reward + DISCOUNT * on * following
        out.insert(0, following)
    return torch.stack(out)


def _loss(logs: list[Tensor], entropies: list[Tensor], values: list[Tensor], returns: Tensor) -> Tensor:
    value = torch.stack(values)
    gain = torch.stack(logs) * (returns - value).detach()
    return (VALUE * (returns - value).square() - gain - ENTROPY * torch.stack(entropies)).mean()


def gymnasiums(world: str) -> Any:
    """gymnasium's own copies: its vector environment where it has one, else one after the other."""
    import gymnasium

    if world == "cartpole-v0":
        from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

        return CartPoleVectorEnv(num_envs=ENVIRONMENTS, max_episode_steps=200)
    spec = {"acrobot-v1": "Acrobot-v1", "lunarlander-v3": "LunarLander-v3"}[world]
    return gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(spec, disable_env_checker=True)] * ENVIRONMENTS)


def environment(world: str) -> Contender:
    """The engine's environments alone, stepped with random actions; an update here is its share, four steps of 32."""
    copies: environments.Copies = worlds.load(world).make(ENVIRONMENTS, 0)
    return _stepped(copies.step, worlds.WORLDS[world].actions)


def gymnasium_alone(world: str) -> Contender:
    """gymnasium's, likewise."""
    env = gymnasiums(world)
    env.reset(seed=0)
    return _stepped(env.step, worlds.WORLDS[world].actions)


def _stepped(step: Callable[[np.ndarray], Any], actions: int) -> Contender:
    drawn = np.random.default_rng(0).integers(0, actions, (STEPS, ENVIRONMENTS))
    return _turns(lambda: [step(a) for a in drawn])


def products(world: str) -> Contender:
    """The matrix products of :func:`needed_flop` and nothing else."""
    w = worlds.WORLDS[world]
    widths = [w.input_shape[0], *[WIDTHS[world]] * 3, w.actions + 1]
    weights = [torch.randn(b, a) for a, b in zip(widths, widths[1:])]
    few, many = ([torch.randn(n, a) for a in widths] for n in (ENVIRONMENTS, BATCH))

    def update() -> None:
        for _ in range(STEPS + 1):
            for x, weight in zip(few, weights):
                torch.mm(x, weight.t())
        for i, weight in enumerate(weights):
            torch.mm(many[i + 1].t(), many[i])
            if i:
                torch.mm(many[i + 1], weight)

    return _turns(update)
