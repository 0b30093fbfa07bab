"""Chen et al. 2021, App D, Table 6: tickets of ResNet-20 on another data set, at another depth, or both. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.depths import at_depth
from ltcore.recipe import Data, Evaluate, changed
from replications.elastic2021_common import DENSE, PER_EPOCH, RESNET
from replications.schema import Arm, Deviation, Experiment, Scaled, Setting

SOURCE = "resnet20"
LEVEL = 10
SVHN_EPOCH_IT = 73_257 // RESNET.batch_size
RECIPES = {
    "cifar10": RESNET,
    "svhn": changed(
        RESNET,
        {
            "data": Data("svhn"),
            "length": f"{160 * SVHN_EPOCH_IT}it",
            "optimizer.drops_it": (80 * SVHN_EPOCH_IT, 120 * SVHN_EPOCH_IT),
            "evaluate": Evaluate(every_it=10 * SVHN_EPOCH_IT, test=("end",)),
        },
    ),
}
OTHER = {"cifar10": "svhn", "svhn": "cifar10"}
NOT_STATED = (
    "Table 6 does not say its sparsity, nor the paper how it trains on SVHN: here level 10, and CIFAR-10's recipe without augmentation"
)


def _arms(target: str, dataset: str, level: int, source: str) -> tuple[Arm, ...]:
    """The target's own ticket, the one of the other depth where there is one, and those of the other data set."""
    elsewhere = OTHER[dataset]

    def moved(build: str, name: str, of: str, **options: str) -> Arm:
        return Arm(build, name, (level,), options=options, named={"source": SOURCE, "source_dataset": of}, name_level=False)

    own = (DENSE, Arm("target-ticket", "ticket", (level,), name_level=False))
    if target == SOURCE:
        return (*own, moved("transfer", "direct-transfer", elsewhere, source=elsewhere))
    return (*own, moved("ett", "ett", dataset, source=source), moved("ett-transfer", "ett", elsewhere, source=elsewhere, network=source))


def _given(dataset: str) -> dict[str, Any]:
    """What the other data set's recipe has of its own."""
    r = RECIPES[dataset]
    return {"data": r.data, "optimizer": r.optimizer, "length": r.length, "evaluate": r.evaluate}


# Scale smoke: the two halves of scikit-learn's digits stand for the two data sets, narrow ResNet-14 and 20 for ResNet-20 and 32.
SMALL: Mapping[str, Any] = {
    "data.name": "digits",
    "data.augment": "none",
    "data.options": {"half": "b"},
    "length": "24it",
    "rewind": "6it",
    "batch_size": 32,
    "optimizer.drops_it": (16, 20),
    "model.options": {"depth": 20, "width": 4},
}


def _experiment(target: str, dataset: str) -> Experiment:
    recipe = changed(RECIPES[dataset], {"model.options": at_depth("resnet", RESNET.model.options, target)})
    elsewhere = OTHER[dataset]
    scaled = {
        ("paper", dataset): Scaled(3, LEVEL, _arms(target, dataset, LEVEL, SOURCE), sources={elsewhere: _given(elsewhere)}, note=NOT_STATED)
    }
    if (target, dataset) == ("resnet32", "cifar10"):
        small = {elsewhere: {"data.options": {"half": "a"}}}
        scaled["smoke", "digits"] = Scaled(1, 1, _arms(target, dataset, 1, "resnet14"), SMALL, sources=small)
    itself = {"source": SOURCE, "source_dataset": dataset} if target == SOURCE else {}  # two rows name the source of a plain ticket
    return Experiment(
        "cross-dataset-architecture",
        recipe,
        scaled,
        condition={"target": target, "target_dataset": dataset},
        base={"rewind": recipe.rewind, **itself},
        why_not_quick=f"needs a GPU: 22 trainings of {160 * PER_EPOCH:,} iterations and more for each ticket from another data set",
    )


EXPERIMENTS = tuple(_experiment(target, dataset) for dataset in ("cifar10", "svhn") for target in ("resnet32", "resnet20"))

SETTINGS = (
    Setting(
        "Table 6: sparsity",
        "not stated",
        "-",
        "level 10 (10.7 %)",
        "IMP of ResNet-20 lies 1.41 points below Table 3's dense net; at 10 % kept Table 3 loses 1.64, at 5 % 4.48",
    ),
    Setting(
        "Table 6: SVHN",
        "nothing stated",
        "not there",
        "CIFAR-10's recipe: 160 epochs of 572 iterations, drops at 80 and 120; 73,257 training images; no augmentation",
        "flips and crops change digits",
    ),
    Setting(
        "Table 6: transfer",
        "of the data set as in morcos2019; ETT only where the network changes (App D)",
        "-",
        "moved along depth on its own data set, trained on the other from iteration 1,000; no layer drawn anew: both have ten classes",
    ),
    Setting("Table 6: trials", "not stated for SVHN", "-", "3"),
)

DEVIATIONS = (
    Deviation(
        "Table 6",
        "sparsity and training on SVHN not stated",
        "level 10; CIFAR-10's recipe",
        "rows are shown, not compared number by number",
    ),
)
