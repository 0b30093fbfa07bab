"""Yu, Edunov, Tian & Morcos 2020, "Playing the lottery with rewards and multiple languages": both halves as one paper.

Numbers and claims stand in ``published/yu2020.yaml``; every choice is explained in ``docs/yu2020.md``.
"""
from __future__ import annotations

from replications import yu2020_language as language
from replications import yu2020_rl as rl
from replications.schema import Paper

PAPER = Paper(
    "yu2020", (*language.EXPERIMENTS, *rl.EXPERIMENTS), (*language.SETTINGS, *rl.SETTINGS), (*language.DEVIATIONS, *rl.DEVIATIONS),
    (*language.CONTROLS, *rl.CONTROLS), {**language.NOT_COVERED, **rl.NOT_COVERED},
)  # fmt: skip
