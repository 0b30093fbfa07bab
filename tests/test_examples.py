"""Every example by the command line that its docstring gives, on one shared store: what a user adds must stand in the tables and plots."""
import ast
import csv
import io
import json
import shlex
from pathlib import Path

import pytest

from bench import plot_data
from bench.flags import Flags
from bench.measurements import find_manifest, read
from bench.plan import make
from bench.store import Store
from ltcore.errors import UsageError
from ltcore.recipe import changed
from replications import papers, registry
from tests.conftest import RECIPE, ROOT, Smoke, bench

ARMS = {"arm.py": "shuffled-places", "criterion.py": "movement"}


def command(example: str) -> list[str]:
    """The arguments after ``python -m bench`` in an example's docstring."""
    told = ast.get_docstring(ast.parse((ROOT / "examples" / example).read_text()))
    line = next(part for part in told.split("\n\n") if part.strip().startswith("python -m bench"))
    return shlex.split(line.replace("\\\n", ""))[3:]


def arms(store: Path) -> list[dict]:
    done = bench("compare", "frankle2019", "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["arms"]


@pytest.mark.parametrize("example", sorted(p.name for p in (ROOT / "examples").glob("*.py")))
def test_an_example_is_about_twenty_lines_and_names_itself(example):
    text = (ROOT / "examples" / example).read_text()
    code = [line for line in ast.unparse(_without_docstrings(ast.parse(text))).splitlines() if line.strip()]
    assert len(code) <= 25
    assert f"examples/{example}" in command(example)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


@pytest.mark.parametrize("example", sorted(ARMS))
def test_an_arm_and_a_criterion_stand_in_every_table_and_plot(example, smoke_store: Smoke, tmp_path):
    done = bench(*command(example), "--store", smoke_store.root)
    assert done.returncode == 0, done.stderr
    assert f"{ARMS[example]} level 1" in done.stdout and f"{ARMS[example]} level 2" in done.stdout
    mine = [e for e in arms(smoke_store.root) if e["condition"]["arm"] == ARMS[example] and e["protocol"] == "lenet-mnist"]
    assert [e["condition"]["level"] for e in mine] == [1, 2]
    assert [round(100 * e["density"], 1) for e in mine] == [80.2, 64.4]  # the tickets' own counts
    assert {(v["metric"], v["at"]) for v in mine[0]["values"]} >= {("test_accuracy_pct", "early-stop"), ("early_stop_it", None)}
    for form in ("md", "html", "latex"):
        assert ARMS[example] in bench("export", "frankle2019", "--store", smoke_store.root, "--format", form).stdout
    rows = list(csv.DictReader(io.StringIO(bench("export", "frankle2019", "--store", smoke_store.root, "--format", "csv").stdout)))
    assert any(json.loads(r["condition"])["arm"] == ARMS[example] and r["published"] == "" and r["mean"] for r in rows)
    store = Store(smoke_store.root, create=False)
    data = papers.load("frankle2019")
    panels = plot_data.panels(data, read(find_manifest(store, "frankle2019", "smoke"), store, data))
    shown = {c.arm for p in panels if p.protocol == "lenet-mnist" for c in p.ours}
    assert {ARMS[example], "ticket"} <= shown


def test_rows_of_a_run_with_a_user_s_file_are_not_compared_number_by_number(smoke_store: Smoke):
    done = bench(*command("arm.py"), "--store", smoke_store.root, "--json")
    rows = [r for r in json.loads(done.stdout)["rows"] if r["status"] == "measured"]
    assert rows and all(not r["comparable"] and "--with arm.py" in r["why_not"] for r in rows)


def test_a_model_of_one_s_own(smoke_store: Smoke):
    done = bench(*command("model.py"), "--store", smoke_store.root)
    assert done.returncode == 0, done.stderr
    tickets = {e["condition"]["level"]: e for e in arms(smoke_store.root) if e["condition"]["arm"] == "ticket"}
    # 80 + 2560 weights of the convolutions less a fifth, 320 of the output less a tenth, over all 2960
    assert tickets[1]["density"] == pytest.approx((64 + 2048 + 288) / 2960)
    assert tickets[1]["weights_remaining_pct"] == pytest.approx(81.08)  # measured, not the ladder of LeNet


def test_a_data_set_of_one_s_own(smoke_store: Smoke):
    done = bench(*command("dataset.py"), "--store", smoke_store.root, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    dense = next(e for e in found["arms"] if e["condition"]["arm"] == "dense")
    assert next(v["mean"] for v in dense["values"] if v["metric"] == "test_accuracy_pct") > 70  # digits, not the 38 % of MNIST-1D
    assert found["provenance"]["data"]["lenet-mnist"]["name"] == "shifted-digits"
    assert any("shifted-digits instead of mnist" in (r["why_not"] or "") for r in found["rows"])


# ---- what makes it painless ----------------------------------------------------------------------------------
def test_another_model_or_data_set_starts_without_the_options_of_the_one_before():
    assert changed(RECIPE, {"model.name": "mine"}).model.options == {}
    assert changed(RECIPE, {"data.options": {"a": 1}, "data.name": "other"}).data.options == {"a": 1}  # in whatever order
    assert changed(RECIPE, {"model.options.width": 8, "model.name": "mine"}).model.options == {"width": 8}
    assert changed(RECIPE, {"model.name": "lenet"}).model.options == {"hidden": [16, 8]}  # the same one keeps them


def test_options_of_the_stand_in_data_do_not_reach_a_user_s_set():
    plan = make(registry.load("frankle2019"), Flags("smoke", ("lenet-mnist",), sets=("lenet-mnist.data.name=shifted-digits",),
                                                    with_file=str(ROOT / "examples/dataset.py")))  # fmt: skip
    assert plan.about["lenet-mnist"]["recipe"]["data"]["options"] == {}
    assert plan.about["lenet-mnist"]["recipe"]["data"]["val"] == 500  # of the scale, as before


def test_too_small_a_data_set_says_what_takes_its_examples():
    sets = ("lenet-mnist.data.name=digits", "lenet-mnist.data.val=1437")
    with pytest.raises(UsageError, match=r"data.val takes 1437 of the 1437 training examples of digits and leaves none"):
        make(registry.load("frankle2019"), Flags("smoke", ("lenet-mnist",), sets=sets))
