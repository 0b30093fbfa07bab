"""yu2020's language half: recipes are the file's, and its claims find what the experiments declare."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import sys

import pytest
import torch

from bench import claims, plan, verdicts
from bench.flags import Flags
from bench.joins import Join
from bench.measurement import Measurement, RunInfo
from ltcore.arms import ARMS
from ltcore.data import number_words
from ltcore.imp import DataFacts, Trial
from ltcore.models import MODELS, layer_kinds, layer_sizes, skeleton
from replications import papers, registry
from tests.conftest import bench
from tests.made_up import every_part_is_found

DATA, PAPER = papers.load("yu2020"), registry.load("yu2020")
PROTOCOLS = ("wikitext2-lstm", "wmt14-transformer-base", "wmt14-transformer-base-layers-only", "wmt14-transformer-big")
FACTS = {
    "wikitext2": DataFacts("wikitext2", "made-up", 2_088_628, (), 33_278),
    "wmt14": DataFacts("wmt14", "made-up", 4_508_785, (), 32_768),
}
METRIC = {"wikitext2": "log_perplexity", "wmt14": "bleu"}
N = 3


def _of(protocol):
    return [e for e in PAPER.experiments if e.protocol == protocol and ("paper", e.recipe.data.name) in e.scaled]


def _trial(e, seed=0):
    return Trial(e.recipe, FACTS[e.recipe.data.name], seed)


def test_the_lstms_recipe_is_that_of_the_file():
    said, e = DATA.protocol("wikitext2-lstm"), _of("wikitext2-lstm")[0]
    r, o, trial = e.recipe, e.recipe.optimizer, _trial(e)
    assert (o.name, o.lr, list(o.betas), o.eps) == ("adam", said["optimizer"]["lr"], said["optimizer"]["betas"], said["optimizer"]["eps"])
    assert (r.batch_size, r.task.options["bptt"], r.length, r.rewind) == (
        said["batch_size"],
        said["bptt"],
        f"{said['epochs']}ep",
        said["pruning"]["rewind"],
    )
    assert {k: r.model.options[k] for k in ("layers", "hidden", "embedding", "dropout")} == {
        k: said["model"][k] for k in ("layers", "hidden", "embedding", "dropout")
    }
    assert (e.scaled["paper", "wikitext2"].levels, r.pruning.scope) == (said["pruning"]["rounds"], said["pruning"]["scope"])
    assert trial.length_it == 10 * 1392 and trial.rewind_it == 1392 == r.evaluate.every_it  # (2,088,628 // 30 - 1) // 50


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_pruned_is_what_the_file_says(protocol):
    e = _of(protocol)[0]
    with torch.device("meta"):  # shapes alone: drawing 210 M weights takes long
        module = skeleton(MODELS[e.recipe.model.name], e.recipe.model, (), FACTS[e.recipe.data.name].classes)
        pruned, kinds = sum(n for n, _ in _trial(e).prunable().values()), layer_kinds(module)
    norms = sum(p.numel() for name, p in module.named_parameters() if name not in kinds)
    total = sum(p.numel() for p in module.parameters())
    left_out = module.embedding.weight.numel() if protocol.endswith("layers-only") else 0
    assert pruned == total - norms - left_out and norms < 0.001 * total
    assert set(e.recipe.pruning.rates.values()) == {DATA.protocol(protocol)["pruning"]["rate_per_round"]}
    assert e.recipe.pruning.counts == DATA.protocol(protocol)["pct_counts"]
    assert sum(layer_sizes(module).values()) == total - norms


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_transformers_are_trained_as_the_file_says(protocol):
    said, e = DATA.protocol(protocol), _of(protocol)[0]
    trial = _trial(e)
    assert (trial.length_it, trial.rewind_it, e.recipe.rewind) == (said["updates"], 1000, said["pruning"]["rewind"])
    assert trial.ticket(0).params["average"] == {"from_it": 42_500, "every_it": 1500} and said["checkpoint_averaging"]
    assert (
        e.recipe.optimizer.schedule == "inverse-sqrt" and e.recipe.optimizer.warmup_it == 4000 and e.recipe.optimizer.betas == (0.9, 0.98)
    )


def test_every_protocol_has_the_arms_that_the_paper_has():
    names = {p: {a.arm for e in _of(p) for a in e.scaled["paper", e.recipe.data.name].arms} for p in PROTOCOLS}
    assert all({"dense", "ticket", "random-ticket"} <= arms for arms in names.values())
    assert {p for p, arms in names.items() if "one-shot" in arms} == {"wikitext2-lstm", "wmt14-transformer-base"}
    assert {e.protocol for p in PROTOCOLS for e in _of(p) if e.condition == {"rewind": "0it"}} == {
        "wikitext2-lstm",
        "wmt14-transformer-base",
    }


def _measured(value=lambda protocol, arm, kept_pct, trial: 4.0 + trial):
    """A made-up measurement of every point that scale paper has, with the conditions that a run would write down."""
    for e in (e for p in PROTOCOLS for e in _of(p)):
        for arm in e.scaled["paper", e.recipe.data.name].arms:
            for p in plan._points(e, arm, e.scaled["paper", e.recipe.data.name], [_trial(e, t) for t in range(N)]):
                ladder, level = DATA.ladder(p.protocol), p.condition.get("level")
                base = {**p.base, **({"weights_remaining_pct": ladder[level]} if level else {})}
                kept_pct = base.get("weights_remaining_pct", 100.0)
                found, metric = value(p.protocol, p.condition["arm"], kept_pct, p.trial), METRIC[e.recipe.data.name]
                yield Measurement(p.protocol, p.condition, base, p.trial, 0, metric, "end", found, 0.0, False, "", kept_pct / 100, p.stage.hash)


def _run(scale="paper", n=N):
    return RunInfo("yu2020", scale, dict.fromkeys(PROTOCOLS, n), dict.fromkeys(PROTOCOLS, ""), {}, {})


@pytest.fixture(scope="module")
def join():
    return Join(DATA, list(_measured()), _run())


@pytest.mark.parametrize("claim", [c.id for c in DATA.claims if c.id.startswith("nlp-") and not c.custom])
def test_claims_find_what_the_experiments_declare(claim, join):
    every_part_is_found(DATA, claim, join, N)


# ---- the claim on curves: random tickets fall faster where embeddings stay dense ------------------------------
BASE, LAYERS = PROTOCOLS[1:3]


def _falling(protocol, arm, kept_pct, trial):
    """BLEU 27 dense; random tickets lose 0.1 a percent pruned and a little more each trial, twice that where embeddings stay dense."""
    a_pct = {"ticket": 0.05, "random-ticket": 0.1 + 0.0025 * trial}.get(arm, 0.0)
    return 27 - (100 - kept_pct) * a_pct * (2 if (protocol, arm) == (LAYERS, "random-ticket") else 1)


@pytest.fixture(scope="module")
def falling():
    return list(_measured(_falling))


def _judged(measured, run=None):
    return verdicts.judge_claim(claims.by_id(DATA, "nlp-layers-only-random-collapses"), DATA, Join(DATA, measured, run or _run()), ())


def _without(measured, protocol, **condition):
    return [m for m in measured if m.protocol != protocol or not condition.items() <= {**m.base, **m.condition, "trial": m.trial}.items()]


def test_slopes_of_the_declared_levels_are_compared_trial_by_trial(falling):
    """Slopes differ by 0.1, 0.1025 and 0.105; a straight line through eleven points has R² 1."""
    found = _judged(falling)
    steeper, straight = found["parts"]
    assert (found["verdict"], found["n"], steeper["bound"], straight["bound"]) == ("replicated", 3, 0, 0.9)
    assert steeper["effect"] == pytest.approx(-0.1025) and straight["effect"] == pytest.approx(1.0)
    half = 4.30265 * 0.0025 / math.sqrt(3)
    assert steeper["ci95"] == pytest.approx([-0.1025 - half, -0.1025 + half], abs=1e-6) and 0 < steeper["p"] < 1e-3
    assert "slope of random-ticket" in steeper["test"] and "R²" in straight["test"]


def test_the_claim_falls_where_slopes_are_turned_round_or_tickets_collapse(falling):
    other = {BASE: LAYERS, LAYERS: BASE}
    turned = [dataclasses.replace(m, protocol=other.get(m.protocol, m.protocol)) for m in falling]
    assert [p["verdict"] for p in _judged(turned)["parts"]] == ["not-replicated", "replicated"]
    late = _measured(lambda protocol, arm, kept_pct, trial: 0.1 * trial if arm == "ticket" and kept_pct < 12 else 27.0)
    found = _judged(list(late))["parts"][1]  # 27 down to level 9, nothing at level 10: far from a line
    assert found["verdict"] == "not-replicated" and 0.1 < found["effect"] < 0.3


LACKING = [  # what is left out of the run, and what the claim says of it
    ((BASE, {"level": 4}), "not-run", "random-ticket: level 4 not run at this scale"),
    ((BASE, {"arm": "dense"}), "not-run", "arm dense not run"),
    ((LAYERS, {"arm": "random-ticket"}), "not-run", "arm random-ticket not run"),
    ((LAYERS, {"arm": "random-ticket", "level": 9, "trial": 2}), "inconclusive", "trial 2 missing"),
]


@pytest.mark.parametrize(("gone", "verdict", "why"), LACKING)
def test_what_is_missing_is_said_as_of_any_part(falling, gone, verdict, why):
    part = _judged(_without(falling, gone[0], **gone[1]))["parts"][0]
    assert part["verdict"] == verdict and why in part["why"]


def test_of_a_curve_that_is_not_run_the_first_points_are_named(falling):
    missing = "; ".join(f"ticket: level {level} not run at this scale" for level in (3, 4, 5))
    kept = [m for m in falling if m.condition["arm"] != "ticket" or m.condition.get("level", 0) < 3]
    assert _judged(kept)["parts"][1]["why"] == f"{missing}; 5 more missing"


def test_failed_trials_too_few_and_other_scales_leave_it_undecided(falling):
    kept = _without(falling, LAYERS, arm="random-ticket", level=10, trial=1)
    found = _judged(kept + [dataclasses.replace(m, failed="diverged") for m in falling if m not in kept])
    assert found["verdict"] == "inconclusive" and found["why"].startswith("trial 1 of random-ticket diverged")
    assert [p["n"] for p in found["parts"]] == [2, 3]
    two = _judged(falling, _run(n=2))
    assert two["verdict"] == "inconclusive" and "2 trials; at least 3 are needed" in two["why"]
    small = _judged(falling, _run("quick"))
    assert (small["verdict"], small["why"]) == ("inconclusive", "needs paper scale; at this scale 2 of 2 parts hold")


def test_random_tickets_start_afresh_and_tickets_at_the_rewind_step():
    trial = _trial(_of("wikitext2-lstm")[0])
    ticket, random, unpermuted = (ARMS[name](trial, 4) for name in ("ticket", "random-ticket", "reinit"))
    assert ticket.params["start"] == 1392 and random.params["start"] == unpermuted.params["start"] == 0
    assert unpermuted.inputs["mask"] == ticket.inputs["mask"] != random.inputs["mask"]


def test_plans_are_made_without_the_corpora(monkeypatch, tmp_path):
    """Quick needs WikiText-2: without it the protocols are skipped by name, and the others go on."""
    monkeypatch.setattr("ltcore.data.text_files.reachable", lambda urls: [])
    monkeypatch.setattr("ltcore.data.sources.downloads", lambda: tmp_path)
    monkeypatch.delenv("LTCORE_DATA", raising=False)
    made = plan.make(PAPER, Flags("quick"))
    assert "wikitext2-lstm" in made.skipped and "rl-cartpole-v0" in {p.protocol for p in made.points}


@pytest.mark.parametrize("package", ["tokenizers", "sacrebleu", "num2words"])
def test_a_missing_package_skips_translation_before_anything_is_trained(package, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *of: None if name == package else found(name, *of))
    monkeypatch.setitem(sys.modules, package, None)
    for cached in (number_words._number_words, number_words._both):
        cached.cache_clear()
    made = plan.make(PAPER, Flags("smoke"))
    [said] = [note for note in made.notes if f"pip install {package}" in note]
    assert said.endswith(": wmt14-transformer-base, wmt14-transformer-base-layers-only skipped")
    assert {"wikitext2-lstm", "rl-acrobot-v1"} <= {p.protocol for p in made.points}


def test_smoke_by_the_command_line(tmp_path):
    call = (
        "yu2020",
        "--scale",
        "smoke",
        "--experiment",
        "wikitext2-lstm",
        "--experiment",
        "wmt14-transformer-base",
        "--store",
        tmp_path / "store",
    )
    done = bench("replicate", *call, "--json")
    assert done.returncode == 0, done.stderr
    arms = [a for a in json.loads(done.stdout)["arms"] if a["protocol"] in PROTOCOLS]
    read = {p: {v["metric"] for a in arms if a["protocol"] == p for v in a["values"]} for p in PROTOCOLS[:2]}
    assert read["wikitext2-lstm"] == {"log_perplexity"} and read["wmt14-transformer-base"] == {
        "val_loss",
        "test_loss",
        "bleu",
        "early_stop_it",
    }
    assert len(arms) == 10 and all(3 < a["values"][0]["mean"] < 6.3 for a in arms if a["protocol"] == "wikitext2-lstm")
    assert "no training to do" in bench("plan", *call).stdout
