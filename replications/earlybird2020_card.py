"""The protocol card of You et al. 2020: the paper's value, the official code's, ours; and where we differ."""
from __future__ import annotations

from replications.schema import Deviation, Setting

SETTINGS = ()
DEVIATIONS = ()
