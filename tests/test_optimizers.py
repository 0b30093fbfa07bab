"""SGD, Adam and RMSprop on stacks against torch.optim, and rule 2: pruned weights and their optimiser state are exactly 0."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ltcore import kinds
from ltcore.recipe import Optimizer, changed
from ltcore.training import optimizers
from tests.conftest import RECIPE, run_all, trial

STEPS = 300
SPECS = {
    "adam": Optimizer("adam", 1e-2),
    "adam with decay": Optimizer("adam", 3e-3, weight_decay=1e-2, betas=(0.8, 0.99), eps=1e-6),
    "sgd": Optimizer("sgd", 0.05),
    "sgd with decay": Optimizer("sgd", 0.05, weight_decay=1e-2),
    "momentum": Optimizer("sgd", 0.02, momentum=0.9),
    "momentum with decay": Optimizer("sgd", 0.02, momentum=0.9, weight_decay=1e-2),
    "rmsprop": Optimizer("rmsprop", 1e-3),
    "rmsprop with decay": Optimizer("rmsprop", 1e-3, weight_decay=1e-2, alpha=0.9, eps=1e-3),
}
SHAPES = {"w": (7, 5), "b": (7,)}


def torchs(spec: Optimizer, params: list[torch.Tensor], lr: float) -> torch.optim.Optimizer:
    if spec.name == "adam":
        return torch.optim.Adam(params, lr, spec.betas, spec.eps, spec.weight_decay, foreach=False, fused=False)
    if spec.name == "rmsprop":
        return torch.optim.RMSprop(params, lr, spec.alpha, spec.eps, spec.weight_decay, foreach=False)
    return torch.optim.SGD(params, lr, spec.momentum, weight_decay=spec.weight_decay, foreach=False, fused=False)


def gradient(params: dict[str, torch.Tensor], t: int) -> dict[str, torch.Tensor]:
    """Some rough function of the weights and the step, the same for stacked and single tensors."""
    return {n: torch.sin(3 * p + t) + 0.3 * p for n, p in params.items()}


def start(copies: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {n: torch.randn(copies, *s, generator=g, dtype=torch.float64) for n, s in SHAPES.items()}


def ours(spec: Optimizer, copies: int, lr: float | torch.Tensor, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    params = {n: p.to(dtype) for n, p in start(copies).items()}
    state = optimizers.init(spec, params)
    for t in range(STEPS):
        optimizers.update(spec, params, gradient(params, t), state, lr)
    assert state["step"] == STEPS
    return params


def reference(spec: Optimizer, r: int, copies: int, lr: float) -> dict[str, torch.Tensor]:
    params = {n: p[r].clone().requires_grad_() for n, p in start(copies).items()}
    opt = torchs(spec, list(params.values()), lr)
    for t in range(STEPS):
        for n, g in gradient({n: p.detach() for n, p in params.items()}, t).items():
            params[n].grad = g
        opt.step()
    return params


# ---- against torch.optim -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPECS)
def test_rule_6_a_shared_rate_equals_torch_optim(name):
    spec, params = SPECS[name], ours(SPECS[name], 3, SPECS[name].lr)
    for r in range(3):
        for n, p in reference(spec, r, 3, spec.lr).items():
            torch.testing.assert_close(params[n][r], p.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_rule_6_a_rate_per_replicate_equals_torch_optim_at_each_rate(name):
    spec, rates = SPECS[name], [0.5, 1.0, 3.0]
    params = ours(spec, 3, torch.tensor(rates, dtype=torch.float64) * spec.lr)
    for r, rate in enumerate(rates):
        for n, p in reference(spec, r, 3, rate * spec.lr).items():
            torch.testing.assert_close(params[n][r], p.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SPECS)
def test_a_rate_in_a_tensor_equals_the_number(name):
    """Captured steps read the rate from a 0-d tensor."""
    expected, params = ours(SPECS[name], 2, SPECS[name].lr), ours(SPECS[name], 2, torch.tensor(SPECS[name].lr, dtype=torch.float64))
    assert all(torch.allclose(params[n], expected[n], rtol=0, atol=1e-12) for n in params)


@pytest.mark.parametrize("name", SPECS)
def test_rule_5_and_12_a_stacks_update_is_its_rows_alone_bit_for_bit(name):
    """In float32, where the fused kernel rounds the tail of a tensor otherwise than the rest."""
    spec = SPECS[name]
    for size in (1, 3, 10, 37, 130):
        g = torch.Generator().manual_seed(size)
        stack = {"w": torch.randn(3, size, generator=g)}
        alone = [{"w": stack["w"][r : r + 1].clone()} for r in range(3)]
        states, state = [optimizers.init(spec, a) for a in alone], optimizers.init(spec, stack)
        for _ in range(20):
            grads = torch.randn(3, size, generator=g)
            optimizers.update(spec, stack, {"w": grads.clone()}, state, spec.lr)
            for r in range(3):
                optimizers.update(spec, alone[r], {"w": grads[r : r + 1].clone()}, states[r], spec.lr)
        assert all(torch.equal(stack["w"][r], alone[r]["w"][0]) for r in range(3)), size


# ---- rule 2 --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPECS)
def test_rule_2_pruned_weights_and_their_state_stay_exactly_zero(small_data, name):
    one = trial(small_data, optimizer=dataclasses.replace(SPECS[name], warmup_it=5, drops_it=(30,)))
    done = run_all([one.ticket(3)], small_data)
    result, mask = done[one.ticket(3)], done[one.mask(3).stage].artefacts["mask"]
    for n, m in mask.items():
        assert (~m).any() and not result.artefacts["state"][n][~m].any() and result.artefacts["state"][n][m].all()
        slots = [t for slot, t in result.artefacts["optimizer"].items() if slot.endswith(f"/{n}")]
        assert len(slots) == {"adam": 2, "rmsprop": 1, "sgd": SPECS[name].momentum > 0}[SPECS[name].name]
        assert not any(t[~m].any() for t in slots)


@pytest.mark.parametrize("name", ["adam", "momentum with decay"])
def test_rule_2_a_kept_weight_whose_value_is_zero_moves(small_data, name):
    """Masking by value (w != 0) would freeze it."""
    one = trial(small_data, optimizer=SPECS[name])
    done = run_all([one.mask(1).stage], small_data)
    state, mask = dict(done[one.init().stage].artefacts["state"]), done[one.mask(1).stage].artefacts["mask"]
    zeroed = torch.zeros(16, 12, dtype=torch.bool)
    zeroed[:, ::3] = True
    state["hidden.0.weight"] = state["hidden.0.weight"].masked_fill(zeroed, 0.0)
    job = kinds.Job("train", one.ticket(1).params, {"state": state, "mask": mask})
    end = kinds.run([job], kinds.Env(one.library, lambda _: small_data))[0].artefacts["state"]["hidden.0.weight"]
    kept = mask["hidden.0.weight"]
    assert (zeroed & kept).any() and (end[zeroed & kept] != 0).all() and not end[~kept].any()


def test_rule_2_pruned_weights_stay_zero_even_when_training_diverges(small_data):
    one = trial(small_data, recipe=changed(RECIPE, {"length": "8it"}))
    wild = one.with_changes({"optimizer": Optimizer("sgd", 1e200, momentum=0.9)})
    stage = wild.train(one.init(), one.mask(1))
    done = run_all([stage], small_data)
    end, mask = done[stage].artefacts["state"], done[one.mask(1).stage].artefacts["mask"]
    assert done[stage].facts["failed"] == "diverged" and not end["hidden.0.weight"].isfinite().all()
    assert all((end[n][~m] == 0).all() for n, m in mask.items())


def test_rule_2_state_that_comes_with_the_weights_is_masked(small_data):
    one = trial(small_data, optimizer=SPECS["momentum with decay"], rewind="16it", optimizer_state="kept")
    done = run_all([one.ticket(1)], small_data)
    result, mask = done[one.ticket(1)], done[one.mask(1).stage].artefacts["mask"]
    assert "optimizer" in one.ticket(1).inputs
    assert not any(result.artefacts["optimizer"][f"m/{n}"][~m].any() or result.artefacts["state"][n][~m].any() for n, m in mask.items())


# ---- schedules -----------------------------------------------------------------------------------------------
def test_a_constant_rate():
    assert {optimizers.learning_rate(Optimizer("sgd", 0.1), t) for t in (0, 1, 10_000)} == {0.1}


def test_warm_up_is_linear_from_zero():
    spec = Optimizer("sgd", 0.4, warmup_it=4)
    assert [optimizers.learning_rate(spec, t) for t in range(6)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])


def test_drops_count_from_iteration_zero_and_multiply():
    spec = Optimizer("sgd", 1.0, warmup_it=2, drops_it=(3, 5), factor=0.1)
    assert [optimizers.learning_rate(spec, t) for t in range(7)] == pytest.approx([0, 0.5, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_inverse_square_root_falls_from_the_end_of_the_warm_up():
    spec = Optimizer("adam", 0.4, warmup_it=4, schedule="inverse-sqrt")
    assert [optimizers.learning_rate(spec, t) for t in (0, 2, 4, 16, 64)] == pytest.approx([0.0, 0.2, 0.4, 0.2, 0.1])


def test_momentum_has_state_only_where_there_is_momentum():
    params = {"w": torch.zeros(2, 3)}
    assert sorted(optimizers.init(SPECS["sgd"], params)) == ["step"]
    assert sorted(optimizers.init(SPECS["momentum"], params)) == ["m/w", "step"]
    assert sorted(optimizers.init(SPECS["adam"], params)) == ["m/w", "step", "v/w"]
    assert sorted(optimizers.init(SPECS["rmsprop"], params)) == ["step", "v/w"]
