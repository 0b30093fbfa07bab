"""A step captured as a CUDA graph equals the same step run eagerly; needs a GPU."""

from __future__ import annotations

import pytest
import torch

from ltcore import kinds
from ltcore.recipe import Model, Optimizer, changed
from ltcore.training import capture, loop
from ltcore.training.capture import Captured
from tests.conftest import RECIPE, run_all, trial
from tests.nets import LIBRARY

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OPTIMIZERS = {"adam": RECIPE.optimizer, "sgd": Optimizer("sgd", 0.05, momentum=0.9, weight_decay=1e-3, warmup_it=10, drops_it=(24, 36))}
NETS = {"lenet": (RECIPE.model, {"fc": 0.2, "output": 0.1}), "conv-norm": (Model("conv-norm"), {"conv": 0.3, "output": 0.1})}
ATOL = 1e-4  # float32 on a GPU: kernels group sums otherwise


class Eager:
    """Stands in for ``Captured``: the same step, launched kernel by kernel."""

    def __init__(self, step, index, state):
        self.step = step

    def __call__(self, index, lr):
        return self.step(index, torch.tensor(lr, device=index.device))


def tickets(small, net: str, optimizer: str, device: str, precision: str = "fp32"):
    """Level-1 tickets of three seeds as one stack on a device."""
    model, rates = NETS[net]
    recipe = changed(RECIPE, {"model": model, "pruning.rates": rates, "optimizer": OPTIMIZERS[optimizer], "precision": precision})
    ones = [trial(small, seed, recipe, LIBRARY) for seed in range(3)]
    done = run_all([one.mask(1).stage for one in ones], small, LIBRARY)
    jobs = [
        kinds.Job(
            "train", one.ticket(1).params, {role: done[out.stage].artefacts[out.artefact] for role, out in one.ticket(1).inputs.items()}
        )
        for one in ones
    ]
    there = small.to(device)
    return kinds.run(jobs, kinds.Env(LIBRARY, lambda _: there, device)), jobs


def assert_alike(a, b, atol: float) -> None:
    for x, y in zip(a, b, strict=True):
        for n, t in x.artefacts["state"].items():
            torch.testing.assert_close(t, y.artefacts["state"][n], rtol=0, atol=atol)
        assert x.curves["val_loss"] == pytest.approx(y.curves["val_loss"], abs=10 * atol)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rule_6_captured_steps_equal_eager_steps(small_data, monkeypatch, net, optimizer):
    captured, _ = tickets(small_data, net, optimizer, "cuda")
    monkeypatch.setattr(loop, "Captured", Eager)
    assert_alike(captured, tickets(small_data, net, optimizer, "cuda")[0], ATOL)


@pytest.mark.parametrize("net", NETS)
def test_rule_12_a_stack_on_a_gpu_equals_the_cpu_within_the_stated_tolerance(small_data, net):
    assert_alike(tickets(small_data, net, "sgd", "cuda")[0], tickets(small_data, net, "sgd", "cpu")[0], ATOL)


def test_rule_2_pruned_weights_stay_zero_on_a_gpu(small_data):
    results, jobs = tickets(small_data, "lenet", "sgd", "cuda")
    for result, job in zip(results, jobs):
        for n, m in job.inputs["mask"].items():
            assert not result.artefacts["state"][n][~m].any() and not result.artefacts["optimizer"][f"m/{n}"][~m].any()


def test_the_warm_up_is_undone():
    state = {"w": torch.ones(2, 3, device="cuda"), "count": torch.zeros((), dtype=torch.int64, device="cuda")}
    index = torch.tensor([[2], [5]], device="cuda")

    def step(index, lr, t):
        state["w"].add_(lr * index + t)
        state["count"].add_(1)
        return state["w"].sum(1)

    captured = Captured(step, index, state)
    assert torch.equal(state["w"].cpu(), torch.ones(2, 3)) and int(state["count"]) == 0
    zero, two = torch.tensor(0), torch.tensor(2)
    assert captured(index, 0.5, zero).tolist() == [6.0, 10.5] and captured(torch.ones_like(index), 1.0, two).tolist() == [15.0, 19.5]
    assert int(state["count"]) == 2 and capture.WARM_UP > 0


def test_a_segment_stopped_inside_goes_on_on_a_gpu(small_data):
    one = trial(small_data, recipe=changed(RECIPE, {"length": "150it", "precision": "fp32"}))
    init = run_all([one.init().stage], small_data)[one.init().stage].artefacts["state"]
    there, job, kept, stops = small_data.to("cuda"), kinds.Job("train", one.ticket(0).params, {"state": init}), {}, iter((False, True))
    stopping = loop.Checkpoints(
        lambda: None, lambda tensors: kept.update({n: t.cpu().clone() for n, t in tensors.items()}), lambda: False, lambda: next(stops)
    )
    whole = kinds.run([job], kinds.Env(LIBRARY, lambda _: there, "cuda"))
    with pytest.raises(loop.Stopped):
        kinds.run([job], kinds.Env(LIBRARY, lambda _: there, "cuda", stopping))
    again = kinds.run([job], kinds.Env(LIBRARY, lambda _: there, "cuda", loop.Checkpoints(lambda: kept)))
    assert_alike(whole, again, ATOL)
