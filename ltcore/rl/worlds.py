"""Named environments in the part that data sets play elsewhere: what is trained on, with its shapes, fingerprint and source."""
from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ltcore.errors import PackageMissingError, UsageError, UserError
from ltcore.names import nearest

if TYPE_CHECKING:
    import torch

    from ltcore.rl.environments import Copies

ENDLESS = range(2**31 - 1)  # an environment has no number of examples


@dataclass(frozen=True)
class World:
    """An environment as it is registered.

    Args:
        maker: key of ``environments.MAKERS``, or a function (n, seed, **options) -> ``environments.Copies``. options: its arguments, which an
            experiment may change.
        needs: modules that must be there -> how to get them.
        random, solved: mean return of random play and of play that counts as solved (a game: of a human), and ``sources`` of the two.
        episode_steps: length of an episode that ``plan`` reckons with.
    """

    label: str
    maker: str | Callable[..., Copies]
    input_shape: tuple[int, ...]
    actions: int
    random: float | None = None
    solved: float | None = None
    source: str = ""
    episode_steps: int = 200
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    version: int = 1  # raised where the same name would give other numbers


@dataclass(frozen=True, eq=False)
class Environment:
    """A world with its options, as plans and training stages take it."""

    name: str
    world: World
    options: Mapping[str, Any]
    device: torch.device | str = "cpu"
    train: range = ENDLESS
    test: tuple[()] = ()
    fallback_for: str | None = None
    note: str = ""
    decoded: bool = False

    @property
    def fingerprint(self) -> str:
        w = self.world
        said = [w.label, w.maker if isinstance(w.maker, str) else w.maker.__qualname__, w.version, sorted(self.options.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def source(self) -> str:
        """With the returns to compare with, so that they stand wherever a result says what it was trained on."""
        w = self.world
        return f"environment {w.label}" + ("" if w.random is None or w.solved is None else f" (random play {w.random:g}, solved or human play {w.solved:g})")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.world.input_shape

    @property
    def classes(self) -> int:
        return self.world.actions

    def to(self, device: torch.device | str) -> Environment:
        return dataclasses.replace(self, device=device)

    def make(self, n: int, seed: int) -> Copies:
        """n copies that draw from ``seed`` alone.

        Raises:
            UserError: they do not show what the world says.
        """
        import torch

        from ltcore.rl import environments

        maker = self.world.maker
        threads = {"threads": torch.get_num_threads()} if maker == "atari" else {}  # which change no number
        made = (environments.MAKERS[maker] if isinstance(maker, str) else maker)(n, seed, **self.options, **threads)
        if made.observation.shape != (n, *self.input_shape):
            raise UserError(f"environment {self.world.label}: {n} copies show {made.observation.shape}, its World says {(n, *self.input_shape)}")
        space = getattr(getattr(made, "env", None), "single_action_space", None)  # gymnasium's
        if space is not None and (actions := getattr(space, "n", 0)) != self.classes:
            raise UserError(f"environment {self.world.label} has {actions or 'no discrete'} actions, its World says {self.classes}")
        return made


def load(name: str, options: Mapping[str, Any] | None = None) -> Environment:
    """The environment of that name.

    Raises:
        PackageMissingError: a package that it needs is not installed, or lacks the game. UsageError: an option that it does not take.
    """
    world = WORLDS[name]
    if why := lacking(world):
        raise PackageMissingError(why)
    unknown = sorted(set(options or {}) - set(world.options))
    if unknown:
        raise UsageError(f"environment {name} has no option {unknown[0]!r}; it takes {', '.join(world.options) or 'none'}")
    if world.maker == "atari":
        _check_rom(world.label, {**world.options, **(options or {})}["game"])
    return Environment(name, world, {**world.options, **(options or {})})


def _check_rom(label: str, game: str) -> None:
    try:
        from ale_py import roms
    except ImportError as error:  # there, but not whole
        raise PackageMissingError(f"environment {label}: ale_py can't be imported ({error}): pip install --force-reinstall ale-py") from error
    if game not in roms.get_all_rom_ids():
        raise UsageError(f"environment {label}: ale-py knows no game {game!r}{nearest(str(game), roms.get_all_rom_ids())}")
    own = os.environ.get("ALE_ROMS_DIR")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where it says which folder it reads
            roms.get_rom_path(game)
    except OSError as error:  # not there, or not the file that it ought to be
        mend = f"put it into {own}, which ALE_ROMS_DIR names" if own else "pip install --force-reinstall ale-py"
        raise PackageMissingError(f"environment {label}: ale-py's ROM {game}.bin is missing or damaged: {mend}") from error


def lacking(world: World) -> str:
    """What it needs and is not installed, and how to get it, in one line; or nothing."""
    for module, how in world.needs.items():
        if importlib.util.find_spec(module) is None:
            return f"environment {world.label} needs the package {module}: {how}"
    return ""


GYMNASIUM = {"gymnasium": "pip install gymnasium"}
BOX2D = {**GYMNASIUM, "Box2D": "pip install 'gymnasium[box2d]'"}
ALE = {**GYMNASIUM, "ale_py": "pip install ale-py"}
REGISTRY = "random: ours, 1,000 episodes; solved: reward_threshold of gymnasium's registry"
HUMAN = "Atari, random and human play: the scores that human-normalised results are reckoned from (dqn_zoo, atari_data.py); their games start otherwise than ours"


def _game(label: str, rom: str, actions: int, random: float, human: float) -> World:
    return World(f"Atari {label}", "atari", (4, 84, 84), actions, random, human, HUMAN, 1000, {"game": rom, "max_frames": 108_000}, ALE)


WORLDS: dict[str, World] = {
    "cartpole-v0": World("CartPole-v0", "cartpole", (4,), 2, 21.9, 195.0, REGISTRY, 150, {"max_steps": 200}, GYMNASIUM),
    "acrobot-v1": World("Acrobot-v1", "acrobot", (6,), 3, -499.0, -100.0, REGISTRY, 90, {"max_steps": 500}),
    "lunarlander-v3": World("LunarLander-v3", "gymnasium", (8,), 4, -189.1, 200.0, REGISTRY, 450, {"spec": "LunarLander-v3"}, BOX2D),
    "atari-assault": _game("Assault", "assault", 7, 222.4, 742.0),
    "atari-berzerk": _game("Berzerk", "berzerk", 18, 123.7, 2630.4),
    "atari-breakout": _game("Breakout", "breakout", 4, 1.7, 30.5),
    "atari-centipede": _game("Centipede", "centipede", 18, 2090.9, 12017.0),
    "atari-kangaroo": _game("Kangaroo", "kangaroo", 18, 52.0, 3035.0),
    "atari-krull": _game("Krull", "krull", 18, 1598.0, 2665.5),
    "atari-qbert": _game("Qbert", "qbert", 6, 163.9, 13455.0),
    "atari-seaquest": _game("Seaquest", "seaquest", 18, 68.4, 42054.7),
    "atari-spaceinvaders": _game("SpaceInvaders", "space_invaders", 6, 148.0, 1668.7),
}
