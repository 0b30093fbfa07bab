"""Artefacts from artefacts without training: shuffled, noisy, stretched, moved to another network, physically smaller.

``TRANSFORMS`` is the whole registry: what a stage of kind ``transform`` names as its ``op``.
"""
from __future__ import annotations

from collections.abc import Callable

import torch

from ltcore import channels, compact, elastic, masks, seeds
from ltcore.errors import UserError
from ltcore.jobs import Env, Job, Result, density_facts, module_of
from ltcore.models import layer_kinds, layer_sizes


def _shuffle(job: Job, env: Env) -> Result:
    return Result({"mask": masks.shuffled(job.inputs["mask"], seeds.stream(*job.params["path"]))})


def _noise(job: Job, env: Env) -> Result:
    """w + sd × (the layer's own standard deviation) × N(0, 1) on every parameter that varies; constant ones (biases of 0) stay."""
    generator, sd = seeds.stream(*job.params["path"]), job.params["sd"]
    draws = {n: torch.randn(w.shape, generator=generator) for n, w in job.inputs["state"].items()}
    noisy = {n: w + sd * w.std() * draws[n] if w.is_floating_point() and w.numel() > 1 else w for n, w in job.inputs["state"].items()}
    return Result({"state": noisy})


def _shuffle_globally(job: Job, env: Env) -> Result:
    """Over all layers together (Morcos et al. 2019)."""
    return Result({"mask": masks.shuffled_globally(job.inputs["mask"], seeds.stream(*job.params["path"]))})


def _elastic(job: Job, env: Env) -> Result:
    """Weights and mask (where there is one) of a source network as those of another depth; see ``ltcore.elastic``.

    With inputs ``extra_state`` and ``extra_mask`` the replicas take those of the target itself; with ``replicas`` permuted their masks
    are permuted within each layer.
    """
    p = job.params
    source, target = (module_of({**p, "model": p[role]}, env) for role in ("source", "model"))
    plan = elastic.transfer(source, target, p["order"], p["replicate"], p["drop"])
    out = {role: elastic.carry(job.inputs[role], plan) for role in ("state", "mask") if role in job.inputs}
    for role, tensors in out.items():
        tensors |= {n: job.inputs[f"extra_{role}"][n] for n in tensors if n in plan.replicas and f"extra_{role}" in job.inputs}
    if p["replicas"] == "permuted":
        replicas = {n: m for n, m in out["mask"].items() if n in plan.replicas}
        out["mask"] |= masks.shuffled(replicas, seeds.stream(*p["path"]))
    density = density_facts(masks.report(out["mask"], sum(layer_sizes(target).values()))) if "mask" in out else {}
    return Result(out, facts={**density, "block_maps": [list(m) for m in plan.maps]})


def _transfer(job: Job, env: Env) -> Result:
    """The source's weights in the target's network; the output layer is the target's own fresh one where ``redraw_output`` says so."""
    source, fresh = job.inputs["state"], job.inputs["fresh"]
    outputs = [n.rpartition(".")[0] for n, kind in layer_kinds(module_of(job.params, env)).items() if kind == "output"]
    redrawn = tuple(f"{layer}." for layer in outputs) if job.params["redraw_output"] else ()
    for n, w in fresh.items():
        if not n.startswith(redrawn) and (n not in source or source[n].shape != w.shape):
            there = tuple(source[n].shape) if n in source else "not there"
            raise UserError(f"the ticket does not fit the target's network: {n} is {there} in the source, {tuple(w.shape)} in the target; "
                            "give both sets examples of one form, such as data.options.channels=3")  # fmt: skip
    return Result({"state": {n: w if n.startswith(redrawn) else source[n] for n, w in fresh.items()}})


def _compact(job: Job, env: Env) -> Result:
    """The physically smaller network's weights and buffers."""
    return Result({"state": compact.shrink(module_of(job.params, env), job.inputs["state"], job.inputs["channels"])})


def _expand(job: Job, env: Env) -> Result:
    return Result({"mask": channels.expand(module_of(job.params, env), job.inputs["channels"])})


TRANSFORMS: dict[str, Callable[[Job, Env], Result]] = {
    "shuffle": _shuffle, "shuffle-globally": _shuffle_globally, "noise": _noise, "elastic": _elastic, "transfer": _transfer,
    "compact": _compact, "expand-channels": _expand,
}  # fmt: skip


def run(job: Job, env: Env) -> Result:
    """The artefact that the stage's ``op`` makes."""
    return TRANSFORMS[job.params["op"]](job, env)
