"""stabilizing2019: what its experiments declare is what the paper's rows and claims look for; bands hold for one variant at a time."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import pytest

from bench import claims, measurements, plan, verdicts
from bench.compare import OF_SEVERAL, compare
from bench.joins import Join
from bench.measurement import Gate, Measurement, RunInfo
from ltcore.imp import DataFacts, Trial
from replications import papers, registry
from tests.made_up import every_part_is_found

FACTS = {
    "cifar10": DataFacts("cifar10", "made-up", 50_000, (3, 32, 32), 10), "mnist": DataFacts("mnist", "made-up", 60_000, (1, 28, 28), 10),
    "imagenet": DataFacts("imagenet", "made-up", 1_281_167, (3, 224, 224), 1000, decoded=True),
}  # fmt: skip
DATA, PAPER = papers.load("stabilizing2019"), registry.load("stabilizing2019")
OURS = ("lenet-mnist", "resnet18-cifar10", "vgg19-cifar10", "resnet50-imagenet")
N = 3


def value(metric: str, arm: str, c: dict, trial: int) -> float:
    """A world in which the paper is right: percent, or a distance. Standard nets fail at 0it, saturate early and decline late."""
    late = c.get("rewind") in ("20000it", "75000it")
    standard = str(c.get("variant", "")).endswith("-standard")
    fails = standard and c.get("rewind", "0it") == "0it"
    noise = 0.02 * trial * (1 + (arm == "ticket"))
    if metric == "test_accuracy_pct":
        level = {"dense": 90.5, "ticket": 87.7 if fails else 88.0 if late else 91.0, "random-prune": 87.7 if fails else 88.0}.get(arm)
        return (level or {"reinit": 86.0 if c.get("level", 0) > 7 else 90.5, "snip": 88.5}[arm]) + noise
    return {"ticket": 66.0 if fails else 10.0}.get(arm, 66.0 if fails else 40.0) + noise


def top1(arm: str, c: dict, trial: int) -> float:
    """ResNet-50 in that world: what is rewound to epochs 4 and 6 keeps the dense accuracy, nothing else does."""
    keeps = arm == "dense" or (arm in ("ticket", "one-shot") and c["rewind"] != "0it")
    return (76.1 if keeps else 72.0) + 0.02 * trial * (1 + (arm == "ticket"))


def measured() -> Iterator[Measurement]:
    """A made-up measurement of every point that scale paper has, with the conditions that a run would write down."""
    for e in PAPER.experiments:
        name = e.recipe.data.name
        scaled, trials = e.scaled["paper", name], [Trial(e.recipe, FACTS[name], t) for t in range(N)]
        for arm in scaled.arms:
            for p in plan._points(e, dataclasses.replace(arm, draws=1), scaled, trials):
                noise = "noise" in p.condition
                metrics = ("stability_l2", "stability_angle_deg") if noise else ("test_accuracy_pct",)
                for metric in metrics:
                    v = (top1 if name == "imagenet" else functools.partial(value, metric))(p.condition["arm"], {**p.base, **p.condition}, p.trial)
                    yield Measurement(p.protocol, p.condition, p.base, p.trial, 0, metric, "end", v, 0.01, stage=p.stage.hash)


def info(gates: dict[str, tuple[Gate, ...]] | None = None) -> RunInfo:
    return RunInfo("stabilizing2019", "paper", dict.fromkeys(OURS, N), dict.fromkeys(OURS, ""), dict(PAPER.not_covered), gates or {})


@pytest.fixture(scope="module")
def world() -> list[Measurement]:
    return list(measured())


def protocols(row) -> set[str]:
    return {row.protocol} if isinstance(row.protocol, str) else set(row.protocol)


def test_every_row_is_measured_but_those_of_several_networks_and_of_nets_not_covered(world):
    rows = {r["id"]: r for r in compare(DATA, world, info())["rows"]}
    for row in DATA.published:
        found = rows[row.id]
        if not protocols(row) & set(OURS):
            assert found["status"] == "not-run" and "the engine does not have" in found["why_not"], row.id
        elif row.metric in OF_SEVERAL:
            assert found["status"] == "not-covered" and OF_SEVERAL[row.metric] in found["why_not"], row.id
        else:
            assert found["status"] == "measured" and found["measured"]["n"] == N and found["comparable"], (row.id, found["why_not"])
    assert sum(r["status"] == "measured" for r in rows.values()) == 106  # 7 of Fig 2, 14 + 42 of Fig 3, 42 of Fig 10, 1 of Fig 6


def test_rows_of_imagenet(world):
    """The dense net's top-1 accuracy is joined; what the paper reads off its curves says so."""
    rows = {r["id"]: r for r in compare(DATA, world, info())["rows"]}
    assert rows["f6-r50"]["measured"]["mean"] == pytest.approx(76.12) and rows["f6-r50"]["agrees"]
    off_curves = [r for id_, r in rows.items() if id_.startswith("im-r50")]
    assert len(off_curves) == 4 and all(r["status"] == "not-covered" and "read off a curve" in r["why_not"] for r in off_curves)
    inception, squeezenet = (rows[f"f6-{net}"]["why_not"] for net in ("inc", "sqz"))
    assert "falls linearly" in inception and "RMSProp" in squeezenet
    gate = dict(compare(DATA, world, info({"resnet50-imagenet": (measurements._gate("f6-r50", DATA),)}))["gates"][0])
    assert (gate["low"], gate["high"], gate["passed"]) == (75.8, 76.4, True)


def test_the_claim_on_imagenet_has_eight_parts_of_sixteen_operands(world):
    join = Join(DATA, world, info())
    parts = list(claims.parts(claims.tree(claims.by_id(DATA, "s10-imagenet"))))
    assert len(parts) == 8 and sum(len(p.operands) for p in parts) == 16
    at = [{verdicts.look_up(o, join)[0][0].value for o in p.operands} for p in parts]
    assert at[:2] == [{76.1}, {76.1}] and at[2:] == [{72.0, 76.1}] * 6


def test_top1_is_plain_accuracy_under_another_name(world):
    join = Join(DATA, world, info())
    want = {"arm": "one-shot", "weights_remaining_pct": 30, "rewind": "4ep"}
    assert join.find("resnet50-imagenet", "test_top1_pct", "end", want) == join.find("resnet50-imagenet", "test_accuracy_pct", "end", want)
    assert join.find("resnet50-imagenet", "test_top5_pct", "end", want).status == "not-covered"


def test_ratios_are_the_random_arms_over_the_tickets(world):
    rows = {r["id"]: r for r in compare(DATA, world, info())["rows"]}
    assert rows["f3-r18warm-order-ratio"]["measured"]["mean"] == pytest.approx(4.0, abs=0.02)
    assert rows["f10-r18std-pruning-ratio"]["measured"]["mean"] == pytest.approx(1.0, abs=0.01)


CLAIMS = [c.id for c in DATA.claims]


@pytest.mark.parametrize("claim_id", CLAIMS)
def test_every_part_of_every_claim_finds_its_measurements(claim_id, world):
    every_part_is_found(DATA, claim_id, Join(DATA, world, info()), N)


def test_claims_are_replicated_in_a_world_where_the_paper_is_right(world):
    found = {c["id"]: c["verdict"] for c in compare(DATA, world, info())["claims"]}
    assert found == dict.fromkeys(CLAIMS, "replicated")


# ---- bands of one variant ------------------------------------------------------------------------------------
STANDARD, WARM, VGG = "resnet18-standard", "resnet18-warmup", "vgg19-standard"


def band(variant: str, low: float, high: float) -> Gate:
    return Gate("test_accuracy_pct", "end", low, high, "made up", {"variant": variant})


MISSED = {"resnet18-cifar10": (band(STANDARD, 99.0, 99.5), band(WARM, 90.0, 91.0)), "vgg19-cifar10": (band(VGG, 90.0, 91.0),)}


def test_a_missed_band_counts_for_its_variant_alone(world):
    c = compare(DATA, world, info(MISSED))
    assert [(g["protocol"], g["condition"]["variant"], g["passed"]) for g in c["gates"]] == [
        ("resnet18-cifar10", STANDARD, False), ("resnet18-cifar10", WARM, True), ("vgg19-cifar10", VGG, True)]
    flagged = {r["id"]: r for r in c["rows"] if "dense gate missed" in (r["why_not"] or "")}
    assert flagged and all(r["condition"]["variant"] == STANDARD and r["condition"]["arm"] != "dense" for r in flagged.values())
    of_standard = [r for r in c["rows"] if r["condition"].get("variant") == STANDARD and r["condition"]["arm"] != "dense"]
    assert {r["id"] for r in of_standard if r["status"] == "measured"} == set(flagged)
    why = "dense gate missed of resnet18-standard: test_accuracy_pct 90.52, not in 99 … 99.5"
    assert flagged["f3-acc-r18std-imp"]["why_not"] == why and flagged["f3-acc-r18std-imp"]["agrees"] is None
    assert c["gates"][0]["measured"] == pytest.approx(90.52)


def test_parts_of_a_missed_variant_and_those_that_need_it_too_are_inconclusive(world):
    found = {c["id"]: c for c in compare(DATA, world, info(MISSED))["claims"]}
    assert found["s4-winning-is-stable"]["verdict"] == "replicated"  # its ResNet-18 parts are of the other variants
    contrast = [p for p in found["s5-failing-is-unstable"]["parts"] if p["protocol"] == "resnet18-cifar10" and WARM in p["test"]]
    assert len(contrast) == 2 and all(p["verdict"] == "inconclusive" and "dense gate missed" in p["why"] for p in contrast)
    of_vgg = [p for p in found["s5-failing-is-unstable"]["parts"] if p["protocol"] == "vgg19-cifar10"]
    assert of_vgg and all(p["verdict"] == "replicated" for p in of_vgg)
    assert found["s5-failing-is-unstable"]["verdict"] == "inconclusive"


def test_a_band_of_a_variant_whose_dense_net_is_missing_is_missed(world):
    without = [m for m in world if not (m.condition.get("arm") == "dense" and m.condition.get("variant") == VGG)]
    gate = next(g for g in compare(DATA, without, info(MISSED))["gates"] if g["protocol"] == "vgg19-cifar10")
    assert gate["passed"] is False and gate["why"] == "dense gate: the dense net of vgg19-standard was not measured"


def test_a_band_without_a_condition_speaks_of_everything_in_its_protocol():
    gates = [Gate("m", "end", 0, 1, "s"), band(STANDARD, 0, 1)]
    wants = [{"arm": "ticket"}, {"arm": "ticket", "variant": STANDARD}, {"arm": "ticket", "variant": WARM}]
    assert [g.speaks_of(w) for g, w in itertools.product(gates, wants)] == [True, True, True, True, True, False]


def test_a_dense_net_serves_every_rewind_point(world):
    at_points = [m for m in world if m.condition["arm"] == "dense"]
    assert at_points and all("rewind" not in m.condition for m in at_points)
    rewound = next(e for e in PAPER.experiments if "rewind" in e.condition)
    dense = next(a for a in PAPER.experiments[0].scaled["paper", "mnist"].arms if a.arm == "dense")
    assert plan._words(rewound, dense, 0)[0] == {"variant": rewound.variant, "arm": "dense"}
