"""You et al. 2020, "Drawing Early-Bird Tickets": channels pruned early in training, the smaller network trained on.

Numbers and claims stand in ``published/earlybird2020.yaml``; every choice below is explained in ``docs/earlybird2020.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ltcore.epochs import Schedule
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, changed
from ltcore.stages import Stage
from replications.earlybird2020_card import DEVIATIONS, SETTINGS
from replications.schema import Arm, Control, Experiment, Paper, Scaled

EPOCH_IT = 195  # batches of 256 in 50,000 images; the remainder of an epoch is dropped
VGG16 = Recipe(
    model=Model("vgg", "slimming", {"depth": 16}),
    data=Data("cifar10", augment="crop-flip"),
    optimizer=Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, drops_it=(80 * EPOCH_IT, 120 * EPOCH_IT), bn_l1=1e-4),
    batch_size=256,
    length=f"{160 * EPOCH_IT}it",
    evaluate=Evaluate(every_it=EPOCH_IT, test=("end",)),
    pruning=Pruning(rates={"channel": 0.5}, criterion="bn-scale", scope="global-keep-one", counts="channels"),
)  # fmt: skip
NETS = {"vgg16": VGG16, "preresnet101": changed(VGG16, {"model": Model("preresnet", "slimming-resnet", {"depth": 101})})}

IMAGENET_IT = 5004  # batches of 256 in 1,281,167 images
RESNET18 = Recipe(
    model=Model("torchvision", "module", {"arch": "resnet18"}),
    data=Data("imagenet", augment="resized-crop-flip"),
    optimizer=Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, drops_it=(30 * IMAGENET_IT, 60 * IMAGENET_IT), bn_l1=1e-4),
    batch_size=256,
    length=f"{90 * IMAGENET_IT}it",
    evaluate=Evaluate(every_it=IMAGENET_IT, test=("end",)),
    pruning=VGG16.pruning,
)  # fmt: skip

CUTS = (1, 3, 5, 10, 20, 40, 60, 80, 100, 120, 140)  # epochs at which Fig 1 draws, before the last
CIFAR, IMAGENET = Schedule(160, CUTS), Schedule(90)
CLAIMED = (20, 160, 1, 40, 140, 10)  # drawing epochs that claims name come first
TRIALS = 3  # not stated; Fig 1 shows error bars

NEEDS_GPU = "needs a GPU: 160 epochs of VGG-16 are 15 PFLOP, a day on a core, and this protocol has dozens of them"
NEEDS_IMAGENET = "needs ImageNet and a GPU: 90 epochs of ResNet-18 are 1.3 EFLOP"




# ---- arms ----------------------------------------------------------------------------------------------------
def _arm(build: str, name: str, plan: Schedule, **options: Any) -> Arm:
    """An arm of ``ltcore.early_bird``; ``options`` are what a row has to name."""
    return Arm(_bound(build, plan), name, (0,), options=options)


def _bound(build: str, plan: Schedule) -> Callable[..., Stage]:
    """Looked up when a graph is built: a listing of papers does without PyTorch."""

    def bound(trial: Any, level: int = 0, draw: int = 0, **options: Any) -> Stage:
        from ltcore import early_bird

        return getattr(early_bird, build)(trial, level, draw, plan=plan, **options)

    return bound


def _dense(plan: Schedule) -> tuple[Arm, ...]:
    return (_arm("dense", "dense", plan),)


def _drawn(plan: Schedule, epochs: tuple[int, ...], *kept_pct: int) -> tuple[Arm, ...]:
    """Tickets drawn after named epochs and retrained."""
    return tuple(_arm("at_epoch", "early-bird", plan, channels_remaining_pct=pct, epoch_drawn=e) for e in epochs for pct in kept_pct)


def _drawn_costs(plan: Schedule, epochs: tuple[int, ...], *kept_pct: int) -> tuple[Arm, ...]:
    return tuple(_arm("at_epoch_cost", "early-bird", plan, channels_remaining_pct=pct, epoch_drawn=e) for e in epochs for pct in kept_pct)


def _mask_arms(plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    """The heat map, and when either rule would draw; a rule other than the paper's has to be named."""
    return (*(_arm(build, "early-bird", plan, channels_remaining_pct=pct) for pct in kept_pct for build in ("distances", "detected")),
            *(_arm("detected", "early-bird", plan, channels_remaining_pct=pct, rule="newest") for pct in kept_pct))  # fmt: skip


def _train_arms(plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    """EB Train with kept and with fresh weights, and what each costs."""
    builds = (("train", {}), ("train_cost", {}), ("train", {"init": "fresh"}), ("train_cost", {"init": "fresh"}))
    return _with_options(builds, plan, *kept_pct)


def _low_precision(plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    """Searches in 8-bit block floating point: EB Train LF goes on at full precision, LL in 8 bits with its last weights averaged."""
    lf, ll = {"search": "8bit"}, {"search": "8bit", "retrain": "8bit"}
    return _with_options((("train", lf), ("train_cost", lf), ("train", ll), ("train_cost", ll)), plan, *kept_pct)


def _with_options(builds: Iterable[tuple[str, Mapping[str, str]]], plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    return tuple(_arm(build, "early-bird", plan, channels_remaining_pct=pct, **more) for build, more in builds for pct in kept_pct)


def _others(plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    """The methods of Table 2 that this program has."""
    builds = (("one_shot", "one-shot"), ("snip", "snip"), ("slimmed", "network-slimming"))
    return (*(_arm(build, name, plan, channels_remaining_pct=pct) for pct in kept_pct for build, name in builds), *_costs(plan, *kept_pct))


def _costs(plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    """What the others cost, and the dense net. Single weights that go save nothing; LT one-shot trains a dense net first, SNIP does not."""
    builds = (("two_dense_cost", "one-shot"), ("dense_cost", "snip"), ("slimmed_cost", "network-slimming"))
    return (
        *(_arm(build, name, plan, channels_remaining_pct=pct) for pct in kept_pct for build, name in builds),
        _arm("dense_cost", "dense", plan),
    )


def _slimmed(plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    builds = ("slimmed", "slimmed_cost", "slimmed_top5")
    return tuple(_arm(build, "network-slimming", plan, channels_remaining_pct=pct) for pct in kept_pct for build in builds)


def _on_imagenet(plan: Schedule, *kept_pct: int) -> tuple[Arm, ...]:
    """The dense net and EB Train with what Table 3 prints of them: accuracies and costs."""
    builds = ("train", "train_cost", "train_top5")
    return (*_dense(plan), _arm("dense_cost", "dense", plan), _arm("dense_top5", "dense", plan),
            *(_arm(build, "early-bird", plan, channels_remaining_pct=pct) for pct in kept_pct for build in builds))  # fmt: skip


# ---- miniatures ----------------------------------------------------------------------------------------------
SHORT: Mapping[str, Any] = {
    "model.options": {"depth": 11, "width": 8}, "batch_size": 64, "length": "2400it", "optimizer.drops_it": (1200, 1800),
    "optimizer.bn_l1": 3e-4, "evaluate.every_it": 2400,
}  # fmt: skip
MINI = Schedule(160, (1, 20))
TINY: Mapping[str, Any] = {
    "data.name": "digits", "data.augment": "none", "model.options": {"depth": 11, "width": 4}, "batch_size": 32, "length": "160it",
    "optimizer.drops_it": (80, 120), "optimizer.bn_l1": 1e-2, "evaluate.every_it": 160,
}  # fmt: skip
TINY_RESNET = {**TINY, "model.options": {"depth": 11, "width": 4}}
TINY_IMAGENET: Mapping[str, Any] = {
    "data.name": "photos", "model.options": {"arch": "resnet18"}, "batch_size": 8, "length": "9it", "evaluate.every_it": 9,
    "optimizer.lr": 0.01, "optimizer.drops_it": (3, 6),
}  # fmt: skip
MICRO = Schedule(9)


# ---- experiments ---------------------------------------------------------------------------------------------
def _existence(network: str, dataset: str, *kept_pct: int, **scaled: Scaled) -> Experiment:
    arms = (*_dense(CIFAR), *_drawn(CIFAR, CLAIMED, *kept_pct), *_drawn(CIFAR, (*CUTS, 160), *kept_pct))
    named = {"network": network, "dataset": dataset}
    return _experiment("eb-existence", network, dataset, arms, named, {"channels_remaining_pct": 100.0}, scaled)


def _experiment(protocol: str, network: str, dataset: str, arms: tuple[Arm, ...], condition: Mapping[str, Any], base: Mapping[str, Any],
                scaled: Mapping[str, Scaled], trials: int = TRIALS, changes: Mapping[str, Any] | None = None) -> Experiment:  # fmt: skip
    """``scaled``: quick on the paper's data and smoke on digits, where there are such."""
    recipe = changed(NETS[network], {"data.name": dataset, **(changes or {})})
    at = {("paper", dataset): Scaled(trials, 0, arms)}
    at |= {("quick", dataset): scaled["quick"]} if "quick" in scaled else {}
    at |= {("smoke", "digits"): scaled["smoke"]} if "smoke" in scaled else {}
    return Experiment(protocol, recipe, at, condition=condition, base=base, why_not_quick=NEEDS_GPU)


def _distances(network: str, **scaled: Scaled) -> Experiment:
    arms = _mask_arms(CIFAR, 80, 60, 40, 20)
    return _experiment(
        "mask-distance-cifar100", network, "cifar100", arms, {"network": network}, {"dataset": "cifar100", "epsilon": 0.1}, scaled
    )


def _table2(dataset: str, *kept_pct: int, **scaled: Scaled) -> Experiment:
    arms = (*_train_arms(CIFAR, *kept_pct), *_others(CIFAR, *kept_pct), *_dense(CIFAR), *_low_precision(CIFAR, *kept_pct))
    base = {"network": "vgg16", "dataset": dataset, "channels_remaining_pct": 100.0, "search": "fp32", "retrain": "fp32", "init": "inherit"}
    return _experiment(f"vgg16-{dataset}", "vgg16", dataset, arms, {}, base, scaled)


def _by_epoch(network: str, *kept_pct: int) -> Experiment:
    epochs = (1, 3, 5, 10, 20, 40, 60)
    arms = (*_drawn_costs(CIFAR, epochs, *kept_pct), _arm("two_dense_cost", "winning-ticket", CIFAR),
            # The printed ratios name the early-bird ticket's size and epoch for both sides.
            *(_arm("two_dense_cost", "winning-ticket", CIFAR, channels_remaining_pct=p, epoch_drawn=e) for e in epochs for p in kept_pct))  # fmt: skip
    return _experiment("eb-flops-by-epoch", network, "cifar10", arms, {"network": network}, {"dataset": "cifar10", "version": "older"}, {})


def _schedule(network: str, variant: str, changes: Mapping[str, Any]) -> Experiment:
    named = {"variant": variant, "network": network}
    return _experiment("lr-schedule", network, "cifar10", _drawn(CIFAR, (10,), 70, 50), named, {"dataset": "cifar10"}, {}, changes=changes)


def _precisions(network: str) -> Experiment:
    """When the search draws, at either precision."""
    arms = tuple(_arm("train_cost", "early-bird", CIFAR, channels_remaining_pct=70, search=at) for at in ("8bit", "fp32"))
    return _experiment("low-precision-search", network, "cifar10", arms, {"network": network}, {"dataset": "cifar10"}, {})


def _imagenet(network: str, *kept_pct: int, slimming: bool = True, smoke: Scaled | None = None) -> Experiment:
    base = {
        "network": network,
        "dataset": "imagenet",
        "channels_remaining_pct": 100.0,
        "search": "fp32",
        "retrain": "fp32",
        "init": "inherit",
    }
    arms = (*_on_imagenet(IMAGENET, *kept_pct), *(_slimmed(IMAGENET, *kept_pct) if slimming else ()))
    scaled = {("paper", "imagenet"): Scaled(TRIALS, 0, arms)} | ({("smoke", "photos"): smoke} if smoke else {})
    recipe = changed(RESNET18, {"model": Model("torchvision", "module", {"arch": network})})
    return Experiment(f"{network}-imagenet", recipe, scaled, base=base, why_not_quick=NEEDS_IMAGENET)


# On CIFAR-10 all three share one dense run. A ticket drawn at the end is left out: so short a schedule does it good to be run twice.
NOTE = "miniature: VGG-11 of width 8 on CIFAR-10, 2400 iterations, instead of the paper's network"
QUICK_MASKS = Scaled(3, 0, _mask_arms(MINI, 80, 60, 40, 20), {"data.name": "cifar10", **SHORT}, note=NOTE)
QUICK_TICKETS = Scaled(3, 0, (*_dense(MINI), *_drawn(MINI, (20, 1), 50)), SHORT, note=NOTE)
QUICK_TRAIN = Scaled(3, 0, (*_train_arms(MINI, 50), *_costs(MINI, 50)), SHORT, note=NOTE)
SMOKE_TICKETS = Scaled(1, 0, (*_dense(MINI), *_drawn(MINI, (20,), 50)), TINY)
SMOKE_RESNET = Scaled(1, 0, _drawn(MINI, (20,), 50), TINY_RESNET)
SMOKE_MASKS = Scaled(1, 0, _mask_arms(MINI, 60), TINY)
SMOKE_TRAIN = Scaled(1, 0, (*_train_arms(MINI, 50), *_others(MINI, 50), *_low_precision(MINI, 50)), TINY)
SMOKE_IMAGENET = Scaled(1, 0, _on_imagenet(MICRO, 70), TINY_IMAGENET)

EXPERIMENTS = (
    _distances("vgg16", quick=QUICK_MASKS, smoke=SMOKE_MASKS),
    _existence("vgg16", "cifar10", 70, 50, 30, quick=QUICK_TICKETS, smoke=SMOKE_TICKETS),
    _table2("cifar10", 70, 50, 30, quick=QUICK_TRAIN, smoke=SMOKE_TRAIN),
    _table2("cifar100", 90, 70, 50),
    _existence("vgg16", "cifar100", 90, 70, 50),
    _existence("preresnet101", "cifar10", 70, 50, 30, smoke=SMOKE_RESNET),
    _existence("preresnet101", "cifar100", 70, 50, 30),
    _distances("preresnet101"),
    *(_schedule(network, variant, changes) for network in NETS for variant, changes in (
        ("lr-drops-80-120", {}), ("lr-drops-0-100", {"optimizer.lr": 0.01, "optimizer.drops_it": (100 * EPOCH_IT,)}))),
    _precisions("vgg16"), _precisions("preresnet101"),
    _by_epoch("vgg16", 90, 70, 50), _by_epoch("preresnet101", 70, 50, 30),
    _imagenet("resnet18", 90, 70, smoke=SMOKE_IMAGENET), _imagenet("resnet50", 70, 50, 30, slimming=False),
)  # fmt: skip

NOT_COVERED = {
    "preresnet101-cifar": "its block of Table 2 could not be obtained; PreResNet-101 runs in eb-existence and mask-distance-cifar100",
}  # fmt: skip

CONTROLLED = Scaled(3, 0, _mask_arms(MINI, 80, 60, 40, 20), {**TINY, "model.options": {"depth": 11, "width": 8}})
CONTROLS = (Control(("mask-distance-settles", "detector-fires-early"), "shuffled-mask", "digits", "mask-distance-cifar100", CONTROLLED,
                    {"network": ("vgg16",)}),)  # fmt: skip

PAPER = Paper("earlybird2020", EXPERIMENTS, SETTINGS, DEVIATIONS, CONTROLS, NOT_COVERED)
