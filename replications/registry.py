"""All replications by key. Papers without a module here are listed as data only."""
from __future__ import annotations

import importlib

from ltcore.errors import UsageError
from ltcore.names import nearest
from replications.schema import Paper

MODULES = {
    "frankle2019": "replications.frankle2019", "stabilizing2019": "replications.stabilizing2019", "morcos2019": "replications.morcos2019",
    "elastic2021": "replications.elastic2021", "earlybird2020": "replications.earlybird2020",
    "yu2020": "replications.yu2020",
}  # fmt: skip


def load(key: str) -> Paper:
    """The replication of a paper.

    Raises:
        UsageError: an unknown key (the nearest is offered), or a paper that is data only so far.
    """
    if key in MODULES:
        return importlib.import_module(MODULES[key]).PAPER
    from replications import papers

    known = papers.keys()
    if key in known:
        raise UsageError(f"{key} is data only so far: its numbers are in replications/published/{key}.yaml, no experiment runs them yet")
    raise UsageError(f"unknown paper {key!r}{nearest(key, known)}")
