"""What a stage is given and what it yields, and the network that its parameters describe."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ltcore import compact, masks
from ltcore.data import Dataset
from ltcore.library import Library
from ltcore.models import skeleton
from ltcore.recipe import Model
from ltcore.training.loop import Checkpoints

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Job:
    """A stage with its inputs loaded: role -> artefact."""

    kind: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Tensors]


@dataclass(frozen=True)
class Value:
    """One number that a stage measured; ``condition`` holds what tells it from its siblings (the layer, say)."""

    metric: str
    value: float
    at: str | None = None
    resolution: float = 0.0
    censored: bool = False
    condition: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a stage yields: artefacts by name, values, curves by name, and facts about the run and its network."""

    artefacts: dict[str, Tensors] = field(default_factory=dict)
    values: Sequence[Value] = ()
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Env:
    """The world of a stage, none of which changes its numbers: where names and data come from, and the machine."""

    library: Library
    dataset: Callable[[Mapping[str, Any]], Dataset]  # the ``data`` of a train stage -> the set, on ``device``
    device: str = "cpu"
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    backend: str | None = None


def net_of(params: Mapping[str, Any], env: Env, kept: Tensors | None = None) -> tuple[Callable[..., nn.Module], Model]:
    """The family and its member; with a mask of channels ``kept`` the physically smaller one."""
    model = {k: v for k, v in params["model"].items() if k != "source"}
    family = env.library.model(model["name"])
    return (compact.smaller(family, kept) if kept else family), Model(**model)


def module_of(params: Mapping[str, Any], env: Env, kept: Tensors | None = None) -> nn.Module:
    """The network without weights, for shapes and as a body of functional calls."""
    return skeleton(*net_of(params, env, kept), params["input_shape"], params["classes"])


def density_facts(report: masks.Report) -> dict[str, Any]:
    """Counts and shares of a mask, as records have them."""
    return {
        "kept": report.kept_prunable, "density_prunable": report.density_prunable, "density_all": report.density_all,
        "density_layers": report.layers, "collapsed": [n for n, d in report.layers.items() if d == 0],
    }  # fmt: skip


def begun(job: Job) -> dict[str, int]:
    """Where a segment begins that goes on from a draw: at the iteration of the draw, which only the run could tell."""
    return {"start": int(job.inputs["clock"]["it"])} if "clock" in job.inputs else {}
