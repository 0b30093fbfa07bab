"""Every arm: what it starts from, which mask it wears, and what each negative control breaks."""

from __future__ import annotations

import pytest
import torch

from ltcore import arms, imp, kinds, masks, measures
from ltcore.imp import DataFacts, Trial
from ltcore.models import LeNet, layer_kinds, layer_sizes
from ltcore.pruning import prune
from ltcore.recipe import changed
from ltcore.stages import with_ancestors
from replications.frankle2019 import LENET, ONE_SHOT
from replications.papers import load
from tests.conftest import RECIPE, run_all, trial

SHORT = changed(RECIPE, {"length": "24it"})
LAYERS = ["hidden.0.weight", "hidden.1.weight", "output.weight"]


def mnist_trial() -> Trial:
    return Trial(LENET, DataFacts("mnist", "cf17c6b4", 60000, (1, 28, 28), 10), 0)


def counts(mask: dict[str, torch.Tensor]) -> list[int]:
    return [int(mask[n].sum()) for n in LAYERS]


def worn(done, stage) -> dict[str, torch.Tensor]:
    """The mask of a training stage."""
    out = stage.inputs["mask"]
    return done[out.stage].artefacts["mask"]


def start(done, stage) -> dict[str, torch.Tensor]:
    return done[stage.inputs["state"].stage].artefacts["state"]


def differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(a[n], b[n]) for n in LAYERS)


# ---- every arm runs --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", arms.ARMS)
@pytest.mark.parametrize("rewind", ["0it", "10it"])
def test_every_arm_runs_and_keeps_the_density_that_it_says(small_data, name, rewind):
    one = trial(small_data, recipe=changed(SHORT, {"rewind": rewind}))
    stage = arms.ARMS[name](one, 50 if name.startswith("one-shot-kept") else 2)  # there a percentage
    done = run_all([stage, one.mask(2).stage], small_data)
    if stage.kind == "measure":
        assert done[stage].values and all(v.value == v.value for v in done[stage].values)
        return
    assert done[stage].facts["failed"] == ""
    if name == "random-ticket":  # the ticket's count in all, not in each layer
        assert done[stage].facts["kept"] == masks.kept(done[one.mask(2).stage].artefacts["mask"])
    elif not name.startswith("one-shot"):
        assert done[stage].facts["kept"] == masks.kept(done[one.mask(2).stage].artefacts["mask"])
        assert done[stage].facts["density_layers"] == done[one.mask(2).stage].facts["density_layers"]


def test_dense_is_the_ticket_of_level_0(small_data):
    one = trial(small_data)
    assert arms.ARMS["dense"](one, 0) == one.ticket(0) and "mask" not in one.ticket(0).inputs


# ---- reinit, random masks --------------------------------------------------------------------------------------
def test_reinit_wears_the_tickets_mask_on_other_weights_from_step_0(small_data):
    one = trial(small_data, recipe=changed(SHORT, {"rewind": "10it"}))
    stages = [arms.reinit(one, 2, draw) for draw in range(3)]
    done = run_all([*stages, one.ticket(2)], small_data)
    assert all(s.inputs["mask"] == one.mask(2) and (s.params["start"], s.params["stop"]) == (0, 24) for s in stages)
    drawn = [start(done, s)["output.weight"] for s in stages] + [
        start(done, one.ticket(2))["output.weight"],
        done[one.init().stage].artefacts["state"]["output.weight"],
    ]
    assert len({round(float(w.sum()), 9) for w in drawn}) == 5
    assert not any(start(done, s)["hidden.0.bias"].any() for s in stages)


@pytest.mark.parametrize("weights", ["fresh", "original"])
def test_a_random_mask_has_the_tickets_count_in_every_layer(small_data, weights):
    one = trial(small_data, recipe=SHORT)
    stages = [arms.random_mask(one, 2, draw, weights) for draw in range(2)]
    done = run_all([*stages, one.mask(2).stage], small_data)
    ticket = done[one.mask(2).stage].artefacts["mask"]
    for s in stages:
        assert counts(worn(done, s)) == counts(ticket) == [123, 82, 20] and differ(worn(done, s), ticket)
    assert differ(worn(done, stages[0]), worn(done, stages[1]))
    init = done[one.init().stage].artefacts["state"]
    assert all(differ(start(done, s), init) == (weights == "fresh") for s in stages)


def test_magnitude_at_init_keeps_the_largest_initial_weights_in_the_tickets_counts(small_data):
    one = trial(small_data, recipe=SHORT)
    stage = arms.magnitude_at_init(one, 3)
    done = run_all([stage, one.mask(3).stage], small_data)
    mask, init = worn(done, stage), done[one.init().stage].artefacts["state"]
    assert counts(mask) == counts(done[one.mask(3).stage].artefacts["mask"])
    assert all(init[n][mask[n]].abs().min() >= init[n][~mask[n]].abs().max() for n in LAYERS)
    assert one.ticket(0) not in with_ancestors([stage])  # nothing is trained before


# ---- one-shot --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pct", [80, 30])
def test_one_shot_to_a_percentage_keeps_the_largest_of_all_layers_together(small_data, pct):
    one = trial(small_data, recipe=changed(SHORT, {"rewind": "10it", "pruning.scope": "global", "pruning.rates": {"fc": 0.2}}))
    kept, fresh, random = (arms.ARMS[f"one-shot-kept{end}"](one, pct) for end in ("", "-reinit", "-random"))
    done = run_all([kept, fresh, random], small_data)
    mask, end = worn(done, kept), done[one.ticket(0)].artefacts["state"]
    magnitudes, places = (torch.cat([t[n].flatten() for n in LAYERS[:2]]) for t in ({n: end[n].abs() for n in LAYERS}, mask))
    assert places.sum() == round(len(places) * pct / 100) and set(mask) == set(LAYERS[:2])
    assert magnitudes[places].min() >= magnitudes[~places].max()
    assert kept.inputs["state"] == random.inputs["state"] == one.rewound() and (kept.params["start"], fresh.params["start"]) == (10, 0)
    assert kept.inputs["mask"] == fresh.inputs["mask"] and differ_in(start(done, fresh), start(done, kept))
    shuffled = worn(done, random)
    assert {n: int(m.sum()) for n, m in shuffled.items()} == {n: int(m.sum()) for n, m in mask.items()} and differ_in(shuffled, mask)


def differ_in(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(a[n], b[n]) for n in LAYERS[:2])


def test_rule_8_one_shot_sizes_are_those_derived_from_the_paper():
    one, kinds_ = mnist_trial(), layer_kinds(LeNet((1, 28, 28), 10))
    sizes = layer_sizes(LeNet((1, 28, 28), 10))
    scores = {n: torch.rand(k, generator=torch.Generator().manual_seed(0)) for n, k in sizes.items()}
    derived = load("frankle2019").protocol("lenet-mnist-oneshot")["sizes_derived"]
    assert len(derived) == 39
    for level, pct in enumerate(derived, 1):
        rates = arms.one_shot(one, level).inputs["mask"].stage.params["rates"]
        mask = prune(
            scores, masks.full({n: s.shape for n, s in scores.items()}), {n: rates[kind] for n, kind in kinds_.items()}, "layerwise"
        )
        assert round(100 * masks.report(mask, 266_200).density_all, 1) == pct == ONE_SHOT[level]


def test_one_shot_prunes_the_dense_net_once_and_rewinds(small_data):
    one = trial(small_data, recipe=SHORT)
    stage, again = arms.one_shot(one, 20), arms.one_shot_reinit(one, 20, 1)
    done = run_all([stage, again], small_data)
    dense, mask = done[one.ticket(0)].artefacts["state"], worn(done, stage)
    assert counts(mask) == [96, 64, 18] and stage.inputs["state"] == one.rewound() and again.inputs["mask"] == stage.inputs["mask"]
    assert all(dense[n][mask[n]].abs().min() >= dense[n][~mask[n]].abs().max() for n in LAYERS)
    assert differ(start(done, again), start(done, stage))


# ---- continued training ----------------------------------------------------------------------------------------
def test_continued_trains_on_and_continued_reset_rewinds_once_at_the_end(small_data):
    one = trial(small_data, recipe=SHORT)
    on, reset = arms.continued(one, 2), arms.continued_reset(one, 2)
    assert reset.inputs["mask"] == on.inputs["mask"] and reset.inputs["state"] == one.rewound()
    before = on.inputs["state"].stage
    assert before.kind == "train" and before.inputs["state"].stage == one.ticket(0)  # the weights of round 1, begun from those of round 0
    done = run_all([on, reset, one.mask(2).stage], small_data)
    first, second = worn(done, before), worn(done, on)
    assert masks.is_subset(second, first) and counts(second) == counts(done[one.mask(2).stage].artefacts["mask"])
    end = done[before].artefacts["state"]
    assert all(end[n][second[n]].abs().min() >= end[n][first[n] & ~second[n]].abs().max() for n in LAYERS)


# ---- noise -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sd", [0.5, 3.0])
def test_noise_has_the_stated_sd_in_units_of_each_layers_own(small_data, sd):
    one = mnist_trial()
    noisy = [arms.ticket_noise(one, 7, draw, sd).inputs["state"] for draw in range(2)]
    done = run_all([out.stage for out in noisy], small_data)
    w, a, b = (done[out.stage].artefacts["state"] for out in (one.init(), *noisy))
    for n in LAYERS:
        assert float((a[n] - w[n]).std()) == pytest.approx(sd * float(w[n].std()), rel=4 / (2 * w[n].numel()) ** 0.5)
        correlation = torch.corrcoef(torch.stack([(a[n] - w[n]).flatten(), (b[n] - w[n]).flatten()]))[0, 1]
        assert abs(correlation) < 5 / w[n].numel() ** 0.5
    assert all(torch.equal(a[n], w[n]) for n in w if n.endswith("bias"))
    assert arms.ticket_noise(one, 7, 0, sd).inputs["mask"] == one.mask(7)


# ---- measures --------------------------------------------------------------------------------------------------
def test_weight_movement_by_hand():
    job = {
        "start": {"w": torch.tensor([1.0, -2.0, 3.0, 0.0])},
        "end": {"w": torch.tensor([2.0, -4.0, 2.5, 0.5])},
        "mask": {"w": torch.tensor([True, True, False, False])},
    }
    ratio, gap = measures.MEASURES["weight-movement"](kinds.Job("measure", {}, job))
    assert (ratio.metric, ratio.value) == ("weight_move_ratio", 1.5 / 0.5) and (gap.metric, gap.value) == ("weight_growth_gap", 1.5 - 0.0)


def test_init_magnitude_by_hand():
    job = {
        "start": {"a": torch.tensor([1.0, -3.0]), "b": torch.tensor([2.0, 2.0])},
        "mask": {"a": torch.tensor([False, True]), "b": torch.tensor([True, False])},
    }
    values = measures.MEASURES["init-magnitude"](kinds.Job("measure", {}, job))
    assert [(v.value, v.condition) for v in values] == [(50.0, {"layer": 1}), (0.0, {"layer": 2})]


def test_mask_overlap_by_hand():
    a, b = {"w": torch.tensor([True, True, False, False])}, {"w": torch.tensor([True, False, True, False])}
    values = measures.MEASURES["mask-overlap"](kinds.Job("measure", {}, {"a": a, "b": b}))
    assert {v.metric: v.value for v in values} == {"mask_overlap_ratio": 1 / 3, "mask_overlap_chance_ratio": 1 / 3, "mask_distance": 0.5}


@pytest.mark.parametrize(("name", "options"), [("random-mask", {"weights": "original"}), ("random-prune", {}), ("snip", {}), ("one-shot", {}),
                                               ("one-shot-kept", {}), ("magnitude-at-init", {})])  # fmt: skip
def test_what_starts_at_the_rewound_weights_takes_the_optimizer_that_tickets_take(small_data, name, options):
    for state, taken in (("fresh", False), ("kept", True)):
        one = trial(small_data, recipe=changed(SHORT, {"rewind": "10it", "optimizer_state": state}))
        assert ("optimizer" in arms.ARMS[name](one, 2, **options).inputs) is ("optimizer" in one.ticket(2).inputs) is taken


# ---- negative controls -----------------------------------------------------------------------------------------
def controlled(small, control: str, levels: int = 2, recipe=SHORT):
    assert control in imp.CONTROLS
    one, plain = trial(small, recipe=recipe, control=control), trial(small, recipe=recipe)
    return one, plain, run_all([*(t.ticket(n) for t in (one, plain) for n in range(levels + 1))], small)


def test_control_fresh_rewind_starts_each_ticket_from_other_weights(small_data):
    one, plain, done = controlled(small_data, "fresh-rewind")
    starts = [start(done, one.ticket(level)) for level in range(3)]
    assert (
        differ(starts[0], starts[1]) and differ(starts[1], starts[2]) and one.ticket(0) == plain.ticket(0) and one.mask(1) == plain.mask(1)
    )
    assert one.mask(2) != plain.mask(2)  # pruned by what those weights became


def test_control_largest_pruned_keeps_the_smallest(small_data):
    one, plain, done = controlled(small_data, "largest-pruned", 1)
    end, mask = done[plain.ticket(0)].artefacts["state"], done[one.mask(1).stage].artefacts["mask"]
    assert all(end[n][mask[n]].abs().max() <= end[n][~mask[n]].abs().min() for n in LAYERS)
    assert counts(mask) == counts(done[plain.mask(1).stage].artefacts["mask"])


def test_control_shuffled_mask_keeps_counts_and_loses_places(small_data):
    one, plain, done = controlled(small_data, "shuffled-mask")
    assert one.mask(2) == plain.mask(2)  # the chain that finds the mask is whole
    assert counts(worn(done, one.ticket(2))) == counts(worn(done, plain.ticket(2))) and differ(
        worn(done, one.ticket(2)), worn(done, plain.ticket(2))
    )
    assert one.ticket(2).inputs["state"] == plain.ticket(2).inputs["state"]
    measured = arms.weight_movement(one, 2).inputs["mask"]
    assert measured == one.ticket(2).inputs["mask"] != one.mask(2)  # what is measured of a control is broken too


@pytest.mark.parametrize("state", ["fresh", "kept"])
def test_control_shuffled_mask_finds_the_same_mask_when_rewound_to_k(small_data, state):
    recipe = changed(SHORT, {"rewind": "10it", "optimizer_state": state})
    broken, plain = trial(small_data, recipe=recipe, control="shuffled-mask"), trial(small_data, recipe=recipe)
    assert broken.mask(2) == plain.mask(2) and broken.ticket(2) != plain.ticket(2)


def test_control_shuffled_labels_learns_nothing_and_reads_the_true_test_set(small_data):
    one, plain, done = controlled(small_data, "shuffled-labels", 0)
    assert one.ticket(0).params["streams"]["labels"] == [0, "labels"]
    accuracy = {
        t: next(v.value for v in done[t.ticket(0)].values if (v.metric, v.at) == ("test_accuracy_pct", "end")) for t in (one, plain)
    }
    assert accuracy[one] < 60 < 80 < accuracy[plain] and done[one.ticket(0)].facts["failed"] == "stayed at chance"


@pytest.mark.parametrize("rewind", ["0it", "10it"])
def test_control_no_training_trains_zero_steps(small_data, rewind):
    one, _, done = controlled(small_data, "no-training", recipe=changed(SHORT, {"rewind": rewind}))
    init = done[one.init().stage].artefacts["state"]
    for level in range(3):
        result, mask = done[one.ticket(level)], done[one.mask(level).stage].artefacts["mask"] if level else {}
        assert (one.ticket(level).params["start"], one.ticket(level).params["stop"]) == (0, 0)
        assert all(
            torch.equal(t, init[n].double() * mask[n] if n in mask else init[n].double()) for n, t in result.artefacts["state"].items()
        )
        assert result.curves["it"] == [] and result.artefacts["optimizer"]["step"] == 0
        assert {v.at for v in result.values if v.metric == "test_accuracy_pct"} == {"early-stop", "end"}
    reinit = arms.reinit(one, 1)
    assert run_all([reinit], small_data)[reinit].artefacts["optimizer"]["step"] == 0
