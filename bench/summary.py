"""Every arm that was run, published or a user's own: one entry per protocol, condition and level, with means over trials."""
from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from bench.measurement import Measurement

Group = list[Measurement]


def arms(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """All arms in the order of the measurements.

    Draws are averaged within a trial, then trials are averaged; trials that failed are named and left out.

    Returns:
        Dicts {protocol, condition, weights_remaining_pct, density, n, failed, values}: ``density`` is the measured fraction of
        weights kept (None where nothing was trained), ``n`` the trials that count, ``failed`` one text for each that does not,
        ``values`` a list of {metric, at, mean, sd (None for one trial), n, censored (trials whose minimum is at the last evaluation)}.
    """
    by_arm: dict[str, Group] = {}
    for m in measurements:
        if "to_epoch" in m.condition:  # a cell of a matrix: too many for a table, drawn as a map
            continue
        by_arm.setdefault(json.dumps([m.protocol, _identity(m)], sort_keys=True, default=str), []).append(m)
    return [_entry(group) for group in by_arm.values()]


def _identity(m: Measurement) -> dict[str, Any]:
    """Which arm this is: the condition, less what tells one value of an arm from another (the layer)."""
    return {k: v for k, v in m.condition.items() if k != "layer"}


def _entry(group: Group) -> dict[str, Any]:
    good = [m for m in group if not m.failed]
    by_value: dict[tuple[str, str | None, Any], Group] = {}
    for m in good:
        by_value.setdefault((m.metric, m.at, m.condition.get("layer")), []).append(m)
    first, densities = group[0], [m.density for m in group if m.density is not None]
    percent = first.condition.get("weights_remaining_pct", first.base.get("weights_remaining_pct"))
    return {
        "protocol": first.protocol, "condition": _identity(first), "weights_remaining_pct": percent,
        "density": statistics.fmean(densities) if densities else None, "n": len({m.trial for m in good}), "failed": _failed(group),
        "values": [_value(*key, members) for key, members in by_value.items()],
    }  # fmt: skip


def _failed(group: Group) -> list[str]:
    return list(dict.fromkeys(f"trial {m.trial} {m.failed}" for m in group if m.failed))


def _value(metric: str, at: str | None, layer: Any, members: Group) -> dict[str, Any]:
    by_trial: dict[int, Group] = {}
    for m in members:
        by_trial.setdefault(m.trial, []).append(m)
    trials = [statistics.fmean(m.value for m in draws) for _, draws in sorted(by_trial.items())]
    censored = sum(any(m.censored for m in draws) for draws in by_trial.values())
    named: Mapping[str, Any] = {} if layer is None else {"layer": layer}
    spread = statistics.stdev(trials) if len(trials) > 1 else None
    return {"metric": metric, "at": at, **named, "mean": statistics.fmean(trials), "sd": spread, "n": len(trials), "censored": censored}


# Columns of the table of arms: (heading, width, metric, at); those of classification stand together, of others only what was measured.
CLASSIFIED = (("test accuracy at early stop, %", 18, "test_accuracy_pct", "early-stop"), ("early stop, iteration", 16, "early_stop_it", None),
              ("test accuracy at end, %", 18, "test_accuracy_pct", "end"))
SCORED = (("log perplexity at end", 18, "log_perplexity", "end"), ("BLEU at end", 14, "bleu", "end"), ("episode return at end", 18, "episode_return", "end"))
Column = tuple[str, int, str, str | None]


def columns(entries: Iterable[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Those columns that some arm has a value for; all of classification's where an accuracy was measured, or nothing else was."""
    measured = {(v["metric"], v["at"]) for e in entries for v in e["values"]}
    scored, own = (tuple(c for c in of if c[2:] in measured) for of in (SCORED, CLASSIFIED))
    whole = not scored or any(metric == "test_accuracy_pct" for _, _, metric, _ in own)
    return (*(CLASSIFIED if whole else own), *scored)


def find(entry: Mapping[str, Any], metric: str, at: str | None) -> Mapping[str, Any] | None:
    """One value of an entry."""
    return next((v for v in entry["values"] if (v["metric"], v["at"]) == (metric, at)), None)
