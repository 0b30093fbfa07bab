"""Morcos et al. 2019: every claim and every accuracy of the file finds its numbers, missing sets stop nothing else, and tickets can be taken out."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest
import torch

from bench import execute, measurements, plan, selection, ticket_verb
from bench.compare import compare
from bench.flags import Flags
from bench.joins import Join
from bench.measurement import Measurement, RunInfo
from bench.store import Store
from ltcore import data, tickets
from ltcore.errors import DataMissingError, UsageError
from ltcore.imp import DataFacts, Source, Trial
from ltcore.models import VGG
from ltcore.pruning import count
from ltcore.recipe import changed
from replications import papers, registry
from replications.morcos2019 import NETS, SETS
from replications.schema import SCALES
from tests.made_up import every_part_is_found

DATA, PAPER, N = papers.load("morcos2019"), registry.load("morcos2019"), 3
OURS = [p["id"] for p in DATA.protocols]
CLASSES = {"cifar100": 100, "imagenet": 1000, "places365": 365}
FACTS = {word: DataFacts(s.data.name, word, s.n_train, (3, 32, 32), CLASSES.get(word, 10), decoded=word in ("imagenet", "places365")) for word, s in SETS.items()}


def word_of(recipe) -> str:
    return next(word for word, s in SETS.items() if s.data == recipe.data)


# ---- scale paper -----------------------------------------------------------------------------------------------
def value(c: dict) -> float:
    """A world in which the paper is right: what is left after so many levels, for each kind of ticket."""
    level, arm, scope = c.get("level", 0), c["arm"], c.get("scope")
    source, target = c.get("source") or c.get("source_optimizer"), c.get("target") or c.get("target_optimizer")
    loss = {"imagenet": 0.3, "places365": 0.3, "cifar100": 0.4}.get(source, 0.5) if source != target else 0.0
    worth = {"dense": 90.0, "ticket": 90.0 - loss, "reinit": 88.0, "random-mask": 86.0}.get(arm, 90.0 - 2.0 * level)
    if target == "fashionmnist" and source == target and level < 4 and arm == "ticket":
        worth -= 20  # the own ticket overfits
    if (c.get("network") == "resnet50" or target == "adam") and level < 4 and arm == "random-ticket":
        worth = 91.0  # the exceptions: random tickets win while little is pruned
    if scope == "layerwise":
        worth -= 0.1 * level
    if c["protocol"] == "dataset-transfer-resnet50" and target in ("imagenet", "places365") and source == target and level > 9:
        worth -= 10
    return worth


def measured() -> Iterator[Measurement]:
    for e in PAPER.experiments:
        for (scale, _), scaled in e.scaled.items():
            if scale != "paper":
                continue
            sources = {name: changed(e.recipe, changes) for name, changes in scaled.sources.items()}
            given = {name: Source(r, FACTS[word_of(r)]) for name, r in sources.items()}
            trials = [Trial(e.recipe, FACTS[word_of(e.recipe)], t, sources=given) for t in range(N)]
            for arm in scaled.arms:
                for p in plan._points(e, arm, scaled, trials):
                    where = p.protocol, {**p.condition}, p.base, p.trial, 0
                    if arm.build == "layer-density":
                        for i in range(1, 17):
                            yield Measurement(*where[:1], {**p.condition, "layer": f"conv{i}"}, *where[2:], "layer_weights_remaining_pct", "end", 100.0 - i, 0.0)
                    else:
                        v = value({**p.base, **p.condition, "protocol": p.protocol}) + 0.02 * p.trial * (1 + (arm.arm == "ticket"))
                        yield Measurement(*where, "test_accuracy_pct", "end", v, 0.01, stage=p.stage.hash)


@pytest.fixture(scope="module")
def world() -> list[Measurement]:
    return list(measured())


def info() -> RunInfo:
    return RunInfo("morcos2019", "paper", dict.fromkeys(OURS, N), dict.fromkeys(OURS, ""), {}, {})


CLAIMS = [c.id for c in DATA.claims]


@pytest.mark.parametrize("claim_id", CLAIMS)
def test_every_part_of_every_claim_finds_its_measurements(claim_id, world):
    every_part_is_found(DATA, claim_id, Join(DATA, world, info()), N)


def test_claims_are_replicated_in_a_world_where_the_paper_is_right(world):
    found = {c["id"]: c["verdict"] for c in compare(DATA, world, info())["claims"]}
    assert found == dict.fromkeys(CLAIMS, "replicated")


def test_accuracies_of_the_replication_are_secondary_and_its_random_tickets_are_not_used(world):
    rows = {r["id"]: r for r in compare(DATA, world, info())["rows"]}
    of_others = [rows[r.id] for r in DATA.published if r.metric == "test_accuracy_pct"]
    random = [r for r in of_others if r["condition"]["arm"] == "random-ticket"]
    assert len(of_others) == 106 and len(random) == 33 and all(r["quality"] == "secondary-source" for r in of_others)
    assert all(r["status"] != "measured" for r in random) and all(r["status"] == "measured" for r in of_others if r not in random)


def test_one_source_is_found_once_for_all_its_targets():
    """A ticket's chain on its own data does not depend on where it goes: equal stages are trained once."""
    chains = set()
    for e in PAPER.experiments:
        for (scale, _), scaled in e.scaled.items():
            if scale == "paper" and e.protocol == "dataset-transfer-vgg19" and "cifar100" in scaled.sources:
                recipe = changed(e.recipe, scaled.sources["cifar100"])
                target = Trial(e.recipe, FACTS[word_of(e.recipe)], 0, sources={"cifar100": Source(recipe, FACTS["cifar100"])})
                chains.add(target.source("cifar100").ticket(2).hash)
    assert len(chains) == 1


def test_the_ladder_is_that_of_exact_rounds_over_the_convolutions_of_vgg19():
    with torch.device("meta"):
        whole = left = sum(p.numel() for p in VGG((3, 32, 32), 10, bias=True).parameters() if p.dim() == 4)
    for level in range(31):
        assert 100 * left / whole == pytest.approx(DATA.ladder("dataset-transfer-vgg19")[level], abs=0.0051)
        left -= count(0.2, left)
    assert whole == 20_018_880


def test_drops_and_reads_are_epochs_of_each_set():
    for e in PAPER.experiments:
        if any(scale == "paper" for scale, _ in e.scaled):
            word, net = word_of(e.recipe), next(n for n in NETS.values() if n.model == e.recipe.model)
            trial, per_epoch = Trial(e.recipe, FACTS[word], 0), FACTS[word].n_train // 512
            assert e.recipe.optimizer.drops_it == tuple(ep * per_epoch for ep in net.drops_ep) and e.recipe.evaluate.every_it == per_epoch
            assert (trial.length_it, trial.rewind_it) == (net.epochs * per_epoch, per_epoch * (3 if word in ("imagenet", "places365") else 1))


# ---- declarations ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", SCALES)
def test_no_two_experiments_of_a_scale_have_one_label(scale):
    labels = [e.label for e in PAPER.experiments if any(at == scale for at, _ in e.scaled)]
    assert len(labels) == len(set(labels))


def test_every_source_that_an_arm_names_is_declared():
    for e in PAPER.experiments:
        for scaled in e.scaled.values():
            assert {a.options["source"] for a in scaled.arms if "source" in a.options} == set(scaled.sources), e.label


# ---- sets that are not at hand -----------------------------------------------------------------------------------
@pytest.fixture
def sets(monkeypatch):
    """Which sets lie here; the rest are stood in for, or missing."""
    have = {"cifar10", "cifar100", "fashion-mnist", "digits"}

    def made(name: str, **options) -> data.Dataset:
        x = torch.zeros(600, 3 if name.startswith("cifar") else options.get("channels", 1), 8, 8) + len(name) + len(str(options))
        y = torch.arange(600) % 10
        return data.from_user(name, (x, y, x[:20], y[:20]))

    def load(name: str, mode: str = "auto", **options):
        if name in have:
            return made(name, **options)
        if name in ("imagenet", "places365") or mode != "auto":
            raise DataMissingError(f"{name} is missing")
        return dataclasses.replace(made("digits"), fallback_for=name, note=f"{name} not found: using digits")

    monkeypatch.setattr(selection, "load_data", load)
    monkeypatch.setattr(plan, "load_data", load)
    return have


@pytest.mark.parametrize("mode", ["auto", "local"])
def test_sources_that_are_missing_are_said_and_the_others_go_on(sets, mode, tmp_path):
    few = dataclasses.replace(PAPER, experiments=tuple(e for e in PAPER.experiments if e.protocol == "dataset-transfer-vgg19"))
    made = plan.make(few, Flags("paper", trials=1, data=mode, levels=2))
    targets = {p.condition["target"] for p in made.points}
    assert targets == {"cifar10", "cifar100", "fashionmnist"}
    assert {p.condition["source"] for p in made.points if p.condition["arm"] == "ticket"} == targets
    gone = [n for n in made.notes if "no tickets from it in" in n]
    assert len(gone) == 3 and all(any(n.startswith(f"data {s} not found") for n in gone) for s in ("svhn", "imagenet", "places365"))
    assert "dataset-transfer-vgg19 target=cifar10, dataset-transfer-vgg19 target=cifar100" in gone[0]
    manifest = json.loads(json.dumps(plan.manifest(made, Store(tmp_path / "s"))))
    about = manifest["experiments"]["dataset-transfer-vgg19 target=cifar10"]
    assert set(about["sources"]) == {"cifar10", "cifar100", "fashionmnist"} and set(about["lacking"]) == {"svhn", "imagenet", "places365"}


def test_a_miniature_says_so_in_the_manifest_and_is_never_compared(sets, tmp_path):
    sets |= {"mnist"}
    made = plan.make(PAPER, Flags("quick", ("optimizer-transfer-vgg19",), trials=1, levels=1))
    manifest = plan.manifest(made, Store(tmp_path / "s"))
    run = measurements.run_info(manifest, Store(tmp_path / "s"), PAPER, DATA)
    assert run.comparable["optimizer-transfer-vgg19"].startswith("miniature: LeNet-300-100 on MNIST")
    assert any("miniature: LeNet-300-100" in n for n in made.notes)


# ---- a ticket that travelled, as a file ----------------------------------------------------------------------------
def test_a_transferred_ticket_as_one_file(tmp_path):
    store, file = Store(tmp_path / "store"), tmp_path / "my.ticket"
    made = plan.make(PAPER, Flags("smoke", ("optimizer-transfer-vgg19",)))
    assert not execute.execute(made, store, execute.Options()).failures
    store.write_manifest(plan.manifest_name(made), plan.manifest(made, store))
    which = ticket_verb.Which("morcos2019", "optimizer-transfer-vgg19 target_optimizer=sgd", "ticket", 2, 0, "smoke")
    with pytest.raises(UsageError, match="several sources: name one with --source, sgd, adam"):
        ticket_verb.write(file, which, store)
    with pytest.raises(UsageError, match="did you mean 'adam'"):
        ticket_verb.write(file, dataclasses.replace(which, source="adm"), store)
    ticket_verb.write(file, dataclasses.replace(which, source="adam"), store)
    ticket, about = tickets.load(file), tickets.load(file).about
    late = {**made.about, which.experiment: {**made.about[which.experiment]}}
    late[which.experiment]["sources"]["adam"]["recipe"]["rewind"] = "3ep"  # the source's step is the ticket's, not the target's
    store.write_manifest(plan.manifest_name(made), {**plan.manifest(made, store), "experiments": late})
    ticket_verb.write(file, dataclasses.replace(which, source="adam"), store)
    assert (about["rewind"], tickets.load(file).about["rewind"]) == ("10it", "3ep")
    assert (about["protocol"], about["condition"]["source_optimizer"], about["found_on"]["optimizer"]["name"]) == ("optimizer-transfer-vgg19", "adam", "adam")
    assert (about["recipe"]["optimizer"]["name"], about["data"]["name"], about["found_on"]["data"]["name"]) == ("sgd", "mnist1d", "mnist1d")
    assert ticket.density == pytest.approx(0.64, abs=1e-3) and about["condition"]["level"] == 2
