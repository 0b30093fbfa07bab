"""README and docs hold what the packed results give, and packed results survive a round trip."""
from __future__ import annotations

import gzip

import pytest

from bench import pack, pages
from bench.store import Store
from ltcore.errors import UserError


@pytest.mark.parametrize("page", pages.PAGES)
def test_generated_tables_are_up_to_date(page):
    text = (pages.ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table " in text
    assert pages.rendered(text) == text, f"{page} is out of date: run 'python -m bench.pages'"


@pytest.fixture
def with_phases(tmp_path, monkeypatch):
    """Packs the early-bird result again, with what was spent on the dense net and its tickets."""
    def packed(told):
        store = Store(tmp_path / "store")
        manifest = pack.read_into(pages.ROOT / "results" / f"{pages.EARLY_QUICK}.json.gz", store)
        trained = [p["stage"] for p in manifest["points"] if p["label"].startswith("eb-existence")]
        (tmp_path / "results").mkdir()
        records = {p["stage"]: store.record(p["stage"]) for p in manifest["points"]}
        pack.write(tmp_path / "results" / f"{pages.EARLY_QUICK}.json.gz", {**manifest, "phases": dict.fromkeys(trained, told)}, records)
        monkeypatch.setattr(pages, "ROOT", tmp_path)
        pages.comparison.cache_clear()
        return pages.rendered("<!-- table eb-quick-phases -->\nold\n<!-- end -->").splitlines()

    yield packed
    pages.comparison.cache_clear()


@pytest.mark.parametrize(("energy", "cells"), [((None, None), ""), ((30.0, 5.0), " 30.0 5.0 35.0")])
def test_what_searches_cost_is_shown_where_the_packed_result_tells(with_phases, energy, cells):
    told = {phase: {"wall_s": wall_s, "energy_J": joules} for phase, wall_s, joules in zip(("search", "retraining"), (60.0, 12.5), energy)}
    lines = with_phases(told)
    dense = next(" ".join(line.replace("|", " ").split()) for line in lines if "| dense " in line)
    assert dense == f"eb-existence network=vgg16 dataset=cifar10 dense 3 60.0 12.5 72.5{cells}"
    assert sum("early-bird: " in line for line in lines) == 2 and lines[-1] == "<!-- end -->" and "old" not in lines


def test_where_no_search_is_told_of_the_place_of_the_table_says_so():
    line = "No table of search and retraining: this result was packed without the times of its searches."
    assert pages._phases({}, {"phases": []}) == line


PACKED = sorted(path.name.removesuffix(".json.gz") for path in (pages.ROOT / "results").glob("*.json.gz"))


def test_every_table_has_its_packed_results():
    assert {pages.FULL, pages.QUICK, pages.STABLE, pages.STABLE_QUICK, pages.ELASTIC_QUICK, pages.TRAVEL, pages.EARLY_QUICK} <= set(PACKED)


@pytest.mark.parametrize("name", PACKED)
def test_packed_results_are_whole(name, tmp_path):
    store = Store(tmp_path / "store")
    path = pages.ROOT / "results" / f"{name}.json.gz"
    manifest = pack.read_into(path, store)
    assert all(store.has(p["stage"]) for p in manifest["points"])
    pack.write(tmp_path / "again.json.gz", manifest, {p["stage"]: store.record(p["stage"]) for p in manifest["points"]})
    assert (tmp_path / "again.json.gz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"not gzip", gzip.compress(b""), gzip.compress(b"{}"), gzip.compress(b"{}\n[1]")])
def test_damaged_file_is_one_line(content, tmp_path):
    (tmp_path / "x.json.gz").write_bytes(content)
    with pytest.raises(UserError, match="can't be read") as caught:
        pack.read_into(tmp_path / "x.json.gz", Store(tmp_path / "store"))
    assert "\n" not in str(caught.value)
