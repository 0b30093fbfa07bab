"""Records and a manifest as measurements: what the comparison reads. Missing records are simply absent."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.flags import Flags
from bench.joins import NOT_CONDITIONS, OF_PRUNED
from bench.measurement import Gate, Measurement, RunInfo
from bench.store import Store
from ltcore.errors import UserError
from replications import papers
from replications.papers import PaperData
from replications.schema import Band, Paper

# Conditions whose networks or rates are not the protocol's own, so that its ladder of percentages is not theirs.
OWN_RATES = {"network", "rate_per_round", "conv_rate_per_round", "pruned"}

# What a measure stage reads of trained networks: what -> roles of its inputs.
NETWORKS = {"top-5": ("state",), "linear-path": ("a", "b"), "stability": ("a", "b"), "weight-movement": ("end",)}


def read(manifest: Mapping[str, Any], store: Store, data: PaperData) -> list[Measurement]:
    """Every number that the manifest's points have measured so far, in the manifest's order."""
    return [m for p in manifest["points"] if store.has(p["stage"]) for m in _of_point(p, record_of(p["stage"], store), data, manifest)]


def record_of(stage: str, store: Store) -> dict[str, Any]:
    """A stage's record; that of a measure says in its facts, too, why the networks that it reads don't count, where the store knows."""
    record = store.record(stage)
    said = record["stage"]
    if said["kind"] != "measure":
        return record
    read_of = [said["inputs"][role][0] for role in NETWORKS.get(said["params"].get("what"), ())]
    each = [record["facts"].get("failed", ""), *(store.record(s)["facts"].get("failed", "") for s in read_of if store.has(s))]
    failed = next(filter(None, each), "")
    return {**record, "facts": {**record["facts"], "failed": failed}} if failed else record


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
    counts = data.protocol(protocol).get("pct_counts")
    return {"all-weights": "density_all", "channels": "density_channels"}.get(counts, "density_prunable")


def _percent(point: Mapping[str, Any], data: PaperData, density: float | None, own_net: bool) -> dict[str, float]:
    """The percentage of a level: the ladder's where this is the protocol's own network and rates, else the measured one."""
    level, special = point["condition"].get("level"), own_net or OWN_RATES & set(point["condition"])
    if level is None:
        return {}
    ladder = {} if special else data.ladder(point["protocol"])
    if level in ladder:
        return {"weights_remaining_pct": ladder[level]}
    return {} if density is None else {"weights_remaining_pct": round(100 * density, 2)}


def run_info(manifest: Mapping[str, Any], store: Store, paper: Paper, data: PaperData) -> RunInfo:
    """What was run, whether it may be compared number by number, and where it comes from."""
    ran = _by_protocol(manifest)
    n = {protocol: min(e["trials"] for e in experiments) for protocol, experiments in ran.items()}
    comparable = {protocol: _why_not(manifest, experiments) for protocol, experiments in ran.items()}
    not_run = {p["id"]: _not_run(p["id"], manifest, paper) for p in data.protocols if p.get("experiment", True) and p["id"] not in ran}
    return RunInfo(paper.key, manifest["scale"], n, comparable, not_run, _gates(manifest, paper, data), manifest.get("looks", 1),
                   _provenance(manifest, store, paper))


def _by_protocol(manifest: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The experiments that were run, by protocol."""
    ran: dict[str, list[Mapping[str, Any]]] = {}
    for e in manifest["experiments"].values():
        ran.setdefault(e["protocol"], []).append(e)
    return ran


def _why_not(manifest: Mapping[str, Any], experiments: Iterable[Mapping[str, Any]]) -> str:
    """All that keeps a protocol's rows from being compared number by number; what holds for one of its experiments counts for all."""
    reasons = [reason for e in experiments for reason in _of_experiment(manifest, e)]
    if manifest["flags"]["sets"]:
        reasons.append("--set " + " ".join(manifest["flags"]["sets"]))
    if manifest["flags"]["with_file"]:
        reasons.append(f"--with {Path(manifest['flags']['with_file']).name}")
    return "; ".join(dict.fromkeys(reasons))


def _of_experiment(manifest: Mapping[str, Any], experiment: Mapping[str, Any]) -> Iterable[str]:
    if experiment.get("note"):
        yield experiment["note"]
    for name, source in experiment.get("sources", {}).items():
        if source["data"]["note"]:
            yield f"source {name}: {source['data']['note']}"
    if manifest["scale"] != "paper":
        yield f"scale {manifest['scale']}: {experiment['recipe']['length'].replace('it', ' iterations')}"
    data = _data_of(experiment, manifest)
    if data["fallback_for"] or data["name"] != data["found"]:
        yield f"data: {data['name']} instead of {data['wanted']}"
    elif data["note"]:  # a part of the set
        yield f"data: {data['note']}"
    elif manifest["scale"] == "smoke":
        yield f"data: smoke always runs on {data['name']}"


def _data_of(experiment: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment's data. Older manifests, with one set a paper, say of the whole run what was wanted and what was found."""
    data = dict(experiment["data"])
    if "found" in data:
        return data
    common = manifest["data"]
    return common | data | {"found": common["name"], "wanted": manifest["wanted"]}


def _not_run(protocol: str, manifest: Mapping[str, Any], paper: Paper) -> str:
    if protocol in paper.not_covered:
        return paper.not_covered[protocol]
    mine, scale = [e for e in paper.experiments if e.protocol == protocol], manifest["scale"]
    if not mine:
        return "no experiment of this program runs it yet"
    if protocol in manifest.get("skipped", {}):
        return manifest["skipped"][protocol]
    if not any(at == scale for e in mine for at, _ in e.scaled):
        said = paper.why_not(protocol, scale)
        return f"not declared at scale {scale}" if said == "not declared" else said
    if manifest["flags"]["experiments"]:
        return "not among the experiments asked for"
    return f"not part of scale {scale}: name it with --experiment {mine[0].id}"


# ---- the dense gate ------------------------------------------------------------------------------------------
LEAST_HALF_WIDTH = 0.3  # ours: three units of the one decimal to which the papers print accuracies; half-widths of 0.0 are printed too


def _gates(manifest: Mapping[str, Any], paper: Paper, data: PaperData) -> dict[str, tuple[Gate, ...]]:
    """The bands of each protocol, of the experiments that were run; each row once."""
    declared = {(e.protocol, e.gate): None for e in paper.experiments if e.gate and e.label in manifest["experiments"]}
    found = [(protocol, gate) for protocol, of in declared if (gate := Gate(**vars(of)) if isinstance(of, Band) else _gate(of, data))]
    return {protocol: tuple(g for p, g in found if p == protocol) for protocol, _ in found}


def _gate(row_id: str, data: PaperData) -> Gate | None:
    """The band of the dense network: the range over the paper's own trials, or what it prints around the mean, at least `LEAST_HALF_WIDTH`.

    None where the row has no spread, or one that is no range (an sd).
    """
    row = next((r for r in data.published if r.id == row_id), None)
    if row is None or row.spread is None:
        return None
    low, high = row.spread.min, row.spread.max
    if low is None and row.spread.kind in ("half-width", "unknown"):
        half = max(row.spread.value, LEAST_HALF_WIDTH)
        low, high = round(row.value - half, 6), round(row.value + half, 6)
    condition = {k: v for k, v in row.condition.items() if k not in {"arm", "at", *NOT_CONDITIONS, *OF_PRUNED}}
    return None if low is None else Gate(row.metric, row.condition.get("at"), low, high, f"{row.id}: {row.source}", condition)


def _provenance(manifest: Mapping[str, Any], store: Store, paper: Paper) -> dict[str, Any]:
    """No wall-clock here: tables of two identical runs are identical."""
    machines = [store.record(p["stage"])["machine"] for p in manifest["points"] if store.has(p["stage"])]
    distinct = {key: _distinct(m[key] for m in machines) for key in ("device", "threads", "python", "versions", "source_hash")}
    deviations = [{"what": d.what, "paper": d.paper, "ours": d.ours, "why": d.why} for d in paper.deviations]
    return {"data": _data(manifest), **distinct, "flags": dict(manifest["flags"]), "deviations": deviations}


def _data(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The data of the run, with the fingerprint of what was trained on (a miniature's options make another set of the same name).

    Keyed by protocol where protocols ran on different sets; within a protocol too where its experiments did.
    """
    told = {p: [_told(_data_of(e, manifest)) for e in experiments] for p, experiments in _by_protocol(manifest).items()}
    used = {protocol: _distinct(data) for protocol, data in told.items()}
    first = next(iter(used.values()))
    return first if "note" in first and all(d == first for d in used.values()) else used


def _told(data: Mapping[str, Any]) -> dict[str, Any]:
    """Of another set than the scale's (a user's own) only what it is: it stands in for nothing."""
    kept = ("name", "source", "fingerprint", *(("fallback_for", "note") if data["name"] == data["found"] else ()))
    return {k: data[k] for k in kept}


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
