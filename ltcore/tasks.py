"""What can be learned: by task, how a stack is trained and what is read of it.

A task's ``train`` has the signature of :func:`ltcore.training.loop.train`; ``values`` turns one copy's metrics into the numbers of its record.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ltcore.jobs import Value
from ltcore.training import loop
from ltcore.training.loop import Trained


@dataclass(frozen=True)
class Trainer:
    """How one task is trained, and its record's values from what one copy leaves and the parameters of its stage."""

    train: Callable[..., list[Trained]]
    values: Callable[[Trained, Mapping[str, Any]], list[Value]]


def classified(trained: Trained, params: Mapping[str, Any]) -> list[Value]:
    """Losses and accuracies by reading point, and the iteration of the minimum of validation loss."""
    values, facts = [], trained.facts
    for at, named in trained.metrics.items():
        for metric, value in named.items():
            n = facts[f"n_{metric.partition('_')[0]}"]
            values.append(Value(metric, value if math.isfinite(value) else math.inf, at, 100 / n if metric.endswith("_pct") else 0.0))
    if "early-stop" in trained.metrics:
        values.append(Value("early_stop_it", facts["early_stop_it"], None, params["evaluate"]["every_it"], facts["censored"]))
    return values


TASKS: dict[str, Trainer] = {"classify": Trainer(loop.train, classified)}
