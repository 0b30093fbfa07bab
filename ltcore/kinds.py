"""What the six kinds of stage compute: parameters and loaded inputs in, artefacts and values out.

Every artefact is a dict of tensors. ``train`` takes any number of jobs that share their parameters but for the streams, and
trains them as one stack; the other kinds take one.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ltcore import channels, compact, cost, drawing, elastic, masks, paths, seeds
from ltcore.criteria import Network, Scored
from ltcore.data import Dataset
from ltcore.errors import UserError
from ltcore.library import Library, of_user
from ltcore.models import draw_state, layer_kinds, layer_sizes, skeleton, split_state
from ltcore.pruning import prune
from ltcore.recipe import Evaluate, Model, Optimizer
from ltcore.training import precision
from ltcore.training.backends import Loop
from ltcore.training.loop import Checkpoints, Replicate, Segment, train
from ltcore.training.rigl import Regrow
from ltcore.training.supervised import Batches, Streams, loss

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


def run(jobs: Sequence[Job], env: Env) -> list[Result]:
    """Runs jobs of one kind; only ``train`` takes more than one at a time."""
    if jobs[0].kind == "train":
        return _train(jobs, env)
    return [RUNNERS[job.kind](job, env) for job in jobs]


def _net(params: Mapping[str, Any], env: Env, kept: Tensors | None = None) -> tuple[Callable[..., nn.Module], Model]:
    """The family and its member; with a mask of channels ``kept`` the physically smaller one."""
    model = {k: v for k, v in params["model"].items() if k != "source"}
    family = env.library.model(model["name"])
    return (compact.smaller(family, kept) if kept else family), Model(**model)


def _module(params: Mapping[str, Any], env: Env, kept: Tensors | None = None) -> nn.Module:
    return skeleton(*_net(params, env, kept), params["input_shape"], params["classes"])


# ---- init, score, prune --------------------------------------------------------------------------------------
def _init(job: Job, env: Env) -> Result:
    p, kept = job.params, job.inputs.get("channels")
    sizes = layer_sizes(_module(p, env, kept))
    if not sizes:
        raise UserError(f"model {p['model']['name']!r} has no layer of a known kind: give it an attribute layer_kinds = {{weight name: kind}}")
    return Result({"state": draw_state(*_net(p, env, kept), p["input_shape"], p["classes"], p["path"])}, facts={"layer_sizes": sizes})


def _score(job: Job, env: Env) -> Result:
    module, criterion = _module(job.params, env), job.params["criterion"]["name"]
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
    module, rates = _module(job.params, env), job.params["rates"]
    kinds = {n: kind for n, kind in (layer_kinds(module) | channels.kinds(module)).items() if kind in rates}
    if not kinds:
        there = sorted(set(layer_kinds(module).values()))
        raise UserError(f"nothing to prune: the model has layers of kind {', '.join(there) or 'none'}, the rates name {', '.join(rates)}")
    scores = {n: job.inputs["scores"][n] for n in kinds}
    before = {n: job.inputs["mask"][n] for n in kinds} if "mask" in job.inputs else masks.full({n: s.shape for n, s in scores.items()})
    mask = prune(scores, before, {n: rates[kind] for n, kind in kinds.items()}, job.params["scope"])
    if set(kinds.values()) == {channels.KIND}:
        return Result({"mask": mask}, facts=_channel_facts(mask))
    return Result({"mask": mask}, facts=_density(masks.report(mask, sum(layer_sizes(module).values()))))


def _channel_facts(mask: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of a mask of channels: how many stay, in all and in each layer."""
    return {"density_channels": masks.kept(mask) / masks.size(mask), "channels_kept": compact.kept(mask)}


def _density(report: masks.Report) -> dict[str, Any]:
    return {
        "kept": report.kept_prunable, "density_prunable": report.density_prunable, "density_all": report.density_all,
        "density_layers": report.layers, "collapsed": [n for n, d in report.layers.items() if d == 0],
    }  # fmt: skip


# ---- train ---------------------------------------------------------------------------------------------------
def _train(jobs: Sequence[Job], env: Env) -> list[Result]:
    params, kept = jobs[0].params, jobs[0].inputs.get("channels")
    module, data = _module(params, env, kept), env.dataset(params["data"])
    part = segment(params | _begun(jobs[0]))
    trained = train(module, data, part, [_replicate(job) for job in jobs], env.checkpoints, env.backend)
    results = []
    for job, t in zip(jobs, trained):
        values = _train_values(t.metrics, t.facts, params["evaluate"]["every_it"])
        facts = t.facts | _network_facts(module, job, t.state, t.mask or job.inputs.get("mask", {}))
        facts |= {"start_it": part.start, **_of_whole(kept, facts, module, _module(params, env), params["input_shape"])} if kept else {}
        more = {"mask": t.mask} if t.mask else {}
        more |= {"search": {"it": torch.tensor(t.facts["stopped_it"]), **t.tracked}} if t.tracked else {}
        results.append(Result({"state": t.state, "optimizer": t.optimizer, **more}, values, t.curves, facts))
    return results


def _begun(job: Job) -> dict[str, int]:
    """Where a segment begins that goes on from a draw: at the iteration of the draw, which only the run could tell."""
    return {"start": int(job.inputs["clock"]["it"])} if "clock" in job.inputs else {}


def _of_whole(kept: Tensors, facts: Mapping[str, Any], small: nn.Module, whole: nn.Module, input_shape: Sequence[int]) -> dict[str, Any]:
    """Densities and FLOPs of a physically smaller network, in the terms of the whole one."""
    density = facts["kept"] / sum(layer_sizes(whole).values())
    flops = 100 * cost.forward_flops(small, input_shape) / cost.forward_flops(whole, input_shape)
    return {"density_prunable": density, "density_all": density, "flops_remaining_pct": flops, **_channel_facts(kept)}


def segment(params: Mapping[str, Any]) -> Segment:
    """The training segment that a train stage's parameters describe."""
    o, e = params["optimizer"], params["evaluate"]
    optimizer = Optimizer(**{**o, "betas": tuple(o["betas"]), "drops_it": tuple(o["drops_it"])})
    evaluate = Evaluate(e["every_it"], tuple(e["test"]), tuple(e["train"]))
    regrow = Regrow(**params["regrow"]) if "regrow" in params else None
    return Segment(optimizer, params["batch_size"], params["start"], params["stop"], evaluate, params["data"]["val"], params["precision"],
                   params.get("augment", "crop-flip"), regrow, drawing.Draw(**params["track"]) if "track" in params else None)


def _replicate(job: Job) -> Replicate:
    return Replicate(job.inputs["state"], job.inputs.get("mask", {}), Streams(**job.params["streams"]), job.inputs.get("optimizer"))


def _train_values(metrics: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any], every_it: int) -> list[Value]:
    values = []
    for at, named in metrics.items():
        for metric, value in named.items():
            n = facts[f"n_{metric.partition('_')[0]}"]
            values.append(Value(metric, value if math.isfinite(value) else math.inf, at, 100 / n if metric.endswith("_pct") else 0.0))
    if "early-stop" in metrics:
        values.append(Value("early_stop_it", facts["early_stop_it"], None, every_it, facts["censored"]))
    return values


def _network_facts(module: nn.Module, job: Job, end: Tensors, mask: Tensors) -> dict[str, Any]:
    """Densities counted in the weights at the end, layers that died, weights on a path, and signs kept since the start."""
    stray = [n for n, m in mask.items() if end[n][~m].any()]
    if stray:
        raise AssertionError(f"pruned weights are not 0 after training: {stray}")
    sizes = layer_sizes(module)
    alive = {n: end[n] != 0 for n in sizes}
    prunable = {n: alive[n] for n in (mask or sizes) if n in alive}
    same = sum(int((end[n].sign() == job.inputs["state"][n].sign())[alive[n]].sum()) for n in sizes)
    return _density(masks.report(prunable, sum(sizes.values()))) | {
        "density_effective": masks.effective(alive),
        "sign_agreement_pct": 100 * same / max(masks.kept(alive), 1),
    }


# ---- transform -----------------------------------------------------------------------------------------------
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
    source, target = (_module({**p, "model": p[role]}, env) for role in ("source", "model"))
    plan = elastic.transfer(source, target, p["order"], p["replicate"], p["drop"])
    out = {role: elastic.carry(job.inputs[role], plan) for role in ("state", "mask") if role in job.inputs}
    for role, tensors in out.items():
        tensors |= {n: job.inputs[f"extra_{role}"][n] for n in tensors if n in plan.replicas and f"extra_{role}" in job.inputs}
    if p["replicas"] == "permuted":
        replicas = {n: m for n, m in out["mask"].items() if n in plan.replicas}
        out["mask"] |= masks.shuffled(replicas, seeds.stream(*p["path"]))
    density = _density(masks.report(out["mask"], sum(layer_sizes(target).values()))) if "mask" in out else {}
    return Result(out, facts={**density, "block_maps": [list(m) for m in plan.maps]})


def _transfer(job: Job, env: Env) -> Result:
    """The source's weights in the target's network; the output layer is the target's own fresh one where ``redraw_output`` says so."""
    source, fresh = job.inputs["state"], job.inputs["fresh"]
    outputs = [n.rpartition(".")[0] for n, kind in layer_kinds(_module(job.params, env)).items() if kind == "output"]
    redrawn = tuple(f"{layer}." for layer in outputs) if job.params["redraw_output"] else ()
    for n, w in fresh.items():
        if not n.startswith(redrawn) and (n not in source or source[n].shape != w.shape):
            there = tuple(source[n].shape) if n in source else "not there"
            raise UserError(f"the ticket does not fit the target's network: {n} is {there} in the source, {tuple(w.shape)} in the target; "
                            "give both sets examples of one form, such as data.options.channels=3")  # fmt: skip
    return Result({"state": {n: w if n.startswith(redrawn) else source[n] for n, w in fresh.items()}})


def _compact(job: Job, env: Env) -> Result:
    """The physically smaller network's weights and buffers."""
    return Result({"state": compact.shrink(_module(job.params, env), job.inputs["state"], job.inputs["channels"])})


def _expand(job: Job, env: Env) -> Result:
    return Result({"mask": channels.expand(_module(job.params, env), job.inputs["channels"])})


TRANSFORMS: dict[str, Callable[[Job, Env], Result]] = {
    "shuffle": _shuffle, "shuffle-globally": _shuffle_globally, "noise": _noise, "elastic": _elastic, "transfer": _transfer,
    "compact": _compact, "expand-channels": _expand,
}  # fmt: skip


def _transform(job: Job, env: Env) -> Result:
    return TRANSFORMS[job.params["op"]](job, env)


# ---- measure -------------------------------------------------------------------------------------------------
def _weight_movement(job: Job) -> list[Value]:
    """Of dense training: |w_end − w_0| and |w_end| − |w_0|, over the weights that the mask keeps against those it drops."""
    start, end, mask = (job.inputs[role] for role in ("start", "end", "mask"))
    move = torch.cat([(end[n] - start[n]).abs().flatten() for n in mask]).double()
    growth = torch.cat([(end[n].abs() - start[n].abs()).flatten() for n in mask]).double()
    keep = torch.cat([m.flatten() for m in mask.values()])
    ratio = move[keep].mean() / move[~keep].mean()
    return [Value("weight_move_ratio", float(ratio)), Value("weight_growth_gap", float(growth[keep].mean() - growth[~keep].mean()))]


def _init_magnitude(job: Job) -> list[Value]:
    """Mean |w_0| of the kept weights of each layer, in percent above the layer's own mean; layer 1 is the first hidden layer."""
    start, mask = job.inputs["start"], job.inputs["mask"]
    excess = [100 * float(start[n].abs()[m].double().mean() / start[n].abs().double().mean() - 1) for n, m in mask.items()]
    return [Value("init_magnitude_excess_pct", x, condition={"layer": i}) for i, x in enumerate(excess, 1)]


def _stability(job: Job) -> list[Value]:
    """L2 distance and angle between two trained networks on the weights that the mask keeps (Frankle et al. 2019, Sec 2)."""
    a, b = (torch.cat([job.inputs[role][n][m] for n, m in job.inputs["mask"].items()]).double() for role in ("a", "b"))
    angle = math.degrees(math.atan2(float((a / a.norm() - b / b.norm()).norm()), float((a / a.norm() + b / b.norm()).norm()))) * 2
    return [Value("stability_l2", float((a - b).norm()), "end"), Value("stability_angle_deg", angle, "end")]


def _mask_overlap(job: Job) -> list[Value]:
    """Shared share of two masks' kept weights beside what chance gives, and their distance."""
    share, chance = masks.overlap(job.inputs["a"], job.inputs["b"])
    distance = masks.distance(job.inputs["a"], job.inputs["b"])
    return [Value("mask_overlap_ratio", share), Value("mask_overlap_chance_ratio", chance), Value("mask_distance", distance)]


def _drawn(job: Job) -> list[dict[str, Tensor]]:
    """Masks at every check of a search, whose segments are the inputs in order; permuted within layers where the control asks for it."""
    parts = [job.inputs[role] for role in sorted(job.inputs)]
    scales = {n: torch.cat([part[n] for part in parts]) for n in parts[0] if n != "it"}
    found = drawing.masks_of(scales, job.params["rate"])
    if path := job.params.get("shuffled"):
        return [masks.shuffled(mask, seeds.stream(*path, t)) for t, mask in enumerate(found)]
    return found


def _mask_distances(job: Job) -> list[Value]:
    """Mask distance of pairs of epochs; a check is made after every epoch of the paper's schedule."""
    found = _drawn(job)
    table, one = drawing.distances(found), 1 / masks.size(found[0])
    pairs = drawing.chosen_pairs(len(found))
    return [Value("mask_distance", float(table[a - 1, b - 1]), None, one, condition={"from_epoch": a, "to_epoch": b}) for a, b in pairs]


def _draw(job: Job) -> list[Value]:
    """The epoch at which a rule draws, of a schedule of so many; censored where it never does."""
    p, found = job.params, _drawn(job)
    at = drawing.first(found, p["rule"], p["epsilon"])
    epoch, share = p["epochs"] if at is None else at + 1, 100 / p["epochs"]
    return [Value("epoch_drawn_ep", epoch, None, 1.0, at is None), Value("search_length_pct", epoch * share, None, share, at is None)]


MEASURES: dict[str, Callable[[Job], list[Value]]] = {
    "weight-movement": _weight_movement, "init-magnitude": _init_magnitude, "mask-overlap": _mask_overlap,
    "stability": _stability, "mask-distances": _mask_distances, "draw": _draw,
}  # fmt: skip


def _linear_path(job: Job, env: Env) -> Result:
    """Test accuracy on the straight path between two trained networks, and how far it falls below the mean of its two ends."""
    p, data = job.params, env.dataset(job.params["data"])
    accuracies = paths.accuracies(_module(p, env), data, Streams(**p["streams"]), job.inputs["a"], job.inputs["b"], p["points"])
    drop = (accuracies[0] + accuracies[-1]) / 2 - min(accuracies)
    curves = {"place": paths.places(p["points"]), "test_accuracy_pct": accuracies}
    return Result(values=[Value("max_accuracy_drop_on_path_pp", drop, None, 100 / len(data.test))], curves=curves)


def _layer_density(job: Job, env: Env) -> Result:
    """Percent kept of each layer of a mask; layers are numbered within their kind: conv1, conv2, … (Morcos et al. 2019, Fig 1b)."""
    kinds, seen, values = layer_kinds(_module(job.params, env)), dict[str, int](), []
    for n, density in masks.densities(job.inputs["mask"]).items():
        seen[kinds[n]] = seen.get(kinds[n], 0) + 1
        values.append(Value("layer_weights_remaining_pct", 100 * density, "end", condition={"layer": f"{kinds[n]}{seen[kinds[n]]}"}))
    return Result(values=values)


def _training_cost(job: Job, env: Env) -> Result:
    """FLOPs of search, retraining and both, and the size of the network that is retrained."""
    p, kept = job.params, job.inputs.get("channels")
    whole, small, shape = _module(p, env), _module(p, env, kept), p["input_shape"]
    drawn = _begun(job).get("start")
    search_it, start = (p["search_it"], 0) if drawn is None else (drawn, drawn if p["goes_on"] else 0)
    search = cost.training_flops(whole, shape, search_it * p["batch_size"])
    retrain = cost.training_flops(small, shape, (p["length_it"] - start) * p["batch_size"])
    flops_pct = 100 * cost.forward_flops(small, shape) / cost.forward_flops(whole, shape)
    left = cost.parameters(small)
    values = {"training_flops": search + retrain, "search_flops": search, "retraining_flops": retrain, "flops_remaining_pct": flops_pct,
              "parameters_count": left, "parameters_remaining_pct": 100 * left / cost.parameters(whole)}  # fmt: skip
    if drawn is not None:
        values |= {"epoch_drawn_ep": drawn * p["epochs"] / p["length_it"], "search_length_pct": 100 * drawn / p["length_it"]}
    return Result(values=[Value(metric, value) for metric, value in values.items()])


# These must know the network.
OF_NETWORKS: dict[str, Callable[[Job, Env], Result]] = {
    "linear-path": _linear_path, "layer-density": _layer_density, "training-cost": _training_cost,
}  # fmt: skip


def _measure(job: Job, env: Env) -> Result:
    if job.params["what"] in OF_NETWORKS:
        return OF_NETWORKS[job.params["what"]](job, env)
    return Result(values=MEASURES[job.params["what"]](job))


RUNNERS: dict[str, Callable[[Job, Env], Result]] = {
    "init": _init, "score": _score, "prune": _prune, "transform": _transform, "measure": _measure,
}  # fmt: skip
