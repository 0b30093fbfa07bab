"""``ticket show`` and ``ticket export``: one file with mask, rewound weights, model and provenance."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.grid import grid
from bench.measurements import find_manifest
from bench.store import Store, default_root
from ltcore import masks, tickets
from ltcore.errors import UsageError, UserError
from ltcore.names import nearest
from replications import registry


@dataclass(frozen=True)
class Which:
    """Which ticket of which run."""

    paper: str
    experiment: str | None
    arm: str
    level: int
    trial: int
    scale: str | None
    source: str | None = None  # where the ticket was found, where there are several: a data set or an optimiser


def run(action: str, file: Path, which: Which, store: Path | None, as_json: bool) -> None:
    if action == "export":
        write(file, which, Store(store or default_root(), create=False))
        print(f"wrote {file}: {describe(file)['density_pct']:.1f} % of the prunable weights")
    elif action == "show":
        found = describe(file)
        print(json.dumps(found, indent=1) if as_json else render(found))
    else:
        raise UsageError(f"unknown action {action!r}: use show or export")


def write(file: Path, which: Which, store: Store) -> None:
    """Writes the ticket of a finished run.

    Raises:
        UsageError: the run has no such ticket. UserError: its stages are not in the store, or the file can't be written.
    """
    registry.load(which.paper)
    manifest = find_manifest(store, which.paper, which.scale)
    point = _point(manifest, which)
    inputs = store.record(point["stage"])["stage"]["inputs"] if store.has(point["stage"]) else {}
    if "mask" not in inputs:
        raise UserError(f"arm {which.arm} at level {which.level} has no mask in {store.root}, or was not run yet: run 'replicate' first")
    record, found = store.record(point["stage"]), _found_by(store, inputs["mask"][0])
    experiment = manifest["experiments"][point["label"]]
    giver = experiment.get("sources", {}).get(_source(point), experiment)
    about = {
        "paper": which.paper, "scale": manifest["scale"], "protocol": point["protocol"], "experiment": point["label"], "arm": which.arm, "level": which.level,
        "condition": point["condition"], "draw": point["draw"],
        "trial": which.trial, "rewind": giver["recipe"]["rewind"],
        "model": record["stage"]["params"]["model"], "input_shape": record["stage"]["params"]["input_shape"],
        "classes": record["stage"]["params"]["classes"], "data": record["stage"]["params"]["data"], "stage": point["stage"],
        "inputs": inputs,
        # A ticket may be trained elsewhere than it was found: ``data`` and ``classes`` above are those of the training run.
        "found_on": {key: found.get(key) for key in ("data", "classes", "optimizer", "batch_size")}, "recipe": experiment["recipe"],
    }  # fmt: skip
    ticket = tickets.Ticket(store.load(*inputs["mask"]), store.load(*inputs["state"]), about)
    try:
        tickets.save(file, ticket)
    except OSError as error:
        raise UserError(f"can't write {file}: {error.strerror or error}") from error


def _point(manifest: Mapping[str, Any], which: Which) -> Mapping[str, Any]:
    labels = list(manifest["experiments"])
    label = which.experiment or labels[0]
    if label not in labels:
        raise UsageError(f"experiment {label!r} was not run{nearest(label, labels)}")
    of_arm = [p for p in manifest["points"] if p["label"] == label and p["condition"]["arm"] == which.arm]
    if not of_arm:
        arms = sorted({p["condition"]["arm"] for p in manifest["points"] if p["label"] == label})
        raise UsageError(f"no arm {which.arm!r} in {label}{nearest(which.arm, arms)}")
    points = [p for p in of_arm if p["trial"] == which.trial]
    if not points:
        raise UsageError(f"trial {which.trial} was not run: there are {', '.join(map(str, sorted({p['trial'] for p in of_arm})))}")
    found = [p for p in points if p["condition"].get("level") == which.level]
    if not found:
        levels = sorted({p["condition"]["level"] for p in points if "level" in p["condition"]})
        if not levels:
            raise UsageError(f"arm {which.arm} has no levels (it is pruned to a size in one go), so none of its tickets can be named here")
        raise UsageError(f"arm {which.arm} was not run at level {which.level}: there are {', '.join(map(str, levels))}")
    return _from_source(found, which)


SOURCES = ("source", "source_optimizer")  # conditions that say where a ticket was found


def _source(point: Mapping[str, Any]) -> str:
    """The source that a point names; empty where it names none."""
    return next((point["condition"][k] for k in SOURCES if k in point["condition"]), "")


def _from_source(points: list[Mapping[str, Any]], which: Which) -> Mapping[str, Any]:
    """The first point; where several sources gave such a ticket the one that was named."""
    by_source: dict[str, Mapping[str, Any]] = {}
    for p in points:
        by_source.setdefault(_source(p), p)
    if which.source is None and len(by_source) > 1:
        raise UsageError(f"arm {which.arm} at level {which.level} has several sources: name one with --source, {', '.join(filter(None, by_source))}")
    if which.source is not None and which.source not in by_source:
        raise UsageError(f"arm {which.arm} has no source {which.source!r}{nearest(which.source, by_source)}")
    return points[0] if which.source is None else by_source[which.source]


def _found_by(store: Store, stage: str) -> dict[str, Any]:
    """Parameters of the last training that led to a mask; empty where none did (a mask made at initialisation)."""
    while store.has(stage):
        described = store.record(stage)["stage"]
        if described["kind"] == "train":
            return described["params"]
        stage = next((described["inputs"][role][0] for role in ("scores", "weights", "mask") if role in described["inputs"]), "")
    return {}


def describe(file: Path) -> dict[str, Any]:
    """What a ticket file holds, as JSON values."""
    ticket = tickets.load(file)
    return {
        "about": dict(ticket.about), "density_pct": 100 * ticket.density, "kept": masks.kept(ticket.mask), "prunable": masks.size(ticket.mask),
        "density_layers": masks.densities(ticket.mask), "collapsed": masks.collapsed(ticket.mask),
        "weights": {n: list(w.shape) for n, w in ticket.weights.items()},
    }  # fmt: skip


def render(found: Mapping[str, Any]) -> str:
    about = [(k, json.dumps(v) if isinstance(v, (dict, list)) else v) for k, v in found["about"].items()]
    layers = [(n, "x".join(map(str, shape)), f"{100 * found['density_layers'][n]:.2f}" if n in found["density_layers"] else "not pruned")
              for n, shape in found["weights"].items()]  # fmt: skip
    total = f"{found['kept']:,} of {found['prunable']:,} prunable weights kept ({found['density_pct']:.2f} %)"
    return "\n\n".join([grid(about, [], [None, 90], "plain"), grid(layers, ["tensor", "shape", "kept, %"]), total])
