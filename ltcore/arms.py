"""The arms: named paths through a trial's graph. Each is ``(trial, level, draw, **options) -> Stage``; names are the papers' vocabulary.

A user's arm has the same form; see ``examples/``.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ltcore.depths import at_depth
from ltcore.errors import UsageError
from ltcore.imp import Trial
from ltcore.stages import Output, Stage

ArmFn = Callable[..., Stage]


def ticket(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Iterative pruning and rewinding; level 0 is the dense network."""
    return trial.ticket(level)


def reinit(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The ticket's mask with freshly drawn weights, trained from the start."""
    return trial.train(trial.init("reinit", level, draw), trial.mask(level), start=0)


def random_mask(trial: Trial, level: int, draw: int = 0, weights: str = "fresh") -> Stage:
    """A mask drawn anew with the ticket's count in every layer; ``weights`` original (rewound) or fresh."""
    mask = trial.shuffled(trial.mask(level), "random-mask", level, draw)
    if weights == "original":
        return trial.rewound_run(mask)
    return trial.train(trial.init("random-mask", level, draw), mask, start=0)


def random_prune(trial: Trial, level: int, draw: int = 0) -> Stage:
    """A random mask with the ticket's count in every layer, trained from the weights that the ticket is rewound to."""
    return random_mask(trial, level, draw, weights="original")


def snip(trial: Trial, level: int, draw: int = 0) -> Stage:
    """SNIP's mask at the weights that tickets are rewound to, at the ticket's exact counts (Lee et al. 2019)."""
    return _before_training(trial, level, "snip")


def grasp(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The same with GraSP's mask (Wang et al. 2020)."""
    return _before_training(trial, level, "grasp")


SYNFLOW_ROUNDS = 100  # Tanaka et al. 2020, section 6


def synflow(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The same with SynFlow's, in 100 rounds down to the ticket's density (Tanaka et al. 2020)."""
    layers = trial.prunable()
    density = sum(n * (1 - rate) ** level for n, rate in layers.values()) / max(sum(n for n, _ in layers.values()), 1)
    # Rounded, so that a last bit of another machine's power function is no other stage.
    return _before_training(trial, level, "synflow", rounds=SYNFLOW_ROUNDS, density=round(density, 12), prunable=list(layers))


def magnitude_at_rewind(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Small weights removed at the step that tickets are rewound to, round by round to the ticket's exact counts."""
    return _before_training(trial, level, "magnitude")


def _before_training(trial: Trial, level: int, criterion: str, **options: Any) -> Stage:
    scores = trial.score(trial.rewound(), trial.init(), None, criterion, criterion=criterion, **options)
    return trial.rewound_run(_in_rounds(trial, scores, level))


def _one_shot_mask(trial: Trial, level: int) -> Output:
    """``level`` steps of 2.5 % of the hidden layers, half as much of the output, in one go (Frankle & Carbin 2019, Fig 4c)."""
    return _pruned_once(trial, {kind: 0.025 * level * (0.5 if kind == "output" else 1.0) for kind in trial.recipe.pruning.rates})


def _kept_mask(trial: Trial, pct: int) -> Output:
    """``pct`` percent of the prunable weights stay, in one go."""
    return _pruned_once(trial, dict.fromkeys(trial.recipe.pruning.rates, (100 - pct) / 100))


def _pruned_once(trial: Trial, rates: Mapping[str, float]) -> Output:
    dense = trial.ticket(0)
    return trial.prune(trial.score(dense.out("state"), dense.inputs["state"], None, "one-shot"), None, rates)


def one_shot(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The dense net is trained once, pruned to size and rewound."""
    return trial.rewound_run(_one_shot_mask(trial, level))


def one_shot_level(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The same to the count that the ticket has after ``level`` prunings."""
    dense = trial.ticket(0)
    return trial.rewound_run(_in_rounds(trial, trial.score(dense.out("state"), dense.inputs["state"], None, "one-shot"), level))


def one_shot_reinit(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The one-shot mask with freshly drawn weights."""
    return trial.train(trial.init("one-shot-reinit", level, draw), _one_shot_mask(trial, level), start=0)


def one_shot_kept(trial: Trial, level: int, draw: int = 0) -> Stage:
    """One-shot pruning that leaves ``level`` percent of the prunable weights, rewound (Frankle et al. 2019, Sec 5)."""
    return trial.rewound_run(_kept_mask(trial, level))


def one_shot_kept_reinit(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The same mask with freshly drawn weights."""
    return trial.train(trial.init("one-shot-reinit", level, draw), _kept_mask(trial, level), start=0)


def one_shot_kept_random(trial: Trial, level: int, draw: int = 0) -> Stage:
    """A random mask with the same count in every layer, from the weights that the subnetwork is rewound to."""
    return trial.rewound_run(trial.shuffled(_kept_mask(trial, level), "one-shot-random", level, draw))


def _continued(trial: Trial, level: int) -> tuple[Stage, Output | None]:
    """Weights train on from round to round: the run after ``level`` prunings, and its mask."""
    run, mask = trial.ticket(0), None
    for n in range(1, level + 1):
        mask = trial.prune(trial.score(run.out("state"), run.inputs["state"], mask, "continued", n), mask)
        run = trial.train(run.out("state"), mask)
    return run, mask


def continued(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Pruned and trained on, never reset."""
    return _continued(trial, level)[0]


def continued_reset(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The mask of pruning and training on, reset once at the end (Frankle & Carbin 2019, App B, strategy 2)."""
    return trial.rewound_run(_continued(trial, level)[1])


def ticket_noise(trial: Trial, level: int, draw: int = 0, noise_sd: float = 1.0) -> Stage:
    """The ticket with Gaussian noise on its initial weights, in units of each layer's init sd (App F.7)."""
    noisy = trial.transform("noise", "state", {"state": trial.rewound()}, level, draw, noise_sd, sd=noise_sd)
    return trial.train(noisy, trial.mask(level))


def magnitude_at_init(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Small initial weights removed before any training, round by round to the ticket's exact counts (App F.4)."""
    scores = trial.score(trial.init(), trial.init(), None, "at-init", criterion="magnitude")
    return trial.rewound_run(_in_rounds(trial, scores, level))


def _in_rounds(trial: Trial, scores: Output, level: int) -> Output | None:
    """The lowest of fixed scores go, counted as a ticket's are."""
    mask = None
    for _ in range(level):
        mask = trial.prune(scores, mask)
    return mask


def weight_movement(trial: Trial, level: int, draw: int = 0) -> Stage:
    """How far the dense net's weights move, those in the ticket against those that it drops (App F.5)."""
    dense = trial.ticket(0)
    return trial.measure("weight-movement", {"start": dense.inputs["state"], "end": dense.out("state"), "mask": _measured_mask(trial, level)})


def init_magnitude(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Initial magnitude of the weights that a ticket keeps, layer by layer (App F.1)."""
    return trial.measure("init-magnitude", {"start": trial.init(), "mask": _measured_mask(trial, level)})


# Two of several data orders: the first pairs need the fewest networks. Order 0 is the trial's own.
ORDER_PAIRS = tuple((i, j) for j in range(1, 8) for i in range(j))


def ticket_stability(trial: Trial, level: int, draw: int = 0, noise: str = "data-order") -> Stage:
    """How far the trained ticket is from itself under another data order, or from the dense net (Frankle et al. 2019, Sec 2).

    With ``data-order`` each draw is another pair of data orders, with ``pruning`` there is one draw.
    """
    return _stability(trial, trial.ticket(level), draw, noise)


def random_prune_stability(trial: Trial, level: int, draw: int = 0, noise: str = "data-order") -> Stage:
    """The same of a randomly pruned network."""
    return _stability(trial, random_prune(trial, level), draw, noise)


def _stability(trial: Trial, run: Stage, draw: int, noise: str) -> Stage:
    if noise not in ("data-order", "pruning"):
        raise UsageError(f"unknown noise {noise!r}: data-order or pruning")
    if noise == "pruning":
        a, b = run, trial.ticket(0)
    else:
        a, b = (_with_order(trial, run, order) for order in ORDER_PAIRS[draw])
    return trial.measure("stability", {"a": a.out("state"), "b": b.out("state"), "mask": run.inputs["mask"]})


def _with_order(trial: Trial, run: Stage, order: int) -> Stage:
    """The same network trained with another data order."""
    if order == 0:
        return run
    return trial.train(run.inputs["state"], run.inputs["mask"], optimizer=run.inputs.get("optimizer"), order=("data-order", order))


def _measured_mask(trial: Trial, level: int) -> Output:
    """The ticket's mask, broken where the trial is a control."""
    return trial.ticket(level).inputs["mask"]


RIGL = {"every_it": 100, "share": 0.3}  # Evci et al. 2020, section 4.1: ΔT = 100, α = 0.3, until 3/4 of the training


def rigl(trial: Trial, level: int, draw: int = 0, length: str = "1x") -> Stage:
    """RigL at the ticket's sparsity, the same in every layer but the first, from the initial weights; ``length`` "5x" trains five times as
    long, with the schedule stretched (Evci et al. 2020).

    The first layer stays dense where it is a convolution ("uniform", section 3 there: it has almost no weights). The first layer of fully
    connected networks has most of them, and theirs on MNIST is pruned.
    """
    times = _times(length)
    drops = tuple(times * drop for drop in trial.recipe.optimizer.drops_it)
    schedule = {"optimizer.drops_it": drops, "optimizer.warmup_it": times * trial.recipe.optimizer.warmup_it}
    longer = trial.with_changes({"length": f"{times * trial.length_it}it", **schedule})
    scores, mask = longer.score(longer.init(), longer.init(), None, "rigl", level, draw, criterion="random"), None
    for _ in range(level):
        mask = longer.prune(scores, mask, scope="layerwise", whole=longer.first_convolution())
    return longer.train(longer.init(), mask, start=0, regrow={**RIGL, "until_it": 3 * longer.length_it // 4})


def _times(length: str) -> int:
    if not (length.endswith("x") and length[:-1].isdigit() and int(length[:-1])):
        raise UsageError(f"bad length {length!r}: write 1x or 5x")
    return int(length[:-1])


# ---- elastic tickets (Chen et al. 2021) --------------------------------------------------------------------------
def ett(trial: Trial, level: int, draw: int = 0, source: str = "", order: str = "append", replicate: str = "", drop: str = "") -> Stage:
    """The ticket of ``source``, a network of the same family at another depth, stretched or squeezed to this one and trained from the
    rewind step: mask, rewound weights and norms together. Without a source its own ticket, unchanged. See ``ltcore.elastic``."""
    rules = {"order": order, "replicate": replicate, "drop": drop}
    return trial.train(_moved_state(trial, source, rules), _broken_or_not(trial, _moved_mask(trial, level, source, rules), level))


def ett_transfer(trial: Trial, level: int, draw: int = 0, source: str = "", network: str = "") -> Stage:
    """The ticket of another data set, ``source``, and another depth, ``network``: moved along depth there, then trained here (App D).

    As with ``transfer`` the run starts at the source's rewind step, and the output layer is drawn anew where the classes differ. Without
    a source its own data set's.
    """
    giver = trial.source(source) if source else trial
    here = trial.with_changes({"rewind": giver.recipe.rewind})
    mask = _broken_or_not(trial, _moved_mask(giver, level, network), level)
    return here.train(here.received(_moved_state(giver, network), giver), mask)


def ett_reinit(trial: Trial, level: int, draw: int = 0, source: str = "") -> Stage:
    """The transformed mask with freshly drawn weights, trained from the start."""
    mask = _broken_or_not(trial, _moved_mask(trial, level, source), level)
    return trial.train(trial.init("ett-reinit", level, draw), mask, start=0)


def ett_random_mask(trial: Trial, level: int, draw: int = 0, source: str = "") -> Stage:
    """The transformed weights under a random mask with the transformed one's count in every layer."""
    mask = trial.shuffled(_moved_mask(trial, level, source), "ett-random-mask", level, draw)
    return trial.train(_moved_state(trial, source), mask)


def ett_permuted_replicas(trial: Trial, level: int, draw: int = 0, source: str = "", order: str = "append", replicate: str = "") -> Stage:
    """The transformed ticket with the masks of its replicated units permuted, those of the original units kept."""
    rules = {"order": order, "replicate": replicate}
    mask = _moved_mask(trial, level, source, {**rules, "replicas": "permuted"}, level, draw)
    return trial.train(_moved_state(trial, source, rules), mask)


def ett_source_mask_snip(trial: Trial, level: int, draw: int = 0, source: str = "") -> Stage:
    """The source's ticket on the units that the source has; the extra units wear SNIP's mask on the target's own rewound weights."""
    mask = _moved(trial, "mask", {"mask": _source(trial, source).mask(level), "extra_mask": snip(trial, level).inputs["mask"]}, source)
    return trial.train(_moved(trial, "state", {"state": _source(trial, source).rewound(), "extra_state": trial.rewound()}, source), mask)


def target_ticket(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The network's own ticket, whole where the control breaks the transformed ones: what these are held against."""
    return _whole(trial).ticket(level)


Rules = dict[str, str]
RULES: Rules = {"order": "append", "replicate": "", "drop": "", "replicas": "kept"}


def _moved_state(trial: Trial, source: str, rules: Rules | None = None) -> Output:
    """The source's rewound weights at this network's depth: one artefact for all levels."""
    return _moved(trial, "state", {"state": _source(trial, source).rewound()}, source, rules)


def _moved_mask(trial: Trial, level: int, source: str, rules: Rules | None = None, *use: int) -> Output:
    return _moved(trial, "mask", {"mask": _source(trial, source).mask(level)}, source, rules, *use)


def _moved(trial: Trial, role: str, inputs: dict[str, Output], source: str, rules: Rules | None = None, *use: int) -> Output:
    said = {**RULES, **(rules or {}), "source": _source(trial, source).net()["model"]}
    return trial.transform("elastic", role, inputs, *use, **trial.net(), **said)


def _source(trial: Trial, name: str) -> Trial:
    """The same trial with the network of another depth, or with its own where no other is named."""
    model = trial.recipe.model
    options = at_depth(model.name, model.options, name) if name else model.options
    return _whole(trial).with_changes({"model.options": options})


def _whole(trial: Trial) -> Trial:
    """The control shuffled-mask permutes transformed masks alone; other controls break the source's ticket as they break any."""
    return trial.with_changes({"control": "none"}) if trial.recipe.control == "shuffled-mask" else trial


def _broken_or_not(trial: Trial, mask: Output, level: int) -> Output:
    return trial.shuffled(mask, "control", level) if trial.recipe.control == "shuffled-mask" else mask


PATH_POINTS = 21  # numpy.linspace(0, 1, 21) in the official code of Chen et al. 2021


def ticket_path(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Linear mode connectivity of the ticket: accuracy on the straight path between two copies trained with different data orders."""
    return _path(trial, target_ticket(trial, level))


def ett_path(trial: Trial, level: int, draw: int = 0, source: str = "") -> Stage:
    """The same of a transformed ticket."""
    return _path(trial, ett(trial, level, source=source))


def _path(trial: Trial, run: Stage) -> Stage:
    a, b = (_with_order(trial, run, order) for order in ORDER_PAIRS[0])
    return trial.measure("linear-path", {"a": a.out("state"), "b": b.out("state")}, points=PATH_POINTS, **trial.on_data())


# ---- Morcos et al. 2019 -----------------------------------------------------------------------------------------
def transfer(trial: Trial, level: int, draw: int = 0, source: str = "") -> Stage:
    """A ticket found elsewhere (other data, another optimiser), mask and W_k, trained by this trial's recipe from the rewind step on.

    The step is the source's, in epochs where its recipe counts so, on this trial's own clock. From its own source it is the ticket itself.
    """
    giver = trial.source(source) if source else trial
    if giver is trial:
        return trial.ticket(level)
    found, here = giver.ticket(level), trial.with_changes({"rewind": giver.recipe.rewind})
    return here.train(here.received(found.inputs["state"], giver), found.inputs.get("mask"))


def random_ticket(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Fresh weights under the ticket's mask permuted over all layers together (Morcos et al. 2019, Sec 3.1), trained from the start."""
    mask = trial.transform("shuffle-globally", "mask", {"mask": trial.mask(level)}, "random-ticket", level, draw)
    return trial.train(trial.init("random-ticket", level, draw), mask, start=0)


def layer_density(trial: Trial, level: int, draw: int = 0) -> Stage:
    """Percent of its weights that each layer keeps in the ticket."""
    return trial.measure("layer-density", {"mask": _measured_mask(trial, level)}, **trial.net())


ARMS: dict[str, ArmFn] = {
    "dense": ticket, "ticket": ticket, "reinit": reinit, "random-mask": random_mask, "one-shot": one_shot, "one-shot-level": one_shot_level,
    "one-shot-reinit": one_shot_reinit, "continued": continued, "continued-reset": continued_reset, "ticket-noise": ticket_noise,
    "magnitude-at-init": magnitude_at_init, "weight-movement": weight_movement, "init-magnitude": init_magnitude,
    "one-shot-kept": one_shot_kept, "one-shot-kept-reinit": one_shot_kept_reinit, "one-shot-kept-random": one_shot_kept_random,
    "random-prune": random_prune, "snip": snip, "grasp": grasp, "synflow": synflow, "magnitude-at-rewind": magnitude_at_rewind,
    "ett": ett, "ett-reinit": ett_reinit, "ett-random-mask": ett_random_mask, "ett-permuted-replicas": ett_permuted_replicas,
    "ett-source-mask-snip": ett_source_mask_snip, "target-ticket": target_ticket, "ticket-path": ticket_path, "ett-path": ett_path,
    "ett-transfer": ett_transfer, "rigl": rigl, "ticket-stability": ticket_stability, "random-prune-stability": random_prune_stability,
    "transfer": transfer, "random-ticket": random_ticket, "layer-density": layer_density,
}  # fmt: skip
