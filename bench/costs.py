"""What a physically smaller network saves on the clock beside what it saves on paper: ``python -m bench.costs PAPER [--store DIR]``.

The measured speed-up of a training step is set against the share of FLOPs that is gone; a second table gives wall time and energy of
search, retraining and both (:mod:`bench.phases`). Wall times are those of the records, with whatever
else the machine did at the time; that is why no comparison shows them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bench import phases
from bench.measurements import find_manifest
from bench.store import Store, default_root

HEADS = (
    "experiment",
    "ticket",
    "n",
    "FLOPs left %",
    "ms a step, dense",
    "ms a step, ticket",
    "speed-up",
    "on paper",
    "speed-up / on paper",
)
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One arm of smaller networks: means over its ``n`` trials, of which each is the mean of its draws; times in milliseconds a
    training step, evaluations included."""

    label: str
    ticket: str
    n: int
    flops_pct: float
    dense_ms: float
    ticket_ms: float

    @property
    def speed_up(self) -> float:
        return self.dense_ms / self.ticket_ms

    @property
    def on_paper(self) -> float:
        """The speed-up if time were FLOPs."""
        return 100 / self.flops_pct


def rows(manifest: Mapping[str, Any], store: Store) -> list[Row]:
    """Arms of smaller networks beside the dense net of their experiment, in order; those without a dense net are left out."""
    found: dict[tuple[str, str], dict[int, list[Record]]] = {}
    dense: dict[str, dict[int, list[Record]]] = {}
    for p in manifest["points"]:
        record = store.record(p["stage"]) if store.has(p["stage"]) else None
        if record is None or record["stage"]["kind"] != "train":
            continue
        if "flops_remaining_pct" in record["facts"]:
            found.setdefault((p["label"], _name(p["condition"])), {}).setdefault(p["trial"], []).append(record)
        elif p["condition"]["arm"] == "dense":
            dense.setdefault(p["label"], {}).setdefault(p["trial"], []).append(record)
    return [_row(label, name, trials, dense[label]) for (label, name), trials in found.items() if label in dense]


def step_ms(record: Mapping[str, Any]) -> float:
    """Milliseconds an iteration of a training stage."""
    p = record["stage"]["params"]
    steps = p["stop"] - record["facts"].get("start_it", p["start"])
    return 1000 * record["machine"]["wall_s"] / max(steps, 1)


def _name(condition: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in condition.items() if k not in ("arm", "network", "dataset")) or condition["arm"]


def _row(label: str, name: str, trials: Mapping[int, Sequence[Record]], dense: Mapping[int, Sequence[Record]]) -> Row:
    flops = _mean(trials, lambda record: record["facts"]["flops_remaining_pct"])
    return Row(label, name, len(trials), flops, _mean(dense, step_ms), _mean(trials, step_ms))


def _mean(trials: Mapping[int, Sequence[Record]], value: Callable[[Record], float]) -> float:
    return statistics.fmean(statistics.fmean(map(value, draws)) for draws in trials.values())


def render(found: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    from tabulate import tabulate

    cells = [(r.label, r.ticket, r.n, f"{r.flops_pct:.1f}", f"{r.dense_ms:.1f}", f"{r.ticket_ms:.1f}", f"{r.speed_up:.2f}",
              f"{r.on_paper:.2f}", f"{r.speed_up / r.on_paper:.2f}") for r in found]  # fmt: skip
    return tabulate(cells, headers=HEADS, tablefmt="github", disable_numparse=True)


def main(paper: str, scale: Optional[str] = None, store: Annotated[Optional[Path], typer.Option("--store", metavar="DIR")] = None,
         as_json: Annotated[bool, typer.Option("--json")] = False) -> None:  # fmt: skip
    """Print the tables of a paper's latest run."""
    opened = Store(store or default_root(), create=False)
    manifest = find_manifest(opened, paper, scale)
    found, spent = rows(manifest, opened), phases.rows(manifest, opened)
    speed = [vars(r) | {"speed_up": r.speed_up, "on_paper": r.on_paper} for r in found]
    print(json.dumps({"speed": speed, "phases": [asdict(r) for r in spent]}) if as_json else f"{render(found)}\n\n{phases.render(spent)}")


if __name__ == "__main__":
    typer.run(main)
