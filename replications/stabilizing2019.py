"""Frankle, Dziugaite, Roy & Carbin 2019, "Stabilizing the Lottery Ticket Hypothesis": rewinding to iteration k, and stability.

Numbers and claims stand in ``published/stabilizing2019.yaml``; networks and data are those of Frankle & Carbin 2019, so the recipes are
theirs where the two papers agree, and what both run is trained once. Choices are explained in ``docs/stabilizing2019.md``.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.recipe import Recipe, changed
from replications import frankle2019_conv
from replications import stabilizing2019_imagenet as imagenet
from replications.frankle2019 import FAST, LENET, MINI, TINY
from replications.schema import Arm, Deviation, Experiment, Paper, Scaled, Setting

# Fig 2 prints 112K iterations and drops at 56K and 84K, where Frankle & Carbin 2019 have 112,480.
VGG19 = changed(frankle2019_conv.VGG19, {"length": "112000it", "optimizer.drops_it": (56_000, 84_000)})
RESNET18 = frankle2019_conv.RESNET18
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

NEEDS_GPU = "needs a GPU: a ResNet-20 step of 128 images takes 0.6 s on a core, and this protocol has millions of them"


def _cifar(recipe: Recipe, protocol: str, variant: str, gate: str, arms: tuple[Arm, ...], levels: int, rewind: str = "0it",
           lr: float = 0.1, warmup_it: int = 0, smoke: tuple[Mapping[str, Any], tuple[Arm, ...]] | None = None) -> Experiment:  # fmt: skip
    """One variant at one rewind point; a rewind point other than 0 has to be named by whoever wants its numbers."""
    named = {"variant": variant} | ({"rewind": rewind} if rewind != "0it" else {})
    scaled = {("paper", "cifar10"): Scaled(3, levels, arms)}
    if smoke:
        shrunk = ({"rewind": "6it"} if rewind != "0it" else {}) | ({"optimizer.warmup_it": 8} if warmup_it else {})
        scaled["smoke", "digits"] = Scaled(1, 1, smoke[1], {**smoke[0], **shrunk})
    recipe = changed(recipe, {"rewind": rewind, "optimizer.lr": lr, "optimizer.warmup_it": warmup_it})
    return Experiment(protocol, recipe, scaled, variant, named, {"rewind": "0it"} if rewind == "0it" else {},
                      gate if rewind == "0it" else "", why_not_quick=NEEDS_GPU)  # fmt: skip


def _resnet(variant: str, gate: str, rewind: str = "0it", arms: tuple[Arm, ...] | None = None, levels: int = RESNET18_LEVEL, **kw: Any) -> Experiment:
    first = (DENSE,) if rewind == "0it" else ()
    return _cifar(RESNET18, "resnet18-cifar10", variant, gate, arms or (*first, TICKET, *_at(RESNET18_LEVEL)), levels, rewind, **kw)


def _vgg(variant: str, gate: str, rewind: str = "0it", arms: tuple[Arm, ...] | None = None, levels: int = VGG19_LEVEL, **kw: Any) -> Experiment:
    first = (DENSE,) if rewind == "0it" else ()
    return _cifar(VGG19, "vgg19-cifar10", variant, gate, arms or (*first, TICKET, *_at(VGG19_LEVEL)), levels, rewind, **kw)


LENET_SCALED = {
    ("paper", "mnist"): Scaled(3, LENET_LEVEL, (DENSE, TICKET, *_at(LENET_LEVEL))),
    ("quick", "mnist"): Scaled(3, LENET_LEVEL, QUICK_LENET, {**FAST, "length": "12000it"}),
    ("quick", "mnist1d"): Scaled(3, LENET_LEVEL, QUICK_LENET, {**MINI, **FAST}),
    ("smoke", "mnist1d"): Scaled(1, 2, SMOKE, TINY),
}
FIG5_RESNET = (DENSE, TICKET, *_at(RESNET18_LEVEL), Arm("reinit"))
FIG5_VGG = (DENSE, TICKET, *_at(VGG19_LEVEL), Arm("reinit"))
WARM_VGG = (
    DENSE, TICKET, *_at(VGG19_LEVEL), Arm("reinit", levels=(7, 18)), Arm("snip", levels=(14, 17, 20)), Arm("reinit"), Arm("snip"),
)  # fmt: skip
SNIP_SMOKE = (DENSE, Arm("ticket", levels=(1,)), Arm("snip", levels=(1,)))
REWOUND_SMOKE = (Arm("ticket", levels=(1,)), *_at(1, pairs=1))

EXPERIMENTS = (
    Experiment("lenet-mnist", LENET, LENET_SCALED, base={"rewind": "0it"}, gate="f2-lenet"),
    # The standard net at the points that the claims name first; then the other variants; then the rest of the sweep of Fig 4.
    _resnet("resnet18-standard", "f2-r18-std", arms=FIG5_RESNET, levels=12),
    _resnet("resnet18-standard", "f2-r18-std", "500it", (TICKET, *_at(RESNET18_LEVEL)), 12, smoke=(SMOKE_RESNET, REWOUND_SMOKE)),
    _resnet("resnet18-warmup", "f2-r18-warm", lr=0.03, warmup_it=20_000, levels=12,
            arms=(DENSE, TICKET, *_at(RESNET18_LEVEL), Arm("reinit"), Arm("snip"))),
    _resnet("resnet18-low", "f2-r18-low", lr=0.01),
    *(_resnet("resnet18-standard", "f2-r18-std", k) for k in ("2000it", "100it", "20000it", "25it", "250it", "1000it", "5000it")),
    _vgg("vgg19-standard", "f2-vgg-std", arms=FIG5_VGG, levels=24),
    _vgg("vgg19-standard", "f2-vgg-std", "100it", (TICKET, *_at(VGG19_LEVEL)), 24),
    _vgg("vgg19-warmup", "f2-vgg-warm", warmup_it=10_000, arms=WARM_VGG, levels=24, smoke=(SMOKE_VGG, SNIP_SMOKE)),
    _vgg("vgg19-low", "f2-vgg-low", lr=0.01),
    *(_vgg("vgg19-standard", "f2-vgg-std", k) for k in ("2000it", "75000it", "25it", "500it", "8000it")),
    *imagenet.EXPERIMENTS,
)  # fmt: skip

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

PAPER = Paper("stabilizing2019", EXPERIMENTS, SETTINGS, DEVIATIONS, not_covered=imagenet.NOT_COVERED)
