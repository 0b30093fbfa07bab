"""What a training stage asks for, before any clock runs: which stages cost alike, their steps, reads and multiply-adds, and who waits for whom."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bench.plan import iterations
from ltcore.data import Dataset
from ltcore.library import Library
from ltcore.models import skeleton
from ltcore.recipe import Model
from ltcore.rl.worlds import WORLDS, Environment
from ltcore.stages import Stage, canonical
from ltcore.training.language import BPTT


def key(stage: Stage) -> str:
    """Training stages with one key cost the same a step."""
    p = stage.params
    world = WORLDS.get(p["data"]["name"])
    of = ["environment", world.maker] if world else [p["classes"]]  # a step of an environment costs; one action more does not
    return canonical([p["model"], p["input_shape"], *of, p["batch_size"], p["optimizer"]["name"], p["precision"]])


def steps(stage: Stage, data: Dataset | Environment) -> int:
    """Steps of the optimiser in a stage; where its clock counts episodes, those that the environment's usual episode makes."""
    its, options = iterations([stage]), stage.params.get("task", {}).get("options", {})
    if isinstance(data, Environment) and options.get("unit", "episodes") == "episodes":
        return math.ceil(its * data.world.episode_steps / stage.params["batch_size"])
    return its


def reads(stage: Stage, data: Dataset | Environment) -> int:
    """Examples that a stage evaluates: the validation part over and over, and the whole parts that the protocol names."""
    evaluate, val = stage.params["evaluate"], stage.params["data"]["val"]
    return val * (iterations([stage]) // evaluate["every_it"] + 2) + len(data.test) * len(evaluate["test"]) + len(data.train) * len(evaluate["train"])


def tokens(stage: Stage) -> int:
    """Tokens of a batch of text, 0 of anything else; batches of translations are counted in tokens."""
    task, batch = stage.params.get("task", {}), stage.params["batch_size"]
    return {"language-model": batch * task.get("options", {}).get("bptt", BPTT), "translate": batch}.get(task.get("name"), 0)


def net(stage: Stage, library: Library) -> tuple[Any, Model, Sequence[int], int]:
    """What ``skeleton`` and ``draw_state`` want of a training stage."""
    p = stage.params
    model = Model(**{k: v for k, v in p["model"].items() if k != "source"})
    return library.model(model.name), model, p["input_shape"], p["classes"]


def size(stage: Stage, library: Library) -> int:
    """Multiply-adds of a batch on its way forward: each parameter once a token of text; of images those of the layers that have a matrix
    or kernels, as often as one example that goes through meets them."""
    module = skeleton(*net(stage, library)).eval()
    every = sum(p.numel() for p in module.parameters())
    if n := tokens(stage):
        return n * every
    counted: list[int] = []

    def count(layer: nn.Module, _: Any, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            counted.append(layer.weight.numel() * out.numel() // layer.weight.shape[0])

    for layer in module.modules():
        if getattr(getattr(layer, "weight", None), "ndim", 0) > 1:
            layer.register_forward_hook(count)
    with torch.inference_mode():
        module(torch.zeros(1, *stage.params["input_shape"]))
    return (sum(counted) or every) * stage.params["batch_size"]


def longest_chain(lengths: Mapping[Stage, float]) -> float:
    """The largest sum of lengths along stages that wait for each other, straight or through others; parents stand first."""
    ends: dict[Stage, float] = {}
    for stage, length in lengths.items():
        ends[stage] = length + max((ends[s] for s in _waits_for(stage, ends)), default=0.0)
    return max(ends.values(), default=0.0)


def _waits_for(stage: Stage, known: Mapping[Stage, float]) -> set[Stage]:
    """The nearest of the known stages on every way up from this one."""
    found: set[Stage] = set()
    seen, stack = set(), [out.stage for out in stage.inputs.values()]
    while stack:
        node = stack.pop()
        if node in known:
            found.add(node)
        elif node not in seen:
            seen.add(node)
            stack += [out.stage for out in node.inputs.values()]
    return found
