"""Chen et al. 2021 on ImageNet (Secs 4.3, 4.5, App D): ResNet-18, 26 and 34, RigL beside them, and tickets that move on to CIFAR-10.

Values only, taken in by ``replications/elastic2021.py``; every choice is explained in ``docs/elastic2021.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.depths import at_depth
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, changed
from replications.elastic2021_common import DENSE, RESNET, before_training, controls, ett, rigl, ticket
from replications.schema import Arm, Deviation, Experiment, Scaled, Setting

EPOCH_IT = 1251  # batches of 1,024 in 1,281,167 images; the remainder of an epoch is dropped
LEVEL, ROUNDS = (6,), 6
IMAGENET = Recipe(
    model=Model("torchvision", "kaiming-normal", {"arch": "resnet18"}),
    data=Data("imagenet", augment="resized-crop-flip"),
    optimizer=Optimizer(
        "sgd",
        lr=0.4,
        momentum=0.9,
        weight_decay=1e-4,
        warmup_it=5 * EPOCH_IT,
        drops_it=(30 * EPOCH_IT, 60 * EPOCH_IT, 80 * EPOCH_IT),
    ),
    batch_size=1024,
    length=f"{90 * EPOCH_IT}it",
    evaluate=Evaluate(every_it=EPOCH_IT, test=("end",)),
    pruning=Pruning({"conv": 0.2, "shortcut": 0.2, "output": 0.2}, scope="global", counts="prunable"),
    rewind="5ep",
)
NETS = ("resnet18", "resnet26", "resnet34")
FOUND_ON = "resnet26"  # the source of every ticket of Table 2

WHY_NOT_QUICK = "needs ImageNet and a GPU: a training of ResNet-18 is 90 epochs of 1,281,167 images"

# The miniature: two photographs of scikit-learn in 64 crops of 32 x 32. torchvision has basic blocks in one width only, so ResNet-50 and
# 101 with bottlenecks of 1 to 8 channels stand for ResNet-18 and 26.
NARROW = {"arch": "resnet50", "width_per_group": 1}
SMALL: Mapping[str, Any] = {
    "data.name": "photos",
    "model.options": NARROW,
    "batch_size": 8,
    "length": "4it",
    "rewind": "2it",
    "evaluate.every_it": 4,
    "optimizer.lr": 0.01,
    "optimizer.warmup_it": 2,
    "optimizer.drops_it": (3,),
}


def _experiment(protocol: str, target: str, arms: tuple[Arm, ...], smoke: tuple[Arm, ...] = ()) -> Experiment:
    recipe = changed(IMAGENET, {"model.options": at_depth("torchvision", IMAGENET.model.options, target)})
    scaled = {("paper", "imagenet"): Scaled(1, ROUNDS, arms)}
    if smoke:
        scaled["smoke", "photos"] = Scaled(1, 1, smoke, SMALL)
    return Experiment(protocol, recipe, scaled, condition={"target": target}, base={"rewind": recipe.rewind}, why_not_quick=WHY_NOT_QUICK)


def _table_1(target: str) -> tuple[Arm, ...]:
    others = (n for n in NETS if n != target)
    return (DENSE, ticket(LEVEL), *(ett(s, LEVEL) for s in others), *before_training(LEVEL), *controls(LEVEL))


def _table_2(target: str) -> tuple[Arm, ...]:
    """The source's own ticket where nothing is transformed."""
    return (ticket(LEVEL) if target == FOUND_ON else ett(FOUND_ON, LEVEL), rigl(LEVEL, "5x"))


# ---- Table 7: on to CIFAR-10 -----------------------------------------------------------------------------------
# The output layer is drawn anew for ten classes, so it is no part of these tickets.
BODY = Pruning({"conv": 0.2, "shortcut": 0.2}, scope="global", counts="prunable")
ENLARGED = changed(RESNET, {"model.name": "torchvision", "model.options": {"arch": "resnet18", "enlarge": 224}, "pruning": BODY})
GIVER = {
    **{name: getattr(IMAGENET, name) for name in ("model", "data", "optimizer", "batch_size", "length", "evaluate", "rewind")},
    "pruning": BODY,
}


def _from_imagenet(level: int, build: str, source: str, **options: str) -> Arm:
    """Called ``ett`` in the table, the direct transfer too."""
    return Arm(build, "ett", (level,), options={"source": "imagenet", **options}, named={"source": source, "source_dataset": "imagenet"})


def _table_7(level: int, found_on: str = FOUND_ON) -> tuple[Arm, ...]:
    direct = _from_imagenet(level, "transfer", "resnet18")
    return (DENSE, ticket((level,)), direct, _from_imagenet(level, "ett-transfer", FOUND_ON, network=found_on))


SMALL_GIVER = {"data.name": "photos", "model.options": NARROW, "batch_size": 8, "rewind": "2it"}
SMALL_TAKER = {
    "data.name": "digits",
    "data.options": {"channels": 3},
    "data.augment": "none",
    "model.options": {**NARROW, "enlarge": 32},
    "batch_size": 32,
    "length": "4it",
    "rewind": "2it",
    "optimizer.lr": 0.01,
    "optimizer.drops_it": (3,),
}
NOT_STATED = (
    "Table 7 does not say how CIFAR-10 is trained on at ImageNet's size: here optimiser, batch size and epochs are those of the CIFAR ResNets"
)
TO_CIFAR10 = Experiment(
    "imagenet-to-cifar10",
    ENLARGED,
    {
        ("paper", "cifar10"): Scaled(1, ROUNDS, _table_7(6), sources={"imagenet": GIVER}, note=NOT_STATED),
        ("smoke", "digits"): Scaled(1, 1, _table_7(1, "resnet101"), SMALL_TAKER, sources={"imagenet": SMALL_GIVER}),
    },
    condition={"target_dataset": "cifar10"},
    base={"target": "resnet18"},
    why_not_quick=WHY_NOT_QUICK,
)

SMOKE = (DENSE, ticket(), Arm("ett", options={"source": "resnet101"}, named={"source": "resnet26"}))
EXPERIMENTS = (
    *(_experiment("imagenet-resnet", t, _table_1(t), SMOKE if t == "resnet18" else ()) for t in NETS),
    *(_experiment("imagenet-vs-rigl", t, _table_2(t), (rigl((1,), "5x"),) if t == "resnet18" else ()) for t in NETS),
    TO_CIFAR10,
)

SETTINGS = (
    Setting(
        "ImageNet: networks",
        "ResNet-18, 26, 34 (Sec 4.3)",
        "ResNet-26: 2, 3, 4, 3 basic blocks",
        "torchvision's, parameter for parameter; ResNet-26 of the same class",
    ),
    Setting(
        "ImageNet: transform",
        "not printed for networks whose stages differ in depth",
        "a block map typed in for each stage",
        "the rules of Sec 3 applied stage by stage: 18 to 34 is B0 B1 B1; B0 B1 B1 B1; B0 B1 B1 B1 B1 B1; B0 B1 B1",
    ),
    Setting(
        "ImageNet: training",
        "SGD 0.4, batch 1,024, 90 epochs, 5 of warm-up, drops at 30, 60, 80 (Table 4)",
        "momentum 0.9, weight decay 1e-4",
        "both together; epochs of 1,251 iterations",
    ),
    Setting(
        "ImageNet: data",
        "not stated",
        "random crop of area and ratio, flip",
        "crops of 224 of random area and ratio, mirrored; tests on the 50,000 of val, centre crop",
    ),
    Setting("ImageNet: rewind", "epoch 5 (Table 4)", "a flag", "epoch 5, where the warm-up ends"),
    Setting("ImageNet: trials", "1 (Table 4); three runs everywhere (Sec 4)", "-", "1", "with one trial a claim stays inconclusive"),
    Setting(
        "RigL",
        "five times the steps (Table 2); nothing else stated",
        "not there",
        "the same sparsity in every layer but the first, which stays dense, from the initial weights; "
        "every 100 iterations 30 %, less by a cosine until 3/4; drops and warm-up stretched too",
        "Evci et al. 2020, section 3 (uniform), algorithm 1 and section 4.1",
    ),
    Setting(
        "ImageNet to CIFAR-10: images",
        "enlarged to ImageNet's size (App D)",
        "-",
        "interpolated to 224 x 224 (bilinear) in front of the first layer, after crop and flip at 32 x 32",
        "interpolation and augmentation are not stated",
    ),
    Setting(
        "ImageNet to CIFAR-10: training",
        "not stated",
        "-",
        "as the CIFAR ResNets: SGD 0.1, batch 128, 160 epochs, rewind 1,000 iterations; tickets from ImageNet start at epoch 5",
    ),
    Setting(
        "ImageNet to CIFAR-10: output layer",
        "not stated; App D follows morcos2019",
        "-",
        "drawn anew for ten classes, and so pruned in none of the four rows",
        "a mask for 1,000 outputs fits no other number",
    ),
    Setting(
        "ImageNet to CIFAR-10: networks",
        "targets not printed (Table 7)",
        "-",
        "ResNet-18 in every row: its direct transfer, and ResNet-26 squeezed",
        "the table's first row names it; the text speaks of 18 to 26",
    ),
)

DEVIATIONS = (
    Deviation("ImageNet: SynFlow", "-", "beside SNIP, GraSP and magnitude", "same family of criteria"),
    Deviation(
        "ImageNet to CIFAR-10: own IMP on ImageNet",
        "the tickets of Table 1, it seems",
        "found once more without the output layer",
        "it is drawn anew",
    ),
)
