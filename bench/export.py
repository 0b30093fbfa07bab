"""A comparison written for other programs and for papers: md, csv, latex, html, json.

md, latex and html hold what the terminal shows (the same cells, see ``bench.tables``): measured rows, the rest counted by reason, all arms,
claims with their parts, provenance. csv and json hold every row. csv is one line a row of the comparison, then (without id and published
number) one line for each number of each arm; it has no claims, take json for them.
"""
from __future__ import annotations

import csv
import difflib
import html
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from bench.tables import Section, provenance_lines, sections
from ltcore.errors import UsageError

# stable: scripts read them; new columns go to the end. Spread and condition are JSON, ci95 is split in two
CSV_COLUMNS = ("paper", "scale", "id", "protocol", "condition", "metric", "relation", "published", "published_spread", "published_n", "quality",
               "source", "mean", "sd", "n", "ci95_low", "ci95_high", "status", "comparable", "why_not", "agrees")


def export(comparison: Mapping[str, Any], fmt: str) -> str:
    """The comparison as text.

    Args:
        comparison: what ``bench.compare.compare`` returns.
        fmt: a key of ``FORMATS``: md, csv, latex, html or json.

    Raises:
        UsageError: no such format.
    """
    if fmt not in FORMATS:
        near = difflib.get_close_matches(fmt, FORMATS, n=1)
        raise UsageError(f"no export format {fmt!r}" + (f"; did you mean {near[0]}?" if near else "") + f" (known: {', '.join(FORMATS)})")
    return FORMATS[fmt](comparison)


def _heading(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['paper']} at scale {comparison['scale']}"


# ---- json, csv ----------------------------------------------------------------------------------------------------------------------

def _json(comparison: Mapping[str, Any]) -> str:
    return json.dumps(_finite(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The same value with NaN and infinities as null, which is all that JSON can say of them."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(comparison: Mapping[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_row(comparison, row) for row in comparison["rows"])
    writer.writerows(_csv_arm(comparison, entry, value) for entry in comparison.get("arms") or [] for value in entry["values"])
    return out.getvalue()


def _csv_row(comparison: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    got = row.get("measured") or {}
    low, high = got.get("ci95") or (None, None)
    plain = {key: row.get(key) for key in CSV_COLUMNS if key in row}
    return plain | {
        "paper": comparison["paper"], "scale": comparison["scale"], "condition": json.dumps(row["condition"], ensure_ascii=False),
        "protocol": row["protocol"] if isinstance(row["protocol"], str) else " ".join(row["protocol"]),
        "published_spread": json.dumps(row["published_spread"]) if row.get("published_spread") else None,
        "mean": got.get("mean"), "sd": got.get("sd"), "n": got.get("n"), "ci95_low": low, "ci95_high": high}


def _csv_arm(comparison: Mapping[str, Any], entry: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """A number of any arm, a user's own among them, whether the paper has one like it or not."""
    words = {"weights_remaining_pct": entry["weights_remaining_pct"], "at": value["at"], "layer": value.get("layer")}
    condition = entry["condition"] | {k: v for k, v in words.items() if v is not None}
    plain = {"paper": comparison["paper"], "scale": comparison["scale"], "protocol": entry["protocol"], "metric": value["metric"]}
    return plain | {"condition": json.dumps(condition, ensure_ascii=False), "mean": value["mean"], "sd": value["sd"], "n": value["n"],
                    "status": "measured", "comparable": False, "why_not": "not beside a published number"}


# ---- md -----------------------------------------------------------------------------------------------------------------------------

def _md(comparison: Mapping[str, Any]) -> str:
    parts = [f"# {_heading(comparison)}"]
    for section in sections(comparison):
        parts += [f"## {_md_text(section.title)}", md_table(section), *(f"{_md_text(note)}" for note in section.notes)]
    parts += ["## Provenance", "\n".join(f"- {_md_text(line)}" for line in provenance_lines(comparison))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _md_text(text: str) -> str:
    for char in "\\|*_<`[":  # what would end a cell or start emphasis, a tag, code or a link
        text = text.replace(char, "\\" + char)
    return text.replace("\n", " ")


def md_table(section: Section) -> str:
    from tabulate import tabulate

    body = [[f"**{_md_text(cells[0])}**", *cells[1:]] if kind == "group" else [_md_text(c) for c in cells]
            for cells, kind in zip(section.body, section.classes, strict=True)]
    return tabulate(body, [_md_text(h) for h in section.headers], tablefmt="github",
                    disable_numparse=True) if section.body else ""


# ---- latex --------------------------------------------------------------------------------------------------------------------------

_TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_\allowbreak{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", '"': "''", "[": "{[}", "]": "{]}", "±": r"$\pm$", "≥": r"$\geq$",
        "≤": r"$\leq$", "≈": r"$\approx$", "√": r"$\surd$", "·": r"$\cdot$", "×": r"$\times$", "−": r"$-$", "–": "--", "…": r"\dots{}", "→": r"$\to$",
        "’": "'", "“": "``", "”": "''", "\n": " "}


def _tex(text: str) -> str:
    """Text that LaTeX prints as it stands; [ is wrapped, as it would be read as the option of a preceding line break. What inputenc lacks is ?."""
    return "".join(_TEX.get(char, char if ord(char) < 256 or char in "†‡" else "?") for char in text)


def _latex(comparison: Mapping[str, Any]) -> str:
    parts = [r"% needs \usepackage{booktabs,longtable,array}, best in landscape", f"% {_tex(_heading(comparison))}"]
    parts += [_tex_table(section) for section in sections(comparison) if section.body]
    parts += [r"\begin{itemize}", *(rf"\item {_tex(line)}" for line in provenance_lines(comparison)), r"\end{itemize}"]
    return "\n".join(parts) + "\n"


def _tex_table(section: Section) -> str:
    share = 0.8 / sum(section.widths)  # the rest of the line goes to the gaps between columns
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{share * w:.3f}\linewidth}}" for w in section.widths)
    head = " & ".join(rf"\textbf{{{_tex(h)}}}" for h in section.headers) + r" \\"
    lines = [r"\begingroup\footnotesize", rf"\begin{{longtable}}{{{columns}}}", rf"\caption{{{_tex(section.title)}}}\\", r"\toprule", head, r"\midrule",
             r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot",
             *(_tex_row(cells, kind) for cells, kind in zip(section.body, section.classes, strict=True)), r"\end{longtable}",
             *(rf"\noindent {_tex(note)}\par" for note in section.notes), r"\endgroup", ""]
    return "\n".join(lines)


def _tex_row(cells: tuple[str, ...], kind: str) -> str:
    if kind == "group":
        return rf"\multicolumn{{{len(cells)}}}{{l}}{{\emph{{{_tex(cells[0])}}}}} \\"
    return " & ".join(_tex(c) for c in cells) + r" \\"


# ---- html ---------------------------------------------------------------------------------------------------------------------------

_CSS = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1b1b}
table{border-collapse:collapse;width:100%;margin:.6rem 0;font-size:.88rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}
th{border-bottom:2px solid #555;position:sticky;top:0;background:#fff}
tr.group td{font-style:italic;padding-top:.8rem}
.note{color:#555;font-size:.85rem;margin:.2rem 0}
.loud{background:#fff3cd;border-left:.3rem solid #b58900;padding:.4rem .8rem}
tr.replicated,tr.agrees{background:#e3f1fb}tr.not-replicated,tr.differs{background:#fbe5d9}
tr.inconclusive{background:#f6f3dd}tr.not-run,tr.not-covered,tr.not-compared{color:#555}
"""


def _html(comparison: Mapping[str, Any]) -> str:
    lines = provenance_lines(comparison)
    loud = [f'<p class="loud">{html.escape(line)}</p>' for line in lines if line.startswith("FALL-BACK")]
    title = html.escape(_heading(comparison))
    body = [f"<h1>{title}</h1>", *loud, *(_html_table(section) for section in sections(comparison)),
            "<h2>Provenance</h2>", "<ul>", *(f"<li>{html.escape(line)}</li>" for line in lines), "</ul>"]
    return "\n".join(["<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
                      '<meta name="viewport" content="width=device-width,initial-scale=1">', f"<title>{title}</title>", f"<style>{_CSS}</style>",
                      "</head>", "<body>", *body, "</body>", "</html>"]) + "\n"


def _html_table(section: Section) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells)

    def row(cells: tuple[str, ...], kind: str) -> str:
        inside = f'<td colspan="{len(cells)}">{html.escape(cells[0])}</td>' if kind == "group" else line(cells, "td")
        return f'<tr class="{html.escape(kind)}">{inside}</tr>'

    rows = [row(cells, kind) for cells, kind in zip(section.body, section.classes, strict=True)]
    table = ["<table>", f"<thead><tr>{line(section.headers, 'th')}</tr></thead>", "<tbody>", *rows, "</tbody>", "</table>"] if rows else []
    return "\n".join([f"<h2>{html.escape(section.title)}</h2>", *table, *(f'<p class="note">{html.escape(note)}</p>' for note in section.notes)])


FORMATS = {"md": _md, "csv": _csv, "latex": _latex, "html": _html, "json": _json}
