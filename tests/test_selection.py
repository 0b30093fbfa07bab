"""Which experiments run on which data: each on its own recipe's, and what happens where a set is missing."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from bench import measurements, plan, selection
from bench.catalogue import catalogue
from bench.flags import Flags
from bench.measurement import Gate
from bench.store import Store
from ltcore import data
from ltcore.errors import DataMissingError, UsageError, UserError
from ltcore.recipe import changed
from replications import papers, registry
from replications.schema import Arm, Band, Experiment, Paper, Scaled
from tests.conftest import RECIPE, bench

DENSE = Arm("dense", levels=(0,))
DATA = papers.load("stabilizing2019")


def scaled(trials: int = 3, default: bool = True) -> Scaled:
    return Scaled(trials, 1, (DENSE, Arm("ticket")), default=default)


def experiment(protocol: str, name: str, at: dict[tuple[str, str], Scaled], variant: str = "", **more) -> Experiment:
    recipe = changed(RECIPE, {"data.name": name, "precision": "fp32"})
    return Experiment(protocol, recipe, at, variant, {"variant": variant} if variant else {}, **more)


LENET = experiment("lenet-mnist", "mnist", {("paper", "mnist"): scaled(), ("quick", "mnist"): scaled(), ("smoke", "digits"): scaled(1)}, gate="f2-lenet")
STANDARD = experiment("resnet18-cifar10", "cifar10", {("paper", "cifar10"): scaled(2), ("smoke", "mnist1d"): scaled(1)}, "resnet18-standard",
                      gate="f2-r18-std", why_not_quick="needs a GPU")
LOW = experiment("resnet18-cifar10", "cifar10", {("paper", "cifar10"): scaled(3)}, "resnet18-low", gate="f2-r18-low", why_not_quick="needs a GPU")
VGG = experiment("vgg19-cifar10", "cifar10", {("paper", "cifar10"): scaled(default=False)}, "vgg19-standard")
PAPER = Paper("stabilizing2019", (LENET, STANDARD, LOW, VGG), not_covered={"resnet50-imagenet": "needs ImageNet"})


@pytest.fixture
def sets(monkeypatch):
    """What lies on this machine; tests take sets away. Names that were asked for are noted."""
    have, asked = {"mnist", "cifar10", "digits", "mnist1d"}, []

    def made(name: str) -> data.Dataset:
        x, y = torch.zeros(60, 12) + sum(map(ord, name)), torch.arange(60) % 3
        return dataclasses.replace(data.from_user(name, (x, y, x[:20], y[:20])), source="made up")

    def load(name: str, mode: str = "auto", **options):
        asked.append(name)
        if name in have:
            return made(name)
        if mode != "auto":
            raise DataMissingError(f"{name}: files missing in {mode}")
        return dataclasses.replace(made("digits"), fallback_for=name, note=f"{name} not found: using digits")

    monkeypatch.setattr(selection, "load_data", load)
    monkeypatch.setattr(plan, "load_data", load)
    return have, asked


def labels(scale: str, *names: str, **more) -> list[str]:
    return [c.experiment.label for c in selection.select(PAPER, Flags(scale, names, **more)).chosen]


def test_each_experiment_runs_on_its_own_data_and_each_set_is_read_once(sets):
    have, asked = sets
    found = plan.make(PAPER, Flags("paper"))
    assert {label: e["data"]["name"] for label, e in found.about.items()} == {
        "lenet-mnist": "mnist", "resnet18-standard variant=resnet18-standard": "cifar10", "resnet18-low variant=resnet18-low": "cifar10"}
    assert sorted(asked) == ["cifar10", "mnist"] and found.data_names == "mnist, cifar10" and found.skipped == {}
    assert labels("paper", "vgg19-cifar10") == ["vgg19-standard variant=vgg19-standard"]  # not by default, but by name


def test_a_set_is_not_read_where_nobody_might_run_on_it(sets):
    assert labels("quick") == ["lenet-mnist"] and labels("paper", "lenet-mnist") == ["lenet-mnist"] and set(sets[1]) == {"mnist"}


def test_smoke_takes_each_experiments_own_stand_in(sets):
    found = plan.make(PAPER, Flags("smoke"))
    # "data" of the recipe are the paper's here: only the scale is looked up by the stand-in
    assert [e["data"]["found"] for e in found.about.values()] == ["digits", "mnist1d"] and set(sets[1]) >= {"digits", "mnist1d"}


@pytest.mark.parametrize("mode", ["auto", "local"])
def test_paper_scale_skips_what_lacks_its_data_and_says_so(sets, mode):
    sets[0].remove("cifar10")
    found = selection.select(PAPER, Flags("paper", data=mode))
    assert [c.experiment for c in found.chosen] == [LENET] and found.skipped == {"resnet18-cifar10": "data cifar10 not found"}
    assert found.notes == ("data cifar10 not found: resnet18-cifar10 skipped",)


@pytest.mark.parametrize("mode", ["auto", "local"])
def test_missing_data_are_an_error_where_they_were_asked_for_or_nothing_else_runs(sets, mode):
    sets[0].remove("cifar10")
    for names in (("resnet18-low",), ("lenet-mnist", "resnet18-cifar10")):
        with pytest.raises(UserError, match="needs the paper's own data: cifar10" if mode == "auto" else "files missing"):
            selection.select(PAPER, Flags("paper", names, data=mode))
    sets[0].remove("mnist")
    with pytest.raises(UserError, match="needs the paper's own data: mnist" if mode == "auto" else "mnist: files missing"):
        selection.select(PAPER, Flags("paper", data=mode))


def test_damaged_data_stop_what_needs_them_with_their_line_and_nothing_else(sets, monkeypatch):
    def load(name: str, mode: str = "auto"):
        if name == "cifar10":
            raise UserError("CIFAR-10: data_batch_3 is damaged")
        return data.from_user(name, (torch.zeros(60, 12), torch.arange(60) % 3, torch.zeros(3, 12), torch.arange(3)))

    monkeypatch.setattr(selection, "load_data", load)
    found = selection.select(PAPER, Flags("paper"))
    assert [c.experiment for c in found.chosen] == [LENET] and found.skipped == {"resnet18-cifar10": "CIFAR-10: data_batch_3 is damaged"}
    assert found.notes == ("CIFAR-10: data_batch_3 is damaged: resnet18-cifar10 skipped",)
    with pytest.raises(UserError, match="damaged"):
        selection.select(PAPER, Flags("paper", ("lenet-mnist", "resnet18-cifar10")))


def test_a_fallback_without_a_scale_declared_for_it(sets):
    sets[0].remove("mnist")
    with pytest.raises(UsageError, match="'lenet-mnist' is not run at scale quick on digits: data mnist not found"):
        selection.select(PAPER, Flags("quick"))


@pytest.mark.parametrize(("names", "scale", "said"), [
    (("resnet18-cifar10",), "quick", "'resnet18-cifar10' is not run at scale quick: needs a GPU"),
    (("resnet18-low",), "quick", "'resnet18-low' is not run at scale quick: needs a GPU"),
    (("resnet18-low",), "smoke", "'resnet18-low' is not run at scale smoke: not declared"),
    (("resnet50-imagenet",), "paper", "'resnet50-imagenet' is not run at scale paper: needs ImageNet"),
    (("resnet18",), "paper", "unknown experiment 'resnet18'.*did you mean"),
])
def test_names_that_mean_nothing_here(sets, names, scale, said):
    with pytest.raises(UsageError, match=said):
        selection.select(PAPER, Flags(scale, names))


# ---- what the comparison makes of it -------------------------------------------------------------------------
def info(tmp_path, flags: Flags, paper: Paper = PAPER):
    made, store = plan.make(paper, flags), Store(tmp_path / "store")
    manifest = json.loads(json.dumps(plan.manifest(made, store)))
    return measurements.run_info(manifest, store, paper, DATA), manifest


def test_rows_of_a_skipped_protocol_say_why(sets, tmp_path):
    sets[0].remove("cifar10")
    found, _ = info(tmp_path, Flags("paper"))
    assert found.not_run["resnet18-cifar10"] == "data cifar10 not found" and found.not_run["resnet50-imagenet"] == "needs ImageNet"
    assert found.comparable == {"lenet-mnist": ""} and set(found.gates) == {"lenet-mnist"}
    assert found.provenance["data"] == {"name": "mnist", "source": "made up", "fingerprint": found.provenance["data"]["fingerprint"],
                                        "fallback_for": None, "note": ""}


def test_rows_of_a_protocol_without_the_scale_say_why(sets, tmp_path):
    found, _ = info(tmp_path, Flags("quick"))
    assert found.not_run["resnet18-cifar10"] == "needs a GPU" and found.not_run["vgg19-cifar10"] == "not declared at scale quick"
    assert found.comparable == {"lenet-mnist": "scale quick: 48 iterations"}
    smoke, _ = info(tmp_path, Flags("smoke", ("lenet-mnist",)))
    assert smoke.not_run["resnet18-cifar10"] == "not among the experiments asked for"
    full, _ = info(tmp_path, Flags("paper"))
    assert full.not_run["vgg19-cifar10"] == "not part of scale paper: name it with --experiment vgg19-standard"


def test_several_experiments_of_a_protocol_share_the_smallest_n_and_every_reason(sets, tmp_path):
    found, manifest = info(tmp_path, Flags("paper"))
    assert found.n == {"lenet-mnist": 3, "resnet18-cifar10": 2}
    assert found.provenance["data"]["resnet18-cifar10"]["name"] == "cifar10" and found.provenance["data"]["lenet-mnist"]["name"] == "mnist"
    manifest["scale"], low = "quick", manifest["experiments"]["resnet18-low variant=resnet18-low"]
    low["recipe"]["length"] = "9it"
    again = measurements.run_info(manifest, Store(tmp_path / "store"), PAPER, DATA)
    assert again.comparable["resnet18-cifar10"] == "scale quick: 48 iterations; scale quick: 9 iterations"


def test_another_set_than_the_papers_is_named(sets, tmp_path):
    found, _ = info(tmp_path, Flags("paper", ("lenet-mnist",), sets=("lenet-mnist.data.name=cifar10",)))
    assert found.comparable["lenet-mnist"].startswith("data: cifar10 instead of mnist; --set")
    smoke, _ = info(tmp_path, Flags("smoke", ("lenet-mnist",), sets=("lenet-mnist.data.name=digits",)))
    assert "data: smoke always runs on digits" in smoke.comparable["lenet-mnist"]


def test_bands_are_those_of_the_variants_that_ran(sets, tmp_path):
    found, _ = info(tmp_path, Flags("paper"))
    assert found.gates["lenet-mnist"] == (Gate("test_accuracy_pct", "end", 97.7, 98.3, "f2-lenet: Fig 2", {}),)
    standard, low = found.gates["resnet18-cifar10"]
    # printed ± 0.0 and ± 0.1: never narrower than 0.3
    assert (standard.low, standard.high, standard.condition) == (90.2, 90.8, {"variant": "resnet18-standard"})
    assert (low.low, low.high, low.condition) == (88.8, 89.4, {"variant": "resnet18-low"})
    one, _ = info(tmp_path, Flags("paper", ("resnet18-low",)))
    assert one.gates["resnet18-cifar10"] == (low,)


def test_a_band_from_elsewhere_is_the_gate_where_the_paper_prints_none(sets, tmp_path):
    band = Band("test_accuracy_pct", "end", 97.0, 98.0, "another paper")
    paper = dataclasses.replace(PAPER, experiments=(dataclasses.replace(LENET, gate=band),))
    found, _ = info(tmp_path, Flags("paper", ("lenet-mnist",)), paper)
    assert found.gates == {"lenet-mnist": (Gate("test_accuracy_pct", "end", 97.0, 98.0, "another paper", {}),)}


def test_a_spread_with_two_ends_is_the_band_and_a_row_without_spread_is_none():
    frankle = papers.load("frankle2019")
    assert measurements._gate("fig8-30K-lr0.1-ticket-p100.0", frankle) == Gate(
        "test_accuracy_pct", "30000it", 90.33, 90.66, "fig8-30K-lr0.1-ticket-p100.0: Fig 8", {"variant": "resnet18-lr0.1"})
    assert measurements._gate("resnet-dense-lr0.1", frankle) is None and measurements._gate("no such row", frankle) is None


def test_the_catalogue_says_why_there_is_no_quick_scale():
    entry = next(e for e in catalogue() if e["paper"] == "stabilizing2019")
    vgg = [e for e in entry["experiments"] if e["protocol"] == "vgg19-cifar10"]
    assert vgg and all(e["why_not_quick"].startswith("needs a GPU") for e in vgg)
    assert any(line.startswith("vgg19-cifar10 / vgg19-low") and "needs a GPU" in line for line in bench("list").stdout.splitlines())


def test_the_command_line_names_the_reason():
    done = bench("plan", "frankle2019", "--scale", "quick", "--experiment", "resnet18-cifar10")
    assert done.returncode == 2 and "error: experiment 'resnet18-cifar10' is not run at scale quick: needs a GPU" in done.stderr
    assert registry.load("frankle2019").why_not("resnet18-cifar10", "paper") == "not declared"
