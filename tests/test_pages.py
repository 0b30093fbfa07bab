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
