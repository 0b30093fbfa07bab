"""Exports: each format read back by somebody else's parser."""
from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest

from bench.export import CSV_COLUMNS, FORMATS, export
from ltcore.errors import UsageError
from tests.test_tables import LOST, claim, comparison, row

NASTY = 'A 50% cut & <b>"x"</b> of a_b | {c} #1 $2 ^ ~ \\ ≥ − 中'


def nasty():
    return comparison(rows=[row(condition={"arm": NASTY}), row(id="vgg", why_not=NASTY, **LOST)], claims=[claim(statement=NASTY)])


# ---- json, csv ----------------------------------------------------------------------------------------------------------------------

def test_json_is_the_comparison_in_its_own_order():
    text = export(comparison(), "json")
    assert json.loads(text) == comparison() and list(json.loads(text)) == list(comparison())
    assert text.startswith('{\n "paper": "frankle2019",\n "scale": "quick",\n "rows": [\n  {\n   "id": "lenet-acc",') and text.endswith("\n")
    assert json.loads(export(comparison(provenance={"x": (math.nan, 1.0)}), "json"))["provenance"] == {"x": [None, 1.0]}


def test_csv_round_trip_through_pandas():
    frame = pd.read_csv(io.StringIO(export(comparison(), "csv")))
    assert tuple(frame.columns) == CSV_COLUMNS
    assert list(frame["id"]) == [r["id"] for r in comparison()["rows"]]
    assert frame["mean"].tolist()[:4] == [98.3] * 4 and frame["mean"].isna().tolist()[4:] == [True] * 3
    assert (frame.loc[0, "ci95_low"], frame.loc[0, "ci95_high"], frame.loc[0, "n"]) == (98.2, 98.4, 3)
    assert json.loads(frame.loc[0, "condition"]) == row()["condition"] and json.loads(frame.loc[0, "published_spread"])["max"] == 98.42
    assert frame["agrees"].tolist()[:2] == [True, False] and frame["agrees"].isna().tolist()[2:] == [True] * 5
    assert frame.loc[6, "protocol"] == "conv2-cifar10 conv4-cifar10"


def test_csv_keeps_any_text():
    frame = pd.read_csv(io.StringIO(export(nasty(), "csv")))
    assert json.loads(frame.loc[0, "condition"])["arm"] == NASTY and frame.loc[1, "why_not"] == NASTY


# ---- md -----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("made", [comparison, nasty])
def test_md_tables_have_the_same_number_of_columns_in_every_line(made):
    blocks = [block.splitlines() for block in export(made(), "md").split("\n\n") if block.startswith("|")]
    assert len(blocks) >= 5
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in block}
        assert len(counts) == 1 and re.fullmatch(r"[|:-]+", block[1])


def test_md_says_all_the_tables_say():
    text = export(comparison(), "md")
    assert text.startswith("# frankle2019 at scale quick\n\n## lenet-mnist: 4 of 4 published numbers measured")
    for said in ("98.30 ± 0.05 n3", "5 % a claim, not corrected across claims", "- FALL-BACK DATA: MNIST-1D instead of MNIST", "needs a GPU", "c4-reinit"):
        assert said in text


# ---- latex --------------------------------------------------------------------------------------------------------------------------

def test_latex_has_booktabs_rules_and_escapes():
    text = export(nasty(), "latex")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) >= text.count(r"\begin{longtable}") >= 5
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}")
    assert (r"A 50\% cut \& \textless{}b\textgreater{}''x''\textless{}/b\textgreater{} of a\_\allowbreak{}b | \{c\} \#1 \$2 \textasciicircum{} "
            r"\textasciitilde{} \textbackslash{} $\geq$ $-$ ?") in text
    assert not re.search(r"(?<!\\)[%#]", text.split("\n", 2)[2])  # past the two lines of comment


def test_latex_lines_have_as_many_cells_as_columns():
    for table in re.findall(r"\\begin\{longtable\}.*?\\end\{longtable\}", export(nasty(), "latex"), re.DOTALL):
        columns = table.splitlines()[0].count(r"\arraybackslash")
        for line in (x for x in table.splitlines() if x.endswith(r" \\")):
            inside = re.match(r"\\multicolumn\{(\d+)\}", line)
            assert (int(inside[1]) if inside else len(re.findall(r"(?<!\\)&", line)) + 1) == columns


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(tmp_path):
    (tmp_path / "table.tex").write_text(export(nasty(), "latex"), encoding="utf-8")
    (tmp_path / "doc.tex").write_text(r"\documentclass{article}\usepackage{booktabs,longtable,array}\begin{document}\input{table}\end{document}")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "doc.tex"], cwd=tmp_path, check=False,
                          capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


# ---- html ---------------------------------------------------------------------------------------------------------------------------

class _Page(HTMLParser):
    """Checks that tags nest and collects text and the classes of table lines."""

    def __init__(self):
        super().__init__()
        self.open, self.classes, self.text, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.classes += [dict(attrs)["class"]] if tag == "tr" and "class" in dict(attrs) else []
        self.open += [] if tag == "meta" else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_one_well_formed_page_with_a_class_per_verdict():
    claims = [claim(id=v, verdict=v) for v in ("replicated", "not-replicated", "inconclusive", "not-run")]
    page = _Page()
    page.feed(export(comparison(claims=claims), "html"))
    assert page.open == [] and page.tags & {"script", "link", "img"} == set()
    assert {"replicated", "not-replicated", "inconclusive", "not-run", "agrees", "differs", "not-compared", "group"} <= set(page.classes)
    styled = export(comparison(), "html")
    assert all(f"tr.{kind}" in styled for kind in set(page.classes))
    assert "FALL-BACK DATA: MNIST-1D instead of MNIST" in page.text


def test_html_escapes():
    page = _Page()
    page.feed(export(nasty(), "html"))
    assert page.open == [] and NASTY in page.text and "b" not in page.tags


# ---- all ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fmt", FORMATS)
def test_same_comparison_same_text(fmt):
    assert export(comparison(), fmt) == export(comparison(), fmt)


def test_unknown_format_offers_the_nearest():
    with pytest.raises(UsageError, match=r"no export format 'htm'; did you mean html\? \(known: md, csv, latex, html, json\)"):
        export(comparison(), "htm")
