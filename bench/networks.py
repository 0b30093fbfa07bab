"""What an expert looks for beside the claims: of every arm's networks the densities layer by layer, layers that collapsed, the weights that
lie on a path from input to output, and the signs kept since the start."""
from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.store import Store

MOST_NAMED = 5  # layers of a network that lost some


def networks(manifest: Mapping[str, Any], store: Store) -> list[dict[str, Any]]:
    """One entry per protocol, condition and level that was trained, in the manifest's order; means over all its networks.

    Returns:
        Dicts {protocol, condition, n, density_layers {layer: fraction kept}, density_effective (None where the layers form no chain),
        sign_agreement_pct, collapsed (one text a network that lost a layer)}.
    """
    groups: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for p in manifest["points"]:
        facts = store.record(p["stage"])["facts"] if store.has(p["stage"]) else {}
        if "sign_agreement_pct" in facts:
            groups.setdefault(json.dumps([p["protocol"], p["condition"]], sort_keys=True), []).append((p, facts))
    return [_entry(group) for group in groups.values()]


def _entry(group: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    point, facts = group[0][0], [f for _, f in group]
    effective = [f["density_effective"] for f in facts]
    return {
        "protocol": point["protocol"], "condition": point["condition"], "n": len(group),
        "density_layers": {n: _mean(f["density_layers"][n] for f in facts) for n in facts[0]["density_layers"]},
        "density_effective": None if None in effective else _mean(effective),
        "sign_agreement_pct": _mean(f["sign_agreement_pct"] for f in facts),
        "collapsed": [f"trial {p['trial']}: {_named(f['collapsed'])}" for p, f in group if f["collapsed"]],
    }  # fmt: skip


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _named(layers: Sequence[str]) -> str:
    """The first few, and how many more: of a net of a hundred tensors tens of biases may be gone."""
    return ", ".join(layers[:MOST_NAMED]) + (f" and {len(layers) - MOST_NAMED} more" if len(layers) > MOST_NAMED else "")
