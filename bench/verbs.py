"""What the verbs of the command line do. Heavy imports stand inside the functions: ``list`` must answer at once."""
from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import duration
from bench.store import Store, default_root
from ltcore.errors import UsageError, UserError

if TYPE_CHECKING:
    from bench.execute import Outcome
    from bench.flags import Flags
    from bench.plan import Plan

STOPPED, FAILED = 75, 1


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False))


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---- list, explain -------------------------------------------------------------------------------------------
def list_papers(as_json: bool) -> None:
    from bench.catalogue import catalogue, render

    _print_json(catalogue()) if as_json else print(render(catalogue()))


def explain(key: str, scale: str, as_json: bool) -> None:
    from bench.catalogue import card, render_card

    _print_json(card(key, scale)) if as_json else print(render_card(card(key, scale)))


# ---- plan, replicate -----------------------------------------------------------------------------------------
def _make(key: str, flags: Flags) -> Plan:
    from bench import plan
    from replications import registry

    return plan.make(registry.load(key), flags)


def device_of(name: str, executor: str = "local") -> str:
    """``auto`` resolved; UserError where a GPU is asked for and none is there. What a Ray cluster has shows when it is connected."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}: use auto, cpu or cuda")
    if name == "cpu" or executor == "ray":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise UserError("no CUDA device here (or this PyTorch is a CPU build): use --device cpu, or see 'python -m bench doctor'")
    return "cpu"


def show_plan(key: str, flags: Flags, store: Path | None, device: str, as_json: bool) -> None:
    from bench import estimate

    plan, device = _make(key, flags), device_of(device)
    root = store or default_root()
    summary = estimate.summary(plan, Store(root) if (root / "layout.json").exists() else None, device, workers(device))
    if as_json:
        return _print_json(summary)
    print(estimate.render(summary, plan))


def workers(device: str) -> int:
    """One process a core on CPU; one in all on a GPU."""
    return 1 if device == "cuda" else max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 1)


def replicate(key: str, flags: Flags, store_root: Path | None, device: str, max_time: str | None, executor: str, keep: str, as_json: bool) -> int:
    from bench import execute, tables
    from bench import measurements as measuring
    from bench import plan as planning
    from bench.progress import Reporter

    if executor not in ("local", "ray"):
        raise UsageError(f"unknown executor {executor!r}: use local or ray")
    if keep not in ("needed", "all"):
        raise UsageError(f"bad --keep {keep!r}: use needed or all")
    limit = duration.seconds(max_time) if max_time else None
    device = device_of(device, executor)
    plan, store = _make(key, flags), Store(store_root or default_root())
    for note in plan.notes:
        _log(f"note: {note}")
    manifest = planning.manifest(plan, store)
    store.write_manifest(planning.manifest_name(plan), manifest)
    with Reporter(f"{key} ({flags.scale}, {plan.data_names})") as reporter:
        options = execute.Options(device, workers(device), 1 if device == "cpu" else STACK, limit, keep, reporter, executor)
        outcome = execute.execute(plan, store, options)
    comparison = measuring.comparison(manifest, store, plan.paper)
    _print_json(comparison) if as_json else print(tables.render(comparison))
    return _tell(outcome, plan)


STACK = 128  # replicates a stack on a GPU: LeNet's weights, gradients and Adam state are then about 0.6 GB


def _tell(outcome: Outcome, plan: Plan) -> int:
    for why in dict.fromkeys(outcome.failures.values()):
        n = sum(w == why for w in outcome.failures.values())
        _log(f"error: {n} stage{'s' if n > 1 else ''} failed: {why}")
    if outcome.failures:
        return FAILED
    if outcome.stopped:
        _log("stopped at --max-time; what is done is kept, run the same command again to go on")
        return STOPPED
    return 0


# ---- reading the store ---------------------------------------------------------------------------------------
def _open(store: Path | None) -> Store:
    return Store(store or default_root(), create=False)


def _found(key: str, flags: tuple[Flags, ...], scale: str | None, store: Path | None) -> tuple[Mapping[str, Any], Store, Any]:
    from bench import measurements as measuring
    from replications import registry

    paper, opened = registry.load(key), _open(store)
    return measuring.find_manifest(opened, key, scale, flags), opened, paper


def status(key: str | None, scale: str | None, store: Path | None, as_json: bool) -> None:
    from bench.grid import of_keys

    if key:
        from replications import registry

        registry.load(key)
    opened = _open(store)
    rows = []
    for path in opened.manifests(f"{key}-" if key else ""):
        m = opened.read_manifest(path)
        if scale and m["scale"] != scale:
            continue
        for name, e in m["experiments"].items():
            stages = {p["stage"] for p in m["points"] if p["label"] == name}
            done = sum(opened.has(s) for s in stages)
            rows.append({"paper": m["paper"], "scale": m["scale"], "experiment": name, "data": e["data"]["name"], "trials": e["trials"],
                         "levels": e["levels"], "done": done, "of": len(stages), "manifest": path.stem})  # fmt: skip
    if as_json:
        return _print_json(rows)
    print(of_keys(rows) if rows else f"nothing was run yet in {opened.root}")


def compare(key: str, flags: tuple[Flags, ...], scale: str | None, store: Path | None, as_json: bool, show_all: bool) -> None:
    from bench import measurements as measuring
    from bench import tables

    comparison = measuring.comparison(*_found(key, flags, scale, store))
    _print_json(comparison) if as_json else print(tables.render(comparison, show_all))


def export(key: str, fmt: str, output: Path | None, flags: tuple[Flags, ...], scale: str | None, store: Path | None) -> None:
    from bench import export as exporting
    from bench import measurements as measuring

    text = exporting.export(measuring.comparison(*_found(key, flags, scale, store)), fmt)
    if output is None:
        return print(text)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't write {output}: {error.strerror}") from error


def plot(key: str, output: Path, flags: tuple[Flags, ...], scale: str | None, store: Path | None) -> None:
    from bench import measurements as measuring
    from bench import plots
    from replications import papers

    manifest, opened, paper = _found(key, flags, scale, store)
    data = papers.load(key)
    try:
        paths = plots.plot(data, measuring.read(manifest, opened, data), measuring.run_info(manifest, opened, paper, data), output)
        print("\n".join(map(str, paths)) or "nothing to plot: no arm has two sizes measured, and no published number was measured")
    except OSError as error:
        raise UserError(f"can't write plots to {output}: {error.strerror}") from error


# ---- data, doctor --------------------------------------------------------------------------------------------
def data(action: str, names: list[str], folder: Path | None, as_json: bool) -> int:
    from bench import data_verb
    from bench.grid import of_keys

    if action not in ("list", "fetch", "verify"):
        raise UsageError(f"unknown action {action!r}: use list, fetch or verify")
    rows = data_verb.list_sets(folder) if action == "list" else getattr(data_verb, action)(names, folder)
    rows = [r for r in rows if not names or r["name"] in names]
    _print_json(rows) if as_json else print(of_keys(rows, 40))
    return FAILED if action != "list" and any(r["status"] in ("missing", "incomplete", "damaged") for r in rows) else 0


def doctor(store: Path | None, as_json: bool) -> int:
    import dataclasses

    from bench import doctor as examining
    from bench.grid import of_keys

    checks = [dataclasses.asdict(c) for c in examining.examine(store or default_root())]
    _print_json(checks) if as_json else print(of_keys(checks, [None, None, 50, 60]))
    return FAILED if any(c["status"] == "fail" for c in checks) else 0
