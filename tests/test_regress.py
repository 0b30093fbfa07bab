"""``check``: nothing moves against a baseline that was just written; what does move is listed, and the exit code is 1."""
import copy
import functools
import json
import platform
import re
import shutil

import pytest

from bench import plan as planning
from bench import regress
from bench.flags import Flags
from bench.store import Store
from ltcore.data import topics
from ltcore.errors import UserError
from replications import registry
from tests.conftest import Smoke, bench

KEY = "frankle2019"


@pytest.fixture(scope="module")
def results(smoke_store: Smoke):
    """The smoke results of trial 0: all of them are in the shared store."""
    before = (smoke_store.root / "journal.jsonl").read_text()
    found = regress.run(KEY, Store(smoke_store.root), 1)
    assert (smoke_store.root / "journal.jsonl").read_text() == before  # nothing was trained again
    return found


@pytest.fixture(scope="module")
def baseline(smoke_store: Smoke, tmp_path_factory):
    """Written by ``--update`` with two seeds, which is enough for its form."""
    path = tmp_path_factory.mktemp("check") / "new" / "baseline.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regress, "SEEDS", 2)
        patch.delenv("LTCORE_DATA", raising=False)
        assert regress.check(path, True, smoke_store.root, False) == 0
    return path


def moved(results, baseline, change) -> list[tuple[str, str]]:
    """(where, what) of all that moved after ``change`` was done to the baseline."""
    expected = copy.deepcopy(regress.read(baseline))
    change(expected["papers"][KEY])
    return [(m.where, m.what) for m in regress.compare(KEY, expected, results)]


TICKET = "lenet-mnist: ticket, level 2"


def test_nothing_moves_against_a_baseline_just_written(results, baseline):
    assert moved(results, baseline, lambda paper: None) == []


@pytest.mark.parametrize(("what", "value"), [("stage", "0" * 64), ("kept", 1), ("mask", "0" * 16)])
def test_a_hash_a_count_and_a_mask_are_compared_exactly(results, baseline, what, value):
    assert moved(results, baseline, lambda paper: paper["exact"][TICKET].update({what: value})) == [(TICKET, what)]


def test_other_data_change_the_hash_and_are_named_on_the_same_machine(results, baseline):
    assert moved(results, baseline, lambda paper: paper["exact"][TICKET].update(stage="0", data="0")) == [(TICKET, "data")]


def test_on_another_machine_only_counts_hashes_and_floats_count(results, baseline):
    expected = copy.deepcopy(regress.read(baseline))
    expected["machine"]["torch"] = "1.0"
    expected["papers"][KEY]["exact"][TICKET]["mask"] = "0"
    assert list(regress.compare(KEY, expected, results)) == []


@pytest.mark.parametrize(("sds", "moves"), [(3.9, False), (4.1, True), (-4.1, True)])
def test_a_float_may_move_by_four_standard_deviations(results, baseline, sds, moves):
    now = results[f"{TICKET}, trial 0"]["values"]["test_accuracy_pct@end"]
    floats = {"mean": now + sds * 1.5, "sd": 1.5, "n": 6}
    found = moved(results, baseline, lambda paper: paper["floats"][TICKET].update({"test_accuracy_pct@end": floats}))
    assert found == ([(TICKET, "test_accuracy_pct@end")] if moves else [])


def test_points_that_came_or_went(results, baseline):
    def rename(paper):
        for table in ("exact", "floats"):
            paper[table]["lenet-mnist: gone"] = paper[table].pop(TICKET)

    assert moved(results, baseline, rename) == [("lenet-mnist: gone", "point"), (TICKET, "point")]


def test_a_paper_that_the_baseline_does_not_know(results, baseline):
    expected = regress.read(baseline) | {"papers": {}}
    assert [m.what for m in regress.compare(KEY, expected, results)] == ["baseline"]


# ---- a text that comes with Python -----------------------------------------------------------------------------
@pytest.fixture
def other_text(monkeypatch):
    """Puts another version's text in the place of this Python's."""
    def put():
        monkeypatch.setattr("pydoc_data.topics.topics", {name: page.replace("the", "a") for name, page in shipped.items()})
        topics._topics.cache_clear()

    from pydoc_data.topics import topics as shipped

    yield put
    monkeypatch.undo()
    topics._topics.cache_clear()


@pytest.fixture
def on_text(monkeypatch, tmp_path):
    """``check`` of a paper's plan as it is now, on text and on episodes; every point measured 1, those on text ``value``."""
    def results(_key, _store, _trials, value=1.0):
        plan = planning.make(registry.load("yu2020"), Flags("smoke", ("wikitext2-lstm", "rl-cartpole-v0"), trials=1))
        about = {label: regress._about(a["data"]) for label, a in plan.about.items()}
        rest = {"floats": {}, "kept": 1, "mask": None}
        return {f"{regress._name(p)}, trial 0": {"stage": p.stage.hash, "values": {"m": value if "lstm" in p.label else 1.0}, **rest, **about[p.label]}
                for p in plan.points}  # fmt: skip

    def check(python, value=1.0, as_json=False):
        baseline = {"machine": regress._machine() | {"python": python}, "papers": {"yu2020": paper}}
        (tmp_path / "baseline.json").write_text(json.dumps(baseline))
        monkeypatch.setattr(regress, "run", functools.partial(results, value=value))
        return regress.check(tmp_path / "baseline.json", False, tmp_path / "store", as_json)

    monkeypatch.setattr(registry, "MODULES", {"yu2020": registry.MODULES["yu2020"]})
    first = {name.removesuffix(", trial 0"): r for name, r in results(None, None, 1).items()}
    paper = {"exact": {name: {k: r[k] for k in regress.EXACT} for name, r in first.items()},
             "floats": dict.fromkeys(first, {"m": {"mean": 1.0, "sd": 0.1, "n": 6}})}  # fmt: skip
    return check


def test_the_same_text_is_compared_whatever_the_version(on_text, capsys):
    assert on_text("3.9.1") == 0 and "not compared" not in capsys.readouterr().out
    assert on_text("3.9.1", value=9.0) == 1 and "wikitext2-lstm: ticket" in capsys.readouterr().out


def test_another_versions_text_is_not_compared_and_that_is_said(on_text, other_text, capsys):
    other_text()
    assert on_text("3.9.1", value=9.0) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("check: nothing moved in yu2020") and len(said) == 2
    assert re.fullmatch(r"not compared: \d+ points of yu2020 \(wikitext2-lstm, wikitext2-lstm rewind=0it\), whose text comes with Python: "
                        rf"in {platform.python_version()} it is not that of the baseline's Python 3.9.1", said[1])  # fmt: skip
    assert on_text("3.9.1", as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"moved": [], "not_compared": [said[1].removeprefix("not compared: ")]}


def test_another_text_in_the_same_version_has_moved(on_text, other_text, capsys):
    other_text()
    assert on_text(platform.python_version()) == 1
    out = capsys.readouterr().out
    assert re.search(r"wikitext2-lstm: ticket.* data ", out) and "not compared" not in out and "cartpole" not in out


# ---- the spread over seeds -----------------------------------------------------------------------------------
def test_the_spread_is_at_least_one_resolution():
    results = [{"values": {"a": 50.0, "b": v}, "floors": {"a": 0.2, "b": 0.0}} for v in (1.0, 3.0)]
    assert regress._spread(results) == {"a": {"mean": 50.0, "sd": 0.2, "n": 2}, "b": {"mean": 2.0, "sd": pytest.approx(2**0.5), "n": 2}}


def test_a_run_that_diverges_in_the_baseline_has_no_mean_and_moves_nothing(results, baseline):
    spread = regress._spread([{"values": {"a": None}, "floors": {"a": 0.0}}, {"values": {"a": 1.0}, "floors": {"a": 0.0}}])
    assert spread == {"a": {"mean": None, "sd": 0.0, "n": 2}}
    assert moved(results, baseline, lambda paper: paper["floats"][TICKET].update(spread)) == []


# ---- the command line ----------------------------------------------------------------------------------------
def test_the_committed_baseline_holds(smoke_store: Smoke):
    done = bench("check", "--store", smoke_store.root)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "nothing moved in frankle2019" in done.stdout


def test_records_of_another_engine_source_are_not_taken_for_this_ones(smoke_store: Smoke, tmp_path):
    """Hashes do not hold the code: a store filled before a change of the engine would hide what the change moved."""
    store = Store(shutil.copytree(smoke_store.root, tmp_path / "store"))
    plan = planning.make(registry.load(KEY), Flags("smoke", trials=1))
    assert regress._of_this_engine(plan, store).root == store.root
    path = store.folder(plan.stages[0].hash) / "record.json"
    record = json.loads(path.read_text())
    record["machine"]["source_hash"] = "before"
    path.write_text(json.dumps(record))
    own = regress._of_this_engine(plan, store)
    assert own.root.parent == store.root / "check" and own.stages() == []


def test_the_committed_baseline_has_at_least_five_seeds():
    papers = regress.read(regress.BASELINE)["papers"]
    assert all(b["n"] >= 5 for paper in papers.values() for metrics in paper["floats"].values() for b in metrics.values())


def test_a_regression_is_exit_code_1_and_a_table_of_what_moved(smoke_store: Smoke, baseline, tmp_path):
    changed = regress.read(baseline)
    changed["papers"][KEY]["exact"][TICKET]["kept"] = 12345
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    done = bench("check", "--baseline", tmp_path / "changed.json", "--store", smoke_store.root)
    assert done.returncode == 1 and done.stderr == ""
    for word in ("frankle2019", TICKET, "kept", "12345", "27690"):
        assert word in done.stdout
    as_json = bench("check", "--baseline", tmp_path / "changed.json", "--store", smoke_store.root, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["moved"] == [{"paper": KEY, "where": TICKET, "what": "kept", "baseline": 12345, "now": 27690}]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"machine": {}, "papers": {"frankle2019": {}}}', '{"machine": {}, "papers": 3}',
                                     '{"machine": {}, "papers": {"frankle2019": {"exact": {"a": {}}, "floats": {"a": {}}}}}'])  # fmt: skip
def test_a_damaged_baseline(tmp_path, content):
    (tmp_path / "baseline.json").write_text(content)
    with pytest.raises(UserError, match=r"can't be read .*: restore it, or write it anew with 'python -m bench check --update'"):
        regress.read(tmp_path / "baseline.json")


def test_a_missing_baseline(tmp_path):
    with pytest.raises(UserError, match="no baseline at .*check --update"):
        regress.read(tmp_path / "none.json")
