"""Actor-critic networks of R replicates as one stack, in the two halves of an A2C update: act T times, then one gradient.

Weights lie in one tensor (R, P), so that masks and the optimiser take one pass over memory; the networks see them as views. Nothing changes
the weights between acting and learning, so ``Chain`` keeps the activations from acting and goes backward from them.
"""
from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltcore.models import ActorCritic
from ltcore.training import backends

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of the loss, as PyTorch examples have them: policy + value × squared error − entropy × entropy."""

    entropy: float
    value: float


@dataclass(frozen=True)
class Batch:
    """What a gradient is taken of: actions int64, advantages and targets of the value, (R, T × n) each."""

    actions: Tensor
    advantages: Tensor
    targets: Tensor


class Networks(Protocol):
    """R networks with their weights."""

    def act(self, t: int, x: Tensor) -> Tensor:
        """Logits and values (R, n, A + 1) of step t for observations (R, n, …), which are remembered for the gradient."""

    def values(self, x: Tensor) -> Tensor:
        """Values (R, m) of observations (R, m, …)."""

    def value_of(self, r: int, x: Tensor) -> Tensor:
        """Values (m,) of observations (m, …) by replicate r alone."""

    def gradients(self, batch: Batch) -> None:
        """Writes the gradients of the loss over all T steps to the tensor (R, P) that they share."""


def views(flat: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Named parts (R, …) of a tensor (R, P), in the order of ``shapes``."""
    out, at = {}, 0
    for name, shape in shapes.items():
        out[name] = flat[:, at : at + shape.numel()].view(len(flat), *shape)
        at += shape.numel()
    return out


LINE = 16  # numbers; rows begin at multiples of 64 bytes, since products round otherwise where their inputs lie otherwise


def flat(rows: Iterable[Mapping[str, Tensor]], shapes: Shapes) -> Tensor:
    """Named tensors of each replicate as one tensor (R, P), P rounded up with zeros."""
    joined = torch.stack([torch.cat([row[name].flatten() for name in shapes]) for row in rows])
    return F.pad(joined, (0, -joined.shape[1] % LINE))


def loss(out: Tensor, y: Tensor, weights: Weights) -> Tensor:
    """Of one replicate: outputs (B, A + 1) and (action, advantage, target) (B, 3) -> scalar."""
    logs, value = F.log_softmax(out[:, :-1], dim=1), out[:, -1]
    chosen = logs.gather(1, y[:, :1].long()).squeeze(1)
    entropy = -(logs.exp() * logs).sum(1)
    return (weights.value * (y[:, 2] - value).square() - y[:, 1] * chosen - weights.entropy * entropy).mean()


def _by_outputs(out: Tensor, batch: Batch, weights: Weights) -> Tensor:
    """Gradient of the loss by the outputs, (R, B, A + 1)."""
    logs = F.log_softmax(out[..., :-1], dim=-1)
    p = logs.exp()
    by_logits = p * batch.advantages[..., None]
    by_logits.scatter_add_(-1, batch.actions[..., None], -batch.advantages[..., None])
    if weights.entropy:
        by_logits += weights.entropy * p * (logs - (p * logs).sum(-1, keepdim=True))
    by_value = 2 * weights.value * (out[..., -1:] - batch.targets[..., None])
    return torch.cat([by_logits, by_value], dim=-1) / out.shape[-2]


class Chain:
    """Stacks of ``ActorCritic`` in batched products, gradients written out: what autograd gives, without its graph."""

    def __init__(self, module: ActorCritic, params: Tensor, grads: Tensor, steps: int, n: int, weights: Weights):
        shapes, count, replicates = chain_shapes(module), len(module.hidden), len(params)
        self.weights = weights
        self.layers, self.into = (_layers(t, shapes, count) for t in (params, grads))
        self.turned = [weight.transpose(1, 2) for weight, _ in self.layers]
        sizes = [*(weight.shape[2] for weight, _ in self.layers), self.layers[-1][0].shape[1]]
        self.inputs = [params.new_empty(replicates, steps * n, size) for size in sizes]  # of each layer, (R, T × n, in); the last are the outputs
        self.parts = [[whole[:, t * n : (t + 1) * n] for whole in self.inputs] for t in range(steps)]

    def act(self, t: int, x: Tensor) -> Tensor:
        first, *later = self.parts[t]
        x = first.copy_(x.flatten(2))
        for (_, bias), turned, out in zip(self.layers, self.turned, later):
            x = torch.baddbmm(bias, x, turned, out=out)
            if out is not later[-1]:
                x.relu_()
        return x

    def values(self, x: Tensor) -> Tensor:
        return self._forward(x, slice(None))

    def value_of(self, r: int, x: Tensor) -> Tensor:
        return self._forward(x[None], slice(r, r + 1))[0]

    def _forward(self, x: Tensor, rows: slice) -> Tensor:
        x = x.flatten(2)
        for i, ((_, bias), turned) in enumerate(zip(self.layers, self.turned)):
            x = torch.baddbmm(bias[rows], x.relu_() if i else x, turned[rows])  # what came in is not ours to change
        return x[..., -1]

    def gradients(self, batch: Batch) -> None:
        *inputs, out = self.inputs
        back = _by_outputs(out, batch, self.weights)
        for i in range(len(self.layers) - 1, -1, -1):  # back: the gradient by what layer i gives, before its ReLU, (R, B, out)
            weight, bias = self.into[i]
            torch.bmm(back.transpose(1, 2), inputs[i], out=weight)
            torch.sum(back, 1, keepdim=True, out=bias)
            if i:
                back = torch.ops.aten.threshold_backward(torch.bmm(back, self.layers[i][0]), inputs[i], 0)


def chain_shapes(module: ActorCritic) -> Shapes:
    """Parameters in the order in which policy and value lie side by side, as one layer."""
    names = [f"hidden.{i}.{part}" for i in range(len(module.hidden)) for part in ("weight", "bias")]
    shapes = {name: p.shape for name, p in module.named_parameters()}
    return {name: shapes[name] for name in (*names, "policy.weight", "value.weight", "policy.bias", "value.bias")}


def _layers(flat: Tensor, shapes: Shapes, count: int) -> list[tuple[Tensor, Tensor]]:
    """Weight (R, out, in) and bias (R, 1, out) of each layer; the last gives logits and value."""
    hidden = {name: s for name, s in shapes.items() if name.startswith("hidden")}
    named = views(flat, hidden)
    out = [(named[f"hidden.{i}.weight"], named[f"hidden.{i}.bias"][:, None]) for i in range(count)]
    outputs, inputs = shapes["policy.weight"][0] + 1, shapes["policy.weight"][1]
    head = flat[:, sum(s.numel() for s in hidden.values()) :]
    weight, bias = head[:, : outputs * inputs], head[:, outputs * inputs : outputs * (inputs + 1)]
    return [*out, (weight.view(-1, outputs, inputs), bias.view(-1, 1, outputs))]


class Modules:
    """Any module with outputs (B, A + 1), by the back ends of :mod:`ltcore.training.backends`; bytes are taken as 0 … 1."""

    def __init__(self, module: nn.Module, params: Tensor, grads: Tensor, steps: int, n: int, weights: Weights, shapes: Shapes,
                 buffers: dict[str, Tensor], example: Tensor, backend: str | None = None):  # fmt: skip
        self.dtype, self.n = params.dtype, n
        self.seen: list[Tensor | None] = [None] * steps
        self.into = views(grads, shapes)
        x = self._floats(example)
        y = params.new_zeros(*x.shape[:2], 3)
        measured = functools.partial(loss, weights=weights)
        self.engine = backends.choose(module, views(params, shapes), buffers, measured, x, y, backend)

    def act(self, t: int, x: Tensor) -> Tensor:
        self.seen[t] = x.clone()
        return self.engine.forward(self._floats(x))

    def values(self, x: Tensor) -> Tensor:
        return self.engine.forward(self._floats(x))[..., -1]

    def value_of(self, r: int, x: Tensor) -> Tensor:
        whole = x.expand(len(next(iter(self.engine.params.values()))), *x.shape)
        return self.values(whole)[r]

    def gradients(self, batch: Batch) -> None:
        x = self._floats(torch.cat(self.seen, dim=1))
        y = torch.stack([batch.actions.to(self.dtype), batch.advantages, batch.targets], dim=-1)
        _, grads = self.engine.grads(x, y)
        for name, g in grads.items():
            self.into[name].copy_(g)

    def _floats(self, x: Tensor) -> Tensor:
        return x.to(self.dtype) / 255 if x.dtype == torch.uint8 else x.to(self.dtype)


class OneByOne:
    """Networks of one replicate each: on CPU every replicate is computed as it would be alone, bit for bit."""

    def __init__(self, networks: Sequence[Networks]):
        self.networks = networks

    def act(self, t: int, x: Tensor) -> Tensor:
        return torch.cat([network.act(t, x[r : r + 1].clone()) for r, network in enumerate(self.networks)])  # cloned: see LINE

    def values(self, x: Tensor) -> Tensor:
        return torch.cat([network.values(x[r : r + 1].clone()) for r, network in enumerate(self.networks)])

    def value_of(self, r: int, x: Tensor) -> Tensor:
        return self.networks[r].value_of(0, x)

    def gradients(self, batch: Batch) -> None:
        for r, network in enumerate(self.networks):
            network.gradients(Batch(batch.actions[r : r + 1], batch.advantages[r : r + 1], batch.targets[r : r + 1]))
