"""``check``: the smoke scale of every paper against a committed baseline.

Counts must be equal everywhere; stage hashes wherever the data are (their fingerprint is in the hash, and a formula may round otherwise
on another CPU); data and masks where torch and CPU are those of the baseline; floats must lie within 4 standard deviations of the mean
over the baseline's seeds (at least 5, so that a lucky run cannot set the bar). Points on a text that comes with Python are not compared
under a version of Python where it is another text, and that is said.
"""
from __future__ import annotations

import hashlib
import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import execute, machine
from bench import plan as planning
from bench.flags import Flags
from bench.grid import grid
from bench.plan import Plan, Point
from bench.store import Store, default_root
from bench.verbs import workers
from ltcore.data import DATASETS
from ltcore.errors import UserError
from ltcore.stages import canonical
from replications import registry

BASELINE = Path(__file__).parent / "baselines" / "smoke.json"
EXACT = ("stage", "data", "kept", "mask")
MACHINE = ("device", "capability", "cpu", "torch")  # on which data and masks are the same to the bit
MADE_BY = ("device", "versions", "source_hash")  # of a record: what its numbers may depend on beside its hash
SEEDS = 6
ALLOWED_SD = 4.0


@dataclass(frozen=True)
class Moved:
    """One thing that is not as it was."""

    paper: str
    where: str
    what: str
    baseline: Any
    now: Any


def check(baseline: Path | None, update: bool, store: Path | None, as_json: bool) -> int:
    """Runs, compares (or writes the baseline anew) and prints; returns the exit code."""
    path = baseline or BASELINE
    opened = Store(store or default_root())
    if update:
        _write(path, {"machine": _machine(), "papers": {key: _baseline(key, opened) for key in registry.MODULES}})
        print(f"baseline of {len(registry.MODULES)} paper(s), {SEEDS} seeds, written to {path}", file=sys.stderr)
        return 0
    expected = read(path)
    results = {key: run(key, opened, 1) for key in registry.MODULES}
    moved = [m for key, found in results.items() for m in compare(key, expected, found)]
    apart = [line for key, found in results.items() for line in not_compared(key, expected, found)]
    moved += [Moved(key, "paper", "module", "runs", "none") for key in expected["papers"] if key not in registry.MODULES]
    if as_json:
        print(json.dumps({"moved": [vars(m) for m in moved], "not_compared": apart}, indent=1))
        return 1 if moved else 0
    if moved:
        rows = [(m.paper, m.where, m.what, m.baseline, m.now) for m in moved]
        print(grid(rows, ["paper", "where", "what", "baseline", "now"], [None, 50, None, 30, 30]))
    else:
        print(f"check: nothing moved in {', '.join(registry.MODULES)} (scale smoke, baseline {path.name})")
    print("".join(f"not compared: {line}\n" for line in apart), end="")
    return 1 if moved else 0


def read(path: Path) -> dict[str, Any]:
    """A baseline file.

    Raises:
        UserError: missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        whole = "machine" in found and all(_whole(paper) for paper in found["papers"].values())
        if not whole:
            raise ValueError("entries are missing")
        return found
    except FileNotFoundError:
        raise UserError(f"no baseline at {path}: write one with 'python -m bench check --update'") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"baseline {path} can't be read ({error}): restore it, or write it anew with 'python -m bench check --update'") from error


def _whole(paper: Mapping[str, Any]) -> bool:
    points = paper["exact"].keys() == paper["floats"].keys() and all(set(EXACT) <= set(point) for point in paper["exact"].values())
    return points and all({"mean", "sd", "n"} <= set(b) for metrics in paper["floats"].values() for b in metrics.values())


def run(key: str, store: Store, trials: int) -> dict[str, dict[str, Any]]:
    """Smoke results of a paper: point -> {stage, kept, mask, values} for each trial."""
    plan = planning.make(registry.load(key), Flags("smoke", trials=trials))
    store = _of_this_engine(plan, store)
    outcome = execute.execute(plan, store, execute.Options(workers=workers("cpu")))
    if outcome.failures:
        raise UserError(f"{key}: {next(iter(outcome.failures.values()))}")
    data = {label: _about(about["data"]) for label, about in plan.about.items()}
    return {f"{_name(p)}, trial {p.trial}": {**_result(p, store), **data[p.label]} for p in plan.points}


def _about(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": data["fingerprint"], "with_python": getattr(DATASETS.get(data["name"]), "with_python", False)}


def _of_this_engine(plan: Plan, store: Store) -> Store:
    """The store; where it holds some of these stages by another engine source, library or device, a folder in it for this one's own.

    A stage's hash names what is asked for, not the code that answers: old records would hide whatever a change of the engine moved.
    """
    mine = {key: machine.facts("cpu")[key] for key in MADE_BY}
    theirs = (store.record(s.hash)["machine"] for s in plan.stages if store.has(s.hash))
    if all(mine == {key: m.get(key) for key in MADE_BY} for m in theirs):
        return store
    return Store(store.root / "check" / hashlib.sha256(canonical(mine).encode()).hexdigest()[:16])


def _name(p: Point) -> str:
    words = ", ".join(f"{k} {v}" for k, v in p.condition.items() if k != "arm")
    return f"{p.label}: {p.condition['arm']}" + (f", {words}" if words else "") + (f", draw {p.draw}" if p.draw else "") + _measured(p)


def _measured(p: Point) -> str:
    return f" ({p.stage.params['what']})" if p.stage.kind == "measure" else ""


def _result(p: Point, store: Store) -> dict[str, Any]:
    record, mask = store.record(p.stage.hash), p.stage.inputs.get("mask") or p.stage.inputs.get("channels")
    read = [v for v in record["values"] if v["condition"].get("from_epoch", 1) == 1]  # of a matrix one row
    values = {f"{v['metric']}{'@' + v['at'] if v['at'] else ''}{_of(v['condition'])}": v["value"] for v in read}
    floors = {f"{v['metric']}{'@' + v['at'] if v['at'] else ''}{_of(v['condition'])}": v["resolution"] for v in read}
    digest = None if mask is None else _digest(store.load(mask.stage.hash, mask.artefact))
    return {"stage": p.stage.hash, "kept": record["facts"].get("kept"), "mask": digest, "values": values, "floors": floors}


def _of(condition: Mapping[str, Any]) -> str:
    return "".join(f" {k} {v}" for k, v in condition.items())


def _digest(mask: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(mask):
        digest.update(name.encode() + mask[name].numpy().tobytes())
    return digest.hexdigest()[:16]


def _machine() -> dict[str, str]:
    facts = machine.facts("cpu")
    return {"device": facts["device"], "capability": facts["capability"], "cpu": machine.cpu_model(), "torch": facts["versions"]["torch"],
            "python": facts["python"]}  # fmt: skip


def _baseline(key: str, store: Store) -> dict[str, Any]:
    results = run(key, store, SEEDS)
    first = {name.removesuffix(", trial 0"): r for name, r in results.items() if name.endswith(", trial 0")}
    exact = {name: {k: r[k] for k in EXACT} for name, r in first.items()}
    floats = {name: _spread([results[f"{name}, trial {t}"] for t in range(SEEDS)]) for name in first}
    return {"exact": exact, "floats": floats}


def _spread(results: list[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Mean and sd over the seeds; the sd is at least the metric's resolution. No mean where a run gave no finite number."""
    out = {}
    for metric, floor in results[0]["floors"].items():
        values = [r["values"][metric] for r in results]
        known = {"mean": None, "sd": 0.0} if None in values else {"mean": statistics.fmean(values), "sd": max(statistics.stdev(values), floor)}
        out[metric] = {**known, "n": len(values)}
    return out


def compare(key: str, expected: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> Iterable[Moved]:
    """What moved between a baseline and a run of trial 0."""
    base = expected["papers"].get(key)
    if base is None:
        yield Moved(key, "paper", "baseline", "none", "runs")
        return
    now = {name.removesuffix(", trial 0"): r for name, r in results.items()}
    for name in sorted(set(base["exact"]) ^ set(now)):
        yield Moved(key, name, "point", "there" if name in base["exact"] else "not there", "there" if name in now else "not there")
    here, apart = _machine(), _apart(expected, base, now)
    same_machine = all(expected["machine"].get(what) == here[what] for what in MACHINE)
    for name in sorted(set(base["exact"]) & set(now) - apart):
        yield from _compare_point(key, name, base, now[name], same_machine)


def not_compared(key: str, expected: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """What of a paper says nothing here, and why, as at most one line."""
    base = expected["papers"].get(key)
    apart = _apart(expected, base, {name.removesuffix(", trial 0"): r for name, r in results.items()}) if base else ()
    if apart:
        labels = ", ".join(sorted({name.partition(": ")[0] for name in apart}))
        written = f"Python {expected['machine'].get('python', 'of another version')}"
        yield f"{len(apart)} points of {key} ({labels}), whose text comes with Python: in {_machine()['python']} it is not that of the baseline's {written}"


def _apart(expected: Mapping[str, Any], base: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Points on data of another version of Python; where the version is the baseline's, other data have moved."""
    if expected["machine"].get("python") == _machine()["python"]:
        return set()
    return {name for name in set(base["exact"]) & set(now) if now[name]["with_python"] and now[name]["data"] != base["exact"][name]["data"]}


def _compare_point(key: str, name: str, base: Mapping[str, Any], now: Mapping[str, Any], same_machine: bool) -> Iterable[Moved]:
    exact = base["exact"][name]
    for what in ("kept", *(["stage"] if exact["data"] == now["data"] else []), *(["data", "mask"] if same_machine else [])):
        if exact[what] != now[what]:
            yield Moved(key, name, what, exact[what], now[what])
    for metric, b in base["floats"][name].items():
        value = now["values"].get(metric)
        if b["mean"] is None:
            continue
        if value is None or not math.isclose(value, b["mean"], rel_tol=0, abs_tol=ALLOWED_SD * b["sd"] + 1e-12):
            yield Moved(key, name, metric, f"{b['mean']:.4g} ± {b['sd']:.2g} (n {b['n']})", value)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't write the baseline {path}: {error.strerror}") from error
