"""A comparison as tables: measured beside published, claims with their parts, and where the numbers come from.

``sections`` turns the comparison (the JSON of ``compare --json``) into plain cells once; ``render`` prints them for a terminal or a log
and ``bench.export`` writes the same cells as Markdown, LaTeX and HTML. No wall-clock is read: the same comparison gives the same text.
"""
from __future__ import annotations

import math
import re
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.grid import grid
from bench.summary import columns, find

SIGNIFICANCE_NOTE = "5 % a claim, not corrected across claims"
RELATIONS = {">": "> ", ">=": "≥ ", "<": "< ", "<=": "≤ ", "up-to": "up to ", "about": "≈ ", "=": ""}
# shown beside the number, as such numbers weigh less than a table or a sentence of the paper itself
QUALITY_MARKS = {"read-from-figure": "†", "secondary-source": "‡"}
QUALITY_NOTES = {"†": "† read from a figure", "‡": "‡ from a secondary source"}
WIDTH = 120
MOST_LAYERS = 20  # so many stand one by one
_DASH = "–"


@dataclass(frozen=True)
class Section:
    """One table: cells as text, a width in characters for each column, and one class (status or verdict) for each line of the body."""

    title: str
    headers: tuple[str, ...]
    widths: tuple[int, ...]
    body: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


# ---- cells --------------------------------------------------------------------------------------------------------------------------

def number(value: float | None, metric: str = "") -> str:
    """A measured number with the digits its metric can carry: iterations whole, percent and points with two decimals, else three digits."""
    if value is None or not math.isfinite(value):
        return _DASH if value is None else str(value)
    if metric.endswith(("_it", "_ep")):
        return f"{value:,.0f}"
    return f"{value:z.2f}" if metric.endswith(("_pct", "_pp")) else f"{value:.3g}"


def published(row: Mapping[str, Any]) -> str:
    """What the paper printed, never rounded: relation, value, spread, n, and a mark where the number is not the paper's own print."""
    text = RELATIONS.get(row.get("relation") or "=", "") + f"{row['published']:.12g}"
    spread = row.get("published_spread")
    if spread and spread.get("min") is not None and spread.get("max") is not None:
        text += f" [{spread['min']:.12g}, {spread['max']:.12g}]"
    elif spread and spread.get("value") is not None:
        text += f" ± {spread.get('relation') or ''}{spread['value']:.12g}" + ("" if spread["kind"] == "sd" else f" ({spread['kind']})")
    if row.get("published_n") is not None:
        text += f" n{row['published_n']}"
    mark = QUALITY_MARKS.get(row.get("quality", ""))
    return f"{text} {mark}" if mark else text


def measured(row: Mapping[str, Any]) -> str:
    """``mean ± sd n3``; a dash where nothing was measured."""
    got = row.get("measured")
    if not got or got.get("mean") is None:
        return _DASH
    metric = row["metric"]
    spread = "" if got.get("sd") is None else f" ± {number(got['sd'], metric)}"
    return f"{number(got['mean'], metric)}{spread} n{got['n']}"


def what(condition: Mapping[str, Any]) -> str:
    """A condition in words, less its reading point: ``ticket 21.1 % level 7 vs dense``."""
    rest = {k: v for k, v in condition.items() if k not in ("arm", "level", "weights_remaining_pct", "at", "versus")}
    level, pct = condition.get("level"), condition.get("weights_remaining_pct")
    whole = condition.get("arm") == "dense" and pct in (100, None)
    size = "" if pct is None or whole else f" {pct:g} %" if isinstance(pct, (int, float)) else f" {pct} %"
    size += "" if level is None or whole else f" level {level}"
    words = ", ".join([f"{condition.get('arm', '')}{size}".strip(), *(f"{k} {v}" for k, v in rest.items())])
    return f"{words} vs {what(condition['versus'])}" if condition.get("versus") else words


def reading(row: Mapping[str, Any]) -> str:
    """Metric and reading point: ``test_accuracy_pct at early-stop``."""
    at = row["condition"].get("at")
    return row["metric"] + (f" at {at}" if at else "")


def _protocols(row: Mapping[str, Any]) -> str:
    return row["protocol"] if isinstance(row["protocol"], str) else ", ".join(row["protocol"])


def data_name(provenance: Mapping[str, Any], protocol: str) -> str:
    """Name of the data set a protocol ran on, as the manifest records it."""
    data = provenance.get("data") or {}
    if isinstance(data, Mapping):
        data = data.get(protocol, data)
    if isinstance(data, Mapping):
        data = data.get("name")
    return str(data) if data else "data not recorded"


def reasons(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """{reason: number} of what stands against rows: one footnote for what would be repeated in every line."""
    found = dict.fromkeys(why for r in rows for why in _split(r))
    return {why: str(i) for i, why in enumerate(found, start=1)}


def _split(row: Mapping[str, Any]) -> list[str]:
    return [part.strip() for part in str(row.get("why_not") or "").split("; ") if part.strip()]


def agreement(row: Mapping[str, Any], marks: Mapping[str, str]) -> str:
    """``yes`` or ``no``, ``n/c`` where not comparable, ``open`` where comparable but not decided, each with its footnotes; else the status."""
    word = row["status"]
    if word == "measured":
        word = "n/c" if not row["comparable"] else {True: "yes", False: "no"}.get(row.get("agrees"), "open")
    cited = ",".join(marks[why] for why in _split(row))
    return f"{word} {cited}" if cited else word


# ---- sections -----------------------------------------------------------------------------------------------------------------------

def row_sections(comparison: Mapping[str, Any], show_all: bool = False) -> list[Section]:
    """Rows measured beside published, one section a protocol; with ``show_all`` those without a measurement too."""
    by_protocol: dict[str, list[Mapping[str, Any]]] = {}
    for row in comparison["rows"]:
        by_protocol.setdefault(_protocols(row), []).append(row)
    made = (_row_section(protocol, rows, show_all) for protocol, rows in by_protocol.items())
    return [section for section in made if section.body]


def _row_section(protocol: str, rows: Sequence[Mapping[str, Any]], show_all: bool) -> Section:
    shown = [r for r in rows if show_all or r["status"] == "measured"]
    marks = reasons(shown)
    lines = [(reading(r), (r["id"], what(r["condition"]), published(r), measured(r), agreement(r, marks)), _row_class(r)) for r in shown]
    body, classes = _grouped(lines)
    used = "".join(published(r)[-1] for r in shown)
    notes = ["measured: mean ± sd, n trials"] + [text for mark, text in QUALITY_NOTES.items() if mark in used]
    notes += ["n/c not comparable number by number"] if any(r["status"] == "measured" and not r["comparable"] for r in shown) else []
    n_measured = sum(r["status"] == "measured" for r in rows)
    return Section(f"{protocol}: {n_measured} of {len(rows)} published numbers measured",
                   ("id", "what", "published", "measured", "agrees"), (33, 28, 26, 17, 8), body, classes,
                   ("; ".join(notes), *(f"{mark}: {why}" for why, mark in marks.items())))


def _row_class(row: Mapping[str, Any]) -> str:
    if row["status"] != "measured":
        return row["status"]
    return {True: "agrees", False: "differs"}.get(row.get("agrees"), "not-compared")


def _grouped(lines: Iterable[tuple[str, tuple[str, ...], str]]) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Body and classes of (group, cells, class) lines, gathered by group, each under a line of class ``group`` that names it."""
    by_group: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for group, cells, kind in lines:
        by_group.setdefault(group, []).append((cells, kind))
    made = [entry for group, members in by_group.items() for entry in [((group, *[""] * (len(members[0][0]) - 1)), "group"), *members]]
    return tuple(cells for cells, _ in made), tuple(kind for _, kind in made)


def missing_section(comparison: Mapping[str, Any]) -> Section:
    """The rows without a measurement, counted by protocol, status and reason: nothing that was not run is left out."""
    counts: dict[tuple[str, str, str], int] = {}
    for r in comparison["rows"]:
        if r["status"] != "measured":
            key = (_protocols(r), r["status"], str(r.get("why_not") or "no reason recorded"))
            counts[key] = counts.get(key, 0) + 1
    body = tuple((protocol, str(n), status, why) for (protocol, status, why), n in counts.items())
    return Section(f"Published numbers without a measurement: {sum(counts.values())}", ("protocol", "rows", "status", "why"), (34, 4, 11, 63),
                   body, tuple(cells[2] for cells in body))


def claim_sections(comparison: Mapping[str, Any]) -> list[Section]:
    """One line a claim: those of which a part was run, then those that were not run with the reason."""
    claims = comparison["claims"]
    run, idle = [c for c in claims if c["verdict"] != "not-run"], [c for c in claims if c["verdict"] == "not-run"]
    counts = {v: sum(c["verdict"] == v for c in claims) for v in ("replicated", "not-replicated", "inconclusive", "not-run")}
    title = "Claims: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    body = tuple((c["id"], c["strength"], c["verdict"], _n(c.get("n")), c["statement"], str(c.get("why") or "")) for c in run)
    rest = tuple((c["id"], c["strength"], c["statement"], _brief(c.get("why"))) for c in idle)
    return [Section(title, ("claim", "strength", "verdict", "n", "statement", "why"), (16, 10, 14, 3, 31, 36), body,
                    tuple(c["verdict"] for c in run), (SIGNIFICANCE_NOTE,)),
            Section(f"Claims not run: {len(idle)}", ("claim", "strength", "statement", "why"), (24, 10, 48, 32), rest, ("not-run",) * len(idle))]


def part_section(comparison: Mapping[str, Any], show_all: bool = False) -> Section:
    """One line a test of a claim; parts that were not run only with ``show_all``, and counted otherwise."""
    parts = [(c, p) for c in comparison["claims"] for p in c["parts"]]
    shown = [(c, p) for c, p in parts if show_all or p["verdict"] != "not-run"]
    lines = [(f"{c['id']}: {c['verdict']}", (_test(p), p["protocol"], _n(p.get("n")), _plain(p.get("effect")), _plain(p.get("bound")),
                                            _interval(p.get("ci95")), _p(p.get("p")), p["verdict"]), p["verdict"]) for c, p in shown]
    body, classes = _grouped(lines)
    left_out = len(parts) - len(shown)
    return Section("Parts of the claims", ("test", "protocol", "n", "effect", "bound", "95 % interval", "p", "verdict"), (38, 12, 3, 8, 7, 16, 6, 14),
                   body, classes, (f"{left_out} parts were not run and are not listed here",) if left_out else ())


def gate_section(comparison: Mapping[str, Any]) -> Section:
    """The dense net against its published band; where it is missed, no claim about its tickets is replicated."""
    words = {True: "passed", False: "missed", None: "not tested"}
    body = tuple((" ".join([g["protocol"], *map(str, (g.get("condition") or {}).values())]),
                  g["metric"] + (f" at {g['at']}" if g.get("at") else ""), f"{g['low']:g} to {g['high']:g}",
                  number(g.get("measured"), g["metric"]), words[g["passed"]], str(g.get("why") or "").removeprefix("not tested: "), str(g["source"])) for g in comparison.get("gates") or ())
    return Section("Dense gate: the dense network's mean against its published band",
                   ("protocol", "metric", "band", "measured", "gate", "why", "source"), (18, 20, 14, 10, 12, 20, 14), body,
                   tuple({"passed": "agrees", "missed": "differs"}.get(cells[4], "not-compared") for cells in body))


def curve_section(comparison: Mapping[str, Any], show_all: bool = False) -> Section:
    """One line a curve of the paper's figures: at how many sizes our mean lies inside the paper's band, and how far off it is on average."""
    curves = comparison.get("curves") or []
    shown = [c for c in curves if show_all or c["status"] == "measured"]
    marks = reasons(shown)
    lines = [(reading(c), (c["id"], what(c["condition"]), f"{c['measured']} of {c['points']}", f"{c['inside']} of {c['with_band']}",
                           number(c.get("mean_distance"), c["metric"]), _curve_word(c, marks)), _row_class(c)) for c in shown]
    body, classes = _grouped(lines)
    notes = [f"{mark}: {why}" for why, mark in marks.items()]
    left_out = len(curves) - len(shown)
    if left_out:
        why = "; ".join(dict.fromkeys(f"{c['status']}: {c['why_not']}" for c in curves if c["status"] != "measured"))
        notes.append(f"{left_out} curves have no measured point and are not listed here ({why})")
    return Section(f"The paper's curves: {len(curves) - sum(c['status'] != 'measured' for c in curves)} of {len(curves)} measured",
                   ("curve", "what", "sizes measured", "mean inside the paper's min-max", "mean distance", "comparable"),
                   (34, 26, 10, 16, 10, 12), body, classes, tuple(notes))


def _curve_word(curve: Mapping[str, Any], marks: Mapping[str, str]) -> str:
    return "yes" if curve["status"] == "measured" and curve["comparable"] else agreement(curve, marks)


def insight_section(comparison: Mapping[str, Any]) -> Section:
    """The sparsest network that still matches the dense one, with its interval."""
    found = [i for i in comparison.get("insights") or [] if "confirmed" in i]
    body = tuple((i["protocol"], what({"arm": i["arm"], **_telling(i, found)}), i["metric"] + (f" at {i['at']}" if i.get("at") else ""), f"{i['margin']:g}",
                  _place(i["confirmed"]), _place(i["estimate"]), _place(i["possible"]), _n(i["n"])) for i in found)
    notes = ("confirmed: down to here the lower 95 % bound stays above dense − margin; estimate: the mean does; possible: below here worse with confidence",)
    return Section("Sparsest network that still matches dense", ("protocol", "arm", "metric", "margin", "confirmed", "estimate", "possible", "n"),
                   (20, 20, 20, 6, 10, 10, 10, 3), body, ("not-compared",) * len(body), notes if body else ())


def _telling(entry: Mapping[str, Any], among: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of an entry's setting what tells it from the protocol's other ones."""
    others = [i["setting"] for i in among if i["protocol"] == entry["protocol"]]
    return {k: v for k, v in entry["setting"].items() if any(o.get(k) != v for o in others)}


def arm_section(comparison: Mapping[str, Any]) -> Section:
    """One line an arm and level, published or a user's own: scores, early stopping and the measured density."""
    entries = [e for e in comparison.get("arms") or [] if _trained(e)]
    heads, widths, *read = zip(*columns(entries))
    lines = [(e["protocol"], (what(e["condition"]), _whole(e["density"]), str(e["n"]), *(_summary(e, *c) for c in zip(*read)), "; ".join(e["failed"])), "not-compared")
             for e in entries]
    body, classes = _grouped(lines)
    censored = "; * in some trial the minimum lies at the last evaluation (censored)" if any("*" in cell for cells in body for cell in cells[3:-1]) else ""
    return Section("All arms", ("arm", "weights kept, %", "n", *heads, "left out"), (36, 8, 3, *widths, 12), body, classes,
                   (f"mean ± sd over trials{censored}",) if body else ())


def network_section(comparison: Mapping[str, Any]) -> Section:
    """One line an arm and level: how its networks are thinned, what of them still counts, and the signs they kept."""
    lines = [(e["protocol"], (what(e["condition"]), str(e["n"]), _layers(e["density_layers"]),
                              _DASH if e["density_effective"] is None else _whole(e["density_effective"]), f"{e['sign_agreement_pct']:.1f}",
                              "; ".join(e["collapsed"]) or _DASH), "not-compared") for e in comparison.get("networks") or []]
    body, classes = _grouped(lines)
    notes = ("means over networks, draws included; effective: weights on some path from input to output, of all weights; signs: of the kept weights, as at the start",)
    return Section("Networks", ("arm", "n", "kept layer by layer, %", "effective, %", "signs kept, %", "collapsed layers"), (40, 3, 24, 10, 10, 18),
                   body, classes, notes if body else ())


def _layers(densities: Mapping[str, float]) -> str:
    """Percent kept of each layer; of many the least, the median and the most."""
    if len(densities) <= MOST_LAYERS:
        return " / ".join(_whole(d) for d in densities.values())
    (least, low), (most, high) = (pick(densities.items(), key=lambda item: item[1]) for pick in (min, max))
    return f"{len(densities)} tensors: {_whole(low)} ({least}) … {_whole(statistics.median(densities.values()))} … {_whole(high)} ({most})"


def measure_section(comparison: Mapping[str, Any]) -> Section:
    """Arms that train nothing of their own: the numbers that they measured."""
    lines = [(e["protocol"], (what(e["condition"] | {k: v for k, v in got.items() if k == "layer"}), got["metric"], measured({"measured": got, "metric": got["metric"]})),
              "not-compared") for e in comparison.get("arms") or [] if not _trained(e) for got in e["values"]]
    body, classes = _grouped(lines)
    return Section("All arms that only measure", ("arm", "metric", "measured"), (46, 40, 24), body, classes, ("mean ± sd, n trials",) if body else ())


def _trained(entry: Mapping[str, Any]) -> bool:
    return entry["density"] is not None


def _whole(density: float) -> str:
    return f"{100 * density:.3g}"


def _summary(entry: Mapping[str, Any], metric: str, at: str | None) -> str:
    if (got := find(entry, metric, at)) is None:
        return _DASH
    spread = "" if got["sd"] is None else f" ± {number(got['sd'], metric)}"
    return f"{number(got['mean'], metric)}{spread}{'*' if got['censored'] else ''}"


def _place(place: Mapping[str, Any] | None) -> str:
    if place is None:
        return "none"
    return f"level {place['level']}" + (f" ({place['weights_remaining_pct']:.3g} %)" if place.get("weights_remaining_pct") is not None else "")


def _test(part: Mapping[str, Any]) -> str:
    return f"{part['test']} ({_brief(part.get('why'))})" if part["verdict"] == "not-run" and part.get("why") else str(part["test"])


def _brief(why: Any) -> str:
    """Reasons without the arm that met each first, where the whole protocol was not run: one reason, not one an operand."""
    return "; ".join(dict.fromkeys(re.sub(r"^\S+: (nothing of .* was run)$", r"\1", part) for part in str(why or "").split("; ")))


def _n(value: Any) -> str:
    return _DASH if value is None else str(value)


def _plain(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _interval(ci: Sequence[float | None] | None) -> str:
    return _DASH if not ci or None in ci else f"[{_plain(ci[0])}, {_plain(ci[1])}]"


def _p(value: float | None) -> str:
    return _DASH if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


# ---- provenance ---------------------------------------------------------------------------------------------------------------------

def fall_backs(comparison: Mapping[str, Any]) -> list[str]:
    """Where other data than the paper's stood in, in the words of the rows' reasons and of the manifest."""
    said = [why.removeprefix("data: ") for r in comparison["rows"] for why in _split(r) if why.startswith("data: ") and " instead of " in why]
    return list(dict.fromkeys(said))


def provenance_lines(comparison: Mapping[str, Any]) -> list[str]:
    """Scale, data, device, versions, deviations: one fact a line."""
    said = comparison.get("provenance") or {}
    lines = [f"FALL-BACK DATA: {what_else}" for what_else in fall_backs(comparison)]
    lines += [f"scale: {comparison['scale']}"]
    lines += [line for key in ("data", "device", "versions", "source_hash") for line in _facts(key, said.get(key))]
    deviations = said.get("deviations") or []
    lines += [_deviation(d) for d in deviations] or ["deviations: none"]
    lines += [line for key, value in said.items() if key not in ("data", "device", "versions", "source_hash", "deviations")
              for line in _facts(key, value)]
    return lines


def _deviation(d: Any) -> str:
    return f"deviation, {d['what']}: {d['ours']} (paper: {d['paper']}); {d['why']}" if isinstance(d, Mapping) else f"deviation: {d}"


def _facts(key: str, value: Any) -> list[str]:
    if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
        return [f"{key}, {name}: {_flat(v)}" for name, v in value.items()]
    return [f"{key.replace('_', ' ')}: {_flat(value) if value not in (None, '', {}, []) else 'not recorded'}"]


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items() if v not in (None, "", {}, [], ()))
    return ", ".join(_flat(v) for v in value) if isinstance(value, (list, tuple)) else str(value)


# ---- the whole ----------------------------------------------------------------------------------------------------------------------

def sections(comparison: Mapping[str, Any], show_all: bool = False) -> list[Section]:
    """Every table of a comparison, in reading order; those with nothing to say are left out."""
    made = [*row_sections(comparison, show_all), missing_section(comparison), arm_section(comparison), measure_section(comparison), network_section(comparison), curve_section(comparison, show_all), gate_section(comparison),
            insight_section(comparison), *claim_sections(comparison), part_section(comparison, show_all)]
    return [section for section in made if section.body or section.notes]


def _lines(section: Section, width: int) -> list[str]:
    groups = {f"\0{i}": cells[0] for i, (cells, kind) in enumerate(zip(section.body, section.classes, strict=True)) if kind == "group"}
    body = list(section.body)
    for key in groups:  # a group's name may run across the columns
        body[int(key[1:])] = (key, *body[int(key[1:])][1:])
    table = grid(body, section.headers, section.widths).splitlines() if body else []
    table = [f"-- {groups[line.strip()]}" if line.startswith("\0") else line.rstrip() for line in table]
    notes = [line for note in section.notes for line in textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="      ")]
    return [section.title, "=" * min(len(section.title), width), *table, *notes, ""]


def render(comparison: Mapping[str, Any], show_all: bool = False, width: int = WIDTH) -> str:
    """The comparison for a terminal or a log.

    Args:
        comparison: what ``bench.compare.compare`` returns.
        show_all: one line for each row and part that has no measurement, rather than counts with their reasons.
        width: columns of the page; the tables are laid out for 120.
    """
    loud = [f"*** FALL-BACK DATA: {line} ***" for line in fall_backs(comparison)]
    lines = [f"{comparison['paper']} at scale {comparison['scale']}", *loud, ""]
    lines += [line for section in sections(comparison, show_all) for line in _lines(section, width)]
    lines += ["Provenance", "=========="]
    lines += [part for line in provenance_lines(comparison) for part in textwrap.wrap(line, width, subsequent_indent="    ")]
    return "\n".join(lines) + "\n"
