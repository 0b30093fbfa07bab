"""The two plain values between the store and the comparison: one measured number, and what was run."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One number of one trained (or measured) network.

    Args:
        protocol: protocol id of the paper's file.
        condition: keys that whoever wants this number must name (arm, level, variant, …).
        base: further keys that hold for it and may be named (the dense net's level 0, default settings).
        trial: the seed, 0 … N−1.
        draw: number of the reinitialisation or random mask within the trial.
        metric: name with its unit.
        at: ``early-stop``, ``end``, ``30000it`` or None (metrics that are a time themselves).
        value: the number, in the metric's unit.
        resolution: one test example or one evaluation interval, in the metric's unit; 0 where there is none.
        censored: an early-stop time that sits at the last evaluation.
        failed: empty, or why the trial does not count (``diverged``, ``stayed at chance``).
        density: measured fraction of weights kept, counted as the protocol does.
        stage: hash of the stage that measured it.
    """

    protocol: str
    condition: Mapping[str, Any]
    base: Mapping[str, Any]
    trial: int
    draw: int
    metric: str
    at: str | None
    value: float
    resolution: float
    censored: bool = False
    failed: str = ""
    density: float | None = None
    stage: str = ""


@dataclass(frozen=True)
class Gate:
    """The band in which the dense network's mean must lie before ticket rows count.

    ``condition`` says of which part of the protocol (``{"variant": "vgg19-lr0.1"}``): that dense net is meant, and rows and parts of
    claims that name another value of these keys are not held to it.
    """

    metric: str
    at: str | None
    low: float
    high: float
    source: str
    condition: Mapping[str, Any] = field(default_factory=dict)

    def speaks_of(self, want: Mapping[str, Any]) -> bool:
        """Whether a wanted thing of the protocol falls under this band; one that leaves a key open does."""
        return all(want.get(k, v) == v for k, v in self.condition.items())


@dataclass(frozen=True)
class RunInfo:
    """What was run, from the manifest; all mappings are keyed by protocol id.

    Args:
        n: declared number of trials: the smallest among the protocol's experiments. It is fixed before the run, so trials beyond
            it are left out without a look at them, and no trial that was never planned counts as missing.
        comparable: empty where rows may be compared number by number, else the reason why not; one that holds for some of the
            protocol's experiments counts for all.
        not_run: why nothing of a protocol was run at this scale.
        gates: dense bands, one or more a protocol, tested only where rows are comparable.
        looks: above 1 where trials were added after a look (each look then uses alpha = .02).
    """

    paper: str
    scale: str
    n: Mapping[str, int]
    comparable: Mapping[str, str]
    not_run: Mapping[str, str]
    gates: Mapping[str, tuple[Gate, ...]] = field(default_factory=dict)
    looks: int = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)
