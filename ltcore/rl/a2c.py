"""Synchronous advantage actor-critic (A2C; Mnih et al. 2016) for R replicates at once: act T steps in n environments each, then one update.

A replicate's numbers depend on its own weights, mask and streams alone. The clock of a segment [start, stop) counts finished episodes, or
updates (``batches``); a replicate stops after the update in which its count reaches ``stop``, so replicates of a stack may take different
numbers of updates. Every segment begins with fresh environments, drawn from its start; a segment of length 0 plays without learning until it
has enough episodes for its mean return.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ltcore import seeds
from ltcore.errors import UsageError, UserError
from ltcore.models import ActorCritic, split_state
from ltcore.recipe import in_range
from ltcore.rl import networks
from ltcore.rl.player import Player
from ltcore.rl.returns import advantages
from ltcore.training import optimizers, precision
from ltcore.training.loop import BITS, Checkpoints, Replicate, Segment, Stopped, Trained

CHECK_EVERY = 32  # updates between two looks at whether to save or stop
UNITS = ("episodes", "batches")
RANGES: Mapping[str, Mapping[str, Any]] = {  # of options; other numbers are from 0 up
    "steps": {"least": 1, "whole": True}, "window": {"least": 1, "whole": True}, "discount": {"most": 1}, "gae": {"most": 1},
}  # fmt: skip


@dataclass(frozen=True)
class A2C:
    """What a recipe's task may set; the batch is ``steps`` × the number of environments.

    Args:
        unit: what start and stop count. window: L, episodes in the mean return at the end.
        discount, gae: γ and λ; λ = 1 makes returns of up to ``steps`` steps. entropy, value: weights in the loss.
        reward_scale, reward_clip, advantage_clip: for learning only; a clip of 0 is none.
    """

    unit: str = "episodes"
    steps: int = 4
    window: int = 100
    discount: float = 0.99
    gae: float = 1.0
    entropy: float = 0.01
    value: float = 0.5
    reward_scale: float = 1.0
    reward_clip: float = 0.0
    advantage_clip: float = 0.0


def settings(options: Mapping[str, Any], batch_size: int) -> A2C:
    """The task's options.

    Raises:
        UsageError: an unknown option or unit, a number out of its range, or a batch that is no multiple of the steps.
    """
    try:
        found = A2C(**options)
    except TypeError as error:
        raise UsageError(f"task a2c: {str(error).partition(') ')[2] or error}") from None
    if found.unit not in UNITS:
        raise UsageError(f"task a2c counts {' or '.join(UNITS)}, not {found.unit!r}")
    for name, number in options.items():
        if name != "unit":
            in_range(f"task.options.{name}", number, **RANGES.get(name, {}))
    if batch_size % found.steps:
        raise UsageError(f"task a2c: a batch of {batch_size} is not a number of environments times {found.steps} steps")
    return found


def train(module: nn.Module, data: Any, segment: Segment, replicates: Sequence[Replicate], checkpoints: Checkpoints | None = None,
          backend: str | None = None) -> list[Trained]:  # fmt: skip
    """Trains R copies of ``module``, whose outputs are logits and a value, in environments of ``data``.

    Masks act on the weights once, at the start, and on every gradient after that.

    Raises:
        Stopped: ``checkpoints.stop()`` said so; the state was saved before where the environments can be saved.
        UsageError: a precision class other than fp32, fp64 and tf32. UserError: the module gives something else.
    """
    if segment.precision not in ("fp32", "fp64", "tf32"):
        raise UsageError(f"task a2c is computed in fp32, fp64 or tf32, not {segment.precision}")
    with precision.applied(segment.precision, data.device):
        run = _Run(module, data, segment, replicates, backend)
        return run.to_end(checkpoints or Checkpoints())


class _Run:
    """R replicates, of which those in ``active`` go on as one stack."""

    def __init__(self, module: nn.Module, data: Any, segment: Segment, replicates: Sequence[Replicate], backend: str | None):
        self.module, self.segment, self.data, self.backend = module, segment, data, backend
        self.task = settings(segment.task.options, segment.batch_size)
        self.n, self.learns = segment.batch_size // self.task.steps, segment.stop > segment.start
        dtype, device = precision.PRECISIONS[segment.precision].dtype, torch.device(data.device)
        self.dtype, self.device = dtype, device
        states = [_masked(r) for r in replicates]
        params, self.buffers = split_state(module, {n: torch.stack([s[n] for s in states]).to(device) for n in states[0]})
        self.shapes = networks.chain_shapes(module) if type(module) is ActorCritic else {n: t.shape[1:] for n, t in params.items()}
        self.weights = networks.flat(states, self.shapes).to(device, dtype)  # (R, P), as are masks and the optimiser's slots
        masks = [{n: r.mask.get(n, torch.ones(s, dtype=torch.bool)) for n, s in self.shapes.items()} for r in replicates]
        self.bits = -networks.flat(masks, self.shapes).to(device, BITS[dtype])  # all bits set where kept
        self.slots = self._slots(replicates)
        self.step0 = [float(r.optimizer["step"]) if r.optimizer else 0.0 for r in replicates]
        self.players = [self._player(r) for r in replicates]
        self.active = list(range(len(replicates)))
        self._stack()

    def _slots(self, replicates: Sequence[Replicate]) -> dict[str, Tensor]:
        """The optimiser's state but for its step: zeros, or what came with the weights; 0 where pruned."""
        state = optimizers.init(self.segment.optimizer, {"": self.weights})
        names = [name.partition("/")[0] for name in state if name != "step"]
        if replicates[0].optimizer is None:
            return {name: state[f"{name}/"] for name in names}
        given = {name: [{n: r.optimizer[f"{name}/{n}"] for n in self.shapes} for r in replicates] for name in names}
        return {name: networks.flat(rows, self.shapes).to(self.device, self.dtype) * (self.bits != 0) for name, rows in given.items()}

    def _player(self, replicate: Replicate) -> Player:
        path, task = (*replicate.streams.order, "a2c", self.segment.start), self.task
        copies = self.data.make(self.n, seeds.stream_seed(*path, "environment"))
        return Player(copies, path, task.steps, self.data.classes, task.reward_scale, task.reward_clip)

    # ---- the stack of those that go on -----------------------------------------------------------------------
    def _stack(self) -> None:
        """Working copies of the active rows: the tensors themselves where all are active."""
        rows, whole = self.active, len(self.active) == len(self.players)
        self.w = self.weights if whole else self.weights[rows]
        self.g, self.b = torch.zeros_like(self.w), self.bits if whole else self.bits[rows]
        self.working = {name: t if whole else t[rows] for name, t in (*self.slots.items(), *self.buffers.items())}
        self.parts = self._parts()
        self.optimizers = [self._optimizer(part) for part in self.parts]
        self.networks = self._networks()

    def _parts(self) -> list[slice]:
        """Rows that are computed as one: on CPU each as it would be alone, bit for bit; on a GPU all, but for Adam after different numbers of steps."""
        steps = {self._step(r) for r in self.active}
        alone = self.device.type == "cpu" or (self.segment.optimizer.name == "adam" and len(steps) > 1)
        return [slice(i, i + 1) for i in range(len(self.active))] if alone else [slice(None)]

    def _step(self, r: int) -> float:
        """Steps that replicate r's optimiser has taken."""
        return self.step0[r] + (self.players[r].updates if self.learns else 0)

    def _optimizer(self, part: slice) -> dict[str, Tensor]:
        step = torch.tensor(self._step(self.active[part][0]), dtype=torch.float32, device=self.device)
        return {"step": step, **{f"{name}/w": self.working[name][part] for name in self.slots}}

    def _networks(self) -> networks.Networks:
        task, steps = networks.Weights(self.task.entropy, self.task.value), self.task.steps
        if type(self.module) is ActorCritic:
            found = [networks.Chain(self.module, self.w[s], self.g[s], steps, self.n, task) for s in self.parts]
            return found[0] if len(found) == 1 else networks.OneByOne(found)
        buffers = {n: self.working[n] for n in self.buffers}
        return networks.Modules(self.module, self.w, self.g, steps, self.n, task, self.shapes, buffers, self._seen(), self.backend)

    def _back(self) -> None:
        """Brings the working copies home."""
        if len(self.active) < len(self.players):
            self.weights[self.active] = self.w
            for name, t in (*self.slots.items(), *self.buffers.items()):
                t[self.active] = self.working[name]

    # ---- one update ------------------------------------------------------------------------------------------
    def _seen(self) -> Tensor:
        """Observations to act on, (R, n, …)."""
        seen = [self.players[r].copies.observation for r in self.active]
        x = torch.from_numpy(seen[0])[None] if len(seen) == 1 else torch.from_numpy(np.stack(seen))
        return x.to(self.device) if x.dtype == torch.uint8 else x.to(self.device, self.dtype)

    def _update(self) -> None:
        task, players = self.task, [self.players[r] for r in self.active]
        noise, steps = [p.begin() for p in players], range(task.steps)
        value, actions = np.empty((task.steps, len(players), self.n)), np.empty((len(players), task.steps, self.n), dtype=np.int64)
        for t in steps:
            out = self.networks.act(t, self._seen()).cpu().numpy()  # (R, n, A + 1)
            if out.shape[-1] != self.data.classes + 1:
                raise UserError(f"task a2c needs a model such as actor-critic, that gives {self.data.classes} logits and a value; "
                                f"{type(self.module).__name__} gives {out.shape[-1]} numbers")  # fmt: skip
            value[t] = out[..., -1]
            for r, player in enumerate(players):
                actions[r, t] = (out[r, :, :-1] + noise[r][t]).argmax(1)
                player.step(t, actions[r, t])
        if self.learns:
            self._learn(players, value, actions)
        for player in players:
            player.updates += 1

    def _learn(self, players: Sequence[Player], value: np.ndarray, actions: np.ndarray) -> None:
        task = self.task
        reward, terminated, cut = (np.stack([getattr(p, name) for p in players], axis=1) for name in ("reward", "terminated", "cut"))
        found = advantages(reward, value, self._following(players, value), terminated, cut, task.discount, task.gae)  # (T, R, n)
        target = found + value
        if task.advantage_clip:
            found = np.clip(found, -task.advantage_clip, task.advantage_clip)
        batch = networks.Batch(torch.from_numpy(actions).flatten(1).to(self.device), *(self._flat(a) for a in (found, target)))
        self.networks.gradients(batch)
        self.g.view(self.b.dtype).bitwise_and_(self.b)
        rates = [optimizers.learning_rate(self.segment.optimizer, self.segment.start + self._count(p)) for p in players]
        for part, state in zip(self.parts, self.optimizers):
            rate = rates[part][0] if len(set(rates[part])) == 1 else torch.tensor(rates[part], dtype=self.dtype, device=self.device)
            optimizers.update(self.segment.optimizer, {"w": self.w[part]}, {"w": self.g[part]}, state, rate)

    def _following(self, players: Sequence[Player], value: np.ndarray) -> np.ndarray:
        """Values (T, R, n) of what each step led to; of an episode that was cut, of what was seen last."""
        out = np.concatenate([value[1:], self.networks.values(self._seen()).cpu().numpy()[None]])
        for r, player in enumerate(players):
            if player.truncated:
                t, i, last = zip(*player.truncated)
                x = torch.from_numpy(np.stack(last))
                x = x.to(self.device) if x.dtype == torch.uint8 else x.to(self.device, self.dtype)
                out[list(t), r, list(i)] = self.networks.value_of(r, x).cpu().numpy()
        return out

    def _flat(self, a: np.ndarray) -> Tensor:
        """(T, R, n) as (R, T × n) on the device."""
        return torch.from_numpy(np.ascontiguousarray(a.swapaxes(0, 1))).flatten(1).to(self.device, self.dtype)

    # ---- the clock -------------------------------------------------------------------------------------------
    def _count(self, player: Player) -> int:
        return len(player.returns) if self.task.unit == "episodes" else player.updates

    def _over(self, player: Player) -> bool:
        if not self.learns:
            return len(player.returns) >= self.task.window
        return self.segment.start + self._count(player) >= self.segment.stop

    def to_end(self, checkpoints: Checkpoints) -> list[Trained]:
        saved = checkpoints.load()
        if saved:
            self._restore(saved)
        updates = 0
        while self.active:
            if updates % CHECK_EVERY == 0:
                self._checkpoint(checkpoints)
            self._update()
            updates += 1
            if any(self._over(self.players[r]) for r in self.active):
                self._retire()
        return [self._trained(r) for r in range(len(self.players))]

    def _retire(self) -> None:
        """Replicates that are at their end leave the stack."""
        self._back()
        self.active = [r for r in self.active if not self._over(self.players[r])]
        if self.active:
            self._stack()

    # ---- checkpoints -----------------------------------------------------------------------------------------
    def _checkpoint(self, checkpoints: Checkpoints) -> None:
        stop = checkpoints.stop()
        if (stop or checkpoints.due()) and (tensors := self._flat_state()) is not None:
            checkpoints.save(tensors)
        if stop:
            raise Stopped

    def _flat_state(self) -> dict[str, Tensor] | None:
        """Everything that changes, between two updates; None where the environments can't be saved."""
        self._back()
        players = [p.state() for p in self.players]
        if any(p is None for p in players):
            return None
        own = {"weights": self.weights, **{f"slots/{name}": t for name, t in (*self.slots.items(), *self.buffers.items())}}
        return own | {f"players/{r}/{name}": t for r, p in enumerate(players) for name, t in p.items()}

    def _restore(self, saved: Mapping[str, Tensor]) -> None:
        self.weights.copy_(saved["weights"])
        for name, t in (*self.slots.items(), *self.buffers.items()):
            t.copy_(saved[f"slots/{name}"])
        for r, player in enumerate(self.players):
            prefix = f"players/{r}/"
            player.restore({name.removeprefix(prefix): t for name, t in saved.items() if name.startswith(prefix)})
        self.active = [r for r, p in enumerate(self.players) if not self._over(p)]
        self._stack()

    # ---- the end ---------------------------------------------------------------------------------------------
    def _trained(self, r: int) -> Trained:
        player, row = self.players[r], slice(r, r + 1)
        state = {n: t[0].cpu().clone() for n, t in networks.views(self.weights[row], self.shapes).items()}
        state |= {n: t[r].cpu().clone() for n, t in self.buffers.items()}
        slots = {f"{name}/{n}": t[0].cpu().clone() for name, all_ in self.slots.items() for n, t in networks.views(all_[row], self.shapes).items()}
        optimizer = {"step": torch.tensor(self._step(r), dtype=torch.float32), **slots}
        last = player.returns[-self.task.window :]
        finite = all(bool(t.isfinite().all()) for t in state.values())
        value = math.fsum(last) / len(last) if last else math.nan
        facts = {
            "failed": "" if finite and last else "diverged" if not finite else "no episode came to its end",
            "episodes": len(player.returns), "updates": player.updates, "environment_steps": player.updates * self.segment.batch_size,
            "return_window": len(last),
        }  # fmt: skip
        order = {n: state[n] for n, _ in (*self.module.named_parameters(), *self.module.named_buffers()) if n in state}
        return Trained(order, optimizer, {"end": {"episode_return": value}}, self._curves(player), facts)

    def _curves(self, player: Player) -> dict[str, list[float]]:
        """Mean return of the episodes between two points of the protocol, by the number of episodes in all."""
        every = self.segment.evaluate.every_it
        ends = [*range(every, len(player.returns), every), len(player.returns)] if player.returns else []
        starts = [0, *ends[:-1]]
        means = [math.fsum(player.returns[a:b]) / (b - a) for a, b in zip(starts, ends)]
        begun = self.segment.start if self.task.unit == "episodes" else 0
        return {"episode": [begun + e for e in ends], "episode_return": means}


def _masked(replicate: Replicate) -> dict[str, Tensor]:
    return {n: t * replicate.mask[n].to(t.dtype) if n in replicate.mask else t for n, t in replicate.state.items()}
