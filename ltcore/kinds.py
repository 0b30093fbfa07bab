"""What the six kinds of stage compute: parameters and loaded inputs in, artefacts and values out.

Every artefact is a dict of tensors. ``train`` takes any number of jobs that share their parameters but for the streams, and
trains them as one stack; the other kinds take one.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ltcore import channels, compact, cost, drawing, masks, measures, seeds, transforms
from ltcore.criteria import Network, Scored
from ltcore.errors import UserError
from ltcore.jobs import Env, Job, Result, Tensors, begun, density_facts, module_of, net_of
from ltcore.library import of_user
from ltcore.models import draw_state, layer_kinds, layer_sizes, split_state
from ltcore.pruning import prune
from ltcore.recipe import Evaluate, Optimizer, Task
from ltcore.tasks import TASKS
from ltcore.training import precision
from ltcore.training.averaging import Average
from ltcore.training.backends import Loop
from ltcore.training.loop import Replicate, Segment
from ltcore.training.rigl import Regrow
from ltcore.training.supervised import Batches, Streams, loss


def run(jobs: Sequence[Job], env: Env) -> list[Result]:
    """Runs jobs of one kind; only ``train`` takes more than one at a time."""
    if jobs[0].kind == "train":
        return _train(jobs, env)
    return [RUNNERS[job.kind](job, env) for job in jobs]


# ---- init, score, prune --------------------------------------------------------------------------------------
def _init(job: Job, env: Env) -> Result:
    p, kept = job.params, job.inputs.get("channels")
    sizes = layer_sizes(module_of(p, env, kept))
    if not sizes:
        raise UserError(f"model {p['model']['name']!r} has no layer of a known kind: give it an attribute layer_kinds = {{weight name: kind}}")
    return Result({"state": draw_state(*net_of(p, env, kept), p["input_shape"], p["classes"], p["path"])}, facts={"layer_sizes": sizes})


def _score(job: Job, env: Env) -> Result:
    module, criterion = module_of(job.params, env), job.params["criterion"]["name"]
    names = list(channels.kinds(module) if getattr(env.library.criterion(criterion), "of_channels", False) else layer_kinds(module))
    if not names:
        model = job.params["model"]["name"]
        raise UserError(f"criterion {criterion!r} scores channels, and model {model!r} has no attribute channel_links")
    weights, start = ({n: job.inputs[role][n] for n in names} for role in ("weights", "start"))
    mask = {n: job.inputs.get("mask", {}).get(n, torch.ones_like(weights[n], dtype=torch.bool)) for n in names}
    options = job.params["criterion"].get("options", {})
    gradient, network = _gradient_on_batch(module, job, env, mask), _scored_network(module, job, env, mask)
    given = Scored(weights, start, mask, seeds.stream(*job.params["path"]), gradient, network, options)
    with of_user(f"criterion {criterion!r} failed", env.library.file), precision.applied("fp32", torch.device(env.device)):
        scores = env.library.criterion(criterion)(given)
    _check_scores(criterion, scores, weights)
    return Result({"scores": {n: s.contiguous() for n, s in scores.items()}})


def _gradient_on_batch(module: nn.Module, job: Job, env: Env, mask: Tensors) -> Callable[[], Tensors] | None:
    """For criteria that need data: the gradient at the masked weights on the first batch of a stream of its own, not augmented."""
    if "data" not in job.params:
        return None

    def gradient() -> Tensors:
        batches = _scoring_batches(job, env)
        stack = {n: t[None].to(batches.device) for n, t in _masked(job, mask).items()}
        backend = Loop(module, *split_state(module, stack), loss)
        return {n: g[0].cpu() for n, g in backend.grads(*batches.fetch(batches.index(0)))[1].items()}

    return gradient


def _scored_network(module: nn.Module, job: Job, env: Env, mask: Tensors) -> Network:
    """For criteria that need more than that gradient: the network at the masked weights, and the same batch."""
    state = _masked(job, mask)

    def outputs(changed: Mapping[str, Tensor], x: Tensor, training: bool) -> Tensor:
        tensors = {n: t.clone() for n, t in state.items()} | dict(changed)  # a pass in training mode writes to buffers
        return functional_call(module.train(training), {n: t.to(x.device) for n, t in tensors.items()}, (x,))

    def batch() -> tuple[Tensor, Tensor]:
        batches = _scoring_batches(job, env)
        x, y = batches.fetch(batches.index(0))
        return x[0], y[0]

    return Network(state, outputs, tuple(job.params["input_shape"]), batch if "data" in job.params else None)


def _masked(job: Job, mask: Tensors) -> Tensors:
    return {n: t * mask[n].to(t.dtype) if n in mask else t for n, t in job.inputs["weights"].items()}


def _scoring_batches(job: Job, env: Env) -> Batches:
    dtype = next(w.dtype for w in job.inputs["weights"].values() if w.is_floating_point())
    data = env.dataset(job.params["data"])
    return Batches(data, job.params["data"]["val"], job.params["batch_size"], [Streams(**job.params["streams"])], dtype)


def _check_scores(criterion: str, scores: Any, weights: Mapping[str, Tensor]) -> None:
    if not isinstance(scores, Mapping):
        raise UserError(f"criterion {criterion!r} must give a dict {{weight name: scores}}; it gave a {type(scores).__name__}")
    for n, w in weights.items():
        given = scores.get(n)
        found = tuple(given.shape) if isinstance(given, Tensor) else "none" if given is None else f"a {type(given).__name__}"
        if found != tuple(w.shape):
            raise UserError(f"criterion {criterion!r} must give {n} a tensor of scores of shape {tuple(w.shape)}; it gave {found}")
        if given.isnan().any() and w.isfinite().all():  # weights that diverged have no better scores
            raise UserError(f"criterion {criterion!r} gave {n} scores that are not numbers (NaN)")


def _prune(job: Job, env: Env) -> Result:
    module, rates = module_of(job.params, env), job.params["rates"]
    kinds = {n: kind for n, kind in (layer_kinds(module) | channels.kinds(module)).items() if kind in rates}
    if not kinds:
        there = sorted(set(layer_kinds(module).values()))
        raise UserError(f"nothing to prune: the model has layers of kind {', '.join(there) or 'none'}, the rates name {', '.join(rates)}")
    scores = {n: job.inputs["scores"][n] for n in kinds}
    before = {n: job.inputs["mask"][n] for n in kinds} if "mask" in job.inputs else masks.full({n: s.shape for n, s in scores.items()})
    whole = job.params.get("whole", ())
    mask = prune(scores, before, {n: rates[kind] for n, kind in kinds.items() if n not in whole}, job.params["scope"])
    if set(kinds.values()) == {channels.KIND}:
        return Result({"mask": mask}, facts=_channel_facts(mask))
    return Result({"mask": mask}, facts=density_facts(masks.report(mask, sum(layer_sizes(module).values()))))


def _channel_facts(mask: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of a mask of channels: how many stay, in all and in each layer."""
    return {"density_channels": masks.kept(mask) / masks.size(mask), "channels_kept": compact.kept(mask)}


# ---- train ---------------------------------------------------------------------------------------------------
def _train(jobs: Sequence[Job], env: Env) -> list[Result]:
    params, kept = jobs[0].params, jobs[0].inputs.get("channels")
    module, data = module_of(params, env, kept), env.dataset(params["data"])
    part = segment(params | begun(jobs[0]))
    trained = TASKS[part.task.name].train(module, data, part, [_replicate(job) for job in jobs], env.checkpoints, env.backend)
    results = []
    for job, t in zip(jobs, trained):
        values = TASKS[part.task.name].values(t, params)
        facts = t.facts | _network_facts(module, job, t.state, t.mask or job.inputs.get("mask", {}))
        facts |= {"start_it": part.start, **_of_whole(kept, facts, module, module_of(params, env), params["input_shape"])} if kept else {}
        more = {"mask": t.mask} if t.mask else {}
        more |= {"search": {"it": torch.tensor(t.facts["stopped_it"]), **t.tracked}} if t.tracked else {}
        results.append(Result({"state": t.state, "optimizer": t.optimizer, **more}, values, t.curves, facts))
    return results


def _of_whole(kept: Tensors, facts: Mapping[str, Any], small: nn.Module, whole: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """Densities and FLOPs of a physically smaller network, in the terms of the whole one."""
    density = facts["kept"] / sum(layer_sizes(whole).values())
    flops = 100 * cost.forward_flops(small, input_shape) / cost.forward_flops(whole, input_shape)
    return {"density_prunable": density, "density_all": density, "flops_remaining_pct": flops, **_channel_facts(kept)}


OPTIONS = {"regrow": Regrow, "track": drawing.Draw, "average": Average, "task": Task}  # of a segment; said in a stage only where used


def segment(params: Mapping[str, Any]) -> Segment:
    """The training segment that a train stage's parameters describe."""
    o, e = params["optimizer"], params["evaluate"]
    optimizer = Optimizer(**{**o, "betas": tuple(o["betas"]), "drops_it": tuple(o["drops_it"])})
    evaluate = Evaluate(e["every_it"], tuple(e["test"]), tuple(e["train"]))
    given = {name: make(**params[name]) for name, make in OPTIONS.items() if name in params}
    return Segment(optimizer, params["batch_size"], params["start"], params["stop"], evaluate, params["data"]["val"], params["precision"],
                   params.get("augment", "crop-flip"), **given)


def _replicate(job: Job) -> Replicate:
    return Replicate(job.inputs["state"], job.inputs.get("mask", {}), Streams(**job.params["streams"]), job.inputs.get("optimizer"))


def _network_facts(module: nn.Module, job: Job, end: Tensors, mask: Tensors) -> dict[str, Any]:
    """Densities counted in the weights at the end, layers that died, weights on a path, and signs kept since the start."""
    stray = [n for n, m in mask.items() if end[n][~m].any()]
    if stray:
        raise AssertionError(f"pruned weights are not 0 after training: {stray}")
    sizes = layer_sizes(module)
    alive = {n: end[n] != 0 for n in sizes}
    prunable = {n: alive[n] for n in (mask or sizes) if n in alive}
    same = sum(int((end[n].sign() == job.inputs["state"][n].sign())[alive[n]].sum()) for n in sizes)
    return density_facts(masks.report(prunable, sum(sizes.values()))) | {
        "density_effective": masks.effective(alive),
        "sign_agreement_pct": 100 * same / max(masks.kept(alive), 1),
    }


RUNNERS: dict[str, Callable[[Job, Env], Result]] = {
    "init": _init, "score": _score, "prune": _prune, "transform": transforms.run, "measure": measures.run,
}  # fmt: skip
