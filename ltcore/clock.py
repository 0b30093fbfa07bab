"""Time as a value: a length in iterations or epochs, turned into steps only where the epoch's length is known.

Modelled on open_lth's ``foundations/step.py``: a step of one epoch length is never compared with a step of another.
"""
from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from ltcore.errors import UsageError

_LENGTH = re.compile(r"^\s*(\d+)\s*(it|ep)\s*$")


@functools.total_ordering
@dataclass(frozen=True)
class Step:
    """``iteration`` of a run whose epochs have ``per_epoch`` iterations."""

    iteration: int
    per_epoch: int

    @property
    def epoch(self) -> int:
        return self.iteration // self.per_epoch

    @property
    def in_epoch(self) -> int:
        return self.iteration % self.per_epoch

    def __lt__(self, other: Step) -> bool:
        if self.per_epoch != other.per_epoch:
            raise ValueError(f"steps of different epoch lengths do not compare ({self.per_epoch} and {other.per_epoch} iterations)")
        return self.iteration < other.iteration


def parse(text: str, per_epoch: int) -> Step:
    """``"2000it"`` or ``"160ep"`` as a step.

    Raises:
        UsageError: the text is not a length.
    """
    found = _LENGTH.match(str(text))
    if not found:
        raise UsageError(f"bad length {text!r}: write iterations or epochs, such as 2000it or 160ep")
    return Step(int(found[1]) * (per_epoch if found[2] == "ep" else 1), per_epoch)


def iterations(text: str, per_epoch: int) -> int:
    """The same as a bare number of iterations."""
    return parse(text, per_epoch).iteration
