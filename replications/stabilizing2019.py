"""Frankle, Dziugaite, Roy & Carbin 2019, "Stabilizing the Lottery Ticket Hypothesis": rewinding to iteration k, and stability.

Numbers and claims stand in ``published/stabilizing2019.yaml``; networks and data are those of Frankle & Carbin 2019, so the recipes are
theirs where the two papers agree, and what both run is trained once. Choices are explained in ``docs/stabilizing2019.md``.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ltcore.recipe import Recipe, changed
from replications import frankle2019_conv
from replications import stabilizing2019_imagenet as imagenet
from replications.frankle2019 import CONTROL, FAST, LENET, MINI, TINY
from replications.schema import Arm, Control, Deviation, Experiment, Paper, Scaled, Setting

# Fig 2 prints 112K iterations and drops at 56K and 84K, where Frankle & Carbin 2019 have 112,480.
VGG19 = changed(frankle2019_conv.VGG19, {"length": "112000it", "optimizer.drops_it": (56_000, 84_000)})
DENSE, TICKET = Arm("dense", levels=(0,)), Arm("ticket")


def _stability(level: int, pairs: int = 6) -> tuple[Arm, ...]:
    """Both noises for ticket and random subnetwork; the first pair of data orders comes before the others."""
    kinds = (("ticket-stability", "ticket"), ("random-prune-stability", "random-prune"))
    noises = (("pruning", 1), ("data-order", 1), *([("data-order", pairs)] if pairs > 1 else []))
    return tuple(Arm(build, name, (level,), draws, {"noise": noise}) for noise, draws in noises for build, name in kinds)


def _at(level: int, pairs: int = 6) -> tuple[Arm, ...]:
    """What Fig 3 measures at the analysed level."""
    return (Arm("random-prune", levels=(level,)), *_stability(level, pairs))


LENET_LEVEL, RESNET18_LEVEL, VGG19_LEVEL = 10, 8, 17  # 10.7, 16.7 and 2.2 % of the weights, as Fig 3 prints them
QUICK_LENET = (DENSE, TICKET, *_at(LENET_LEVEL, pairs=1))
SMOKE = (DENSE, TICKET, *_at(2, pairs=1))
SMALL = {"data.name": "digits", "data.val": 200, "length": "24it", "batch_size": 32, "evaluate.every_it": 12, "evaluate.test": ("end",)}
SMOKE_RESNET: Mapping[str, Any] = {**SMALL, "model.options": {"depth": 8, "width": 4}, "optimizer.drops_it": (16, 20)}
SMOKE_VGG: Mapping[str, Any] = {**SMALL, "model.options": {"depth": 11, "width": 4}, "optimizer.drops_it": (16, 20)}

NEEDS_GPU = "needs a GPU: a ResNet-20 step of 128 images takes 0.4 s on a core, and this protocol has millions of them"


@dataclass(frozen=True)
class _Net:
    """A CIFAR net of Fig 2: its recipe, the level that Fig 3 analyses, and the band of each variant's dense net."""

    protocol: str
    recipe: Recipe
    level: int
    gates: Mapping[str, str]


NETS = {
    "resnet18": _Net("resnet18-cifar10", frankle2019_conv.RESNET18, RESNET18_LEVEL, {"standard": "f2-r18-std", "warmup": "f2-r18-warm", "low": "f2-r18-low"}),
    "vgg19": _Net("vgg19-cifar10", VGG19, VGG19_LEVEL, {"standard": "f2-vgg-std", "warmup": "f2-vgg-warm", "low": "f2-vgg-low"}),
}


def _cifar(variant: str, levels: int, rewind: str = "0it", lr: float = 0.1, warmup_it: int = 0, more: tuple[Arm, ...] = (),
           smoke: tuple[Mapping[str, Any], tuple[Arm, ...]] | None = None) -> Experiment:  # fmt: skip
    """One variant, ``resnet18-standard`` say, at one rewind point; a point other than 0 has to be named by whoever wants its numbers.

    Tickets and what Fig 3 measures come first, then ``more``; the dense net is read where the rewind point is 0.
    """
    name, _, which = variant.partition("-")
    net, reset = NETS[name], rewind == "0it"
    arms = (*((DENSE,) if reset else ()), TICKET, *_at(net.level), *more)
    scaled = {("paper", "cifar10"): Scaled(3, levels, arms)}
    if smoke:
        shrunk = ({} if reset else {"rewind": "6it"}) | ({"optimizer.warmup_it": 8} if warmup_it else {})
        scaled["smoke", "digits"] = Scaled(1, 1, smoke[1], {**smoke[0], **shrunk})
    recipe = changed(net.recipe, {"rewind": rewind, "optimizer.lr": lr, "optimizer.warmup_it": warmup_it})
    named = {"variant": variant} | ({} if reset else {"rewind": rewind})
    return Experiment(net.protocol, recipe, scaled, variant, named, {"rewind": "0it"} if reset else {}, net.gates[which] if reset else "",
                      why_not_quick=NEEDS_GPU)  # fmt: skip


LENET_SCALED = {
    ("paper", "mnist"): Scaled(3, LENET_LEVEL, (DENSE, TICKET, *_at(LENET_LEVEL))),
    ("quick", "mnist"): Scaled(3, LENET_LEVEL, QUICK_LENET, {**FAST, "length": "12000it"}),
    ("quick", "mnist1d"): Scaled(3, LENET_LEVEL, QUICK_LENET, {**MINI, **FAST}),
    ("smoke", "mnist1d"): Scaled(1, 2, SMOKE, TINY),
}
WARM_VGG = (Arm("reinit", levels=(7, 18)), Arm("snip", levels=(14, 17, 20)), Arm("reinit"), Arm("snip"))
SNIP_SMOKE = (DENSE, Arm("ticket", levels=(1,)), Arm("snip", levels=(1,)))
REWOUND_SMOKE = (Arm("ticket", levels=(1,)), *_at(1, pairs=1))

EXPERIMENTS = (
    Experiment("lenet-mnist", LENET, LENET_SCALED, base={"rewind": "0it"}, gate="f2-lenet"),
    # The standard net at the points that the claims name first; then the other variants; then the rest of the sweep of Fig 4.
    _cifar("resnet18-standard", 12, more=(Arm("reinit"),)),
    _cifar("resnet18-standard", 12, "500it", smoke=(SMOKE_RESNET, REWOUND_SMOKE)),
    _cifar("resnet18-warmup", 12, lr=0.03, warmup_it=20_000, more=(Arm("reinit"), Arm("snip"))),
    _cifar("resnet18-low", RESNET18_LEVEL, lr=0.01),
    *(_cifar("resnet18-standard", RESNET18_LEVEL, k) for k in ("2000it", "100it", "20000it", "25it", "250it", "1000it", "5000it")),
    _cifar("vgg19-standard", 24, more=(Arm("reinit"),)),
    _cifar("vgg19-standard", 24, "100it"),
    _cifar("vgg19-warmup", 24, warmup_it=10_000, more=WARM_VGG, smoke=(SMOKE_VGG, SNIP_SMOKE)),
    _cifar("vgg19-low", VGG19_LEVEL, lr=0.01),
    *(_cifar("vgg19-standard", VGG19_LEVEL, k) for k in ("2000it", "75000it", "25it", "500it", "8000it")),
    *imagenet.EXPERIMENTS,
)

SETTINGS = (
    Setting("networks and data", "those of Frankle & Carbin 2019 (Fig 2)", "none at publication; open_lth has the method", "the same recipes as frankle2019",
            "open_lth's ResNet-20 defaults belong to the later ICML 2020 paper"),
    Setting("rewind", "train from W_k to step T, T − k steps (Algorithm 1)", "pretraining of k steps, main run starts at step k (open_lth)",
            "a first segment [0, k); every ticket goes on at k: schedule, data order and augmentation by index"),
    Setting("optimiser state at W_k", "not stated", "fresh (open_lth)", "fresh for tickets and random subnetworks; the dense net keeps its own"),
    Setting("batch norm at W_k", "not stated", "rewound with the weights (open_lth)", "rewound with the weights"),
    Setting("stability to pruning", "L2 distance of masked trained weights, subnetwork against the full network, same data order (Sec 2)", "none",
            "the same; prunable weights only"),
    Setting("stability to data order", "L2 distance of two copies of the subnetwork trained with two data orders; 18 samples (Fig 3)", "none",
            "6 pairs of 4 orders in each of 3 trials; augmentation is drawn anew with the order"),
    Setting("angle", "angle between the two (App B)", "none", "arc of the masked weights taken as one vector, degrees"),
    Setting("random pruning", "random mask with the ticket's per-layer proportions, from W_k (Fig 3)", "none", "the ticket's exact counts, one draw a trial"),
    Setting("SNIP", "Lee et al. 2019 (App A)", "none", "|w · gradient| on one batch of training images at initialisation, to the ticket's count"),
    Setting("pruning", "not restated", "20 % a round", "as frankle2019: LeNet layerwise with half the rate at the output, conv nets global over 3x3 convolutions"),
    Setting("trials", "3", "n/a", "3"),
    *imagenet.SETTINGS,
)  # fmt: skip

DEVIATIONS = (
    Deviation("LeNet's output layer", "label 10.7 = 0.8^10", "10 % a round at the output as in frankle2019: 10.8 % are left", "the paper refers to frankle2019; 1,000 of 266,200 weights"),
    Deviation("samples of data-order noise", "18, how drawn is not said", "6 pairs of 4 orders in 3 trials, averaged within a trial", "trials are the independent unit"),
    Deviation("validation of the CIFAR nets", "not stated", "every 500 (ResNet-18) and 1,000 iterations (VGG-19)", "all numbers are read at the end of training"),
    Deviation("points of the rewinding sweep", "drawn in Fig 4, not listed", "ours, around those that the text names", "no list in the text"),
    *imagenet.DEVIATIONS,
)  # fmt: skip

# The networks of frankle2019's controls, to the analysed level: in one store the tickets of both papers are the same.
STABLE = (DENSE, Arm("ticket", levels=(LENET_LEVEL,)), *_at(LENET_LEVEL, pairs=1))
CONTROLS = (Control(("s4-winning-is-stable",), "shuffled-mask", "mnist1d", "lenet-mnist", replace(CONTROL, levels=LENET_LEVEL, arms=STABLE)),)

PAPER = Paper("stabilizing2019", EXPERIMENTS, SETTINGS, DEVIATIONS, CONTROLS, imagenet.NOT_COVERED)
