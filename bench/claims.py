"""A claim's tests, read from its paper's file into parts: each part is one number a trial held against one bound.

A claim becomes a small tree. `All` nodes need every child, `Any` nodes one of them (``for_any``, or ``any: true`` on the claim);
the leaves are `Part`s. `for_each`, several protocols and several tests make `All` nodes.
"""
from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replications.papers import PaperData
    from replications.papers_schema import Claim, Test

_SYMBOL = {"greater_than": ">", "less_than": "<", "within": "within ±"}


@dataclass(frozen=True)
class Operand:
    """One plain operand: the conditions to look up (averaged trial by trial where there are several).

    Args:
        sign: +1 or −1: whether a larger value makes the part's effect larger or smaller.
        side: 0 left, 1 right.
        over: how several conditions make one number a trial, a key of ``bench.curves.OVER``.
    """

    protocol: str
    metric: str
    at: str | None
    wants: tuple[Mapping[str, Any], ...]
    sign: int
    side: int
    over: str = "mean"


@dataclass(frozen=True)
class Part:
    """One test of a claim on one protocol, with one choice of its ``for_each`` and ``for_any`` values."""

    protocol: str
    kind: str           # difference | ratio | value
    operands: tuple[Operand, ...]
    bound_kind: str     # greater_than | less_than | within
    bound: float
    paired: bool
    text: str


@dataclass(frozen=True)
class All:
    """Every child must hold."""

    children: tuple[All | Any_ | Part, ...]


@dataclass(frozen=True)
class Any_:
    """One child is enough; they share the error level."""

    children: tuple[All | Any_ | Part, ...]


Node = All | Any_ | Part


def tree(claim: Claim) -> Node:
    """The claim's tests as a tree of `All`, `Any_` and `Part`. Claims with ``custom`` have none: `All(())`."""
    per_test = [_all(_per_protocol(test, claim)) for test in claim.tests or ()]
    return _any(per_test) if claim.any else _all(per_test)


def parts(node: Node) -> Iterator[Part]:
    """The tree's parts, in the order of the file."""
    if isinstance(node, Part):
        yield node
    else:
        for child in node.children:
            yield from parts(child)


def names(claim: Claim) -> list[str]:
    """Protocols that a claim needs, in order of appearance."""
    used = [o.protocol for p in parts(tree(claim)) for o in p.operands] or list(claim.protocols or ())
    return list(dict.fromkeys(used))


def by_id(paper: PaperData, claim_id: str) -> Claim:
    """The claim of that id; KeyError where there is none."""
    return {c.id: c for c in paper.claims}[claim_id]


# ---- expansion --------------------------------------------------------------------------------------------------
def _all(children: list[Node]) -> Node:
    flat = [g for c in children for g in (c.children if isinstance(c, All) else (c,))]
    return flat[0] if len(flat) == 1 else All(tuple(flat))


def _any(children: list[Node]) -> Node:
    flat = [g for c in children for g in (c.children if isinstance(c, Any_) else (c,))]
    return flat[0] if len(flat) == 1 else Any_(tuple(flat))


def _per_protocol(test: Test, claim: Claim) -> list[Node]:
    listed = test.protocol or claim.protocols or []
    return [_any([_part(test, protocol, {**each, **some}) for some in _combinations(test.for_any)])
            for protocol in ([listed] if isinstance(listed, str) else listed) for each in _combinations(test.for_each)]


def _combinations(choices: Mapping[str, list[Any]] | None) -> list[dict[str, Any]]:
    """Every combination of the values; one empty choice where there is nothing to choose."""
    choices = choices or {}
    return [dict(zip(choices, values)) for values in itertools.product(*choices.values())]


def _part(test: Test, protocol: str, chosen: Mapping[str, Any]) -> Part:
    common = {**test.common, **chosen}
    operands = tuple(_operand(o, common, protocol, sign, side) for side, side_operand in enumerate(test.operands)
                     for o, sign in _signed(side_operand, -1 if side else 1))
    return Part(protocol, test.kind, operands, test.bound_kind, float(test.bound), test.paired, _text(test, operands, common, protocol))


def _signed(operand: Mapping[str, Any], sign: int) -> list[tuple[dict[str, Any], int]]:
    """The plain operands of one side, each with its sign in the effect."""
    own = {k: v for k, v in operand.items() if k != "difference"}
    if "difference" not in operand:
        return [(own, sign)]
    left, right = operand["difference"]
    return [({**own, **left}, sign), ({**own, **right}, -sign)]


def _operand(own: Mapping[str, Any], common: Mapping[str, Any], protocol: str, sign: int, side: int) -> Operand:
    keys = {**common, **own}
    over = _combinations(keys.pop("mean_over", None))
    protocol, metric, at = keys.pop("protocol", protocol), keys.pop("metric"), keys.pop("at", None)
    return Operand(protocol, metric, at, tuple(_with_size(keys, o) for o in over), sign, side)


def _with_size(keys: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions with the averaged keys filled in; a size that is averaged over replaces any other size."""
    sizes = {"level", "weights_remaining_pct"}
    return {**{k: v for k, v in keys.items() if not (sizes & over.keys() and k in sizes)}, **over}


# ---- text -------------------------------------------------------------------------------------------------------
def _text(test: Test, operands: tuple[Operand, ...], common: Mapping[str, Any], protocol: str) -> str:
    """A short readable line: ``ticket@21.1% − reinit@21.1% test_accuracy_pct at early-stop > 0``."""
    shared = {k for k in operands[0].wants[0] if all(k in w and w[k] == operands[0].wants[0][k] for o in operands for w in o.wants)}
    shared -= {"arm", "level", "weights_remaining_pct"}
    sides = [[_name(o, shared, protocol) for o in operands if o.side == side] for side in (0, 1)]
    left, right = ["(" + " − ".join(s) + ")" if len(s) > 1 else "".join(s) for s in sides]
    joined = left if not right else f"{left} / {right}" if test.kind == "ratio" else f"{left} − {right}"
    first = operands[0]
    extra = "".join(f" {k}={first.wants[0][k]}" for k in sorted(shared))
    bound = f"{_SYMBOL[test.bound_kind]}{'' if test.bound_kind == 'within' else ' '}{test.bound:g}"
    return f"{joined} {first.metric}{f' at {first.at}' if first.at else ''}{extra} {bound}"


def _name(operand: Operand, shared: set[str], protocol: str) -> str:
    wants = operand.wants
    arm = wants[0].get("arm", "")
    varying = [k for k in wants[0] if any(w.get(k) != wants[0][k] for w in wants)]
    told = shared | {"arm", "level", "weights_remaining_pct", *varying}
    own = [f"{k}={wants[0][k]}" for k in sorted(wants[0]) if k not in told]
    own += [f"protocol={operand.protocol}"] * (operand.protocol != protocol)
    mean = "".join(f" mean over {k} {', '.join(dict.fromkeys(str(w[k]) for w in wants))}" for k in varying)
    return f"{arm}{_size(wants[0], varying)}{f'[{chr(32).join(own)}]' if own else ''}{mean}"


def _size(want: Mapping[str, Any], varying: list[str]) -> str:
    if "weights_remaining_pct" in want and "weights_remaining_pct" not in varying:
        return f"@{want['weights_remaining_pct']:g}%"
    return f"@level {want['level']}" if "level" in want and "level" not in varying else ""
