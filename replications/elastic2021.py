"""Chen et al. 2021, "The Elastic Lottery Ticket Hypothesis": tickets of one depth stretched or squeezed to another.

Numbers and claims stand in ``published/elastic2021.yaml``. A row's ``target`` is the network that is trained, its ``source`` the one whose
ticket was transformed; here one experiment is one target. Choices are explained in ``docs/elastic2021.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ltcore.depths import at_depth
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, changed
from replications import elastic2021_datasets as datasets
from replications import elastic2021_imagenet as imagenet
from replications.elastic2021_common import DENSE, RESNET, before_training, controls, ett, rigl, ticket
from replications.elastic2021_controls import CONTROLS
from replications.schema import Arm, Deviation, Experiment, Paper, Scaled, Setting

VGG = changed(RESNET, {"model.name": "vgg", "model.options": {"depth": 13}, "pruning.rates": {"conv": 0.2}, "rewind": "200it"})
VGG_FC = changed(VGG, {"model.options": {"depth": 13, "linear": 3}, "pruning.rates": {"conv": 0.2, "fc": 0.2}})
MLP = Recipe(
    model=Model("lenet", "kaiming-normal", {"hidden": [300, 300, 100]}),
    data=Data("mnist"),
    optimizer=Optimizer("sgd", lr=0.1),
    batch_size=128,
    length=f"{40 * (60_000 // 128)}it",
    evaluate=Evaluate(every_it=60_000 // 128, test=("end",)),
    pruning=Pruning({"fc": 0.2}, scope="global", counts="prunable"),
)
RESNETS, VGGS = ("resnet32", "resnet56", "resnet20", "resnet44", "resnet14"), ("vgg19", "vgg13", "vgg16")
VGG_FCS, MLPS = ("vgg13-3fc", "vgg13-5fc", "vgg13-2fc"), ("mlp-3", "mlp-4", "mlp-2")

NAMED = (10, 6, 3)  # the levels that claims name; what matters most comes first


def _pairs(target: str, family: tuple[str, ...], levels: tuple[int, ...] | None) -> tuple[Arm, ...]:
    """Tickets of the target and of all others of the family, beside every baseline of Figs 6 and 7."""
    return (ticket(levels), *(ett(s, levels) for s in family if s != target), *before_training(levels), *controls(levels))


def _stretched_32_to_56(levels: tuple[int, ...] | None) -> tuple[Arm, ...]:
    """Figs 3, 4 and 5 (left). With one block to replicate the two orders are one model, so none is named."""
    source = {"source": "resnet32"}
    orders = ("append", "interpolate")
    return (
        *(ett(**source, levels=levels, order=o, replicate="1234") for o in orders),
        *(Arm(name, levels=levels, options=source) for name in ("ett-reinit", "ett-random-mask", "ett-source-mask-snip")),
        Arm("random-mask", levels=levels, options={"weights": "fresh"}),
        Arm("ett-permuted-replicas", levels=levels, options={**source, "order": "interpolate", "replicate": "1234"}),
        *(ett(**source, levels=levels, order=o, replicate=r) for r in ("12", "34", "23") for o in orders),
        ett(**source, levels=levels, replicate="1"),
    )


def _squeezed_56_to_32(levels: tuple[int, ...] | None) -> tuple[Arm, ...]:
    """Fig 5 (right), whose legend was not seen: runs at the start, the end and the middle, and every other block."""
    return tuple(ett("resnet56", levels, drop=drop) for drop in ("1234", "5678", "1357", "2468", "3456"))


def _path(level: int) -> tuple[Arm, ...]:
    """Fig 8 names no level; the paper's file fixes one."""
    etts = (Arm("ett-path", "ett", (level,), options={"source": s}, name_level=False) for s in ("resnet20", "resnet14"))
    return (Arm("ticket-path", "ticket", (level,), name_level=False), *etts)


NEEDS_GPU = "needs a GPU: a ResNet-20 step of 128 images takes 0.4 s on a core, and a pair of tickets has a million of them"
SMALL: Mapping[str, Any] = {"data.name": "digits", "length": "24it", "rewind": "6it", "batch_size": 32, "optimizer.drops_it": (16, 20)}
Narrow = tuple[tuple[Arm, ...], int]  # what scale smoke runs, and the width


def _experiment(
    protocol: str, recipe: Recipe, target: str, arms: tuple[Arm, ...], levels: int, smoke: Narrow | None = None, variant: str = ""
) -> Experiment:
    """One target on CIFAR-10."""
    recipe = changed(recipe, {"model.options": at_depth(recipe.model.name, recipe.model.options, target)})
    scaled = {("paper", "cifar10"): Scaled(3, levels, arms)}
    if smoke:
        scaled["smoke", "digits"] = Scaled(1, 1, smoke[0], {**SMALL, "model.options": {**recipe.model.options, "width": smoke[1]}})
    return Experiment(protocol, recipe, scaled, variant, {"target": target}, {"rewind": recipe.rewind}, why_not_quick=NEEDS_GPU)


# One run a mechanism: a stretched and a squeezed ticket, each criterion, each arm of the ablation, each family, a path.
SMOKE_RESNET = ((DENSE, ticket(), ett("resnet14"), ett("resnet32"), *before_training()), 4)
SMOKE_STRETCH = ((DENSE, *(a for a in _stretched_32_to_56(None) if a.options.get("replicate", "12") == "12" or a.build != "ett")), 2)
SMOKE_PATH = (tuple(dataclasses.replace(a, levels=(1,)) for a in _path(10)[:2]), 2)
SMOKE_VGG, SMOKE_VGG_FC = ((DENSE, ett("vgg13")), 4), ((DENSE, ett("vgg13-2fc")), 4)


# MLPs: nothing but the depth pairs and the pruning is stated, so length and optimiser are those of the code.
def _mlp_arms(target: str, level: tuple[int, ...] | None) -> tuple[Arm, ...]:
    others = [s for s in MLPS if s != target]
    first = (DENSE, ticket(), *(ett(s, level) for s in others))
    return (
        *first,
        *controls(level),
        *(Arm(name, levels=level, options={"source": others[0]}) for name in ("ett-random-mask", "ett-reinit")),
    )


MLP_LEVEL = (10,)
MINI: Mapping[str, Any] = {"data.name": "mnist1d", "data.options": {"num_train": 5000, "num_test": 10000}, "length": "1000it"}
TINY = {**MINI, "length": "150it", "data.options": {"num_train": 1500, "num_test": 500}}


def _mlp(target: str) -> Experiment:
    recipe = changed(MLP, {"model.options": at_depth("lenet", MLP.model.options, target)})
    scaled = {
        ("paper", "mnist"): Scaled(3, 10, (*_mlp_arms(target, MLP_LEVEL), *before_training(MLP_LEVEL))),
        ("quick", "mnist"): Scaled(3, 10, _mlp_arms(target, MLP_LEVEL), {"length": "2000it"}),
        ("quick", "mnist1d"): Scaled(3, 10, _mlp_arms(target, MLP_LEVEL), MINI),
    }
    if target == "mlp-3":
        scaled["smoke", "mnist1d"] = Scaled(1, 2, (*_mlp_arms(target, (2,)), *before_training((2,)), rigl((2,), "1x")), TINY)
    return Experiment("mnist-mlp-depth", recipe, scaled, condition={"target": target}, base={"rewind": recipe.rewind})


ALL_LEVELS = 16
EXPERIMENTS = (
    *(_mlp(target) for target in MLPS),
    *(
        _experiment(
            "cifar10-resnet-all-pairs",
            RESNET,
            t,
            (DENSE, *_pairs(t, RESNETS, NAMED), *_pairs(t, RESNETS, None), rigl((6, 10), "1x"), rigl((6, 10), "5x")),
            ALL_LEVELS,
            SMOKE_RESNET if t == "resnet20" else None,
        )
        for t in RESNETS
    ),
    _experiment(
        "cifar10-ablation-32-56",
        RESNET,
        "resnet56",
        (ticket(), *_stretched_32_to_56((10, 8, 6, 3)), *_stretched_32_to_56(None)),
        ALL_LEVELS,
        SMOKE_STRETCH,
        "stretch_32_to_56",
    ),
    _experiment(
        "cifar10-ablation-32-56",
        RESNET,
        "resnet32",
        (ticket(), *_squeezed_56_to_32((10, 6, 3)), *_squeezed_56_to_32(None)),
        ALL_LEVELS,
        variant="squeeze_56_to_32",
    ),
    *(
        _experiment(
            "cifar10-vgg", VGG, t, (DENSE, *_pairs(t, VGGS, NAMED), *_pairs(t, VGGS, None)), ALL_LEVELS, SMOKE_VGG if t == "vgg16" else None
        )
        for t in VGGS
    ),
    _experiment("cifar10-linear-mode-connectivity", RESNET, "resnet32", _path(10), 10, SMOKE_PATH),
    *(
        _experiment(
            "cifar10-vgg13-fc-depth",
            VGG_FC,
            t,
            (DENSE, ticket(), *(ett(s, (10,)) for s in VGG_FCS if s != t)),
            10,
            SMOKE_VGG_FC if t == "vgg13-3fc" else None,
        )
        for t in VGG_FCS
    ),
    *imagenet.EXPERIMENTS,
    *datasets.EXPERIMENTS,
)

NOT_COVERED = {
    "cifar10-vs-dpf": "10 and 5 % of the weights are no rungs of the ladder and how they were reached is not stated; DPF is not built",
}

SETTINGS = (
    Setting("ResNets", "CIFAR ResNet-14 to 56 (Sec 4.1, 4.2)", "1x1 projections with norm", "the code's, parameter for parameter"),
    Setting(
        "VGGs",
        "VGG-13, 16, 19 (Sec 4.2)",
        "conv plan with norm, average pool, one linear layer; biases in the convolutions",
        "the same without those biases",
        "batch norm takes a bias before it away again",
    ),
    Setting("VGG-13 with n linear layers", "2, 3 and 5 (App C)", "n - 1 of 512x512 with ReLU, and the output", "the code's"),
    Setting(
        "MLP-n",
        "n hidden layers of 300, one of 100, 10 outputs (App C)",
        "the sizes are part of a name",
        "the paper's",
        "n counts the layers of width 300",
    ),
    Setting("init", "not stated", "Kaiming normal, linear biases as torch draws them, norm scales uniform in [0, 1]", "the code's"),
    Setting("optimiser", "SGD, lr 0.1 (Table 4)", "momentum 0.9, weight decay 1e-4", "both together"),
    Setting(
        "schedule",
        "160 epochs, drops printed at 80 and 160 (Table 4)",
        "drops at 80 and 120",
        "160 epochs of 390 iterations, drops at 80 and 120 epochs",
        "a drop at the last epoch would change nothing",
    ),
    Setting("batch size", "128", "128, last batch of an epoch kept", "128; the remainder of an epoch (80 of 50,000) is dropped"),
    Setting(
        "MLP training",
        "not stated",
        "SGD 0.1 without momentum, batch 128, 40 epochs, no rewinding",
        "the code's; 2,000 iterations at scale quick",
    ),
    Setting("input of the MLPs", "not stated", "mean and sd of MNIST", "pixels / 255", "as for the other MLPs of this program"),
    Setting("augmentation", "not stated", "pad 4, random crop, flip; not for MNIST", "the code's"),
    Setting(
        "pruning",
        "20 % a round, global magnitude",
        "strictly above the threshold is kept, ceil(0.2 n) go",
        "exactly floor(0.2 n + 0.5) go, ties by flat index",
        "the code's threshold takes one weight more a round",
    ),
    Setting("what is pruned", "not stated", "ResNets: all convolutions and the output; VGGs and MLPs: all but the output", "the code's"),
    Setting(
        "rewind",
        "1,000 iterations (ResNets), 200 (VGGs), Table 4",
        "a flag",
        "the paper's; weights, norms and running statistics, fresh optimiser",
    ),
    Setting(
        "the transform",
        "mask and rewound weights together (Sec 3)",
        "a block map typed in, applied to the whole state dict",
        "block maps derived from the rules; every tensor written once",
        "the code checks that only for ResNets",
    ),
    Setting(
        "which blocks",
        "all normal blocks evenly; appended or interpolated (Sec 3.1)",
        "-",
        "the paper's; appended where nothing is said",
        "of some blocks, replicas come as a whole after the last replicated one",
    ),
    Setting(
        "squeeze",
        "drop a run or every other block (Sec 3.2)",
        "-",
        "the last ones go where nothing is said",
        "early blocks matter (Sec 4.1)",
    ),
    Setting(
        "SNIP",
        "at the rewound weights (Sec 4)",
        "whole training set, evaluation mode, norm statistics of the state",
        "one batch of the recipe's size, training mode, not augmented",
    ),
    Setting(
        "GraSP",
        "at the rewound weights (Sec 4)",
        "temperature 200; |w Hg|, smallest go",
        "temperature 200; w Hg, lowest go, as GraSP's own code",
        "the absolute value is not GraSP: it keeps the weights whose removal changes gradient flow most in either direction",
    ),
    Setting("SynFlow", "not there", "in the code, unused", "100 rounds, float64, absolute values of the whole state; ours"),
    Setting("random mask", "rewound weights, mask permuted in each layer (Sec 4)", "the same", "the same; one draw a trial"),
    Setting(
        "source mask with SNIP",
        "SNIP masks on the extra blocks (Sec 4.1)",
        "not there",
        "extra blocks take the target's own rewound weights and their part of its SNIP mask",
        "the paper does not say which weights they have",
    ),
    Setting(
        "linear path",
        "largest accuracy drop on the path (Sec 4.4)",
        "21 points; two data orders; running statistics averaged too",
        "the code's; below the mean of the two ends; test set",
    ),
    Setting("trials", "3", "-", "3"),
    *imagenet.SETTINGS,
    *datasets.SETTINGS,
)

DEVIATIONS = (
    Deviation("rounding", "ceil(0.2 n) and a strict threshold (code)", "floor(0.2 n + 0.5)", "exact counts everywhere in this program"),
    Deviation("epochs", "391 batches (code)", "390: the remainder is dropped", "one batch size for all iterations"),
    Deviation(
        "extra blocks of the SNIP baseline",
        "weights not stated",
        "the target's own rewound weights",
        "the baseline is to be without copies",
    ),
    Deviation(
        "levels of the sweeps",
        "curves whose points were not seen",
        "levels 1 to 16 (2.8 % of the weights)",
        "the range that the paper's file gives",
    ),
    Deviation(
        "dropped blocks of Fig 5", "legend not seen", "1234, 5678, 1357, 2468, 3456", "the first four, as the text names, and four others"
    ),
    Deviation("RigL", "ImageNet, five times as long (Table 2)", "CIFAR ResNets too, once and five times as long", "ours"),
    Deviation("DPF", "Sec 4.5, Table 3", "not run", "see what is not covered"),
    *imagenet.DEVIATIONS,
    *datasets.DEVIATIONS,
)

PAPER = Paper("elastic2021", EXPERIMENTS, SETTINGS, DEVIATIONS, CONTROLS, NOT_COVERED)
