"""Records and a manifest as measurements: what the comparison reads. Missing records are simply absent."""
from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.flags import Flags
from bench.measurement import Gate, Measurement, RunInfo
from bench.store import Store
from ltcore.errors import UserError
from replications import papers
from replications.papers import PaperData
from replications.schema import Paper


def read(manifest: Mapping[str, Any], store: Store, data: PaperData) -> list[Measurement]:
    """Every number that the manifest's points have measured so far, in the manifest's order."""
    return [m for p in manifest["points"] if store.has(p["stage"]) for m in _of_point(p, store.record(p["stage"]), data, manifest)]


def _of_point(point: Mapping[str, Any], record: Mapping[str, Any], data: PaperData, manifest: Mapping[str, Any]) -> list[Measurement]:
    facts = record["facts"]
    density = facts.get(_counted(data, point["protocol"]))
    own_net = any(f".{field}." in text for field in ("model", "pruning") for text in manifest["flags"]["sets"])
    base = dict(point["base"]) | _percent(point, data, density, own_net)
    return [
        Measurement(
            point["protocol"], {**point["condition"], **v["condition"]}, base, point["trial"], point["draw"], v["metric"], v["at"],
            math.nan if v["value"] is None else v["value"], v["resolution"], v["censored"], facts.get("failed", ""), density, point["stage"],
        )
        for v in record["values"]
    ]  # fmt: skip


def _counted(data: PaperData, protocol: str) -> str:
    """Which density the paper's percentages are of."""
    return "density_all" if data.protocol(protocol).get("pct_counts") == "all-weights" else "density_prunable"


def _percent(point: Mapping[str, Any], data: PaperData, density: float | None, own_net: bool) -> dict[str, float]:
    """The percentage of a level: the ladder's where this is the protocol's own network and rates, else the measured one."""
    level, special = point["condition"].get("level"), own_net or {"network", "rate_per_round"} & set(point["condition"])
    if level is None:
        return {}
    ladder = {} if special else data.ladder(point["protocol"])
    if level in ladder:
        return {"weights_remaining_pct": ladder[level]}
    return {} if density is None else {"weights_remaining_pct": round(100 * density, 2)}


def run_info(manifest: Mapping[str, Any], store: Store, paper: Paper, data: PaperData) -> RunInfo:
    """What was run, whether it may be compared number by number, and where it comes from."""
    protocols = [p["id"] for p in data.protocols if p.get("experiment", True)]
    ran = {e["protocol"]: e for e in manifest["experiments"].values()}
    n = {protocol: e["trials"] for protocol, e in ran.items()}
    comparable = {protocol: _why_not(manifest, ran[protocol]) for protocol in ran}
    not_run = {p: _not_run(p, manifest, paper) for p in protocols if p not in ran}
    gates = {e.protocol: gate for e in paper.experiments if e.gate and e.protocol in ran and (gate := _gate(e.gate, data))}
    return RunInfo(paper.key, manifest["scale"], n, comparable, not_run, gates, manifest.get("looks", 1), _provenance(manifest, store, paper))


def _why_not(manifest: Mapping[str, Any], experiment: Mapping[str, Any]) -> str:
    reasons = []
    if manifest["scale"] != "paper":
        reasons.append(f"scale {manifest['scale']}: {experiment['recipe']['length'].replace('it', ' iterations')}")
    own, common = experiment["data"]["name"], manifest["data"]
    if common["fallback_for"] or own != common["name"]:
        reasons.append(f"data: {own} instead of {manifest['wanted']}")
    elif manifest["scale"] == "smoke":
        reasons.append(f"data: smoke always runs on {own}")
    if manifest["flags"]["sets"]:
        reasons.append("--set " + " ".join(manifest["flags"]["sets"]))
    if manifest["flags"]["with_file"]:
        reasons.append(f"--with {Path(manifest['flags']['with_file']).name}")
    return "; ".join(reasons)


def _not_run(protocol: str, manifest: Mapping[str, Any], paper: Paper) -> str:
    if protocol in paper.not_covered:
        return paper.not_covered[protocol]
    mine = [e for e in paper.experiments if e.protocol == protocol]
    if not mine:
        return "no experiment of this program runs it yet"
    if manifest["flags"]["experiments"]:
        return "not among the experiments asked for"
    return f"not part of scale {manifest['scale']}: name it with --experiment {mine[0].id}"


def _gate(row_id: str, data: PaperData) -> Gate | None:
    """The band of the dense network: the range over the paper's own trials."""
    row = next((r for r in data.published if r.id == row_id), None)
    if row is None or row.spread is None or row.spread.min is None:
        return None
    return Gate(row.metric, row.condition.get("at"), row.spread.min, row.spread.max, f"{row.id}: {row.source}")


def _provenance(manifest: Mapping[str, Any], store: Store, paper: Paper) -> dict[str, Any]:
    """No wall-clock here: tables of two identical runs are identical."""
    machines = [store.record(p["stage"])["machine"] for p in manifest["points"] if store.has(p["stage"])]
    distinct = {key: _distinct(m[key] for m in machines) for key in ("device", "threads", "python", "versions", "source_hash")}
    deviations = [{"what": d.what, "paper": d.paper, "ours": d.ours, "why": d.why} for d in paper.deviations]
    return {"data": _data(manifest), **distinct, "flags": dict(manifest["flags"]), "deviations": deviations}


def _data(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The data of the run, with the fingerprint of what was trained on (a miniature's options make another set of the same name).

    Keyed by protocol where one of them ran on another set (a user's own).
    """
    common = manifest["data"]
    used = {e["protocol"]: (common if e["data"]["name"] == common["name"] else {}) | e["data"] for e in manifest["experiments"].values()}
    first = next(iter(used.values()))
    return dict(first) if first["name"] == common["name"] and all(d == first for d in used.values()) else used


def _distinct(values: Any) -> Any:
    """The one value that all records share, else all that occur, in a fixed order."""
    found = {repr(v): v for v in values}
    return next(iter(found.values())) if len(found) == 1 else [found[k] for k in sorted(found)]


def find_manifest(store: Store, paper: str, scale: str | None, flags: tuple[Flags, ...] = ()) -> dict[str, Any]:
    """The latest manifest of a paper and scale, or the latest that one of these sets of flags made.

    Raises:
        UserError: nothing was run yet.
    """
    prefixes = [f"{paper}-{f.scale}-{f.key()}" for f in flags] or [f"{paper}-{scale}-" if scale else f"{paper}-"]
    found = max((path for prefix in prefixes for path in store.manifests(prefix)), key=lambda p: (p.stat().st_mtime_ns, p.name), default=None)
    if found is None and flags:
        raise UserError(f"nothing was run in {store.root} with these flags: see 'python -m bench status {paper}' for what was")
    if found is None:
        wanted = f" --scale {scale}" if scale else ""
        raise UserError(f"nothing was run yet in {store.root}: run 'python -m bench replicate {paper}{wanted}' first")
    return store.read_manifest(found)


def comparison(manifest: Mapping[str, Any], store: Store, paper: Paper) -> dict[str, Any]:
    """The comparison of what the store holds for this manifest."""
    from bench import compare, insights, networks, summary

    data = papers.load(paper.key)
    measured, run = read(manifest, store, data), run_info(manifest, store, paper, data)
    more = {"arms": summary.arms(measured), "networks": networks.networks(manifest, store), "insights": insights.sparsest_matching(data, measured, run)}
    return compare.compare(data, measured, run) | compare.tidy(more)
