"""Negative controls of Chen et al. 2021: MLPs of two and three wide layers for ResNet-32 and 56; see ``docs/controls.md``. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replications.elastic2021_common import DENSE, ticket
from replications.schema import Arm, Control, Scaled

STANDS_FOR = {"mlp-2": "resnet32", "mlp-3": "resnet56"}
WIDE = {"mlp-2": [200, 200, 100], "mlp-3": [200, 200, 200, 100]}


def _setting(target: str, length: int, rewind: int, lr: float, data: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of the CIFAR ResNets, momentum and decay included, on a network and data that two cores can train many times."""
    return {
        "model.name": "lenet",
        "model.options": {"hidden": WIDE[target]},
        "data.augment": "none",
        **data,
        "batch_size": 64,
        "length": f"{length}it",
        "rewind": f"{rewind}it",
        "evaluate.every_it": length,
        "optimizer.lr": lr,
        "optimizer.drops_it": (length // 2, 3 * length // 4),
        "pruning.rates": {"fc": 0.2},
    }


def _moved(build: str, source: str, levels: tuple[int, ...], **conditions: str) -> Arm:
    return Arm(build, levels=levels, options={"source": source}, named={"source": STANDS_FOR[source], **conditions})


MNIST1D = {"data.name": "mnist1d", "data.options": {"num_train": 2000, "num_test": 2000}}
SHORT = {"length": 300, "rewind": 15, "lr": 0.05, "data": MNIST1D}
STRETCHED = (
    _moved("ett", "mlp-2", (8, 10), order="append", replicate="1234"),
    _moved("ett-reinit", "mlp-2", (8, 10)),
    _moved("ett-random-mask", "mlp-2", (8, 10)),
    Arm("random-mask", levels=(8, 10), options={"weights": "fresh"}),
)
SQUEEZED = (
    _moved("ett", "mlp-3", (6, 10)),
    Arm("snip", levels=(6, 10)),
    Arm("grasp", levels=(6, 10)),
    Arm("magnitude-at-rewind", "magnitude-at-init", (6, 10)),
)
NEAR = (DENSE, ticket((3, 6, 10)), _moved("ett", "mlp-2", (3, 6, 10)))

# The first two train the same tickets. The third is on digits, since on MNIST-1D a transformed ticket is not within a point of the target's.
CONTROLS = (
    Control(
        ("ett-beats-controls",),
        "shuffled-mask",
        "mnist1d",
        "stretch_32_to_56",
        Scaled(4, 10, STRETCHED, _setting("mlp-3", **SHORT)),
    ),
    Control(
        ("ett-beats-prune-at-init",),
        "shuffled-mask",
        "mnist1d",
        "cifar10-resnet-all-pairs",
        Scaled(4, 10, SQUEEZED, _setting("mlp-2", **SHORT)),
        {"target": ("resnet32",)},
    ),
    Control(
        ("ett-near-imp",),
        "shuffled-mask",
        "digits",
        "cifar10-resnet-all-pairs",
        Scaled(6, 10, NEAR, _setting("mlp-3", length=600, rewind=0, lr=0.1, data={"data.name": "digits"})),
        {"target": ("resnet56",)},
    ),
)
