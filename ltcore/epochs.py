"""Epochs as a paper counts them, whatever the length of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltcore.errors import UsageError

if TYPE_CHECKING:
    from ltcore.imp import Trial


@dataclass(frozen=True)
class Schedule:
    """Epochs as the paper counts them, of ``epochs`` in all; on a shorter schedule they shrink with it.

    Args:
        cuts: epochs after which the dense run's weights are kept, for tickets to be drawn there.
    """

    epochs: int = 160
    cuts: tuple[int, ...] = ()

    def it(self, trial: Trial, epoch: int) -> int:
        """Iterations up to the end of an epoch."""
        whole = trial.length_it
        if whole % self.epochs:
            raise UsageError(
                f"a length of {whole} iterations does not divide into the schedule's {self.epochs} epochs: take a multiple of that"
            )
        return whole // self.epochs * epoch
