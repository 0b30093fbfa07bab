"""What there is: papers with their experiments and scales (``list``), and a paper's protocol card (``explain``). No torch is imported here."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from bench.grid import BOXES, grid
from ltcore.clock import iterations
from ltcore.recipe import changed
from replications import papers, registry
from replications.schema import SCALES, Experiment, Paper, Scaled

MEASURES = ("weight-movement", "init-magnitude", "layer-density")  # arms that train nothing of their own
# Arms that need runs which stand in no table: as many as their highest level and this (a path has two copies of the ticket trained).
ON_THE_WAY = {"continued-reset": -1, "ticket-path": 1, "ett-path": 1}


def catalogue() -> list[dict[str, Any]]:
    """One entry a paper: title, numbers, claims, and per experiment what each scale runs."""
    return [_entry(key, head) for key, head in papers.titles().items()]


def _entry(key: str, head: papers.Title) -> dict[str, Any]:
    entry: dict[str, Any] = {"paper": key, "title": head.title, "venue": head.venue, "numbers": head.numbers, "claims": head.claims}
    if key not in registry.MODULES:
        return entry | {"status": "data only", "experiments": [], "not_covered": {}}
    paper = registry.load(key)
    experiments = [
        {"id": e.id, "protocol": e.protocol, "condition": dict(e.condition), "why_not_quick": e.why_not_quick,
         "scales": [_scale(e, *at, s) for at, s in e.scaled.items()]}
        for e in paper.experiments
    ]
    return entry | {"status": "runs", "experiments": experiments, "not_covered": dict(paper.not_covered)}


def _scale(experiment: Experiment, scale: str, data: str, s: Scaled) -> dict[str, Any]:
    length = iterations(changed(experiment.recipe, s.changes).length, 1)
    shown = sum(_runs(a.levels, a.draws, s.levels, bool(a.sizes)) for a in s.arms if a.build not in MEASURES)
    on_the_way = sum(max(a.levels or (s.levels,)) + ON_THE_WAY[a.build] for a in s.arms if a.build in ON_THE_WAY)
    runs = s.trials * (shown + s.levels * len(s.sources) + on_the_way)
    return {"scale": scale, "data": data, "trials": s.trials, "levels": s.levels, "default": s.default, "runs_at_most": runs, "iterations_at_most": runs * length}


def _runs(levels: tuple[int, ...] | None, draws: int, most: int, sized: bool) -> int:
    return draws * (most if levels is None else sum(sized or n <= most for n in levels))


def render(entries: Iterable[Mapping[str, Any]]) -> str:
    """The catalogue as text: papers that run with their experiments, then those that are data only."""
    entries = list(entries)
    out = []
    for e in (e for e in entries if e["status"] == "runs"):
        out += [f"{e['paper']}: {e['title']} ({e['venue']}); {e['numbers']} published numbers, {e['claims']} claims", ""]
        out += [grid(_experiment_rows(e), ["experiment", *SCALES]), ""]
        out += ["runs x iterations are upper bounds; * runs by default, others with --experiment; what is shared is trained once", ""]
        reasons: dict[str, list[str]] = {}
        for protocol, why in e["not_covered"].items():
            reasons.setdefault(why, []).append(protocol)
        out += [f"not covered ({why}): {', '.join(protocols)}" for why, protocols in reasons.items()] + [""]
    rows = [(e["paper"], e["title"], e["venue"], e["numbers"], e["claims"]) for e in entries if e["status"] != "runs"]
    out += [grid(rows, ["data only so far", "title", "venue", "numbers", "claims"], [None, 60, 24, None, None])]
    return "\n".join(out)


def _experiment_rows(entry: Mapping[str, Any]) -> list[list[str]]:
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for e in entry["experiments"]:
        label = e["id"] if e["id"] == e["protocol"] else f"{e['protocol']} / {e['id']}"
        rows.setdefault(label, []).append(e)
    return [[label, *(_cell(experiments, scale) for scale in SCALES)] for label, experiments in rows.items()]


def _cell(experiments: list[Mapping[str, Any]], scale: str) -> str:
    """All settings of one sweep together; of several data sets the first declared."""
    settings = [[s for s in e["scales"] if s["scale"] == scale] for e in experiments]
    here = [found[0] for found in settings if found]
    if not here:
        whys = [e["why_not_quick"].partition(":")[0] for e in experiments if scale == "quick" and e["why_not_quick"]]
        return whys[0] if whys else "–"  # the reason in full is for explain
    runs, its = sum(s["runs_at_most"] for s in here), sum(s["iterations_at_most"] for s in here)
    return f"{'* ' if here[0]['default'] else ''}{runs} runs, {_short(its)} it, {here[0]['trials']} trials"


def _short(n: int) -> str:
    return f"{n / 1e6:.3g} M" if n >= 1e6 else f"{n / 1e3:.3g} k"


# ---- explain -------------------------------------------------------------------------------------------------
def card(key: str, scale: str) -> dict[str, Any]:
    """The protocol card: settings (paper, official code, ours), deviations, and each experiment's recipe at this scale."""
    paper = registry.load(key)
    data = papers.load(key)
    return {
        "paper": key, "title": data.title, "scale": scale, "official_code": data.official_code,
        "settings": [dataclasses.asdict(s) for s in paper.settings],
        "deviations": [dataclasses.asdict(d) for d in paper.deviations],
        "experiments": [e for experiment in paper.experiments for e in _recipes(experiment, scale)],
        "not_covered": _not_at(paper, scale) | dict(paper.not_covered), "notes": list(data.notes), "missing": list(data.missing),
    }  # fmt: skip


def _not_at(paper: Paper, scale: str) -> dict[str, str]:
    """Experiments that the scale lacks for a reason."""
    if scale != "quick":
        return {}
    return {e.protocol: e.why_not_quick for e in paper.experiments if e.why_not_quick and not any(at == scale for at, _ in e.scaled)}


def _recipes(experiment: Experiment, scale: str) -> list[dict[str, Any]]:
    return [
        {"id": experiment.id, "protocol": experiment.protocol, "condition": dict(experiment.condition), "data": data, "trials": s.trials,
         "levels": s.levels, "default": s.default, "arms": sorted({a.arm for a in s.arms}),
         "changes": {k: str(v) for k, v in s.changes.items()}, "note": s.note, "recipe": dataclasses.asdict(changed(experiment.recipe, s.changes))}
        for (at, data), s in experiment.scaled.items() if at == scale
    ]  # fmt: skip


def render_card(c: Mapping[str, Any]) -> str:
    settings = [(s["name"], s["paper"], s["code"], s["ours"], s["why"]) for s in c["settings"]]
    deviations = [(d["what"], d["paper"], d["ours"], d["why"]) for d in c["deviations"]]
    runs = [(e["id"], ", ".join(f"{k}={v}" for k, v in e["condition"].items()), e["data"], e["trials"], e["levels"], ", ".join(e["arms"]),
             "; ".join([*filter(None, [e["note"]]), *(f"{k} = {v}" for k, v in e["changes"].items())]) or "the paper's own") for e in c["experiments"]]  # fmt: skip
    return "\n".join([
        f"{c['paper']}: {c['title']}", f"official code: {c['official_code']}", "",
        "Settings", grid(settings, ["", "paper", "official code", "ours", "why"], [16, 26, 26, 26, 40], BOXES), "",
        "Deviations and choices", grid(deviations, ["", "paper", "ours", "why"], [18, 30, 30, 46], BOXES), "",
        f"Experiments at scale {c['scale']}",
        grid(runs, ["id", "condition", "data", "trials", "levels", "arms", "changes to the recipe"], [16, 22, 8, 6, 6, 30, 34], BOXES), "",
        "Not covered: " + ("; ".join(f"{p} ({why})" for p, why in c["not_covered"].items()) or "nothing"),
        "Missing from the paper's file: " + "; ".join(c["missing"]),
    ])  # fmt: skip

