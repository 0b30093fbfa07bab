"""Frankle & Carbin 2019 on CIFAR-10: Conv-2/4/6 (section 3, appendices B, E, H), VGG-19 and Resnet-18 (section 4, appendices E, I).

Values only, taken in by ``replications/frankle2019.py``; every choice is explained in ``docs/frankle2019.md``.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, changed
from replications.schema import Arm, Deviation, Experiment, Scaled, Setting

WHY_NOT_QUICK = "needs a GPU: a Conv-2 step of 60 takes 0.2 s on a core"
DENSE, TICKET = Arm("dense", levels=(0,)), Arm("ticket")
PAPER, SMOKE = ("paper", "cifar10"), ("smoke", "digits")

# ---- Conv-2/4/6 ----------------------------------------------------------------------------------------------


def _conv(depth: int, lr: float, length: str, conv_rate: float) -> Recipe:
    return Recipe(
        model=Model("conv", "glorot-normal", {"depth": depth}),
        data=Data("cifar10", val=5000),
        optimizer=Optimizer("adam", lr=lr),
        batch_size=60,
        length=length,
        evaluate=Evaluate(every_it=100, test=("early-stop", "end"), train=("early-stop", "end")),
        pruning=Pruning({"conv": conv_rate, "fc": 0.2, "output": 0.1}, criterion="magnitude", scope="layerwise", counts="all-weights"),
        rewind="0it",
    )


CONV2, CONV4, CONV6 = _conv(2, 2e-4, "20000it", 0.1), _conv(4, 3e-4, "25000it", 0.1), _conv(6, 3e-4, "30000it", 0.15)


def _with_dropout(recipe: Recipe, lr: float, length: str) -> Recipe:
    return changed(recipe, {"model.options": {**recipe.model.options, "dropout": 0.5}, "optimizer.lr": lr, "length": length})


def _conv_arms(reinit: tuple[int, ...]) -> tuple[Arm, ...]:
    """Sizes that claims name come first: a run that is stopped early has spent its time on them."""
    return (
        DENSE, TICKET, Arm("reinit", levels=reinit), Arm("random-mask", levels=(7, 11), options={"weights": "fresh"}),
        Arm("reinit", draws=3), *(Arm("random-mask", draws=10, options={"weights": w}) for w in ("fresh", "original")),
    )  # fmt: skip


# ---- VGG-19 and Resnet-18 ------------------------------------------------------------------------------------
# Validation is read every 1000 and 500 iterations (the paper names no interval): a reading costs as much as 26 and 13 steps.
def _deep(name: str, depth: int, batch_size: int, length: str, drops_it: tuple[int, int], every_it: int, read: tuple[str, ...]) -> Recipe:
    return Recipe(
        model=Model(name, "glorot-normal", {"depth": depth}),
        data=Data("cifar10", val=5000, augment="crop-flip"),
        optimizer=Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, drops_it=drops_it),
        batch_size=batch_size,
        length=length,
        evaluate=Evaluate(every_it, test=(*read, "early-stop", "end")),
        pruning=Pruning({"conv": 0.2}, criterion="magnitude", scope="global", counts="all-weights"),
        rewind="0it",
    )


VGG19 = _deep("vgg", 19, 64, "112480it", (56_240, 84_360), 1000, ("30000it", "60000it", "112000it"))
RESNET18 = _deep("resnet", 20, 128, "30000it", (20_000, 25_000), 500, ("10000it", "20000it", "30000it"))


def _deep_arms(reinit: tuple[int, ...]) -> tuple[Arm, ...]:
    return DENSE, TICKET, Arm("reinit", levels=reinit), Arm("reinit"), Arm("random-mask", options={"weights": "fresh"})


# ---- miniatures: one for each mechanism that the LeNet ones lack ----------------------------------------------
TINY: Mapping[str, Any] = {
    "data.name": "digits", "data.val": 100, "batch_size": 32, "length": "30it", "evaluate.every_it": 10, "evaluate.train": (),
}  # fmt: skip
TINY_CONV = {**TINY, "model.options": {"depth": 2, "width": 4, "hidden": [16, 16]}}
TINY_DROPOUT = {**TINY, "model.options": {"depth": 2, "width": 4, "hidden": [16, 16], "dropout": 0.5}}
TINY_DEEP = {**TINY, "optimizer.drops_it": (15, 25), "evaluate.test": ("20it", "early-stop", "end")}
TINY_VGG = {**TINY_DEEP, "model.options": {"depth": 11, "width": 2}, "optimizer.warmup_it": 10}
TINY_RESNET = {**TINY_DEEP, "model.options": {"depth": 14, "width": 4}}

CONV_SMOKE = Scaled(1, 1, (DENSE, TICKET, Arm("reinit"), Arm("random-mask", options={"weights": "fresh"})), TINY_CONV)
DROPOUT_SMOKE = Scaled(1, 1, (DENSE, TICKET), TINY_DROPOUT)
VGG_SMOKE = Scaled(1, 1, (DENSE, TICKET), TINY_VGG)
RESNET_SMOKE = Scaled(1, 1, (DENSE, TICKET), TINY_RESNET)


# ---- experiments ---------------------------------------------------------------------------------------------
def _experiment(protocol: str, recipe: Recipe, paper: Scaled, *, variant: str = "", condition: Mapping[str, Any] | None = None,
                base: Mapping[str, Any] | None = None, gate: str = "", smoke: Scaled | None = None) -> Experiment:  # fmt: skip
    scaled = {PAPER: paper} | ({SMOKE: smoke} if smoke else {})
    return Experiment(protocol, recipe, scaled, variant, condition or {}, base or {}, gate, why_not_quick=WHY_NOT_QUICK)


def _variant(protocol: str, recipe: Recipe, variant: str, changes: Mapping[str, Any], gate: str, levels: int,
             reinit: tuple[int, ...] = (), smoke: Scaled | None = None) -> Experiment:  # fmt: skip
    """A variant of section 4; without named sizes of ``reinit`` it is one of App I.1: dense and tickets. Five trials (assumed)."""
    scaled = Scaled(5, levels, _deep_arms(reinit)) if reinit else Scaled(5, levels, (DENSE, TICKET))
    return _experiment(protocol, changed(recipe, changes), scaled, variant=variant, condition={"variant": variant}, gate=gate, smoke=smoke)


def _vgg(name: str, changes: Mapping[str, Any], reinit: tuple[int, ...] = (), smoke: Scaled | None = None) -> Experiment:
    gate = f"fig7-112K-{name}-ticket-p100.0" if reinit else ""
    return _variant("vgg19-cifar10", VGG19, f"vgg19-{name}", changes, gate, 32, reinit, smoke)


def _resnet(name: str, changes: Mapping[str, Any], reinit: tuple[int, ...] = (), smoke: Scaled | None = None) -> Experiment:
    gate = f"fig8-30K-{name}-ticket-p100.0" if reinit else ""
    return _variant("resnet18-cifar10", RESNET18, f"resnet18-{name}", changes, gate, 15, reinit, smoke)


LOW, LAYERWISE = {"optimizer.lr": 0.01}, {"pruning.scope": "layerwise"}
VGG_WARM, RESNET_WARM = {"optimizer.warmup_it": 10_000}, {"optimizer.lr": 0.03, "optimizer.warmup_it": 20_000}
VGG_SIZES, RESNET_SIZES = (4, 8, 12, 16, 19), (4, 6, 8, 10, 12)  # the levels that claims c13-c15 name

MAIN = (
    _experiment("conv2-cifar10", CONV2, Scaled(5, 22, _conv_arms((3, 7, 11))), gate="fig5-acc-es-test-conv2-ticket-p100.0",
                smoke=CONV_SMOKE),
    _experiment("conv4-cifar10", CONV4, Scaled(5, 26, _conv_arms((3, 7, 11))), gate="fig5-acc-es-test-conv4-ticket-p100.0"),
    _experiment("conv6-cifar10", CONV6, Scaled(5, 26, _conv_arms((7, 11))), gate="fig5-acc-es-test-conv6-ticket-p100.0"),
    _experiment("conv2-dropout-cifar10", _with_dropout(CONV2, 3e-4, "60000it"), Scaled(5, 22, (DENSE, TICKET)),
                gate="fig6-acc-es-test-conv2-dropout-ticket-p100.0", smoke=DROPOUT_SMOKE),
    _experiment("conv4-dropout-cifar10", _with_dropout(CONV4, 2e-4, "75000it"), Scaled(5, 26, (DENSE, TICKET)),
                gate="fig6-acc-es-test-conv4-dropout-ticket-p100.0"),
    _experiment("conv6-dropout-cifar10", _with_dropout(CONV6, 2e-4, "90000it"), Scaled(5, 26, (DENSE, TICKET)),
                gate="fig6-acc-es-test-conv6-dropout-ticket-p100.0"),
    _vgg("lr0.1", {}, VGG_SIZES), _vgg("lr0.01", LOW, VGG_SIZES), _vgg("lr0.1-warmup", VGG_WARM, VGG_SIZES, VGG_SMOKE),
    _vgg("lr0.1-warmup-layerwise", {**VGG_WARM, **LAYERWISE}), _vgg("lr0.1-layerwise", LAYERWISE),
    _vgg("lr0.01-layerwise", {**LOW, **LAYERWISE}),
    _resnet("lr0.1", {}, RESNET_SIZES, RESNET_SMOKE), _resnet("lr0.01", LOW, RESNET_SIZES),
    _resnet("lr0.03-warmup", RESNET_WARM, RESNET_SIZES),
    _resnet("lr0.03-warmup-layerwise", {**RESNET_WARM, **LAYERWISE}), _resnet("lr0.1-layerwise", LAYERWISE),
    _resnet("lr0.01-layerwise", {**LOW, **LAYERWISE}),
)  # fmt: skip


# ---- sweeps of appendices H and I: dense and tickets, validation set -------------------------------------------
def _sweep(protocol: str, recipe: Recipe, levels: int, variant: str, changes: Mapping[str, Any], condition: Mapping[str, Any],
           base: Mapping[str, Any] | None = None) -> Experiment:  # fmt: skip
    """One setting of a sweep: three trials (App H; App I names none). Its id names the net: several nets share a sweep's name."""
    id_ = f"{protocol.removesuffix('-ablations')}-{variant}"
    return _experiment(protocol, changed(recipe, changes), Scaled(3, levels, (DENSE, TICKET)), variant=id_, condition=condition, base=base)


def _conv_sweeps(depth: int, recipe: Recipe, levels: int, adam: tuple[float, ...], sgd: tuple[float, ...],
                 momentum: tuple[float, ...], dropout_length: str) -> tuple[Experiment, ...]:  # fmt: skip
    """App B and H for one net. ``adam`` leaves out the rate of ``strategy`` where that has the same prune rates, and so is the same net."""
    protocol, own = f"conv{depth}-ablations", recipe.optimizer.lr
    base = {"network": f"Conv-{depth}", "optimizer": "Adam", "lr": own, "rewind": "0it"} if own not in adam else {}
    dropout = _with_dropout(recipe, own, dropout_length)

    def sweep(variant: str, changes: Mapping[str, Any], condition: Mapping[str, Any], start: Recipe = recipe) -> Experiment:
        return _sweep(protocol, start, levels, variant, changes, condition)

    return (
        _experiment(protocol, recipe, Scaled(3, levels, (DENSE, TICKET, Arm("continued-reset", levels=(13, 16)), Arm("continued-reset"))),
                    variant=f"conv{depth}-strategy", base=base),
        *(sweep("adam-lr", {"optimizer.lr": lr, "pruning.rates.conv": 0.1}, {"optimizer": "Adam", "lr": lr}) for lr in adam),
        *(sweep("adam-lr-dropout", {"optimizer.lr": lr}, {"optimizer": "Adam", "dropout": 0.5, "lr": lr}, dropout)
          for lr in (1e-4, 2e-4, 3e-4, 4e-4, 5e-4)),
        *(sweep("sgd-lr", {"optimizer": Optimizer("sgd", lr)}, {"optimizer": "SGD", "momentum": 0.0, "lr": lr}) for lr in sgd),
        *(sweep("momentum-lr", {"optimizer": Optimizer("sgd", lr, 0.9)}, {"optimizer": "SGD", "momentum": 0.9, "lr": lr})
          for lr in momentum),
        *(sweep("conv-prune-rate", {"pruning.rates.conv": r}, {"conv_rate_per_round": r}) for r in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
        sweep("layers", {"pruning.rates": {"conv": recipe.pruning.rates["conv"]}}, {"pruned": "conv only"}),
        sweep("layers", {"pruning.rates": {"fc": 0.2, "output": 0.1}}, {"pruned": "fc only"}),
        sweep("layers", {}, {"pruned": "both"}),
    )  # fmt: skip


def _deep_sweeps(protocol: str, recipe: Recipe, levels: int, warm_lr: float, warmups: tuple[int, ...],
                 scopes: tuple[tuple[float, int], ...]) -> tuple[Experiment, ...]:  # fmt: skip
    """App I for one net. ``warmups`` leaves out 0, which is ``lr`` at that rate; ``scopes`` are (rate, warm-up) pruned layer by layer."""

    def sweep(variant: str, lr: float, warmup_it: int, condition: Mapping[str, Any], scope: str = "global") -> Experiment:
        changes = {"optimizer.lr": lr, "optimizer.warmup_it": warmup_it, "pruning.scope": scope}
        return _sweep(protocol, recipe, levels, variant, changes, condition, {"lr": lr, "warmup_iterations": warmup_it, "scope": scope})

    return (
        *(sweep("lr", lr, 0, {"lr": lr}) for lr in (0.01, 0.02, 0.03, 0.05, 0.1)),
        *(sweep("warmup", warm_lr, w, {"warmup_iterations": w}) for w in warmups),
        *(sweep("scope", lr, w, {"lr": lr, "warmup_iterations": w, "scope": "layerwise"}, "layerwise") for lr, w in scopes),
    )


ADAM = (1e-4, 3e-4, 4e-4, 5e-4, 6e-4, 7e-4, 8e-4)  # with 2e-4, the rate of Conv-2 itself
ADAM4 = (4e-4, 2e-4, 1e-4, 5e-4, 6e-4, 7e-4, 8e-4)  # with 3e-4, the rate of Conv-4 itself
ADAM6 = (3e-4, 4e-4, 2e-4, 1e-4, 5e-4, 6e-4, 7e-4, 8e-4)  # all: the sweep prunes 10 % of the convolutions a round, Conv-6 itself 15 %
ABLATIONS = (
    *_conv_sweeps(2, CONV2, 22, ADAM, (1e-4, 5e-4, 8e-4, 1e-3, 1.5e-3, 2.5e-3), (1e-4, 3e-4, 5e-4, 7e-4, 1e-3, 1.5e-3), "60000it"),
    *_conv_sweeps(4, CONV4, 26, ADAM4, (1e-3, 2e-3, 3e-3, 5e-3, 1e-2), (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 8e-3), "75000it"),
    *_conv_sweeps(6, CONV6, 26, ADAM6, (2.5e-3, 5e-3, 0.01, 0.02, 0.025, 0.03, 0.035), (1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 8e-3), "90000it"),
    *_deep_sweeps("vgg19-ablations", VGG19, 32, 0.1, (1000, 5000, 10_000, 20_000, 50_000), ((0.1, 0), (0.01, 0), (0.1, 10_000))),
    *_deep_sweeps("resnet18-ablations", RESNET18, 15, 0.03, (500, 1000, 5000, 10_000, 20_000), ((0.1, 0), (0.01, 0), (0.03, 20_000))),
)

EXPERIMENTS = (*MAIN, *ABLATIONS)

# ---- the protocol card: the official code covers LeNet on MNIST only --------------------------------------------
NONE = "none: LeNet only"
SETTINGS = (
    Setting("Conv-2/4/6: network", "3x3 convolutions 64, 64 | 128, 128 | 256, 256 with a pool after each pair, then 256-256-10 (Fig 2)",
            NONE, "the same, padded to keep the size, ReLU, max-pooling; biases are not counted",
            "4,300,992, 2,425,024 and 2,261,184 weights; Fig 2 prints 1.7M for Conv-6, but its own sizes fit 2.3M"),
    Setting("Conv-2/4/6: optimiser", "Adam, 2e-4, 3e-4, 3e-4; with dropout 3e-4, 2e-4, 2e-4", NONE, "the paper's"),
    Setting("Conv-2/4/6: batch size, length", "60; 20,000, 25,000, 30,000 iterations, three times as many with dropout", NONE,
            "the paper's"),
    Setting("Conv-2/4/6: pruning", "layerwise: convolutions 10, 10, 15 %, fully connected 20 %, output 10 % a round", NONE,
            "the paper's; dropout prunes alike"),
    Setting("Conv-2/4/6: levels", "not stated; the curves end at 0.83, 0.97 and 0.9 %", NONE, "22, 26, 26"),
    Setting("Conv-2/4/6: trials", "5 (3 in App B and H); 3 reinitialisations, 10 random masks", NONE, "the paper's"),
    Setting("Conv-2/4/6: dropout", "0.5; where is not stated", NONE, "before each fully connected layer", "the usual place"),
    Setting("VGG-19, Resnet-18: network", "VGG-19 with batch norm (Liu et al. 2019); the 20-layer CIFAR ResNet with 1x1 projections", NONE,
            "the same", "20,024,000 and 270,896 weights"),
    Setting("VGG-19, Resnet-18: optimiser",
            "SGD, momentum 0.9, weight decay 1e-4; 0.1, 0.01, and 0.1 (0.03) with 10,000 (20,000) iterations of linear warm-up", NONE,
            "the paper's; decay on every parameter, warm-up from 0", "which parameters decay is not stated"),
    Setting("VGG-19, Resnet-18: batch size, length", "64, 112,480 iterations; 128, 30,000 iterations", NONE, "the paper's"),
    Setting("VGG-19, Resnet-18: schedule", "a tenth at 56,240 and 84,360; at 20,000 and 25,000", NONE,
            "the paper's; counted from iteration 0, warm-up or not"),
    Setting("VGG-19, Resnet-18: augmentation", "horizontal flip, 4-pixel pad and crop", NONE,
            "the paper's, anew for each example and step"),
    Setting("VGG-19, Resnet-18: pruning", "20 % a round of all convolutions together; layerwise in App I.1; output and projections never",
            NONE, "the paper's; sizes count every weight"),
    Setting("VGG-19, Resnet-18: trials", "not stated (error bars are over several)", NONE, "5; the sweeps of App I: 3",
            "App H.1 says 5 of the main text; App H takes 3"),
    Setting("VGG-19, Resnet-18: validation", "interval not stated", NONE, "every 1,000 and 500 iterations",
            "a reading costs as much as 26 and 13 steps"),
    Setting("CIFAR-10: split, input", "45,000 / 5,000 / 10,000; scaling not stated", NONE,
            "the paper's split, drawn once a trial; each channel less its mean, by its deviation",
            "the usual scaling; its constants stand with the data set"),
)  # fmt: skip

DEVIATIONS = (
    Deviation("input scaling of CIFAR-10", "not stated",
              "each channel less its mean, divided by its standard deviation over the training set",
              "the most common choice; recorded so that it can be doubted"),
    Deviation("dropout of the Conv nets", "0.5; its place is not stated", "before each fully connected layer, the output among them",
              "the usual place"),
    Deviation("validation of VGG-19 and Resnet-18", "interval not stated",
              "every 1,000 and 500 iterations, and at the iterations of the figures",
              "every 100 iterations would cost a quarter (VGG-19) of the training again"),
    Deviation("adam-lr of Conv-6 (App H.2)", "10 % of the convolutions a round, sizes printed to match", "the same; joined by level",
              "the printed sizes fit another share of convolutional weights"),
    Deviation("trials of VGG-19 and Resnet-18", "not stated", "5; 3 in the sweeps of App I", "the numbers of the main text and of App H"),
    Deviation("random sparsity of VGG-19 and Resnet-18 (App E)", "number of draws and initial weights not stated",
              "one draw a trial, fresh weights, the ticket's count in every layer",
              "as for LeNet; no number of it is in the paper's file"),
    Deviation("reinitialisation of VGG-19 and Resnet-18", "draws not stated", "one a trial and level",
              "the curves show as many as of tickets, five, by assumption"),
    Deviation("scope sweep (App I.1)", "global against layerwise",
              "layerwise at the three learning-rate variants; global are the other sweeps",
              "equal stages are trained once, those of vgg19-cifar10 and resnet18-cifar10 included"),
)  # fmt: skip
