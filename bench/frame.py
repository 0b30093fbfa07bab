"""The whole store as one tidy table for pandas: one row per measured value.

>>> from bench.frame import records
>>> from bench.store import Store
>>> frame = records(Store("results-store"))
>>> frame[frame.metric == "early_stop_it"].groupby(["optimizer", "lr"]).value.mean()

Arms and levels are not in a record, as one stage may stand for several: :func:`points` has them, one row per line of a manifest,
joined by ``stage``.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bench.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

# Column -> what it is and when it is present; "always" means in every row. Absent values are missing (NaN, None).
COLUMNS: dict[str, str] = {
    "stage": "hash of the stage; always. With ~device after it where merge kept another machine's result beside the first",
    "kind": "kind of stage, train or measure as others measure nothing; always",
    "metric": "name with its unit; always",
    "at": "early-stop, end or 30000it; where the metric is read at a point (early_stop_it is a time itself)",
    "layer": "number of the layer; where a stage measures layer by layer",
    "value": "the number, in the metric's unit; missing where it was not finite",
    "resolution": "one test example or one evaluation interval, in the metric's unit; 0 where there is none; always",
    "censored": "the minimum of validation loss lies at the last evaluation; always, False where the metric is no time",
    "failed": "empty, or why the trial does not count (diverged, stayed at chance); train, and measure where a trained network is read",
    "density_prunable": "fraction kept of the weights that may be pruned, counted in the weights at the end; train",
    "density_all": "fraction kept of all weights (no biases, no normalisation); train",
    "density_channels": "fraction kept of the batch-norm scales that may go; train, of physically smaller networks",
    "flops_remaining_pct": "FLOPs of a pass, in percent of the whole network's; train, of physically smaller networks",
    "density_effective": "fraction on some path from input to output; train, where layers form a fully connected chain",
    "density_layers": "{layer: fraction kept}; train",
    "kept": "number of prunable weights kept; train",
    "collapsed": "names of layers that keep no weight; train",
    "sign_agreement_pct": "share of kept weights whose sign is that of the segment's start; train",
    "early_stop_it": "iteration of the minimum of validation loss; train",
    "n_train": "training examples without the validation split; train",
    "n_val": "validation examples; train",
    "n_test": "test examples; train",
    "trial": "the seed: first number of the batch order's stream; train",
    "streams": "{use: path} of the random streams of order, split and labels; train",
    "model": "name of the model family; train",
    "model_options": "its options, such as hidden; train",
    "init": "name of the scheme that weights are drawn by; train",
    "data": "name of the data set; train",
    "data_fingerprint": "sha256 of its arrays; train",
    "optimizer": "adam or sgd; train",
    "lr": "learning rate before warm-up and drops; train",
    "momentum": "of SGD, 0 otherwise; train",
    "weight_decay": "train",
    "batch_size": "train",
    "start_it": "first iteration of the segment; train",
    "stop_it": "iteration that the segment ends before; train",
    "precision": "fp32, fp64 …; train",
    "masked": "was the network pruned before this segment?; train",
    "device": "cpu and its architecture, or the GPU's name; always",
    "threads": "threads of one stage; always",
    "stack": "replicates trained as one; always",
    "wall_s": "seconds of this stage over all its sittings, a stack's divided by its replicates; always. No table or comparison shows it",
    "energy_J": "joules drawn by the GPU during this stage, over all its sittings, as with wall_s; where NVML answers throughout",
    "torch": "version of PyTorch; always",
    "python": "version of Python; always",
    "source_hash": "sha256 over the engine's source; always",
}
_FACTS = ("failed", "density_prunable", "density_all", "density_channels", "flops_remaining_pct", "density_effective",
          "density_layers", "kept", "collapsed", "sign_agreement_pct", "early_stop_it", "n_train",
          "n_val", "n_test")  # fmt: skip


def records(store: Store) -> DataFrame:
    """Every value that the store holds, with the columns of ``COLUMNS``; sorted by stage, so that two equal stores give one frame.

    Raises:
        UserError: a record is damaged.
    """
    from pandas import DataFrame

    return DataFrame([row for stage in store.stages() for row in _rows(stage, store.record(stage))], columns=list(COLUMNS))


def points(store: Store) -> DataFrame:
    """Every line of every manifest: manifest, paper, scale, label, protocol, trial, draw, stage, arm, level, weights_remaining_pct, setting.

    ``level`` is missing for arms that are pruned to a size in one go, ``setting`` holds the other words of the condition.
    """
    from pandas import DataFrame

    named = ("arm", "level", "weights_remaining_pct")
    rows = [
        {"manifest": path.stem, "paper": m["paper"], "scale": m["scale"], **{k: p[k] for k in ("label", "protocol", "trial", "draw", "stage")},
         **{k: (p["base"] | p["condition"]).get(k) for k in named}, "setting": {k: v for k, v in p["condition"].items() if k not in named}}
        for path in store.manifests("") for m in [store.read_manifest(path)] for p in m["points"]
    ]  # fmt: skip
    return DataFrame(rows)


def _rows(stage: str, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shared = {"stage": stage, "kind": record["stage"]["kind"], **_network(record), **_training(record["stage"]), **_machine(record["machine"])}
    for v in record["values"]:
        yield shared | {k: v[k] for k in ("metric", "at", "value", "resolution", "censored")} | {"layer": v["condition"].get("layer")}


def _network(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: record["facts"].get(k) for k in _FACTS}


def _training(stage: Mapping[str, Any]) -> dict[str, Any]:
    p = stage["params"]
    if stage["kind"] != "train":
        return {}
    return {
        "trial": p["streams"]["order"][0], "streams": p["streams"], "model": p["model"]["name"], "model_options": p["model"]["options"],
        "init": p["model"]["init"], "data": p["data"]["name"], "data_fingerprint": p["data"]["fingerprint"],
        "optimizer": p["optimizer"]["name"], **{k: p["optimizer"][k] for k in ("lr", "momentum", "weight_decay")},
        "batch_size": p["batch_size"], "start_it": p["start"], "stop_it": p["stop"], "precision": p["precision"],
        "masked": "mask" in stage["inputs"],
    }  # fmt: skip


def _machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    told = {k: machine[k] for k in ("device", "threads", "stack", "wall_s", "python", "source_hash")}
    return told | {"torch": machine["versions"]["torch"], "energy_J": machine.get("energy_J")}
