"""Claims whose parts need more operands than a test of the grammar can name; they are judged as every other claim is.

``TREES`` is the whole registry: (paper, claim id) -> the claim's tree. What no sum of operands can say stands in ``verdicts.CUSTOM``.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.claims import All, Node, Operand, Part


def drops_do_not_stack() -> Node:
    """elastic2021, Table 6: what data set and depth cost together, less what each costs alone."""
    return All((_stacked("svhn", "cifar10"), _stacked("cifar10", "svhn")))


def _stacked(source: str, target: str) -> Part:
    """A loss is the accuracy of the ticket on its own network and data less that of the transferred one."""
    def at(network: str, on: str, **more: Any) -> Mapping[str, Any]:
        return {"target": network, "target_dataset": on, "rewind": "1000it", **more}

    moved = {"source": "resnet20", "source_dataset": source}
    losses = (  # (sign, network and data trained, arm)
        (1, at("resnet32", target), "ett"), (-1, at("resnet20", target), "direct-transfer"), (-1, at("resnet32", source), "ett"),
    )  # fmt: skip
    own = [(sign, {"arm": "ticket", **where}) for sign, where, _ in losses]
    transferred = [(-sign, {"arm": arm, **where, **moved}) for sign, where, arm in losses]
    operands = tuple(Operand("cross-dataset-architecture", "test_accuracy_pct", "end", (want,), sign, 0) for sign, want in own + transferred)
    text = f"loss of data set and depth ({source} to {target}, resnet20 to resnet32) − the two single losses, test_accuracy_pct at end < 0"
    return Part("cross-dataset-architecture", "difference", operands, "less_than", 0.0, True, text)


TREES: dict[tuple[str, str], Callable[[], Node]] = {("elastic2021", "drops-do-not-stack"): drops_do_not_stack}
