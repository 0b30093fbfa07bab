"""Claims whose parts need more operands than a test of the grammar can name, or whole curves; they are judged as every other claim is.

``TREES`` is the whole registry: (paper, claim id) -> the claim's tree.
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


ALL_PRUNED, LAYERS_ONLY = "wmt14-transformer-base", "wmt14-transformer-base-layers-only"
RANDOM, WINNING = {"arm": "random-ticket"}, {"arm": "ticket", "rewind": "1000it"}


def layers_only_random_collapses() -> Node:
    """yu2020, Fig 2 right: how steeply random tickets fall, embeddings left dense less all pruned, and how straight winning tickets do."""
    slopes = (_curve("slope", LAYERS_ONLY, RANDOM, 1, 0), _curve("slope", ALL_PRUNED, RANDOM, -1, 1))
    straight = (_curve("r-squared", LAYERS_ONLY, WINNING, 1, 0),)
    read = "bleu at end on percent pruned, level 0 to 10"
    steeper = f"slope of random-ticket − slope of random-ticket[protocol={ALL_PRUNED}], {read} < 0"
    return All((
        Part(LAYERS_ONLY, "difference", slopes, "less_than", 0.0, True, steeper),
        Part(LAYERS_ONLY, "value", straight, "greater_than", 0.9, True, f"R² of ticket[rewind=1000it], {read} > 0.9"),
    ))  # fmt: skip


def _curve(over: str, protocol: str, arm: Mapping[str, Any], sign: int, side: int) -> Operand:
    """One arm at levels 1 to 10 and, for level 0, the dense net."""
    points = (*({**arm, "level": level} for level in range(1, 11)), {"arm": "dense", "level": 0})
    return Operand(protocol, "bleu", "end", points, sign, side, over)


TREES: dict[tuple[str, str], Callable[[], Node]] = {
    ("elastic2021", "drops-do-not-stack"): drops_do_not_stack,
    ("yu2020", "nlp-layers-only-random-collapses"): layers_only_random_collapses,
}
