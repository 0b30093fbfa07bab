"""A measure counts as its networks do: of one that diverged, or stayed at chance, no number is a good trial, packed or not."""

from __future__ import annotations

import pytest

from bench import measurements, pack
from bench.store import Store


def record(kind: str, what: str = "", failed: str | None = None, **inputs: str) -> dict:
    facts = {} if failed is None else {"failed": failed}
    stage = {"kind": kind, "params": {"what": what} if what else {}, "inputs": {role: [stage, "state"] for role, stage in inputs.items()}}
    return {"stage": stage, "values": [], "curves": {}, "facts": facts, "machine": {}}


RECORDS = {
    "good": record("train", failed=""), "bad": record("train", failed="diverged"), "early": record("train", failed="stayed at chance"),
    "top5": record("measure", "top-5", state="bad"), "own": record("measure", "top-5", failed="stayed at chance", state="good"),
    "path": record("measure", "linear-path", failed="", a="good", b="early"), "close": record("measure", "stability", a="good", b="good"),
    "moved": record("measure", "weight-movement", start="early", end="good"), "drawn": record("measure", "draw", search0="bad"),
    "gone": record("measure", "stability", a="good", b="elsewhere"),
}  # fmt: skip
# W_k, after a hundredth of the training, may stay at chance; a search's masks are no network.
EXPECTED = {"good": "", "bad": "diverged", "top5": "diverged", "own": "stayed at chance", "path": "stayed at chance", "close": None, 
            "moved": None, "drawn": None, "gone": None}  # fmt: skip


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(tmp_path / "store")
    for stage, told in RECORDS.items():
        made.commit(stage, told, {})
    return made


@pytest.mark.parametrize("stage", EXPECTED)
def test_why_a_number_does_not_count(store, stage):
    found = measurements.record_of(stage, store)
    assert found["facts"].get("failed") == EXPECTED[stage]
    assert {**found, "facts": 0} == {**RECORDS[stage], "facts": 0}


def test_packed_measures_say_it_without_the_records_that_they_read(store, tmp_path):
    point = {"label": "x", "protocol": "p", "condition": {"arm": "dense"}, "base": {}, "trial": 0, "draw": 0, "stage": "top5"}
    manifest = {"version": 2, "paper": "p", "scale": "quick", "flags": {}, "experiments": {}, "skipped": {}, "points": [point]}
    store.write_manifest("p-quick-1", manifest)
    pack.pack("p", tmp_path / "x.json.gz", "quick", store.root)
    other = Store(tmp_path / "other")
    pack.read_into(tmp_path / "x.json.gz", other)
    assert not other.has("bad") and measurements.record_of("top5", other)["facts"]["failed"] == "diverged"
