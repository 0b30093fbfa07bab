"""The graph: a stage is a pure function of its parameters and inputs, named by the hash of everything that changes its numbers.

Names of papers, experiments, arms and scales are not in a stage, nor is the number of trials or levels, the device or what is
kept: so the dense network of two experiments is trained once, and another level reuses those before it.
"""
from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Raised when a kind's numbers may change; part of every hash of that kind.
VERSIONS = {"init": 1, "train": 1, "score": 1, "prune": 1, "transform": 1, "measure": 1}
# The same for the optimisers and model families whose sums are grouped otherwise than before; part of the hashes of what they train.
REVISIONS = {"sgd": 2, "conv": 2, "resnet": 2, "vgg": 2}  # 2: fused update; images laid out channels last on CPU


class Output(NamedTuple):
    """One artefact of a stage, as another's input."""

    stage: Stage
    artefact: str


@dataclass(frozen=True, eq=False)
class Stage:
    """One node.

    Args:
        kind: ``init``, ``train``, ``score``, ``prune``, ``transform`` or ``measure``.
        params: JSON values only; never changed after construction.
        inputs: role -> the output that plays it.
    """

    kind: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Output] = field(default_factory=dict)

    @functools.cached_property
    def hash(self) -> str:
        """sha256 of the canonical JSON of kind, version, parameters and inputs' hashes."""
        return hashlib.sha256(canonical(self.described()).encode()).hexdigest()

    def described(self) -> dict[str, Any]:
        """What is hashed, as one JSON value."""
        inputs = {role: [out.stage.hash, out.artefact] for role, out in self.inputs.items()}
        return {"kind": self.kind, "version": VERSIONS[self.kind], "params": dict(self.params), "inputs": inputs}

    def out(self, artefact: str) -> Output:
        return Output(self, artefact)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; refuses NaN and anything that is not JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def with_ancestors(stages: Iterable[Stage]) -> list[Stage]:
    """All stages that these need, and they themselves, each once, parents before children."""
    found: dict[str, Stage] = {}
    for stage in stages:
        for node in _depth_first(stage, found):
            found[node.hash] = node
    return list(found.values())


def _depth_first(stage: Stage, seen: Mapping[str, Stage]) -> Iterator[Stage]:
    """Parents first, without recursion: chains of rounds are long."""
    stack = [(stage, False)]
    while stack:
        node, ready = stack.pop()
        if node.hash in seen:
            continue
        if ready:
            yield node
            continue
        stack.append((node, True))
        stack += [(out.stage, False) for out in node.inputs.values() if out.stage.hash not in seen]
