"""The papers' data files: all load, and every way to break one gives a single clear line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ltcore.errors import UsageError, UserError
from replications import papers
from tests import made_up

SMALL = papers.FOLDER / "malach2020.yaml"


@pytest.mark.parametrize("key", papers.keys())
def test_every_paper_loads_and_its_title_line_agrees(key: str) -> None:
    paper = papers.load(key)
    counts = tuple(len(x) for x in (paper.protocols, paper.published, paper.claims, paper.figure_data))
    assert papers.titles()[key] == (paper.title, paper.venue, paper.arxiv, *counts)
    assert all(r.source for r in paper.published)


def test_there_are_26_papers() -> None:
    assert len(papers.keys()) == 26
    assert sum(t.numbers for t in papers.titles().values()) == 2714


def test_titles_are_fast_and_need_neither_yaml_nor_pydantic() -> None:
    start = time.perf_counter()
    papers.titles()
    assert time.perf_counter() - start < 0.5  # 0.03 s here; room for a busy machine
    code = "import sys; from replications import papers; papers.titles(); sys.exit('yaml' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_same_as_inherits_what_is_not_given_and_only_that() -> None:
    paper = papers.load("frankle2019")
    oneshot, iterative = paper.protocol("lenet-mnist-oneshot"), paper.protocol("lenet-mnist")
    assert oneshot["optimizer"] == iterative["optimizer"] and oneshot["model"]["total_weights"] == 266200
    assert oneshot["pruning"] != iterative["pruning"] and oneshot["id"] == "lenet-mnist-oneshot"
    assert paper.ladder("conv2-dropout-cifar10") == paper.ladder("conv2-cifar10")


@pytest.mark.parametrize(
    ("pct", "level"), [(100, 0), (51.3, 3), (21.1, 7), (21.0, 7), (16.8, 8), (7.0, 12), (3.6, 15), (3.5, 15), (20.2, None), (60, None)]
)
def test_a_percentage_names_the_nearest_level_within_truncation(pct: float, level: int | None) -> None:
    assert papers.load("frankle2019").level_of("lenet-mnist", pct) == level


def test_100_percent_is_level_0_without_a_ladder() -> None:
    paper = papers.load("malach2020")
    assert paper.level_of(paper.protocols[0]["id"], 100) == 0


def test_same_as_reaches_into_another_file(tmp_path: Path) -> None:
    shutil.copy(papers.FOLDER / "frankle2019.yaml", tmp_path)
    head = made_up.text().replace(
        "{id: other, same_as: net, optimizer: SGD}", "{id: other, same_as: frankle2019/lenet-mnist-oneshot, trials: 7}"
    )
    (tmp_path / "toy2000.yaml").write_text(head)
    other = papers.load("toy2000", tmp_path).protocol("other")
    assert (other["trials"], other["batch_size"], other["baselines"]) == (7, 60, ["dense", "one-shot-reinit"])


def test_an_unknown_paper_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="frankle2019"):
        papers.load("frankl2019")
    with pytest.raises(UsageError, match="lenet-mnist"):
        papers.load("frankle2019").protocol("lenet-mnits")


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    made_up.paper(tmp_path)
    (tmp_path / "toy2000.yaml").write_text(made_up.text().replace("value: 90.5", "value: 91.25"))
    assert papers.load("toy2000", tmp_path).published[0].value == 91.25


CLAIM = made_up.claim("difference: [{arm: ticket, level: 1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0")
BROKEN = {  # what is replaced, by what, and what the one line must name
    "not YAML": ("venue: Nowhere 2000", "venue: [", ["toy2000.yaml", "line"]),
    "a tab": ("conventions: {}", "\tconventions: {}", ["toy2000.yaml", "line 7"]),
    "a key twice": ("venue: Nowhere 2000", "venue: Nowhere 2000\nvenue: Somewhere", ["toy2000.yaml, line", "'venue' stands twice"]),
    "a wrong key": ("key: toy2000", "key: toy2001", ["toy2001"]),
    "a missing section": ("compute: {}\n", "", ["compute", "required"]),
    "a text for a number": ("value: 90.5", "value: many", ["published r1.value"]),
    "not a number": ("value: 90.5", "value: .nan", ["published r1.value", "finite"]),
    "a huge number": ("value: 90.5", "value: 1" + "0" * 400, ["published r1.value", "finite"]),
    "a number of 5000 digits": ("value: 90.5", "value: 1" + "0" * 5000, ["toy2000.yaml"]),
    "an unknown key": ("spread: null", "spred: null", ["published r1.spred"]),
    "an unknown quality": ("quality: table", "quality: hearsay", ["published r1.quality"]),
    "no source": ("source: Tab 1", 'source: ""', ["published r1.source"]),
    "an unknown relation": ("n: 5,", 'n: 5, relation: "~",', ["published r1.relation"]),
    "a broken spread": ("spread: null", "spread: {kind: sd}", ["published r1.spread"]),
    "an unknown protocol": ("protocol: net,", "protocol: nut,", ["row r1", "'nut'"]),
    "an unknown arm": ("arm: dense, level: 0, at: end", "arm: dence, level: 0, at: end", ["row r1", "'dence'"]),
    "an old key": ("level: 0, at: end", "sparsity_pct: 10, at: end", ["published r1.condition", "sparsity_pct"]),
    "a percentage above 100": ("level: 0, at: end", "weights_remaining_pct: 101, at: end", ["published r1.condition", "101"]),
    "a level that is no number": ("level: 0, at: end", "level: low, at: end", ["published r1.condition", "low"]),
    "a metric without unit": ("metric: test_accuracy_pct, value", "metric: goodness, value", ["row r1", "goodness"]),
    "an id twice": (made_up.ROW, made_up.ROW * 2, ["r1", "twice"]),
    "same_as of nothing": ("same_as: net", "same_as: nut", ["other", "'nut'"]),
    "same_as in a circle": ("id: net, pct_counts: prunable", "id: net, same_as: other", ["circle"]),
    "no pct_counts": ("pct_counts: prunable, ", "", ["protocols net", "pct_counts"]),
    "a broken ladder": ("{0: 100.0, 1: 80.0", "{0: 100.0, first: 80.0", ["protocols net", "ladder"]),
    "two bounds": ("greater_than: 0", "greater_than: 0, less_than: 1", ["claims c1.tests[0]", "bound"]),
    "no bound": (", greater_than: 0", "", ["claims c1.tests[0]", "bound"]),
    "a bound that is a text": ("greater_than: 0", "greater_than: nothing", ["claims c1.tests[0].greater_than"]),
    "an equivalence of no width": ("greater_than: 0", "within: 0", ["claims c1.tests[0]", "within"]),
    "a ratio below a negative": (
        "difference: [{arm: ticket, level: 1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: 0",
        "ratio: [{arm: ticket, level: 1}, {arm: dense}], metric: test_accuracy_pct, at: end, greater_than: -1",
        ["claims c1", "ratio"],
    ),
    "one operand": ("[{arm: ticket, level: 1}, {arm: dense}]", "[{arm: ticket, level: 1}]", ["claims c1", "two operands"]),
    "an operand that is a text": ("{arm: ticket, level: 1}", "ticket", ["claims c1.tests[0].difference"]),
    "an operand with a bound": ("{arm: ticket, level: 1}", "{arm: ticket, level: 1, within: 2}", ["claims c1", "within"]),
    "an arm of a claim": ("{arm: ticket, level: 1}", "{arm: tiket, level: 1}", ["claim c1, test 1", "tiket"]),
    "a headline without control": ("strength: secondary", "strength: headline", ["claims c1", "negative_control"]),
    "an empty for_each": ("greater_than: 0", "greater_than: 0, for_each: {level: []}", ["claims c1.tests[0].for_each"]),
    "deep nesting": ("conventions: {}", "conventions: " + "[" * 900 + "]" * 900, ["toy2000.yaml", "nested deeper"]),
    "very deep nesting": ("conventions: {}", "conventions: " + "[" * 200_000, ["toy2000.yaml", "nested deeper"]),
    "a bomb of aliases": (
        "conventions: {}",
        "conventions:\n  a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        ["toy2000.yaml", "aliases"],
    ),
    "a value that holds itself": ("conventions: {}", "conventions: &c {a: *c}", ["toy2000.yaml", "aliases"]),
    "an object of Python": ("conventions: {}", "conventions: !!python/object/apply:os.getcwd []", ["toy2000.yaml", "line 7"]),
    "an empty tagged int": ("conventions: {}", "conventions: {a: !!int ''}", ["toy2000.yaml"]),
    "an impossible date": ("conventions: {}", "conventions: {a: 2019-99-99}", ["toy2000.yaml"]),
    "a control character": ("conventions: {}", "conventions: {a: '\x07'}", ["toy2000.yaml"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_defect_is_one_line_that_names_file_and_place(what: str, tmp_path: Path) -> None:
    old, new, named = BROKEN[what]
    text = made_up.text(CLAIM)
    assert old in text
    (tmp_path / "toy2000.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as e:
        papers.load("toy2000", tmp_path)
    line = str(e.value)
    assert "\n" not in line and len(line) < 400 and line.startswith("toy2000.yaml")
    assert all(n in line for n in named), line


@pytest.mark.parametrize(
    ("content", "named"), [(b"\xff\xfe\x00", "UTF-8"), (b"", "mapping"), (b"- a\n- b\n", "mapping"), (b"just words", "mapping")]
)
def test_a_file_that_is_no_paper(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "toy2000.yaml").write_bytes(content)
    with pytest.raises(UserError, match=named):
        papers.load("toy2000", tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        papers.load("toy2000", tmp_path)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A real file, cut short, with spans replaced, doubled or filled with YAML's own marks."""
    text = SMALL.read_text() if draw(st.booleans()) else made_up.text(CLAIM)
    for _ in range(draw(st.integers(1, 4))):
        a = draw(st.integers(0, len(text)))
        b = draw(st.integers(a, min(len(text), a + 40)))
        mark = draw(
            st.sampled_from(
                [
                    "",
                    "[",
                    "{",
                    "]",
                    ": ",
                    "- ",
                    "\n",
                    "\n  ",
                    "&a ",
                    "*a",
                    "!!int ",
                    "!!timestamp ",
                    "null",
                    "1e999",
                    ".nan",
                    "0x",
                    "'",
                    '"',
                    "<<: ",
                    "? ",
                    "true",
                    "9" * 30,
                    "2019-13-01",
                    "=",
                    "%",
                    "#",
                    "\t",
                    text[a:b] * 2,
                ]
            )
            | st.text(max_size=4)
        )
        text = text[:a] + mark + text[b:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], derandomize=True
)
@given(text=damaged())
def test_damage_gives_a_paper_or_one_line(text: str, tmp_path: Path) -> None:
    key = "malach2020" if "malach2020" in text else "toy2000"
    (tmp_path / f"{key}.yaml").write_text(text, encoding="utf-8", errors="replace")
    try:
        assert isinstance(papers.load(key, tmp_path), papers.PaperData)
    except UserError as e:
        assert "\n" not in str(e) and str(e)
