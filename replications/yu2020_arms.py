"""The arms that both halves of Yu et al. 2020 set beside winning tickets, each at some numbers of prunings. Values only."""
from __future__ import annotations

from replications.schema import Arm

DENSE = Arm("dense", levels=(0,))


def random(*levels: int) -> Arm:
    """Fresh weights under the ticket's mask permuted over all layers."""
    return Arm("random-ticket", levels=levels)


def unpermuted(*levels: int) -> Arm:
    """Fresh weights under the ticket's own mask: the other reading of the paper's random tickets."""
    return Arm("reinit", "random-ticket", levels, named={"mask": "unpermuted"})


def one_shot(*levels: int) -> Arm:
    """The dense net pruned once to the ticket's exact count."""
    return Arm("one-shot-level", "one-shot", levels)
