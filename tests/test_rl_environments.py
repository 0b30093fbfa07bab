"""Environments as the learner sees them: against gymnasium's own, ends within the step, cuts that are no ends, saving and going on."""
import importlib.util
import sys

import numpy as np
import pytest

from ltcore.data import from_user
from ltcore.errors import DataMissingError, PackageMissingError, UsageError, UserError
from ltcore.rl import environments, worlds

gymnasium = pytest.importorskip("gymnasium")
N = 8


def _play(copies, steps, seed=0):
    """Random pushes left and right; the steps that they gave."""
    rng = np.random.default_rng(seed)
    return [copies.step(rng.integers(0, 2, len(copies.observation))) for _ in range(steps)]


def test_cartpole_moves_as_gymnasiums_single_environment():
    copies, single = environments.CartPole(N, seed=3), gymnasium.make("CartPole-v1").unwrapped
    single.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        before, actions = copies.env.state.copy(), rng.integers(0, 2, N)
        step = copies.step(actions)
        for i in range(N):
            single.state, single.steps_beyond_terminated = before[:, i], None
            seen, reward, terminated, *_ = single.step(int(actions[i]))
            np.testing.assert_allclose(step.final[i], seen, rtol=1e-6)
            assert (step.reward[i], bool(step.terminated[i])) == (reward, terminated)


def test_every_step_is_a_transition_and_a_new_episode_begins_within_the_step_that_ends_one():
    copies = environments.CartPole(N, seed=0)
    steps = _play(copies, 200)
    ends = [s for s in steps if s.over.any()]
    assert ends and all((s.reward == 1).all() for s in steps)  # the step on which gymnasium begins anew has reward 0
    for s in ends:
        assert (np.abs(s.observation[s.over]) <= 0.05).all() and (np.abs(s.final[s.over]).max(1) > 0.05).all()
        np.testing.assert_array_equal(s.observation[~s.over], s.final[~s.over])


def test_the_lengths_of_episodes_add_up_to_the_steps():
    copies, running, lengths = environments.CartPole(N, seed=1), np.zeros(N), []
    for s in _play(copies, 300):
        running += s.reward
        lengths += running[s.over].tolist()
        running[s.over] = 0
    assert sum(lengths) + running.sum() == 300 * N
    np.testing.assert_array_equal(copies.env.steps, running)
    assert 15 < np.mean(lengths) < 30  # random play lasts about 22 steps


def test_cartpole_v0_is_cut_after_200_steps_which_is_no_termination():
    copies = worlds.load("cartpole-v0").make(N, 0)
    copies.env.steps[:2] = 199
    copies.env.state[:, 0] = 0.0  # upright: only time ends it
    copies.env.state[:, 1] = [0.0, 0.0, 0.3, 1.0]  # falls in the same step
    step = copies.step(np.zeros(N, dtype=np.int64))
    assert step.truncated.tolist() == [True] + [False] * (N - 1)
    assert step.terminated[:2].tolist() == [False, True] and step.over[:2].all()
    assert copies.env.steps[:3].tolist() == [0, 0, 1]


def test_acrobot_in_arrays_moves_as_gymnasiums():
    copies, single = environments.Acrobot(N, seed=5), gymnasium.make("Acrobot-v1").unwrapped
    single.reset(seed=0)
    rng, ended = np.random.default_rng(0), 0
    copies.positions = rng.uniform([-np.pi, -np.pi, -4 * np.pi, -9 * np.pi], [np.pi, np.pi, 4 * np.pi, 9 * np.pi], (N, 4)).T
    for _ in range(60):
        before, actions = copies.positions.copy(), rng.integers(0, 3, N)
        step = copies.step(actions)
        for i in range(N):
            single.state = before[:, i]
            seen, reward, terminated, *_ = single.step(int(actions[i]))
            np.testing.assert_allclose(step.final[i], seen, atol=2e-6)  # observations are float32
            assert (step.reward[i], bool(step.terminated[i])) == (reward, terminated)
            if not terminated:
                np.testing.assert_allclose(copies.positions[:, i], single.state, atol=1e-10)
            ended += terminated
    assert ended


def test_acrobot_is_cut_after_500_steps():
    copies = environments.Acrobot(N, seed=0)
    copies.steps[0] = 499
    step = copies.step(np.ones(N, dtype=np.int64))
    assert step.truncated.tolist() == [True] + [False] * (N - 1) and not step.terminated.any()
    assert (np.abs(copies.positions[:, 0]) <= 0.1).all() and copies.steps[:2].tolist() == [0, 1]


@pytest.mark.parametrize("name", ["cartpole-v0", "acrobot-v1"])
def test_saved_copies_go_on_as_those_that_were_never_broken_off(name):
    world = worlds.load(name)
    whole, broken = world.make(N, 7), world.make(N, 7)
    rng = np.random.default_rng(1)
    actions = rng.integers(0, world.classes, (150, N))
    for a in actions[:70]:
        whole.step(a), broken.step(a)
    again = world.make(N, 99)
    again.restore(broken.state())
    np.testing.assert_array_equal(again.observation, whole.observation)
    for a in actions[70:]:
        for one, other in zip(whole.step(a), again.step(a)):
            np.testing.assert_array_equal(one, other)


def test_copies_draw_from_their_own_seed_alone():
    world = worlds.load("cartpole-v0")
    one = world.make(N, 1)
    alone = [s.observation for s in _play(one, 60)]
    two, other = world.make(N, 1), world.make(N, 2)
    rng = np.random.default_rng(0)
    for expected in alone:
        actions = rng.integers(0, 2, N)
        other.step(1 - actions)
        np.testing.assert_array_equal(two.step(actions).observation, expected)
    assert not np.array_equal(one.observation, other.observation)


@pytest.mark.skipif(importlib.util.find_spec("Box2D") is None, reason="needs Box2D")
def test_lunarlander_begins_anew_within_the_step_and_shows_what_was_seen_last():
    copies = worlds.load("lunarlander-v3").make(4, 0)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(150):
        step = copies.step(rng.integers(0, 4, 4))
        np.testing.assert_array_equal(step.observation[~step.over], step.final[~step.over])
        for i in step.over.nonzero()[0]:
            assert step.observation[i, 1] > 1.3 and step.final[i, 1] < 1.0  # height: a new one begins at the top
            assert step.reward[i] <= -100  # a crash
        ends += int(step.over.sum())
    assert ends and copies.state() is None


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs ale-py")
def test_a_lost_life_ends_what_is_learned_from_but_not_the_game():
    copies = worlds.load("atari-breakout").make(2, 0)
    rng, lost, over = np.random.default_rng(0), 0, 0
    for _ in range(600):
        lives = copies.lives.copy()
        step = copies.step(rng.integers(0, 4, 2))
        died = step.terminated & ~step.over
        assert (copies.lives[died] == lives[died] - 1).all() and (copies.lives[step.over] == 5).all()
        lost, over = lost + int(died.sum()), over + int(step.over.sum())
    assert over and lost == pytest.approx(4 * over, abs=8)  # of five lives the last ends the game
    assert step.observation.shape == (2, 4, 84, 84) and step.observation.dtype == np.uint8


needs_ale = pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="needs ale-py")


@needs_ale
def test_a_game_without_its_rom_is_one_line(monkeypatch, tmp_path, capsys):
    from ale_py import roms

    with pytest.raises(UsageError, match="ale-py knows no game 'break_out'; did you mean 'breakout'"):
        worlds.load("atari-breakout", {"game": "break_out"})
    whole = roms.get_rom_path("breakout")
    (tmp_path / "breakout.bin").write_bytes(whole.read_bytes()[:-1])
    with monkeypatch.context() as m, pytest.raises(PackageMissingError, match=r"ROM breakout.bin is missing or damaged: pip install"):
        m.setattr(roms, "__file__", str(tmp_path / "__init__.py"))
        worlds.load("atari-breakout")
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(PackageMissingError, match=rf"Atari Breakout: ale-py's ROM breakout.bin is missing or damaged: put it into {tmp_path}, which ALE_"):
        worlds.load("atari-breakout")
    (tmp_path / "breakout.bin").write_bytes(whole.read_bytes())
    worlds.load("atari-breakout").make(1, 0)
    assert capsys.readouterr().out == ""  # ale-py says which folder it reads, which --json must not


@needs_ale
def test_an_emulator_that_cannot_be_imported_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setattr(worlds, "lacking", lambda world: "")
    with pytest.raises(PackageMissingError, match=r"Atari Breakout: ale_py can't be imported \(.*\): pip install"):
        worlds.load("atari-breakout")


def test_a_missing_package_is_one_line_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataMissingError, match=r"LunarLander-v3 needs the package gymnasium: pip install gymnasium"):
        worlds.load("lunarlander-v3")


def test_options_change_the_environment_and_its_fingerprint():
    short = worlds.load("cartpole-v0", {"max_steps": 5})
    assert short.fingerprint != worlds.load("cartpole-v0").fingerprint
    copies = short.make(N, 0)
    assert sum(s.over.all() for s in _play(copies, 5)) == 1
    with pytest.raises(UsageError, match="no option 'gravity'; it takes max_steps"):
        worlds.load("cartpole-v0", {"gravity": 1})


class Corridor:
    """A user's environment: to the right is the way out, three steps off."""

    def __init__(self, n: int, seed: int, length: int = 3):
        self.length, self.at = length, np.zeros(n)
        self.observation = self._seen()

    def _seen(self) -> np.ndarray:
        return np.stack([self.at, self.length - self.at], axis=1).astype(np.float32)

    def step(self, actions: np.ndarray) -> environments.Step:
        self.at = np.maximum(self.at + 2 * actions - 1, 0)
        final, out = self._seen(), self.at >= self.length
        self.at = np.where(out, 0, self.at)
        self.observation = self._seen()
        return environments.Step(np.where(out, 1.0, -0.1), self.observation, out, np.zeros_like(out), out, final)

    def state(self) -> environments.State:
        return {"at": self.at.copy()}

    def restore(self, state: environments.State) -> None:
        self.at = state["at"].copy()
        self.observation = self._seen()


def test_a_user_brings_an_environment_of_their_own():
    world = from_user("corridor", worlds.World("Corridor", Corridor, (2,), 2, options={"length": 3}))
    assert (world.name, world.input_shape, world.classes, world.source) == ("corridor", (2,), 2, "environment Corridor")
    assert worlds.load("cartpole-v0").source == "environment CartPole-v0 (random play 21.9, solved or human play 195)"
    copies = world.make(4, 0)
    steps = [copies.step(np.ones(4, dtype=np.int64)) for _ in range(3)]
    assert [s.over.all() for s in steps] == [False, False, True]
    longer = from_user("corridor", worlds.World("Corridor", Corridor, (2,), 2, options={"length": 4}))
    assert longer.fingerprint != world.fingerprint


@pytest.mark.parametrize(("spec", "shape", "actions", "message"), [
    ("CartPole-v1", (8,), 2, r"environment Mine: 3 copies show \(3, 4\), its World says \(3, 8\)"),
    ("CartPole-v1", (4,), 3, "environment Mine has 2 actions, its World says 3"),
    ("MountainCarContinuous-v0", (2,), 3, "environment Mine has no discrete actions, its World says 3"),
])  # fmt: skip
def test_an_environment_that_is_not_as_its_world_says_is_refused(spec, shape, actions, message):
    with pytest.raises(UserError, match=message):
        from_user("mine", worlds.World("Mine", "gymnasium", shape, actions, options={"spec": spec})).make(3, 0)


def test_what_environments_freed_goes_back_to_the_system(monkeypatch):
    """A dense LunarLander trial grew to 16 GB of holes in the heap."""
    trimmed = []
    monkeypatch.setattr(environments, "_give_back_memory", lambda: trimmed.append(1))
    copies = environments.Gymnasium(1, 0, "CartPole-v1")
    for _ in range(2 * environments.TRIM_EVERY + 1):
        copies.step(np.zeros(1, dtype=np.int64))
    assert len(trimmed) == 2
