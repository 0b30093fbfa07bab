"""RigL: what goes and what comes, by hand; exact counts; pruned weights stay 0; resumed equals straight, stacked equals alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltcore import arms, kinds, masks
from ltcore.errors import UsageError
from ltcore.kinds import Job
from ltcore.library import Library
from ltcore.recipe import changed
from ltcore.training.loop import Checkpoints, Stopped
from ltcore.training.rigl import Regrow, move
from tests.conftest import RECIPE, run_all, trial
from tests.nets import LIBRARY


def one_layer(w: list[float], g: list[float], m: list[int], share: float, slot: list[float] | None = None):
    params, grads = ({"w": torch.tensor([v])} for v in (w, g))
    bits, slots = {"w": -torch.tensor([m])}, {"m/w": torch.tensor([slot or [1.0] * len(w)]), "step": torch.tensor(3.0)}
    regrow = Regrow(until_it=10, every_it=1, share=2 * share / (1 + math.cos(math.pi / 10)))
    move(regrow, 1, params, grads, bits, slots)
    return params["w"][0].tolist(), (bits["w"][0] != 0).int().tolist(), slots["m/w"][0].tolist(), slots["step"]


def test_the_smallest_weight_goes_and_the_largest_gradient_comes():
    w, m, slot, step = one_layer([0.1, -2.0, 3.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 1.0, -50.0, 2.0], [1, 1, 1, 0, 0, 0], 1 / 3)
    assert m == [0, 1, 1, 0, 1, 0] and slot == [0.0, 1.0, 1.0, 0.0, 0.0, 0.0] and step == 3
    assert w == pytest.approx([0.0, -2.0, 3.0, 0.0, 0.0, 0.0])


def test_what_is_dropped_and_grown_again_keeps_its_value():
    w, m, slot, _ = one_layer([0.1, -2.0, 3.0, 0.0], [9.0, 0.0, 0.0, 1.0], [1, 1, 1, 0], 1 / 3)
    assert m == [1, 1, 1, 0] and w == pytest.approx([0.1, -2.0, 3.0, 0.0]) and slot == [1.0, 1.0, 1.0, 0.0]


@given(st.integers(0, 2**31 - 1), st.floats(0, 1), st.integers(0, 30))
def test_counts_never_change(seed, share, kept):
    g = torch.Generator().manual_seed(seed)
    w, grad, places = torch.randn(30, generator=g), torch.randn(30, generator=g), torch.randperm(30, generator=g)
    mask = torch.zeros(30, dtype=torch.int64)
    mask[places[:kept]] = 1
    w, m, *_ = one_layer((w * mask).tolist(), grad.tolist(), mask.tolist(), share)
    assert sum(m) == kept and all(v == 0 for v, on in zip(w, m) if not on)


def test_the_share_falls_by_a_cosine_and_ends_before_the_last_quarter():
    regrow = Regrow(until_it=300, every_it=100, share=0.3)
    assert [regrow.due(t) for t in (0, 50, 100, 200, 300, 400)] == [False, False, True, True, False, False]
    assert [round(regrow.share_at(t), 6) for t in (0, 150, 300)] == [0.3, 0.15, 0.0]


MOVING = changed(RECIPE, {"length": "64it", "pruning.rates": {"fc": 0.5, "output": 0.5}})


def moving(small, monkeypatch, level: int = 2, seed: int = 0, **options):
    monkeypatch.setattr(arms, "RIGL", {"every_it": 8, "share": 0.3})
    return arms.rigl(trial(small, seed, MOVING), level, **options)


def test_a_trained_network_has_the_counts_of_its_first_mask_at_other_places(small_data, monkeypatch):
    stage = moving(small_data, monkeypatch)
    done = run_all([stage], small_data)
    first, result = done[stage.inputs["mask"].stage].artefacts["mask"], done[stage]
    last = result.artefacts["mask"]
    assert {n: int(m.sum()) for n, m in first.items()} == {n: int(m.sum()) for n, m in last.items()} == {
        "hidden.0.weight": 48, "hidden.1.weight": 32, "output.weight": 6}  # fmt: skip
    assert masks.distance(first, last) > 0.05 and all(not result.artefacts["state"][n][~m].any() for n, m in last.items())
    assert all(not result.artefacts["optimizer"][f"m/{n}"][~m].any() for n, m in last.items())
    assert result.facts["kept"] == 86 and result.artefacts["optimizer"]["step"] == 64 - 5  # a step less for each move: 8, 16, … 40


@given(st.integers(0, 2**31 - 1), st.floats(0, 1))
def test_a_dense_layer_stays_as_it_is(seed, share):
    g = torch.Generator().manual_seed(seed)
    w, grad = torch.randn(30, generator=g).tolist(), torch.randn(30, generator=g).tolist()
    assert one_layer(w, grad, [1] * 30, share)[:3] == (pytest.approx(w), [1] * 30, [1.0] * 30)


def test_the_first_layer_stays_dense_where_it_is_a_convolution(small_data, monkeypatch):
    """Uniform sparsity of Evci et al. 2020, section 3: the others have the ticket's, the last one too. A ticket prunes all."""
    monkeypatch.setattr(arms, "RIGL", {"every_it": 8, "share": 0.3})
    conv = changed(MOVING, {"model.name": "conv-norm", "model.options": {}, "pruning.rates": {"conv": 0.5, "output": 0.5}})
    one = trial(small_data, recipe=conv, library=LIBRARY)
    stage = arms.rigl(one, 2)
    done = run_all([stage, one.mask(2).stage], small_data, LIBRARY)
    counts = {"conv.weight": 16, "out.weight": 18}  # of 16 and 72
    for mask in (done[stage.inputs["mask"].stage].artefacts["mask"], done[stage].artefacts["mask"]):
        assert {n: int(m.sum()) for n, m in mask.items()} == counts
    assert done[stage].facts["density_prunable"] == 34 / 88 and done[stage].facts["density_layers"]["conv.weight"] == 1.0
    assert int(done[one.mask(2).stage].artefacts["mask"]["conv.weight"].sum()) == 4


def test_the_first_layer_of_a_fully_connected_network_is_pruned(small_data, monkeypatch):
    assert "whole" not in moving(small_data, monkeypatch).inputs["mask"].stage.params


def test_without_moves_it_is_training_under_a_fixed_mask(small_data, monkeypatch):
    monkeypatch.setattr(arms, "RIGL", {"every_it": 1000, "share": 0.3})
    one = trial(small_data, recipe=MOVING)
    stage = arms.rigl(one, 2)
    fixed = one.train(stage.inputs["state"], stage.inputs["mask"], start=0)
    done = run_all([stage, fixed], small_data)
    assert "regrow" not in fixed.params and stage != fixed
    assert all(torch.equal(t, done[fixed].artefacts["state"][n]) for n, t in done[stage].artefacts["state"].items())


def test_five_times_as_long_stretches_the_schedule(small_data, monkeypatch):
    recipe = changed(MOVING, {"optimizer.drops_it": (32, 48)})
    stage = arms.rigl(trial(small_data, recipe=recipe), 1, length="5x")
    assert (stage.params["stop"], stage.params["optimizer"]["drops_it"], stage.params["regrow"]["until_it"]) == (320, (160, 240), 240)
    for bad in ("5", "0x", "twice"):
        with pytest.raises(UsageError, match="bad length"):
            arms.rigl(trial(small_data), 1, length=bad)


def test_resumed_equals_straight(small_data, monkeypatch):
    """Stopped in the middle, mask already moved: the saved mask goes on, not the first one."""
    monkeypatch.setattr("ltcore.training.loop.CHECK_EVERY_IT", 1)
    stage = moving(small_data, monkeypatch)
    done = run_all([stage], small_data)
    inputs = {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}
    saved: dict[str, torch.Tensor] = {}

    def run(checkpoints: Checkpoints) -> kinds.Result:
        return kinds.run([Job("train", stage.params, inputs)], kinds.Env(Library(), lambda _: small_data, checkpoints=checkpoints))[0]

    calls = iter(range(100))
    with pytest.raises(Stopped):
        run(Checkpoints(save=lambda t: saved.update({n: v.clone() for n, v in t.items()}), stop=lambda: next(calls) == 20))
    assert int(saved["progress"][0]) == 21
    straight, resumed = done[stage].artefacts, run(Checkpoints(load=lambda: saved)).artefacts
    assert all(torch.equal(t, resumed[role][n]) for role in ("state", "mask", "optimizer") for n, t in straight[role].items())


def test_rule_6_stacked_equals_alone(small_data, monkeypatch):
    stages = [moving(small_data, monkeypatch, seed=s) for s in range(2)]
    done = run_all(stages, small_data)
    jobs = [Job("train", s.params, {role: done[o.stage].artefacts[o.artefact] for role, o in s.inputs.items()}) for s in stages]
    for backend in ("loop", "vmap"):
        together = kinds.run(jobs, kinds.Env(Library(), lambda _: small_data, backend=backend))
        for s, result in zip(stages, together):
            assert all(torch.equal(m, result.artefacts["mask"][n]) for n, m in done[s].artefacts["mask"].items())
            assert all(torch.allclose(t, result.artefacts["state"][n], rtol=0, atol=1e-10) for n, t in done[s].artefacts["state"].items())
