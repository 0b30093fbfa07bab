"""Tables and plots of README and docs, made from the packed results under ``results/``: ``python -m bench.pages`` (``--check`` only looks).

A page holds pairs of lines ``<!-- table NAME -->`` and ``<!-- end -->``; what stands between them is written here, never by hand.
"""
from __future__ import annotations

import functools
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import costs, export, pack, phases, tables
from bench import measurements as measuring
from bench.store import Store
from ltcore.errors import UserError
from replications import papers, registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md", "docs/frankle2019.md", "docs/stabilizing2019.md", "docs/morcos2019.md", "docs/elastic2021.md", "docs/earlybird2020.md", "docs/yu2020.md", "results/README.md",
)  # fmt: skip
FULL, QUICK = "frankle2019-paper-cpu", "frankle2019-quick-mnist"
STABLE, STABLE_MNIST, STABLE_QUICK = "stabilizing2019-paper-cpu", "stabilizing2019-quick-mnist", "stabilizing2019-quick-mnist1d"
ELASTIC_QUICK, TRAVEL, EARLY_QUICK = "elastic2021-quick-mnist", "morcos2019-quick-mnist", "earlybird2020-quick-cifar10"
RL, LSTM, TRANSLATED = "yu2020-rl-paper-cpu", "yu2020-lstm-quick", "yu2020-multi30k-quick"
DRAWN = (FULL, STABLE, TRAVEL, EARLY_QUICK, RL)
AT_END = ("test_accuracy_pct", "episode_return", "log_perplexity", "bleu")  # what a level's line shows
IMAGES = ROOT / "docs" / "img"  # in a folder for each paper
_BLOCK = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.S)


@functools.cache
def comparison(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(manifest, comparison) of a packed result; the comparison has also what smaller networks save and what searches cost, where that is told."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        manifest = pack.read_into(ROOT / "results" / f"{name}.json.gz", store)
        spent = {"costs": costs.rows(manifest, store), "phases": phases.rows(manifest, store)}
        return manifest, measuring.comparison(manifest, store, registry.load(manifest["paper"])) | spent


def draw(name: str, folder: Path) -> list[Path]:
    """The plots of a packed result."""
    from bench import plots

    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "store")
        manifest = pack.read_into(ROOT / "results" / f"{name}.json.gz", store)
        data, paper = papers.load(manifest["paper"]), registry.load(manifest["paper"])
        return plots.plot(data, measuring.read(manifest, store, data), measuring.run_info(manifest, store, paper, data), folder)


def _claims(_: Mapping[str, Any], c: Mapping[str, Any],
            why_not: str = "convolutional networks, or experiments that were not asked for") -> str:  # fmt: skip
    """Verdicts of the claims of which a part was run."""
    from tabulate import tabulate

    ran = [x for x in c["claims"] if x["verdict"] != "not-run"]
    rows = [(x["id"], x["statement"], f"**{x['verdict']}**", x["n"], _why(x)) for x in ran]
    table = tabulate(rows, headers=["claim", "statement", "verdict", "n", "why"], tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{len(c['claims']) - len(ran)} more claims: not run ({why_not})."


def _why(claim: Mapping[str, Any]) -> str:
    return claim["why"].replace("|", "\\|")


def _rows(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """Every published number of the LeNet protocols that was measured."""
    return "\n\n".join(f"**{s.title}**\n\n{export.md_table(s)}\n\n" + "  \n".join(n for n in s.notes if n) for s in tables.row_sections(c))


def _text_rows(m: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """The numbers that the paper states in its text."""
    return _rows(m, c | {"rows": [r for r in c["rows"] if r["quality"] == "stated-in-text"]})


def _curves(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    section = tables.curve_section(c)
    return export.md_table(section)


def _parts(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    section = tables.part_section(c)
    return export.md_table(section)


def _arms_at(level: int) -> Callable[[Mapping[str, Any], Mapping[str, Any]], str]:
    """All arms at one level, beside the dense nets."""

    def table(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
        shown = [e for e in c["arms"] if e["condition"].get("level", level) == level]
        return export.md_table(tables.arm_section(c | {"arms": shown}))

    return table


def _by_level(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """What was measured at the end of every arm, a column each, a line a level; one table for each network, target or scope."""
    from tabulate import tabulate

    found: dict[str, dict[tuple[float, str], dict[str, str]]] = {}
    for e in c["arms"]:
        told = {k: v for k, v in e["condition"].items() if k not in ("level", "rewind")}
        arm = " ".join(str(told.pop(k)) for k in ("arm", "source", "source_optimizer", "weights", "mask") if k in told)
        arm += f" {e['condition']['rewind']}" if e["condition"].get("rewind") == "0it" else ""
        value = next((v for v in e["values"] if v["metric"] in AT_END and v["at"] == "end"), None)
        if value:
            spread = "" if value["sd"] is None else f" ± {value['sd']:.2f}"
            line = (e["condition"].get("level", 0), f"{e['weights_remaining_pct']:.3g}")
            found.setdefault(", ".join([e["protocol"], *(f"{k} {v}" for k, v in told.items())]), {}).setdefault(line, {})[arm] = f"{value['mean']:.2f}{spread}"
    parts = []
    for title, lines in found.items():
        columns = list(dict.fromkeys(arm for cells in lines.values() for arm in cells))
        rows = [(level, pct, *(cells.get(a, "–") for a in columns)) for (level, pct), cells in sorted(lines.items())]
        parts.append(f"**{title}**\n\n{tabulate(rows, headers=['level', 'kept, %', *columns], tablefmt='github', disable_numparse=True)}")
    return "\n\n".join(parts)


def _about(m: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """What the packed result is."""
    p = c["provenance"]
    versions = ", ".join(f"{k} {v}" for k, v in p["versions"].items())
    length = next(iter(m["experiments"].values()))["recipe"]["length"]
    return (f"Scale {c['scale']} ({length}), {', '.join(dict.fromkeys(_data(p['data'])))}, {len(m['points'])} points, device {p['device']}, "
            f"{p['threads']} thread a process, Python {p['python']}, {versions}, engine source {p['source_hash']}.")  # fmt: skip


def _data(told: Any) -> Iterable[str]:
    """Name and source of each set, which a run of several keeps by protocol."""
    if isinstance(told, Mapping) and "name" in told:
        yield f"{told['name']} ({told['source']})"
    else:
        for each in told if isinstance(told, list) else told.values():
            yield from _data(each)


def _costs(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """Speed-up on the clock beside FLOPs."""
    return costs.render(c["costs"])


def _phases(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """Wall time, and energy where a counter answered, of search, retraining and both."""
    if not c["phases"]:
        return "No table of search and retraining: this result was packed without the times of its searches."
    return phases.render(c["phases"])


def _arms(_: Mapping[str, Any], c: Mapping[str, Any]) -> str:
    """Every arm with what was measured of it: mean, and standard deviation over trials."""
    from tabulate import tabulate

    rows = [(a["protocol"], ", ".join(f"{k} {v}" for k, v in a["condition"].items()), f"{v['metric']}{' at ' + v['at'] if v['at'] else ''}",
             tables.number(v["mean"], v["metric"]), "" if v["sd"] is None else f"{v['sd']:.3g}", v["n"])
            for a in c["arms"] for v in a["values"]]  # fmt: skip
    return tabulate(rows, headers=["protocol", "arm", "measured", "mean", "sd", "n"], tablefmt="github", disable_numparse=True)


TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]]] = {
    "quick-claims": (QUICK, _claims), "quick-about": (QUICK, _about), "quick-rows": (QUICK, _text_rows), "quick-parts": (QUICK, _parts),
    "full-claims": (FULL, _claims), "full-rows": (FULL, _rows), "full-text-rows": (FULL, _text_rows), "full-curves": (FULL, _curves),
    "full-parts": (FULL, _parts), "full-about": (FULL, _about),
    "stable-about": (STABLE, _about), "stable-parts": (STABLE, _parts), "stable-rows": (STABLE, _rows),
    "travel-about": (TRAVEL, _about), "travel-parts": (TRAVEL, _parts), "travel-arms": (TRAVEL, _by_level),
    "eb-quick-about": (EARLY_QUICK, _about), "eb-quick-parts": (EARLY_QUICK, _parts),
    "eb-quick-claims": (EARLY_QUICK, functools.partial(_claims, why_not="they need a GPU")),
    "eb-quick-costs": (EARLY_QUICK, _costs), "eb-quick-phases": (EARLY_QUICK, _phases), "eb-quick-arms": (EARLY_QUICK, _arms),
    "stable-mnist-about": (STABLE_MNIST, _about), "stable-mnist-parts": (STABLE_MNIST, _parts),
    "stable-quick-about": (STABLE_QUICK, _about), "stable-quick-parts": (STABLE_QUICK, _parts), "stable-quick-rows": (STABLE_QUICK, _rows),
    "elastic-quick-about": (ELASTIC_QUICK, _about), "elastic-quick-parts": (ELASTIC_QUICK, _parts), "elastic-quick-rows": (ELASTIC_QUICK, _rows),
    "elastic-quick-arms": (ELASTIC_QUICK, _arms_at(10)),
    "rl-about": (RL, _about), "rl-arms": (RL, _by_level), "rl-parts": (RL, _parts),
    "lstm-about": (LSTM, _about), "lstm-arms": (LSTM, _by_level), "lstm-parts": (LSTM, _parts),
    "multi30k-about": (TRANSLATED, _about), "multi30k-arms": (TRANSLATED, _by_level),
}  # fmt: skip


def rendered(text: str) -> str:
    """A page with every block written anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}{_table(found[2])}\n{found[3]}", text)


def _table(name: str) -> str:
    source, make = TABLES[name]
    return make(*comparison(source))


def main() -> None:
    try:
        _write()
    except UserError as error:
        sys.exit(f"error: {error}")


def _write() -> None:
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        if rendered(text) != text:
            stale.append(page)
            if "--check" not in sys.argv:
                path.write_text(rendered(text), encoding="utf-8")
    if "--check" not in sys.argv:
        shown = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
        for name in DRAWN:
            folder = IMAGES / name.partition("-")[0]
            for image in draw(name, folder):
                print(image) if f"img/{folder.name}/{image.name}" in shown else image.unlink()
    elif stale:
        sys.exit(f"out of date: {', '.join(stale)}; run 'python -m bench.pages'")


if __name__ == "__main__":
    main()
