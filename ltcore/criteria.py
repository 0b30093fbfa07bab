"""Scores: one number a weight, the lowest are pruned first. Each criterion is one small pure function.

A criterion takes the :class:`Scored` values and returns {name: scores} in the shapes of the weights. The dict ``CRITERIA`` is the
whole registry; ``--with my.py`` adds to a copy of it.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ltcore.pruning import count, drop_lowest

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Network:
    """The network that is scored, as a differentiable function.

    Args:
        state: all parameters and buffers, masked.
        outputs: (tensors that replace those of ``state``, inputs (B, …), ``training``) -> outputs (B, classes).
        input_shape: of one example.
        batch: inputs (B, …) and labels (B,) of training examples, not augmented; only for criteria with ``needs_gradient = True``.
    """

    state: Tensors
    outputs: Callable[[Tensors, Tensor, bool], Tensor]
    input_shape: tuple[int, ...]
    batch: Callable[[], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True)
class Scored:
    """What a criterion may look at; all mappings hold the prunable weights by name.

    Args:
        weights: the weights at the end of training (or wherever the recipe scores).
        start: the weights that this training run started from.
        mask: what is kept so far.
        generator: a stream of this trial, level and use.
        gradient: the loss's gradient by the weights (masked, in training mode) on one batch of training examples; only for criteria
            that ask for data by an attribute ``needs_gradient = True``.
        network: the network itself, for criteria that need more than a gradient.
        options: the criterion's own parameters.
    """

    weights: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    mask: Mapping[str, Tensor]
    generator: torch.Generator
    gradient: Callable[[], Mapping[str, Tensor]] | None = None
    network: Network | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


Criterion = Callable[[Scored], Mapping[str, Tensor]]


def magnitude(s: Scored) -> dict[str, Tensor]:
    """|w|. References: Han et al. 2015; Frankle & Carbin 2019, section 2."""
    return {name: w.abs() for name, w in s.weights.items()}


def largest(s: Scored) -> dict[str, Tensor]:
    """−|w|: the largest weights go first. The negative control ``largest-pruned``, not a method."""
    return {name: -w.abs() for name, w in s.weights.items()}


def random(s: Scored) -> dict[str, Tensor]:
    """A uniform draw for each weight."""
    return {name: torch.rand(w.shape, generator=s.generator) for name, w in s.weights.items()}


def snip(s: Scored) -> dict[str, Tensor]:
    """|w · ∂L/∂w|, on one batch: how much the loss would change without the weight, to first order.

    References: Lee et al. 2019, SNIP, equation 6 (their normalisation over all weights does not change the order).
    """
    gradient = s.gradient()
    return {name: (w * gradient[name]).abs() for name, w in s.weights.items()}


snip.needs_gradient = True

GRASP_TEMPERATURE = 200.0  # T=200 in the official code (alecwangcq/GraSP, pruner/GraSP.py); the paper prints none


def grasp(s: Scored) -> dict[str, Tensor]:
    """w · Hg on one batch, with the Hessian H and the gradient g of the loss at temperature 200: the lowest go.

    Removing a weight changes the gradient flow gᵀg by about −w · Hg (times a constant), so what goes hurts it least. The official code
    scores −w · Hg and removes the highest, which is the same; its division by the sum of scores does not change the order. It adds
    the gradients of two halves of its batch, where this takes one batch whole; both are in training mode.

    References: Wang, Zhang & Grosse 2020, GraSP, equation 8 and algorithm 1; alecwangcq/GraSP, ``pruner/GraSP.py``, line 127.
    """
    x, y = s.network.batch()
    weights = {n: w.detach().to(x.device).requires_grad_() for n, w in s.weights.items()}

    def gradient(graph: bool) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(s.network.outputs(weights, x, True) / GRASP_TEMPERATURE, y)
        return torch.autograd.grad(loss, list(weights.values()), create_graph=graph, materialize_grads=True)

    flow = sum((fixed * g).sum() for fixed, g in zip(gradient(False), gradient(True)))
    products = torch.autograd.grad(flow, list(weights.values()), materialize_grads=True)
    return {n: (w.detach() * product).cpu() for (n, w), product in zip(weights.items(), products)}


grasp.needs_gradient = True


def synflow(s: Scored) -> dict[str, Tensor]:
    """|w · ∂R/∂w|, where R is the sum of outputs for an input of ones through the network of absolute values, without data.

    With options ``rounds`` n and ``density`` d it scores n times; after round r the share d^(r/n) of the weights named in ``prunable``
    is left (exponential schedule, all layers ranked together). What went in an earlier round is scored below what went later (−1 for the
    last but one), what stays by the last round's scores: one prune step to d then takes what the method takes. Evaluation mode and
    float64, as products of many layers leave float32.

    References: Tanaka et al. 2020, SynFlow, equation 3 and algorithm 1 (n = 100); ganguli-lab/Synaptic-Flow, ``Pruners/pruners.py``
    (absolute values of the whole state dict, biases and norms too) and ``prune.py``.
    """
    rounds, density, names = s.options.get("rounds", 1), s.options.get("density", 1.0), s.options.get("prunable", list(s.weights))
    sizes = [s.weights[n].numel() for n in names]
    mask = {n: m.clone() for n, m in s.mask.items()}
    went = torch.zeros(sum(sizes), dtype=torch.float64)
    for r in range(1, rounds):
        left, flow = _together(mask, names), _together(_synaptic_flow(s, mask), names)
        kept = drop_lowest(flow, left, int(left.sum()) - count(density ** (r / rounds), len(left)))
        went[left & ~kept] = r - rounds
        mask |= {n: part.reshape(s.weights[n].shape) for n, part in zip(names, kept.split(sizes))}
    flow = _synaptic_flow(s, mask)
    early = dict(zip(names, went.split(sizes)))
    return {n: flow[n] + early[n].reshape(f.shape) if n in early else f for n, f in flow.items()}


def _together(tensors: Tensors, names: list[str]) -> Tensor:
    return torch.cat([tensors[n].flatten() for n in names])


def _synaptic_flow(s: Scored, mask: Tensors) -> dict[str, Tensor]:
    state = {n: t.abs().double() if t.is_floating_point() else t for n, t in s.network.state.items()}
    weights = {n: (w.abs().double() * mask[n]).requires_grad_() for n, w in s.weights.items()}
    out = s.network.outputs(state | weights, torch.ones(1, *s.network.input_shape, dtype=torch.float64), False)
    grads = torch.autograd.grad(out.sum(), list(weights.values()), materialize_grads=True)
    return {n: (w.detach() * g).abs() for (n, w), g in zip(weights.items(), grads)}


def bn_scale(s: Scored) -> dict[str, Tensor]:
    """|γ| of every channel's batch norm. References: Liu et al. 2017, network slimming; You et al. 2020, early-bird tickets."""
    return {name: w.abs() for name, w in s.weights.items()}


bn_scale.of_channels = True  # the scales of the module's channels are scored, not its weights

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude, "largest": largest, "random": random, "snip": snip, "grasp": grasp, "synflow": synflow, "bn-scale": bn_scale,
}  # fmt: skip
