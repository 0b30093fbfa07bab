"""Frankle et al. 2019 on ImageNet (section 5): ResNet-50, pruned once and rewound, and the one iterative run.

Values only, taken in by ``replications/stabilizing2019.py``; every choice is explained in ``docs/stabilizing2019.md``.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, changed
from replications.schema import Arm, Deviation, Experiment, Scaled, Setting

EPOCH_IT = 1251  # batches of 1,024 in 1,281,167 images; the remainder of an epoch is dropped
RESNET50 = Recipe(
    model=Model("torchvision", "module", {"arch": "resnet50"}),
    data=Data("imagenet", augment="resized-crop-flip"),
    optimizer=Optimizer("sgd", lr=0.4, momentum=0.9, weight_decay=1e-4, warmup_it=5 * EPOCH_IT,
                        drops_it=(30 * EPOCH_IT, 60 * EPOCH_IT, 80 * EPOCH_IT)),
    batch_size=1024,
    length=f"{90 * EPOCH_IT}it",
    evaluate=Evaluate(every_it=EPOCH_IT, test=("end",)),
    pruning=Pruning(rates={"conv": 0.2}, criterion="magnitude", scope="global", counts="prunable"),
)  # fmt: skip
TRIALS, LEVELS = 5, 8

DENSE, TICKET, REINIT = Arm("dense", levels=(0,)), Arm("ticket"), Arm("reinit")


def _once(build: str, name: str, *pcts: int) -> Arm:
    """Pruned once to these percentages of the prunable weights."""
    return Arm(build, name, pcts, sizes={pct: float(pct) for pct in pcts})


ONE_SHOT, ONE_SHOT_REINIT = _once("one-shot-kept", "one-shot", 30, 80), _once("one-shot-kept-reinit", "one-shot-reinit", 30, 80)
RANDOM = _once("one-shot-kept-random", "random-prune", 30)

# The miniature: two photographs of scikit-learn in 64 crops, and ResNet-50 with bottlenecks of 1 to 8 channels.
SMALL: Mapping[str, Any] = {
    "data.name": "photos", "model.options": {"arch": "resnet50", "width_per_group": 1}, "batch_size": 8, "length": "16it",
    "evaluate.every_it": 8, "optimizer.lr": 0.01, "optimizer.warmup_it": 4, "optimizer.drops_it": (12,),
}  # fmt: skip
SMOKE = Scaled(1, 1, (DENSE, _once("one-shot-kept-reinit", "one-shot-reinit", 30), RANDOM), SMALL)
SMOKE_REWOUND = Scaled(1, 1, (_once("one-shot-kept", "one-shot", 30),), {**SMALL, "rewind": "4it"})

WHY_NOT_QUICK = "needs ImageNet and a GPU of more than 90 GB (80 GB with precision=bf16): an epoch of ResNet-50 is 30 PFLOP, and this protocol has 19,000"


def _experiment(rewind: str, arms: tuple[Arm, ...], smoke: Scaled | None = None) -> Experiment:
    """One rewind point; a point other than 0 has to be named by whoever wants its numbers."""
    reset = rewind == "0it"
    scaled = {("paper", "imagenet"): Scaled(TRIALS, LEVELS, arms)} | ({("smoke", "photos"): smoke} if smoke else {})
    return Experiment("resnet50-imagenet", changed(RESNET50, {"rewind": rewind}), scaled, condition={} if reset else {"rewind": rewind},
                      base={"rewind": "0it"} if reset else {}, gate="f6-r50" if reset else "", why_not_quick=WHY_NOT_QUICK)


# What claim s10 names comes first in each; dense nets are read where the rewind point is 0.
EXPERIMENTS = (
    _experiment("0it", (DENSE, ONE_SHOT, ONE_SHOT_REINIT, RANDOM, TICKET, REINIT), SMOKE),
    _experiment("4ep", (ONE_SHOT, RANDOM), SMOKE_REWOUND),
    _experiment("6ep", (TICKET, REINIT)),
)

NOT_COVERED = {
    "inceptionv3-imagenet": "its learning rate falls linearly, a schedule that the engine does not have; no claim asks for it",
    "squeezenet-imagenet": "RMSProp and an exponential schedule, which the engine does not have; no claim asks for it",
}

SETTINGS = (
    Setting("ResNet-50: data", "ImageNet", "none", "all 1,281,167 training images; crops of 224 of random area and ratio, mirrored; tests on the 50,000 of val, centre crop",
            "augmentation is not stated: torchvision's usual one"),
    Setting("ResNet-50: optimiser", "SGD, lr 0.4, batch 1,024; momentum and weight decay not stated", "none", "momentum 0.9, weight decay 1e-4 on all parameters",
            "as the CIFAR nets, and the usual ones of this net"),
    Setting("ResNet-50: length", "90 epochs, 5 of warm-up, rate over 10 at epochs 30, 60, 80 (Fig 6)", "none", "the same; epochs of 1,251 iterations"),
    Setting("ResNet-50: init", "not stated", "none", "torchvision's own (He normal)"),
    Setting("ResNet-50: pruning", "one-shot to a percentage; iteratively 20 % a round; scope not stated", "none",
            "global over convolutions, 1x1 and 7x7 too; neither the shortcuts' projections nor the output layer", "as the CIFAR nets of frankle2019"),
    Setting("ResNet-50: trials", "5", "none", "5"),
)  # fmt: skip

DEVIATIONS = (
    Deviation("ResNet-50: sizes", "Fig 8 draws curves", "one-shot: 80 and 30 %; iterative: 8 rounds", "those that the text and the claims name"),
    Deviation("ResNet-50: rewind points", "Fig 7 draws a sweep; Fig 8 'just after' its thresholds", "0, epoch 4 (one-shot), epoch 6 (iterative)", "no list in the text"),
    Deviation("ResNet-50: random pruning", "among the baselines of Figs 7 and 8", "one-shot mask at 30 %, permuted within each layer, one draw a trial", "no number of it is printed"),
    Deviation("Inception-v3, SqueezeNet", "Sec 5", "not run", "linear and exponential schedules and RMSProp are not in the engine; no claim asks for them"),
)  # fmt: skip
