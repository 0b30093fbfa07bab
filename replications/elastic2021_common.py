"""Chen et al. 2021: the recipe of the CIFAR ResNets, and the arms that several modules of this paper declare. Values only."""

from __future__ import annotations

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe
from replications.schema import Arm

PER_EPOCH = 50_000 // 128  # the remainder of an epoch is dropped
RESNET = Recipe(
    model=Model("resnet", "kaiming-normal", {"depth": 20, "width": 16}),
    data=Data("cifar10", augment="crop-flip"),
    optimizer=Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, drops_it=(80 * PER_EPOCH, 120 * PER_EPOCH)),
    batch_size=128,
    length=f"{160 * PER_EPOCH}it",
    evaluate=Evaluate(every_it=10 * PER_EPOCH, test=("end",)),
    pruning=Pruning({"conv": 0.2, "shortcut": 0.2, "output": 0.2}, scope="global", counts="prunable"),
    rewind="1000it",
)

DENSE = Arm("dense", levels=(0,))


def ticket(levels: tuple[int, ...] | None = None) -> Arm:
    """The target's own ticket, whole under the control that breaks transformed ones."""
    return Arm("target-ticket", "ticket", levels)


def ett(source: str, levels: tuple[int, ...] | None = None, **rules: str) -> Arm:
    """A ticket of another depth; ``rules`` are order, replicate and drop."""
    return Arm("ett", levels=levels, options={"source": source, **rules})


def before_training(levels: tuple[int, ...] | None = None) -> tuple[Arm, ...]:
    """Pruning at the rewind step; SynFlow is ours, the paper has the other three."""
    return (
        Arm("snip", levels=levels),
        Arm("grasp", levels=levels),
        Arm("magnitude-at-rewind", "magnitude-at-init", levels),
        Arm("synflow", levels=levels),
    )


def rigl(levels: tuple[int, ...], length: str) -> Arm:
    """RigL, ``length`` times as long as one training."""
    return Arm("rigl", levels=levels, options={"length": length})


def controls(levels: tuple[int, ...] | None = None) -> tuple[Arm, ...]:
    """The target's ticket with fresh weights, and with a permuted mask."""
    return (Arm("reinit", levels=levels), Arm("random-mask", levels=levels, options={"weights": "original"}))
