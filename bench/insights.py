"""What an expert looks for beside the claims: the sparsest level at which the ticket still matches the dense net.

There is no maximum over levels, which would favour chance. Levels are tested in a fixed order, each at the full error level: a
fixed-sequence test stops at the first failure, so all levels it confirms hold together with 95 % confidence.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import statistics as st
from bench.joins import Join, Series
from bench.measurement import Measurement, RunInfo

if TYPE_CHECKING:
    from replications.papers import PaperData

MARGIN_PP = 0.1      # ours: a ticket matches where it is not more than this below the dense net


def sparsest_matching(paper: PaperData, measurements: Iterable[Measurement], run: RunInfo, arm: str = "ticket",
                      metric: str = "test_accuracy_pct", margin: float = MARGIN_PP) -> list[dict[str, Any]]:
    """For each protocol and setting in which ``arm`` and the dense net were measured: the sparsest level that matches.

    The effect is arm − dense, trial by trial, at early stop (at the end where early stop was not measured). Scanning from the
    densest level down, ``confirmed`` is the last level before the first whose lower 95 % bound is below −margin, ``estimate``
    the last before the first whose mean is below −margin. ``possible`` is the sparsest level that a scan from the sparsest up
    does not find worse with confidence (upper bound below −margin). [confirmed, possible] is the interval of the answer.

    Returns:
        Dicts {protocol, setting, arm, metric, at, margin, n, confirmed, estimate, possible, levels}, where the three answers
        are {level, weights_remaining_pct} or None, and levels lists {level, weights_remaining_pct, effect, ci95, n}.
    """
    join = Join(paper, measurements, run)
    out = []
    for protocol in join.protocols():
        at = next((a for a in ("early-stop", "end") if join.conditions(protocol, metric, a)), None)
        for setting, sizes in _settings(join, protocol, metric, at, arm).items():
            found = _scan(join, protocol, metric, at, arm, json.loads(setting), sizes, margin)
            out += [found] if found else []
    return out


def _settings(join: Join, protocol: str, metric: str, at: str | None, arm: str) -> dict[str, dict[int, float]]:
    """{setting (conditions besides arm and size, as JSON): {level: percent}} of the arm."""
    out: dict[str, dict[int, float]] = {}
    for condition in join.conditions(protocol, metric, at):
        if condition.get("arm") == arm and "level" in condition:
            rest = {k: v for k, v in condition.items() if k not in ("arm", "level", "weights_remaining_pct")}
            out.setdefault(json.dumps(rest, sort_keys=True, default=str), {})[condition["level"]] = condition.get("weights_remaining_pct")
    return out


def _scan(join: Join, protocol: str, metric: str, at: str | None, arm: str, setting: Mapping[str, Any], sizes: Mapping[int, float],
          margin: float) -> dict[str, Any] | None:
    dense = _dense(join, protocol, metric, at, setting)
    found = {level: join.find(protocol, metric, at, {**setting, "arm": arm, "level": level}) for level in sorted(sizes)}
    tested = [(level, _sample(f.trials, dense)) for level, f in found.items()]
    tested = [(level, s) for level, s in tested if s is not None]
    if not tested:
        return None
    enough = [(level, s) for level, s in tested if s.n >= st.MIN_TRIALS]
    confirmed = _leading(enough, lambda s: bool(st.lower(s, st.ALPHA) > -margin))
    estimate = _leading(tested, lambda s: float(s.mean) >= -margin)
    possible = next((level for level, s in reversed(tested) if s.n < st.MIN_TRIALS or not st.upper(s, st.ALPHA) < -margin), None)

    def place(level: int | None) -> dict[str, Any] | None:
        return None if level is None else {"level": level, "weights_remaining_pct": sizes[level]}

    return {"protocol": protocol, "setting": dict(setting), "arm": arm, "metric": metric, "at": at, "margin": margin,
            "n": min(s.n for _, s in tested), "confirmed": place(confirmed), "estimate": place(estimate), "possible": place(possible),
            "levels": [{**place(level), "effect": float(s.mean), "ci95": st.ci95(s) and list(st.ci95(s)), "n": s.n} for level, s in tested]}


def _dense(join: Join, protocol: str, metric: str, at: str | None, setting: Mapping[str, Any]) -> Series:
    """The dense net of a setting: keys of the setting that a dense net does not know (a rewind point) do not count."""
    for condition in join.conditions(protocol, metric, at):
        known = {k: v for k, v in setting.items() if k in condition and k != "rewind"}
        if condition.get("arm") == "dense" and all(condition[k] == v for k, v in known.items()):
            return join.find(protocol, metric, at, {k: v for k, v in condition.items() if k != "rewind"}).trials
    return {}


def _sample(ticket: Series, dense: Series) -> st.Sample | None:
    """Paired differences over the trials that count on both sides."""
    both = [(ticket[t], dense[t]) for t in sorted(ticket.keys() & dense.keys()) if not ticket[t].failed and not dense[t].failed]
    if not both:
        return None
    return st.paired(np.array([a.value - b.value for a, b in both]), max(max(a.resolution, b.resolution) for a, b in both))


def _leading(tested: list[tuple[int, st.Sample]], passes: Any) -> int | None:
    """The last level of the unbroken run of passes from the first."""
    last = None
    for level, sample in tested:
        if not passes(sample):
            break
        last = level
    return last
