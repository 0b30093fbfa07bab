"""Elastic tickets: stretching and squeezing a ticket along depth, without training (Chen et al. 2021).

A network is a row of stages, a stage a row of units: residual blocks in a ResNet, single layers with their norms in VGGs and MLPs. The
first unit of a stage, B0, changes the shape of what flows through and is carried over one to one; the others, B1, B2, …, are normal units
and are replicated or dropped. Mask, rewound weights, norm parameters and running statistics move together; input and output stay.

References: Chen et al. 2021, "The Elastic Lottery Ticket Hypothesis", sections 3.1 and 3.2; ``lottery/branch/morphism.py`` of the official
code (VITA-Group/ElasticLTH), which takes a block map as text where this module derives it from the rules.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from ltcore.errors import UsageError
from ltcore.models import VGG, LeNet, ResNet, own_state
from ltcore.names import nearest

ORDERS = ("append", "interpolate")
BlockMap = tuple[int, ...]  # place in the target's stage -> unit of the source's stage


# ---- which unit goes where -------------------------------------------------------------------------------------
def block_map(source: int, target: int, order: str = "append", replicate: str = "", drop: str = "") -> BlockMap:
    """The map of a stage of ``source`` units, B0 included, to one of ``target`` units.

    Args:
        order: ``append`` puts the replicated units as a whole after the last of them, ``interpolate`` each replica after its own unit; of a
            squeeze without ``drop``, ``append`` keeps the first units and ``interpolate`` an even choice of all.
        replicate: digits of the normal units that may be replicated, ``"12"``; all where nothing is said.
        drop: digits of the normal units that a squeeze leaves out.

    Raises:
        UsageError: an unknown order, units that are not there, or a drop that does not leave the target's number.
    """
    return (0, *normal_map(source - 1, target - 1, order, replicate, drop))


def normal_map(source: int, target: int, order: str = "append", replicate: str = "", drop: str = "") -> BlockMap:
    """The same for the normal units alone, numbered from 1."""
    if order not in ORDERS:
        raise UsageError(f"unknown order {order!r}{nearest(order, ORDERS)}: append or interpolate")
    if target == source:
        return tuple(range(1, source + 1))
    if target > source:
        return _stretched(source, target, order, _digits(replicate, source, "replicate"))
    return _squeezed(source, target, order, _digits(drop, source, "drop"))


def _digits(text: str, source: int, what: str) -> list[int]:
    found = sorted({int(d) for d in text}) if text.isdigit() or not text else []
    if text and (len(found) != len(text) or not all(1 <= i <= source for i in found)):
        raise UsageError(f"bad {what} {text!r}: write digits of the normal units, 1 to {source}, each once, such as '12'")
    return found


def _stretched(source: int, target: int, order: str, some: list[int]) -> BlockMap:
    every = list(range(1, source + 1))
    chosen, extra = some or every, target - source
    if not chosen:
        raise UsageError("a stage without normal units can't be stretched: take a source that has at least one block more than the first")
    if order == "append":  # as a whole after the last of them, cut at the target's length
        replicas = [chosen[j % len(chosen)] for j in range(extra)]
        return (*every[: chosen[-1]], *replicas, *every[chosen[-1] :])
    if chosen == every:  # evenly over the stage; with a ratio that is no whole number not always the earliest units
        return _spread(source, target)
    copies = {unit: 1 + extra // len(chosen) + (i < extra % len(chosen)) for i, unit in enumerate(chosen)}
    return tuple(unit for unit in every for _ in range(copies.get(unit, 1)))


def _squeezed(source: int, target: int, order: str, drop: list[int]) -> BlockMap:
    if drop and source - len(drop) != target:
        raise UsageError(f"bad drop {''.join(map(str, drop))!r}: from {source} to {target} normal units, {source - target} have to go")
    if drop:
        return tuple(i for i in range(1, source + 1) if i not in drop)
    return tuple(range(1, target + 1)) if order == "append" else _spread(source, target)


def _spread(source: int, target: int) -> BlockMap:
    return tuple(j * source // target + 1 for j in range(target))


# ---- the stages of a network -----------------------------------------------------------------------------------
class Stage(NamedTuple):
    """Units in order, each the prefixes of its tensors; ``first`` says whether unit 0 is an invariant B0."""

    units: tuple[tuple[str, ...], ...]
    first: bool = True


def _mlp(module: LeNet) -> list[Stage]:
    """Hidden layers of one width are a stage, begun by the layer that leads to that width."""
    widths = [layer.out_features for layer in module.hidden]
    starts = [i for i, w in enumerate(widths) if not i or w != widths[i - 1]]
    return [Stage(tuple((f"hidden.{i}.",) for i in range(a, b))) for a, b in zip(starts, [*starts[1:], len(widths)])]


def _vgg(module: VGG) -> list[Stage]:
    """Convolutions between two pools; the fully connected layers, all of one shape, form a stage without a first unit."""
    starts = [0, *sorted(module.pool_before), len(module.conv)]
    stages = [Stage(tuple((f"conv.{i}.", f"norm.{i}.") for i in range(a, b))) for a, b in zip(starts, starts[1:])]
    return [*stages, Stage(tuple((f"hidden.{i}.",) for i in range(len(module.hidden))), first=False)]


def _resnet(module: ResNet) -> list[Stage]:
    n = len(module.blocks) // 3
    return [Stage(tuple((f"blocks.{stage * n + i}.",) for i in range(n))) for stage in range(3)]


LAYOUTS: dict[type, Callable[[Any], list[Stage]]] = {LeNet: _mlp, VGG: _vgg, ResNet: _resnet}


def stages(module: nn.Module) -> list[Stage]:
    """The stages of a network of a known family, a subclass too, or of one that says them.

    A module's attribute ``unit_stages`` says its stages, each the units in order, B0 first, each unit the prefixes of its tensors:
    ``((("layer1.0.",), ("layer1.1.",)), …)``. torchvision's ResNets have it.

    Raises:
        UsageError: another family.
    """
    if hasattr(module, "unit_stages"):
        return [Stage(tuple(tuple(unit) for unit in stage)) for stage in module.unit_stages]
    layout = next((found for family, found in LAYOUTS.items() if isinstance(module, family)), None)
    if layout is None:
        known = ", ".join(family.__name__ for family in LAYOUTS)
        raise UsageError(f"a {type(module).__name__} can't be stretched or squeezed: {known} can, and what says its unit_stages")
    return layout(module)


# ---- tensor by tensor ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Transfer:
    """Which tensor of the source each tensor of the target is made of, and which of them are replicas."""

    origin: Mapping[str, str]
    replicas: frozenset[str]  # tensors of units whose source unit stands earlier in the target too
    maps: tuple[BlockMap, ...]  # stage after stage


class _Write(NamedTuple):
    target: str
    source: str
    replica: bool


def transfer(source: nn.Module, target: nn.Module, order: str = "append", replicate: str = "", drop: str = "") -> Transfer:
    """How a ticket of ``source`` becomes one of ``target``: every tensor of the target's state is written exactly once.

    Raises:
        UsageError: the networks differ in more than depth.
    """
    stages_s, stages_t = stages(source), stages(target)
    if type(source) is not type(target) or len(stages_s) != len(stages_t):
        raise UsageError(f"a ticket moves along depth only: {_said(source, stages_s)} and {_said(target, stages_t)} differ in more")
    maps = tuple(_stage_map(s, t, order, replicate, drop) for s, t in zip(stages_s, stages_t))
    inner = [w for s, t, m in zip(stages_s, stages_t, maps) for w in _writes(own_state(source), s, t, m)]
    units = tuple(prefix for s in stages_s for unit in s.units for prefix in unit)
    outer = [_Write(n, n, False) for n in own_state(source) if not n.startswith(units)]
    _check([*outer, *inner], own_state(source), own_state(target))
    origin = {w.target: w.source for w in (*outer, *inner)}
    return Transfer({n: origin[n] for n in own_state(target)}, frozenset(w.target for w in inner if w.replica), maps)


def _said(module: nn.Module, found: Sequence[Stage]) -> str:
    return f"{type(module).__name__} with {len(found)} stages"


def _stage_map(source: Stage, target: Stage, order: str, replicate: str, drop: str) -> BlockMap:
    if source.first:
        return block_map(len(source.units), len(target.units), order, replicate, drop)
    return tuple(i - 1 for i in normal_map(len(source.units), len(target.units), order, replicate, drop))


def _writes(state: Mapping[str, Tensor], source: Stage, target: Stage, where: BlockMap) -> Iterator[_Write]:
    for place, unit in enumerate(where):
        for old, new in zip(source.units[unit], target.units[place]):
            yield from (_Write(new + n.removeprefix(old), n, unit in where[:place]) for n in state if n.startswith(old))


def _check(writes: Sequence[_Write], source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    times = Counter(w.target for w in writes)
    wrong = next((n for n in (*target, *times) if times[n] != 1 or n not in target), None)
    if wrong:
        raise UsageError(f"a ticket moves along depth only: {wrong!r} of the target is made of {times[wrong]} tensors, not of one")
    misfit = next((w.target for w in writes if source[w.source].shape != target[w.target].shape), None)
    if misfit:
        raise UsageError(f"a ticket moves along depth only: {misfit!r} has another shape in the target")


def carry(tensors: Mapping[str, Tensor], plan: Transfer) -> dict[str, Tensor]:
    """Tensors of the source (a state, or a mask on some of its weights) as the target's."""
    return {new: tensors[old].clone() for new, old in plan.origin.items() if old in tensors}
