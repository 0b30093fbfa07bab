"""Tables for a terminal: what a cell says stands there, whatever number it may look like."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench import catalogue, estimate, grid, ticket_verb
from replications import registry

LOOKS = ("1,920", "0.10", "1e5", "12e45", "007", "True", "nan", "-1,920.50")


@pytest.mark.parametrize("widths", [None, 12, [4, None]])
@pytest.mark.parametrize("text", LOOKS)
def test_a_cell_that_looks_like_a_number_stays_as_it_is(text, widths):
    lines = grid.grid([(text, "words"), (text, "more words")], ["a", "b"], widths).splitlines()
    shown = "\n".join(lines)
    assert shown.count(text) == 2 or widths == [4, None] and "".join(line.split("  ")[0].strip() for line in lines[2:]) == 2 * text


def test_lines_by_hand():
    rows = [("long enough", 1920, None), ("short", 7, "0.10")]
    assert grid.grid(rows, ["name", "n", "x"], [6, None, None]).splitlines() == [
        "name       n  x", "------  ----  ----", "long    1920", "enough", "short      7  0.10",
    ]  # fmt: skip
    assert grid.grid(rows[1:], (), tablefmt="plain") == "short  7  0.10"
    assert grid.of_keys([{"a": "1,920", "b": 2}], 40).splitlines() == ["a        b", "-----  ---", "1,920    2"]
    assert grid.of_keys([]) == "" and grid.grid([], ["a", "b"]).splitlines() == ["a    b", "---  ---"]


def test_the_protocol_card_holds_a_number_with_a_comma():
    card = catalogue.card("frankle2019", "smoke")
    setting = dataclasses.asdict(registry.load("frankle2019").settings[0])
    card |= {"settings": [setting | {"ours": "1,920", "code": "0.10"}], "deviations": [{"what": "w", "paper": "1,920", "ours": "1e5", "why": "33,278"}]}
    text = catalogue.render_card(card)
    for cell in ("│ 1,920 ", "│ 0.10 ", "│ 1e5 ", "│ 33,278 "):
        assert cell in text


def test_a_ticket_with_whole_percentages_and_a_comma_in_what_is_said_of_it():
    found = {"about": {"note": "1,920"}, "weights": {"fc.weight": [300], "fc.bias": [300]}, "density_layers": {"fc.weight": 0.5, "fc.bias": 0.25},
             "kept": 225, "prunable": 600, "density_pct": 37.5}  # fmt: skip
    text = ticket_verb.render(found)
    assert "note  1,920" in text and "50.00" in text and "25.00" in text


def test_no_other_table_is_wrapped_by_tabulate():
    folder = Path(estimate.__file__).parent
    assert [path.name for path in sorted(folder.glob("*.py")) if "maxcolwidths" in path.read_text(encoding="utf-8")] == []
