"""What tells one task from another in the training loop: where batches come from, the loss, and what an evaluation reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

PARTS = ("val", "test", "train")


@dataclass(frozen=True)
class Goal:
    """A task for the loop.

    Args:
        batches: (data, segment, streams, dtype) -> batches, with the methods and attributes of ``supervised.Batches``.
        loss: outputs of one copy and targets -> scalar.
        evaluate: (engine, batches, part, module) -> (R, columns) float64, what is not a number as it is; NaN in a column that is not read.
        columns: what an evaluation reads, the first a loss, by whose minimum on validation a copy is remembered.
        failure: metrics by point, and the batches -> why a trial does not count, or empty.
        names: (part, column) -> its metric where it is not ``<part>_<column>``.
        unread: part -> columns that it does not have.
    """

    batches: Callable[..., Any]
    loss: Callable[[Tensor, Tensor], Tensor]
    evaluate: Callable[..., Tensor]
    columns: tuple[str, ...]
    failure: Callable[[Mapping[str, Mapping[str, float]], Any], str]
    names: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def curves(self) -> tuple[str, ...]:
        """What is noted at every validation."""
        return (*(self.name("val", column) for column in self.columns if column not in self.unread.get("val", ())), "train_loss")

    def name(self, part: str, column: str) -> str:
        return self.names.get((part, column), f"{part}_{column}")
