"""The miniature of Morcos et al. 2019 that two cores can carry: LeNet-300-100 between MNIST and Fashion-MNIST, and between optimisers.

Not in the paper. Values only, taken in by ``replications/morcos2019.py``; its pilot is in ``docs/morcos2019.md``.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, changed
from replications.schema import Arm, Control, Experiment, Scaled

DENSE = Arm("dense", levels=(0,))
HALF, THREE_QUARTERS = 750, 1125  # the rate falls where VGG-19's does, at 80 and 120 of 160 epochs
OPTIMIZERS = {
    "sgd": Optimizer("sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, drops_it=(HALF, THREE_QUARTERS)),
    "adam": Optimizer("adam", lr=1.2e-3, weight_decay=1e-4, drops_it=(HALF, THREE_QUARTERS)),
}  # fmt: skip
LENET = Recipe(
    model=Model("lenet", "glorot-normal", {"hidden": [300, 100]}),
    data=Data("mnist"),
    optimizer=OPTIMIZERS["sgd"],
    batch_size=60,
    length="1500it",
    evaluate=Evaluate(every_it=1500, test=("end",)),
    pruning=Pruning({"fc": 0.2}, scope="global", counts="prunable"),  # the output layer is no part of a ticket
    rewind="75it",
)  # fmt: skip
NETWORK, TRIALS, ROUNDS = "LeNet-300-100", 3, 21
REWIND = "1ep"  # as the paper's rows name it; what the miniature does is in its note


def own(name: str, rewind: str, levels: tuple[int, ...]) -> Arm:
    """Tickets of the target itself; rows name it as their source."""
    return moved(name, rewind, levels)


def moved(name: str, rewind: str, levels: tuple[int, ...], key: str = "source") -> Arm:
    """Tickets from a source, at sizes; ``key`` is the paper's word for what the source is, ``rewind`` the step as its rows name it."""
    return Arm("transfer", "ticket", levels=levels, options={"source": name}, named={key: name, "rewind": rewind})


def random(*levels: int) -> Arm:
    return Arm("random-ticket", levels=levels)


def _note(data: str) -> str:
    return f"miniature: {NETWORK} on {data}, 1500 iterations, rewound to 75"


# MNIST-1D where there is no MNIST: the settings of frankle2019's miniature, and its wider net for controls.
MINI: Mapping[str, Any] = {"data.name": "mnist1d", "data.options": {"num_train": 4000, "num_test": 10000}}
TINY = {**MINI, "data.options": {"num_train": 1500, "num_test": 500}, "length": "100it", "rewind": "10it", "evaluate.every_it": 100}


def _mini(protocol: str, recipe: Recipe, arms: tuple[Arm, ...], smoke: tuple[Arm, ...], condition: Mapping[str, Any],
          sources: Mapping[str, Mapping[str, Any]] | None = None, piloted: bool = True) -> Experiment:  # fmt: skip
    """On MNIST, on MNIST-1D where there is none, and in miniature of that where no narrow copy of the paper's net shows the mechanism.

    ``piloted``: whether MNIST-1D can carry it; else it runs there only where it is asked for by name.
    """
    given = {"sources": sources or {}}
    scaled = {
        ("quick", "mnist"): Scaled(TRIALS, ROUNDS, arms, note=_note("MNIST"), **given),
        ("quick", "mnist1d"): Scaled(TRIALS, ROUNDS, arms, MINI, note=_note("MNIST-1D"), default=piloted, **given),
        **({("smoke", "mnist1d"): Scaled(1, 2, smoke, TINY, **given)} if smoke else {}),
    }  # fmt: skip
    return Experiment(protocol, recipe, scaled, condition=condition, base={"rewind": REWIND, "network": NETWORK})


def _between(target: str, data: str, other: str, other_data: str, label: str) -> Experiment:
    """Tickets of another data set; ``network`` has to be named by whoever wants these numbers, which are not of the paper's networks."""
    levels = (3, 6, 9, 12, 15, 18)
    arms = (DENSE, own(target, REWIND, levels), moved(other, REWIND, levels), random(*levels))
    scaled = Scaled(TRIALS, ROUNDS, arms, sources={target: {}, other: {"data.name": other_data}}, note=_note(label))
    return Experiment("dataset-transfer-vgg19", changed(LENET, {"data.name": data}), {("quick", data): scaled},
                      condition={"network": NETWORK, "target": target}, base={"rewind": REWIND})  # fmt: skip


def _optimizers(target: str, other: str) -> Experiment:
    """The levels of claims optimizer-transfer and, trained with Adam, sgd-to-adam-exception.

    On MNIST-1D Adam at this rate finds no winning tickets beyond level 9, so that there is nothing to move.
    """
    levels = (1, 2, 3, 6, 9, 12, 15, 18)
    drawn = (1, 2, 3, 12, 15, 18) if target == "adam" else (12, 15, 18)
    both = [moved(name, REWIND, levels, "source_optimizer") for name in (target, other)]
    smoke = (DENSE, *(moved(name, REWIND, (2,), "source_optimizer") for name in (target, other)), random(2))
    return _mini("optimizer-transfer-vgg19", changed(LENET, {"optimizer": OPTIMIZERS[target]}), (DENSE, *both, random(*drawn)), smoke,
                 {"target_optimizer": target}, {target: {}, other: {"optimizer": OPTIMIZERS[other]}}, piloted=False)  # fmt: skip


def _scope(scope: str) -> Experiment:
    """The levels of claim global-beats-layerwise."""
    ticket = Arm("ticket", levels=(3, 6, 9, 15, 18, 21))
    return _mini("global-vs-layerwise-cifar10", changed(LENET, {"pruning.scope": scope}), (DENSE, ticket), (), {"scope": scope})


FRESH = {"weights": "fresh"}
MASKS = tuple(Arm(name, levels=(9, 12, 15), options=options)
              for name, options in (("ticket", {}), ("reinit", {}), ("random-mask", FRESH), ("random-ticket", {})))  # fmt: skip
SMOKE_MASKS = (Arm("reinit", levels=(2,)), Arm("random-mask", levels=(2,), options=FRESH))

EXPERIMENTS = (
    _between("fashionmnist", "fashion-mnist", "mnist", "mnist", "Fashion-MNIST"),
    _between("mnist", "mnist", "fashionmnist", "fashion-mnist", "MNIST"),
    _optimizers("sgd", "adam"), _optimizers("adam", "sgd"),
    _scope("global"), _scope("layerwise"),
    _mini("random-mask-comparison", LENET, (DENSE, *MASKS), SMOKE_MASKS, {}),
)  # fmt: skip


# ---- negative controls: MNIST-1D, where the claims replicate ---------------------------------------------------
SHORTER: Mapping[str, Any] = {"length": "750it", "rewind": "38it", "optimizer.drops_it": (375, 562), "evaluate.every_it": 750}
# Halves of MNIST-1D for halves of CIFAR-10; LeNet-900-300 for VGG19: at level 21 it has 2,800 weights, LeNet-300-100 has 390.
LARGER = {"num_train": 16000, "num_test": 10000}
HALVES = Scaled(
    4, ROUNDS,
    (DENSE, own("cifar10b", REWIND, (3, 6, 9, 12, 15, 18)), moved("cifar10a", REWIND, (3, 6, 9, 12, 15, 18, 21)), random(15, 18, 21)),
    {"model.name": "lenet", "model.options": {"hidden": [900, 300]}, "data.name": "mnist1d", "data.options": {**LARGER, "half": "b"},
     "data.augment": "none", "optimizer": OPTIMIZERS["sgd"], "batch_size": LENET.batch_size, "pruning.rates": LENET.pruning.rates, **SHORTER},
    sources={"cifar10b": {}, "cifar10a": {"data.options": {**LARGER, "half": "a"}}},
)  # fmt: skip
CONTROLS = (
    Control(("same-distribution",), "no-training", "mnist1d", "same-distribution-cifar10ab", HALVES, {"network": ("vgg19",)}),
    Control(("global-beats-layerwise",), "no-training", "mnist1d", "global-vs-layerwise-cifar10", Scaled(6, ROUNDS, (), SHORTER)),
)
