"""Morcos, Yu, Paganini & Tian 2019, "One ticket to win them all": tickets across data sets and optimisers.

Numbers and claims stand in ``published/morcos2019.yaml``; every choice is explained in ``docs/morcos2019.md``. The paper's own networks are
here at scale ``paper``; what a pair of cores can show is a miniature with LeNet-300-100, which stands in ``morcos2019_lenet.py``.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe
from replications import morcos2019_lenet as lenet
from replications.morcos2019_lenet import DENSE, moved, own
from replications.schema import Arm, Deviation, Experiment, Paper, Scaled, Setting

BATCH, TRIALS, ROUNDS = 512, 6, 30
LEVELS = (1, 2, 3, 4, 5, 6, 9, 12, 15, 18, 21, 24, 27, 30)  # App A.1: each of the first six, then every third
CLAIMED = tuple(n for n in LEVELS if n <= 21)  # those that claims name come first in every experiment
REPLICATION = (10, 20)  # levels of the rows that Gohil et al. 2020 measured


@dataclass(frozen=True)
class _Net:
    """A network of App A.1 with its length and the epochs at which the learning rate falls."""

    model: Model
    rates: Mapping[str, float]
    epochs: int
    drops_ep: tuple[int, ...]


@dataclass(frozen=True)
class _Set:
    """A data set: how it is read, iterations in an epoch (the rest of one is dropped), and the step rewound to."""

    data: Data
    n_train: int
    rewind: str = "1ep"

    @property
    def epoch_it(self) -> int:
        return self.n_train // BATCH


NETS = {
    "vgg19": _Net(Model("vgg", "glorot-normal", {"depth": 19, "bias": True}), {"conv": 0.2}, 160, (80, 120)),
    "resnet50": _Net(Model("torchvision", "module", {"arch": "resnet50"}), {"conv": 0.2, "shortcut": 0.2}, 90, (50, 65, 80)),
}
SETS = {
    "fashionmnist": _Set(Data("fashion-mnist", options={"channels": 3}), 60_000),
    "svhn": _Set(Data("svhn"), 73_257),
    "cifar10": _Set(Data("cifar10", augment="crop-flip"), 50_000),
    "cifar100": _Set(Data("cifar100", augment="crop-flip"), 50_000),
    "imagenet": _Set(Data("imagenet", augment="resized-crop-flip"), 1_281_167, "3ep"),
    "places365": _Set(Data("places365", augment="resized-crop-flip"), 1_803_460, "3ep"),
    "cifar10a": _Set(Data("cifar10", augment="crop-flip", options={"half": "a"}), 25_000),
    "cifar10b": _Set(Data("cifar10", augment="crop-flip", options={"half": "b"}), 25_000),
}
SMALL, LARGE = ("fashionmnist", "svhn", "cifar10", "cifar100"), ("imagenet", "places365")
# Sources for each target, those that claims name most first; of the small sets only CIFAR's on ImageNet (Sec 4.2, Fig 3e).
GIVEN = {target: (*LARGE, *(s for s in ("cifar100", "cifar10", "svhn", "fashionmnist") if s != target)) for target in SMALL}
GIVEN |= {"imagenet": ("places365", "cifar100", "cifar10"), "places365": ("imagenet",)}


def _optimizer(name: str, net: str, on: str) -> Optimizer:
    """App A.1; the rate falls by 10 at the net's epochs, whichever the optimiser."""
    drops = tuple(e * SETS[on].epoch_it for e in NETS[net].drops_ep)
    if name == "adam":
        return Optimizer("adam", lr=3e-4, betas=(0.9, 0.999), weight_decay=1e-4, drops_it=drops)
    return Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, drops_it=drops)


def _recipe(net: str, on: str, optimizer: str = "sgd", scope: str = "global") -> Recipe:
    n, d = NETS[net], SETS[on]
    return Recipe(
        model=n.model, data=d.data, optimizer=_optimizer(optimizer, net, on), batch_size=BATCH, length=f"{n.epochs * d.epoch_it}it",
        evaluate=Evaluate(every_it=d.epoch_it, test=("end",)), pruning=Pruning(n.rates, scope=scope, counts="prunable"), rewind=d.rewind,
    )  # fmt: skip


def _source(net: str, of: str) -> dict[str, Any]:
    """What a source's recipe has of its own."""
    r = _recipe(net, of)
    return {"data": r.data, "optimizer": r.optimizer, "length": r.length, "evaluate": r.evaluate, "rewind": r.rewind}


def _travels(target: str, given: Iterable[str]) -> tuple[Arm, ...]:
    """Dense, own tickets, those from elsewhere and random ones; sizes that claims name first, then the others, then the replication's."""
    def arms(levels: tuple[int, ...], foreign: tuple[int, ...]) -> tuple[Arm, ...]:
        return (own(target, SETS[target].rewind, levels), *(moved(s, SETS[s].rewind, foreign) for s in given))

    random = tuple(Arm("random-ticket", levels=levels) for levels in (CLAIMED, LEVELS))
    return (DENSE, *arms(CLAIMED, CLAIMED), random[0], *arms(LEVELS, LEVELS), random[1], *arms(REPLICATION, (0, *REPLICATION)))


NEEDS_GPU = "needs a GPU: an epoch of VGG-19 on CIFAR-10 is 60 TFLOP, and this protocol has thousands of trainings of 160 epochs"


def _transfer(protocol: str, net: str, target: str, given: tuple[str, ...], condition: Mapping[str, Any], smoke: Scaled | None = None) -> Experiment:
    """One target of one network; the words of its own set stand for no change."""
    sources = {target: {}, **{s: _source(net, s) for s in given}}
    recipe = _recipe(net, target)
    scaled = {("paper", recipe.data.name): Scaled(TRIALS, ROUNDS, _travels(target, given), sources=sources)}
    return Experiment(protocol, recipe, scaled | ({("smoke", "digits"): smoke} if smoke else {}), condition={**condition, "target": target},
                      base={"rewind": SETS[target].rewind}, why_not_quick=NEEDS_GPU)  # fmt: skip


# ---- miniatures of the paper's networks: digits, narrow copies ------------------------------------------------
TINY: Mapping[str, Any] = {
    "data.name": "digits", "data.options": {"channels": 3}, "data.augment": "none", "batch_size": 32, "length": "24it", "rewind": "4it",
    "optimizer.drops_it": (16, 20), "evaluate.every_it": 12,
}  # fmt: skip
TINY_VGG = {**TINY, "model.options": {"depth": 11, "width": 4, "bias": True}}
TINY_RESNET = {**TINY, "model.options": {"arch": "resnet50", "width_per_group": 1}}


def _half(which: str) -> dict[str, Any]:
    return {"data.options": {"half": which, "channels": 3}}


FEWER = {"cifar100": {}, "cifar10": {"data.options": {"classes": 5, "channels": 3}}}  # another number of classes: the output layer is drawn anew
SMOKE_CLASSES = Scaled(1, 1, (DENSE, own("cifar100", "1ep", (1,)), moved("cifar10", "1ep", (0, 1)), Arm("random-ticket", levels=(1,))), TINY_VGG, sources=FEWER)
SMOKE_HALVES = Scaled(1, 1, (DENSE, own("cifar10b", "1ep", (1,)), moved("cifar10a", "1ep", (1,))), {**TINY_RESNET, **_half("b")},
                      sources={"cifar10b": {}, "cifar10a": _half("a")})  # fmt: skip
DENSITIES = Arm("layer-density", "ticket", levels=(3, 6, 12, 18, 24, 30))
SMOKE_SCOPE = Scaled(1, 1, (Arm("ticket", levels=(1,)), Arm("layer-density", "ticket", levels=(1,))), TINY_VGG)


# ---- the six protocols ----------------------------------------------------------------------------------------
def _optimizers(target: str) -> Experiment:
    """VGG-19 on CIFAR-10 with one optimiser, tickets from it and from the other."""
    other = {"sgd": "adam", "adam": "sgd"}[target]
    sources = {target: {}, other: {"optimizer": _optimizer(other, "vgg19", "cifar10")}}

    def arms(levels: tuple[int, ...]) -> tuple[Arm, ...]:
        return tuple(moved(s, "1ep", levels, key="source_optimizer") for s in (target, other))

    wanted = (DENSE, *arms(CLAIMED), Arm("random-ticket", levels=CLAIMED), *arms(LEVELS), Arm("random-ticket", levels=LEVELS), *arms(REPLICATION))
    return Experiment("optimizer-transfer-vgg19", _recipe("vgg19", "cifar10", target), {("paper", "cifar10"): Scaled(TRIALS, ROUNDS, wanted, sources=sources)},
                      condition={"target_optimizer": target}, base={"rewind": "1ep"}, why_not_quick=NEEDS_GPU)  # fmt: skip


def _scope(scope: str, more: tuple[Arm, ...] = ()) -> Experiment:
    arms = (DENSE, Arm("ticket", levels=CLAIMED), *more, Arm("ticket", levels=LEVELS))
    scaled = {("paper", "cifar10"): Scaled(TRIALS, ROUNDS, arms), ("smoke", "digits"): SMOKE_SCOPE}
    return Experiment("global-vs-layerwise-cifar10", _recipe("vgg19", "cifar10", scope=scope), scaled, condition={"scope": scope},
                      base={"rewind": "1ep"}, why_not_quick=NEEDS_GPU)  # fmt: skip


FRESH = {"weights": "fresh"}
MASKS = (DENSE, *(Arm(name, levels=levels, options=options) for levels in ((9, 12, 15), LEVELS)
                  for name, options in (("ticket", {}), ("reinit", {}), ("random-mask", FRESH), ("random-ticket", {}))))  # fmt: skip

EXPERIMENTS = (
    *lenet.EXPERIMENTS,
    *(_transfer("same-distribution-cifar10ab", net, "cifar10b", ("cifar10a",), {"network": net}, SMOKE_HALVES if net == "resnet50" else None) for net in NETS),
    *(_transfer(f"dataset-transfer-{net}", net, target, GIVEN[target], {}, SMOKE_CLASSES if (net, target) == ("vgg19", "cifar100") else None)
      for net in NETS for target in ("cifar10", "cifar100", "fashionmnist", "svhn", *LARGE)),
    *(_optimizers(name) for name in ("sgd", "adam")),
    _scope("global", (DENSITIES, Arm("random-ticket", levels=LEVELS))), _scope("layerwise"),
    Experiment("random-mask-comparison", _recipe("vgg19", "cifar10"), {("paper", "cifar10"): Scaled(TRIALS, ROUNDS, MASKS)}, base={"rewind": "1ep"},
               why_not_quick=NEEDS_GPU),
)  # fmt: skip

SETTINGS = (
    Setting("networks", "VGG19 without its fully connected layers but one, ResNet50 of He et al. 2016 (Sec 3.2, App A.1)", "none", "VGG-19 with biases; torchvision's ResNet-50",
            "20,040,522 and 23,528,522 parameters for 10 classes"),
    Setting("ResNet50 on small images", "not stated", "7x7 stem of stride 2 and max-pool (replication)", "the same: torchvision's stem at every size of image"),
    Setting("init", "VGG19: Xavier-normal, biases 0, norm 1 and 0; ResNet50 not stated", "none", "VGG-19 the same, output layer too; ResNet-50 torchvision's own (He normal)"),
    Setting("optimisers", "SGD 0.1, momentum 0.9; Adam 3e-4; weight decay 1e-4 both (App A.1)", "none", "the same; decay on all parameters, coupled with the gradient",
            "which parameters decay is not stated"),
    Setting("batch size", "512", "none", "512; the remainder of an epoch is dropped"),
    Setting("length", "VGG19 160 epochs, rate over 10 at 80 and 120; ResNet50 90, at 50, 65, 80", "none", "the same, with Adam too"),
    Setting("rewind", "late resetting to epoch 1; to 3 on ImageNet and Places365 (App A.1)", "epoch 2, called 1 (replication)", "the paper's: W_k is the end of a first segment"),
    Setting("pruning", "magnitude, 20 % a round, all layers pooled, 30 rounds", "batch-norm scales too (replication)", "global over convolutions, projections of ResNet-50 included",
            "what is pooled is not stated; the output layer is no part of a ticket (Sec 3.3)"),
    Setting("levels", "1 to 6, then every third to 30 (App A.1)", "0 to 30 (replication)", "the paper's; 10 and 20 besides for the replication's rows"),
    Setting("transfer", "mask and W_k of the source, one more training on the target at each level (Sec 3.3)", "weights only, pruned on the target (replication)",
            "the paper's; the target's run starts at the source's rewind step, counted in the target's epochs", "whether the schedule starts at 0 or at k is not stated"),
    Setting("output layer", "excluded and drawn anew where topologies differ (Sec 3.3)", "none", "drawn anew where the numbers of classes differ, the target's own initial one; else the source's"),
    Setting("random tickets", "fresh weights, mask permuted over all layers (Sec 3.1)", "faulty (replication)", "the same, of the target's own ticket; trained from the start"),
    Setting("milder variants", "preserved mask; mask permuted within layers; fresh weights both (App A.2)", "none", "reinit; random-mask, fresh"),
    Setting("halves of CIFAR-10", "25,000 images each, 2,500 a class (Sec 4.1)", "none", "one fixed draw for all trials, each class by itself; both are tested on all 10,000 test images",
            "how they were drawn and what they were tested on is not stated"),
    Setting("data", "not stated beyond their names", "normalised by mean and sd 0.5 (replication)", "channel means and sds; nothing held out; Fashion-MNIST with its channel three times, 28x28",
            "the numbers of channels must agree for the first layer"),
    Setting("augmentation", "not stated", "none", "CIFAR crop and flip; ImageNet and Places365 random resized crops and flips; Fashion-MNIST and SVHN none"),
    Setting("trials", "6", "not stated (replication)", "6"),
)  # fmt: skip

DEVIATIONS = (
    Deviation("network of Fig A1 and Fig 1a", "not named", "VGG-19", "Fig 1b names it"),
    Deviation("data of Fig 5", "not named in the text read", "CIFAR-10", "that of the replication"),
    Deviation("sources on ImageNet and Places365", "larger sets only; Fig 3e has CIFAR's on ImageNet", "ImageNet: Places365, CIFAR-100, CIFAR-10; Places365: ImageNet; and their own",
              "Sec 4.2 contradicts itself"),
    Deviation("SVHN", "not stated", "73,257 training images, without the extra ones", "as CIFAR-10's size"),
    Deviation("published accuracies", "curves only, not seen", "none is used; rows are those of a replication by others (marked secondary), without its random tickets",
              "its random branch is faulty, and its transfer carries weights without the mask"),
    Deviation("scale quick", "VGG19, ResNet50", "LeNet-300-100 on MNIST and Fashion-MNIST: a miniature, labelled so", "two cores"),
)  # fmt: skip

PAPER = Paper("morcos2019", EXPERIMENTS, SETTINGS, DEVIATIONS, lenet.CONTROLS)
