"""Every verb by subprocess, on one store that was trained once at scale smoke."""
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ltcore.data import load
from tests.conftest import ROOT, Smoke, bench, environment

VERBS = ("list", "explain", "plan", "replicate", "status", "compare", "export", "plot", "check", "data", "ticket", "perf", "doctor")
SMOKE = ("frankle2019", "--scale", "smoke")


def as_json(*args: object, **env: str):
    """What a verb prints with --json: JSON alone."""
    done = bench(*args, "--json", **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(smoke_store: Smoke):
    """The shared store with the plain smoke run as its latest manifest."""
    done = bench("replicate", *SMOKE, "--store", smoke_store.root)
    assert done.returncode == 0, done.stderr
    return smoke_store.root


# ---- help ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("verb", VERBS)
def test_help_ends_with_two_examples(verb):
    done = bench(verb, "--help")
    assert done.returncode == 0 and done.stderr == ""
    last = " ".join(done.stdout[done.stdout.rindex("Examples:") :].split())
    assert last.count(f"python -m bench {verb}") == 2 and last.count("python -m bench") == 2


def test_a_bare_call_shows_all_verbs():
    done = bench()
    assert done.returncode == 0 and all(f"  {verb}" in done.stdout for verb in VERBS)


def test_list_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "bench", "list"], cwd=ROOT, env=environment(), capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0 and "typer" in imported
    assert imported & {"torch", "torchvision", "numpy", "pandas", "scipy", "matplotlib", "sklearn"} == set()


# ---- what needs no store -------------------------------------------------------------------------------------
def test_list():
    text, entries = bench("list").stdout, as_json("list")
    assert len(entries) == 26 and {e["paper"] for e in entries if e["status"] == "runs"} >= {"frankle2019"}
    assert all(e["paper"] in text for e in entries)
    frankle = next(e for e in entries if e["paper"] == "frankle2019")
    scales = {s["scale"] for e in frankle["experiments"] for s in e["scales"]}
    assert scales == {"smoke", "quick", "paper"} and {e["why_not_quick"][:11] for e in frankle["experiments"]} == {"", "needs a GPU"}


def test_explain():
    card = as_json("explain", "frankle2019", "--scale", "paper")
    lenet = next(e for e in card["experiments"] if e["id"] == "lenet-mnist" and e["data"] == "mnist")
    assert lenet["recipe"]["length"] == "50000it" and lenet["recipe"]["optimizer"]["lr"] == 1.2e-3 and lenet["trials"] == 5
    done = bench("explain", "frankle2019")
    assert done.returncode == 0 and "Settings" in done.stdout and "Deviations" in done.stdout and "Not covered" in done.stdout


def test_data():
    rows = {r["name"]: r for r in as_json("data", "list")}
    assert rows["mnist1d"]["status"] == "built in" and rows["mnist"]["status"] in ("ok", "missing")
    verified = as_json("data", "verify", "digits")
    assert [r["fingerprint"] for r in verified] == [load("digits").fingerprint]


def test_a_missing_data_set_is_exit_code_1(tmp_path):
    done = bench("data", "verify", "mnist", "--folder", tmp_path, "--json")
    assert done.returncode == 1 and json.loads(done.stdout)[0]["status"] == "missing"


def test_doctor(tmp_path):
    checks = as_json("doctor", "--store", tmp_path)
    assert {c["name"] for c in checks} >= {"python", "torch", "cuda"} and all(c["status"] in ("ok", "warn", "fail") for c in checks)
    assert bench("doctor", "--store", tmp_path).returncode == 0


# ---- replicate and what reads its store ----------------------------------------------------------------------
def test_replicate_says_which_data_stood_in_and_ends_with_the_comparison(smoke_store: Smoke):
    assert "data: smoke always runs on mnist1d" in smoke_store.stdout
    for title in ("All arms", "Claims:", "Claims not run", "Provenance"):
        assert f"\n{title}" in smoke_store.stdout
    assert " of 71 stages, about " in smoke_store.stderr and "Traceback" not in smoke_store.stderr


def test_replicate_again_computes_nothing_and_prints_the_same(smoke_store: Smoke):
    journal = (smoke_store.root / "journal.jsonl").read_text()
    again = bench("replicate", *SMOKE, "--store", smoke_store.root)
    assert again.returncode == 0 and again.stdout == smoke_store.stdout
    assert (smoke_store.root / "journal.jsonl").read_text() == journal


def test_no_stage_ran_twice(smoke_store: Smoke):
    stages = [json.loads(line)["stage"] for line in smoke_store.journal.splitlines()]
    assert len(stages) == len(set(stages)) > 30


def test_plan(store, tmp_path):
    done = as_json("plan", *SMOKE, "--store", store)
    fresh = as_json("plan", *SMOKE, "--store", tmp_path / "none")
    assert done != fresh and not (tmp_path / "none").exists()  # a dry run makes no store
    text = bench("plan", *SMOKE, "--store", store)
    assert text.returncode == 0 and text.stdout.strip() and "Traceback" not in text.stderr


def test_status(store):
    rows = [r for r in as_json("status", "frankle2019", "--store", store) if r["scale"] == "smoke" and r["experiment"] == "lenet-mnist"]
    assert any(r["done"] == r["of"] > 5 and r["data"] == "mnist1d" for r in rows)
    text = bench("status", "--store", store)
    assert text.returncode == 0 and "lenet-mnist-oneshot" in text.stdout


def test_compare_prints_what_replicate_printed(store, smoke_store: Smoke):
    assert bench("compare", *SMOKE, "--store", store).stdout == smoke_store.stdout
    everything = bench("compare", *SMOKE, "--store", store, "--all").stdout
    assert len(everything.splitlines()) > len(smoke_store.stdout.splitlines()) + 200  # rows that were not run, one by one


def test_compare_json_has_the_form_that_others_script_against(store):
    found = as_json("compare", *SMOKE, "--store", store)
    assert {"paper", "scale", "rows", "claims", "arms", "provenance"} <= set(found)
    measured = next(r for r in found["rows"] if r["status"] == "measured")
    assert {"id", "protocol", "condition", "metric", "published", "published_spread", "quality", "source", "comparable", "why_not", "agrees"} <= set(measured)
    assert set(measured["measured"]) >= {"mean", "sd", "n", "ci95"} and measured["comparable"] is False and "scale smoke" in measured["why_not"]
    assert {r["status"] for r in found["rows"]} == {"measured", "not-run", "not-covered"} and all(r["why_not"] for r in found["rows"])
    assert all(c["verdict"] in ("not-run", "inconclusive") and c["why"] for c in found["claims"])  # one trial decides nothing
    assert {"data", "device", "versions", "source_hash", "deviations"} <= set(found["provenance"])
    ticket = next(e for e in found["arms"] if e["protocol"] == "lenet-mnist" and e["condition"] == {"arm": "ticket", "level": 2})
    assert ticket["density"] == pytest.approx(0.6440, abs=1e-3) and ticket["n"] == 1 and ticket["failed"] == []


@pytest.mark.parametrize(("form", "sign"), [("md", "| "), ("csv", "paper,scale,id"), ("latex", r"\toprule"), ("html", "<!DOCTYPE html>"), ("json", '{\n "paper"')])
def test_export(store, tmp_path, form, sign):
    printed = bench("export", *SMOKE, "--store", store, "--format", form)
    assert printed.returncode == 0 and sign in printed.stdout and printed.stderr == ""
    written = bench("export", *SMOKE, "--store", store, "--format", form, "-o", tmp_path / "file")
    assert written.returncode == 0 and written.stdout == "" and (tmp_path / "file").read_text().strip() == printed.stdout.strip()


def test_csv_has_every_published_number_and_every_arm(store):
    rows = list(csv.DictReader(io.StringIO(bench("export", *SMOKE, "--store", store, "--format", "csv").stdout)))
    found = as_json("compare", *SMOKE, "--store", store)
    published = [r for r in rows if r["id"]]
    assert [r["id"] for r in published] == [r["id"] for r in found["rows"]]
    assert len(rows) - len(published) == sum(len(e["values"]) for e in found["arms"])


def test_plot(store, tmp_path):
    done = bench("plot", *SMOKE, "--store", store, "-o", tmp_path / "plots")
    files = [line for line in done.stdout.splitlines() if line.endswith(".png")]
    assert done.returncode == 0 and any("lenet-mnist-overview" in f for f in files)
    assert all(Path(f).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for f in files)


def test_ticket(store, tmp_path):
    file = tmp_path / "my.ticket"
    done = bench("ticket", "export", file, "--scale", "smoke", "--level", 2, "--store", store)
    assert done.returncode == 0 and "64.4 %" in done.stdout
    shown = as_json("ticket", "show", file)
    assert shown["prunable"] == 300 * 40 + 30_000 + 1_000 and shown["density_pct"] == pytest.approx(64.4, abs=0.05)
    assert shown["about"]["paper"] == "frankle2019" and shown["about"]["level"] == 2 and shown["about"]["rewind"] == "0it"
    assert "hidden.0.weight" in bench("ticket", "show", file).stdout


def test_a_ticket_rewound_to_a_later_step_keeps_the_weights_it_starts_from(tmp_path):
    flags = ("--scale", "smoke", "--experiment", "lenet-mnist", "--levels", 1, "--set", "lenet-mnist.rewind=50it", "--store", tmp_path / "store")
    assert bench("replicate", "frankle2019", *flags).returncode == 0
    done = bench("ticket", "export", tmp_path / "my.ticket", "--level", 1, "--store", tmp_path / "store")
    assert (done.returncode, done.stderr) == (0, "")


def test_no_such_ticket(store, tmp_path):
    for wrong, said in ((("--trial", 9), "trial 9 was not run: there are 0"), (("--arm", "one-shot"), "has no levels"),
                        (("--arm", "tickt"), "did you mean 'ticket'?"), (("--level", 9), "not run at level 9: there are 1, 2")):  # fmt: skip
        done = bench("ticket", "export", tmp_path / "my.ticket", "--scale", "smoke", *wrong, "--store", store)
        assert done.returncode == 2 and said in done.stderr


def test_replicate_json_is_json_alone(store):
    found = as_json("replicate", *SMOKE, "--store", store)
    assert found == as_json("compare", *SMOKE, "--store", store)


def test_results_go_where_the_environment_says(store):
    assert json.loads(bench("status", "--json", LTCORE_STORE=str(store)).stdout)


def test_perf():
    done = bench("perf", "--seconds", "0.1", "--device", "cpu", "--json", timeout_s=400)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_reading_verbs_find_the_run_of_the_same_flags(store):
    latest = bench("compare", "frankle2019", "--scale", "smoke", "--store", store)
    other = bench("compare", "frankle2019", "--scale", "smoke", "--trials", 3, "--store", store)
    assert latest.returncode == 0
    assert other.returncode == 1 and other.stderr.startswith("error: nothing was run") and "these flags" in other.stderr
