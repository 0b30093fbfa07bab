"""Numbers from artefacts: how far weights moved, how alike masks are, how networks are connected, what a search costs.

``MEASURES`` look at tensors alone, ``OF_NETWORKS`` need the network too; their keys are what a stage of kind ``measure`` names.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ltcore import cost, drawing, masks, paths, ranks, seeds
from ltcore.jobs import Env, Job, Result, Value, begun, module_of
from ltcore.models import layer_kinds
from ltcore.training.supervised import Streams


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
    accuracies, failed = paths.read(module_of(p, env), data, Streams(**p["streams"]), job.inputs["a"], job.inputs["b"], p["points"])
    drop = (accuracies[0] + accuracies[-1]) / 2 - min(accuracies)
    curves = {"place": paths.places(p["points"]), "test_accuracy_pct": accuracies}
    return Result(values=[Value("max_accuracy_drop_on_path_pp", drop, None, 100 / len(data.test))], curves=curves, facts={"failed": failed})


def _top5(job: Job, env: Env) -> Result:
    """Share of test examples whose class is among the five that a trained network, a smaller one maybe, gives most."""
    module, data = module_of(job.params, env, job.inputs.get("channels")), env.dataset(job.params["data"])
    value, failed = ranks.read(module, data, Streams(**job.params["streams"]), job.inputs["state"], 5)
    return Result(values=[Value("test_top5_pct", value, "end", 100 / len(data.test))], facts={"failed": failed})


def _layer_density(job: Job, env: Env) -> Result:
    """Percent kept of each layer of a mask; layers are numbered within their kind: conv1, conv2, … (Morcos et al. 2019, Fig 1b)."""
    kinds, seen, values = layer_kinds(module_of(job.params, env)), dict[str, int](), []
    for n, density in masks.densities(job.inputs["mask"]).items():
        seen[kinds[n]] = seen.get(kinds[n], 0) + 1
        values.append(Value("layer_weights_remaining_pct", 100 * density, "end", condition={"layer": f"{kinds[n]}{seen[kinds[n]]}"}))
    return Result(values=values)


def _training_cost(job: Job, env: Env) -> Result:
    """FLOPs of search, retraining and both, and the size of the network that is retrained."""
    p, kept = job.params, job.inputs.get("channels")
    whole, small, shape = module_of(p, env), module_of(p, env, kept), p["input_shape"]
    drawn = begun(job).get("start")
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


OF_NETWORKS: dict[str, Callable[[Job, Env], Result]] = {
    "linear-path": _linear_path, "layer-density": _layer_density, "training-cost": _training_cost, "top-5": _top5,
}  # fmt: skip


def run(job: Job, env: Env) -> Result:
    """What the stage measures."""
    if job.params["what"] in OF_NETWORKS:
        return OF_NETWORKS[job.params["what"]](job, env)
    return Result(values=MEASURES[job.params["what"]](job))
