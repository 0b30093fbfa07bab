"""Copies of one environment that are stepped together, seen by the learner in one way whichever library runs them.

An episode that ends begins anew within the same step ("same-step" autoreset), so that every step is a transition to learn from; what was seen
last stands in ``Step.final``. gymnasium's own vector environment of CartPole begins anew one step later ("next-step"), where the action is
ignored and the reward is 0: ``CartPole`` does it at once instead.

Each environment here belongs to one replicate and draws from the seed that it was given alone.
"""
from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from typing import Any, NamedTuple, Protocol

import numpy as np

State = dict[str, np.ndarray]


class Step(NamedTuple):
    """What came of one step of n copies.

    Args:
        reward: (n,) as the environment gives it. observation: (n, …) to act on next; of a copy that ended, the first of its new episode.
        terminated: (n,) nothing follows what was seen last. truncated: (n,) cut by a time limit: something would have followed.
        over: (n,) the episode whose return is reported has ended. final: (n, …) seen last; ``observation`` where nothing ended.
    """

    reward: np.ndarray
    observation: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    over: np.ndarray
    final: np.ndarray


class Copies(Protocol):
    """n copies of one environment."""

    observation: np.ndarray  # (n, …) to act on

    def step(self, actions: np.ndarray) -> Step:
        """One step with actions (n,)."""

    def state(self) -> State | None:
        """All that the next steps depend on; None where the library can't tell it."""

    def restore(self, state: State) -> None:
        """Goes on from there."""


def _ended(reward: np.ndarray, observation: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, final: np.ndarray) -> Step:
    """A step of an environment whose time limit counts only where the last step was not the end anyway."""
    return Step(reward, observation, terminated, truncated & ~terminated, terminated | truncated, final)


def _generator_state(generator: np.random.Generator) -> np.ndarray:
    return np.frombuffer(json.dumps(generator.bit_generator.state).encode(), dtype=np.uint8).copy()


def _set_generator(generator: np.random.Generator, state: np.ndarray) -> None:
    generator.bit_generator.state = json.loads(bytes(state))


class CartPole:
    """gymnasium's own vector environment of CartPole; CartPole-v0 is CartPole-v1 with 200 steps instead of 500."""

    def __init__(self, n: int, seed: int, max_steps: int = 200):
        from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

        self.env = CartPoleVectorEnv(num_envs=n, max_episode_steps=max_steps)
        self.observation, _ = self.env.reset(seed=seed)

    def step(self, actions: np.ndarray) -> Step:
        env = self.env
        final, reward, terminated, truncated, _ = env.step(actions)
        env.prev_done[:] = False  # or its next step would begin anew, and be none to learn from
        ended, self.observation = terminated | truncated, final
        if ended.any():
            env.state[:, ended] = env.np_random.uniform(env.low, env.high, (4, int(ended.sum())))
            env.steps[ended] = 0
            self.observation = env.state.T.astype(np.float32)
        return _ended(reward, self.observation, terminated, truncated, final)

    def state(self) -> State:
        return {"state": self.env.state.copy(), "steps": self.env.steps.copy(), "rng": _generator_state(self.env.np_random)}

    def restore(self, state: State) -> None:
        self.env.state, self.env.steps = state["state"].copy(), state["steps"].copy()
        _set_generator(self.env.np_random, state["rng"])
        self.observation = self.env.state.T.astype(np.float32)


class Acrobot:
    """Acrobot-v1 (Sutton 1996) in arrays, 10 times as fast as gymnasium's, one copy after the other; the tests hold the two against each other.

    The state is (θ1, θ2, their velocities); links of length, mass and moment of inertia 1, centres of mass at their middle.
    """

    DT, GRAVITY, MAX_VELOCITY = 0.2, 9.8, np.array([[4 * np.pi], [9 * np.pi]])

    def __init__(self, n: int, seed: int, max_steps: int = 500):
        self.n, self.max_steps = n, max_steps
        self.rng = np.random.Generator(np.random.PCG64(seed))
        self.positions, self.steps = self._start(n), np.zeros(n, dtype=np.int32)
        self.observation = self._seen()

    def step(self, actions: np.ndarray) -> Step:
        self.positions = _bounded(_runge_kutta(self.positions, actions - 1.0, self.DT), self.MAX_VELOCITY)
        self.steps += 1
        one, two = self.positions[:2]
        terminated, truncated = -np.cos(one) - np.cos(one + two) > 1.0, self.steps >= self.max_steps
        final, ended = self._seen(), terminated | truncated
        self.observation = final
        if ended.any():
            self.positions[:, ended], self.steps[ended] = self._start(int(ended.sum())), 0
            self.observation = self._seen()
        return _ended(np.where(terminated, 0.0, -1.0), self.observation, terminated, truncated, final)

    def state(self) -> State:
        return {"positions": self.positions.copy(), "steps": self.steps.copy(), "rng": _generator_state(self.rng)}

    def restore(self, state: State) -> None:
        self.positions, self.steps = state["positions"].copy(), state["steps"].copy()
        _set_generator(self.rng, state["rng"])
        self.observation = self._seen()

    def _start(self, n: int) -> np.ndarray:
        return self.rng.uniform(-0.1, 0.1, (4, n)).astype(np.float32).astype(np.float64)

    def _seen(self) -> np.ndarray:
        one, two = self.positions[:2]
        return np.stack([np.cos(one), np.sin(one), np.cos(two), np.sin(two), *self.positions[2:]], axis=1).astype(np.float32)


def _slope(s: np.ndarray, torque: np.ndarray) -> np.ndarray:
    """Derivative by time of the state (4, n), by the equations of Sutton & Barto's book, as gymnasium has them."""
    one, two, v1, v2 = s
    sin2, cos2 = np.sin(two), np.cos(two)
    d1, d2 = 3.5 + cos2, 1.25 + 0.5 * cos2
    phi2 = 0.5 * Acrobot.GRAVITY * np.sin(one + two)
    phi1 = -0.5 * v2 * v2 * sin2 - v2 * v1 * sin2 + 1.5 * Acrobot.GRAVITY * np.sin(one) + phi2
    ratio = d2 / d1
    a2 = (torque + ratio * phi1 - 0.5 * v1 * v1 * sin2 - phi2) / (1.25 - d2 * ratio)
    return np.stack([v1, v2, -(d2 * a2 + phi1) / d1, a2])


def _runge_kutta(s: np.ndarray, torque: np.ndarray, dt: float) -> np.ndarray:
    k1 = _slope(s, torque)
    k2 = _slope(s + dt / 2 * k1, torque)
    k3 = _slope(s + dt / 2 * k2, torque)
    return s + dt / 6 * (k1 + 2 * k2 + 2 * k3 + _slope(s + dt * k3, torque))


def _bounded(s: np.ndarray, max_velocity: np.ndarray) -> np.ndarray:
    """Angles brought to −π … π, velocities held within their bounds."""
    angles = s[:2] - 2 * np.pi * np.ceil((s[:2] - np.pi) / (2 * np.pi))
    return np.concatenate([angles, np.clip(s[2:], -max_velocity, max_velocity)])


TRIM_EVERY = 512  # steps of all copies, in which LunarLander's worlds, freed among a network's tensors, leave some 30 MB of holes in the heap


def _give_back_memory() -> None:
    """Returns what is free within the heap to the system, where the C library can (glibc): its holes would grow without bound otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


class Gymnasium:
    """Any environment of gymnasium's registry with discrete actions, one copy after the other (``SyncVectorEnv``).

    What such environments hold can't be saved in general: a segment on them that is broken off starts again.
    """

    def __init__(self, n: int, seed: int, spec: str):
        import gymnasium
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        make = [lambda: gymnasium.make(spec, disable_env_checker=True)] * n
        self.env = SyncVectorEnv(make, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        self.observation = self.env.reset(seed=seed)[0].copy()
        self.steps = 0

    def step(self, actions: np.ndarray) -> Step:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        self.steps += 1
        if self.steps % TRIM_EVERY == 0:
            _give_back_memory()
        self.observation = final = observation.copy()
        if "final_obs" in info:
            final = self.observation.copy()
            for i in info["_final_obs"].nonzero()[0]:
                final[i] = info["final_obs"][i]
        return _ended(reward, self.observation, terminated, truncated, final)

    def state(self) -> None:
        return None

    def restore(self, state: State) -> None:
        raise NotImplementedError("such environments can't be saved")


class Atari:
    """A game of ale-py's C++ vector environment: frame skip 4 with the maximum of the last two, grey 84 x 84, the last 4 frames, up to 30
    idle steps at the start. To the learner a lost life is an end; the game, and the return that is reported, go on until all are lost.

    Observations are (n, 4, 84, 84) uint8. An emulator's state can't be had: a segment that is broken off starts again.
    """

    def __init__(self, n: int, seed: int, game: str, max_frames: int = 108_000, threads: int = 1):
        from ale_py.vector_env import AtariVectorEnv
        from gymnasium.vector import AutoresetMode

        with contextlib.redirect_stdout(sys.stderr):  # where it says which folder it reads ROMs from
            self.env = AtariVectorEnv(game, n, num_threads=threads, max_num_frames_per_episode=max_frames, reward_clipping=False,
                                      autoreset_mode=AutoresetMode.SAME_STEP)  # fmt: skip
        self.observation, info = self.env.reset(seed=seed % 2**30)  # n seeds in a row, 31 bits each
        self.lives = info["lives"].copy()

    def step(self, actions: np.ndarray) -> Step:
        self.observation, reward, game_over, truncated, info = self.env.step(actions)
        over = game_over | truncated
        died = ~over & (info["lives"] < self.lives)
        self.lives = info["lives"].copy()
        return Step(reward.astype(np.float64), self.observation, game_over | died, truncated & ~game_over, over, info.get("final_obs", self.observation))

    def state(self) -> None:
        return None

    def restore(self, state: State) -> None:
        raise NotImplementedError("an emulator's state can't be saved")


MAKERS: dict[str, Any] = {"cartpole": CartPole, "acrobot": Acrobot, "gymnasium": Gymnasium, "atari": Atari}
