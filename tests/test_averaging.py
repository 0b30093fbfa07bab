"""Averages of weights: which iterates count, their exact mean, statistics of batch norms, and runs that stop, stack or are rounded."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ltcore import data
from ltcore.models import draw_state, skeleton
from ltcore.recipe import Evaluate, Model, Optimizer
from ltcore.training import averaging, bfp
from ltcore.training.averaging import Average
from ltcore.training.loop import LAST, Checkpoints, Replicate, Segment, Stopped, Trained, train
from ltcore.training.rigl import Regrow
from ltcore.training.supervised import Batches, Streams
from tests.nets import LIBRARY

EVERY = Average(from_it=4, every_it=3)  # of 12 iterations: after 7 and 10
NORMED = Model("conv-norm")


@pytest.mark.parametrize(
    ("start", "stop", "expected"), [(0, 12, [7, 10]), (0, 13, [7, 10, 13]), (0, 6, []), (4, 8, [7]), (7, 12, [10]), (6, 7, [7]), (10, 10, [])]
)
def test_which_iterates_count(start, stop, expected):
    assert list(averaging.points(EVERY, start, stop)) == expected and not averaging.points(None, start, stop)


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 60), st.integers(0, 60))
def test_a_cut_run_takes_the_same_iterates(from_it, every_it, cut, rest):
    average = Average(from_it, every_it)
    parts = [*averaging.points(average, 0, cut), *averaging.points(average, cut, cut + rest)]
    assert parts == list(averaging.points(average, 0, cut + rest)) and all(t > from_it and (t - from_it) % every_it == 0 for t in parts)


# ---- training ------------------------------------------------------------------------------------------------
def trained(small: data.Dataset, stop: int = 12, average: Average | None = EVERY, seeds: tuple[int, ...] = (0,), model: Model = NORMED,
            precision: str = "fp64", mask: dict | None = None, val: int = 0, **more: object) -> list[Trained]:  # fmt: skip
    """Batches of 20 of 200 examples: an epoch is 10 iterations."""
    family = LIBRARY.model(model.name)
    module = skeleton(family, model, small.input_shape, small.classes)
    copies = [Replicate(draw_state(family, model, small.input_shape, small.classes, [seed, "init"]), mask or {},
                        Streams([seed, "split"], [seed, "order"])) for seed in seeds]  # fmt: skip
    optimizer = Optimizer("sgd", 0.05, 0.9, weight_decay=1e-3)
    segment = Segment(optimizer, 20, 0, stop, Evaluate(max(stop, 1), ("early-stop", "end")), val, precision, average=average)
    return train(module, small, segment, copies, **more)


def parameters(small: data.Dataset, model: Model = NORMED) -> list[str]:
    return [n for n, _ in skeleton(LIBRARY.model(model.name), model, small.input_shape, small.classes).named_parameters()]


class Idle(nn.Module):
    """One weight vector that inputs of 0 never move: weight decay alone halves it at each step of rate 0.5 and decay 1."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 3, bias=False)

    def forward(self, x):
        return self.out(x)


def test_an_average_by_hand():
    zeros = data.from_user("zeros", (torch.zeros(6, 2), torch.tensor([0, 1, 2] * 2), torch.zeros(3, 2), torch.tensor([0, 1, 2])))
    w = torch.tensor([[8.0, -16.0], [1.0, 0.0], [64.0, 4.0]])
    segment = Segment(Optimizer("sgd", 0.5, weight_decay=1.0), 2, 0, 4, Evaluate(4, ("end",)), 0, average=Average(1, 1))
    (done,) = train(Idle(), zeros, segment, [Replicate({"out.weight": w}, {}, Streams([0, "split"], [0, "order"]))])
    torch.testing.assert_close(done.state["out.weight"], w * (0.25 + 0.125 + 0.0625) / 3, rtol=1e-6, atol=0)  # after 2, 3 and 4 of 4


def test_what_is_left_is_the_mean_of_the_iterates(small_data):
    (mean,), (a,), (b,), (plain,) = (trained(small_data, stop, average) for stop, average in ((12, EVERY), (7, None), (10, None), (12, None)))
    for n in parameters(small_data):
        assert torch.equal(mean.state[n], (a.state[n] + b.state[n]) / 2), n
    assert all(torch.equal(mean.optimizer[n], t) for n, t in plain.optimizer.items())
    assert mean.metrics[LAST] == plain.metrics["end"] != mean.metrics["end"] and LAST not in plain.metrics
    assert mean.facts["averaged"] == 2 and "averaged" not in plain.facts


def test_statistics_are_those_of_the_averaged_net_over_one_epoch(small_data):
    (done,) = trained(small_data)
    batches = Batches(small_data, 0, 20, [Streams([0, "split"], [0, "order"])], torch.float64)
    images = [batches.fetch(batches.index(t))[0][0].reshape(-1, 1, 3, 4) for t in range(12, 22)]
    maps = [torch.nn.functional.conv2d(x, done.state["conv.weight"]).transpose(0, 1).flatten(1) for x in images]
    assert len(maps) == batches.per_epoch
    torch.testing.assert_close(done.state["norm.running_mean"], torch.stack([m.mean(1) for m in maps]).mean(0))
    torch.testing.assert_close(done.state["norm.running_var"], torch.stack([m.var(1) for m in maps]).mean(0))


def test_the_end_is_read_with_the_average_in_place(small_data):
    (done,) = trained(small_data)
    family = LIBRARY.model("conv-norm")
    net = family(small_data.input_shape, 3).double().eval()
    net.load_state_dict(done.state)
    right = (net(small_data.test.x.double()).argmax(1) == small_data.test.y).double().mean()
    assert done.metrics["end"]["test_accuracy_pct"] == pytest.approx(100 * float(right))


def test_without_an_iterate_to_take_nothing_changes(small_data):
    (none,), (plain,) = trained(small_data, average=Average(12, 1)), trained(small_data, average=None)
    assert all(torch.equal(t, none.state[n]) for n, t in plain.state.items()) and none.metrics == plain.metrics
    assert none.facts["averaged"] == 0


def test_early_stopping_still_means_the_iterate_at_the_minimum(small_data):
    (mean,), (plain,) = trained(small_data, val=40), trained(small_data, val=40, average=None)
    assert mean.metrics["early-stop"] == plain.metrics["early-stop"]


def test_pruned_weights_stay_0(small_data):
    keep = torch.arange(18 * 4).reshape(3, 24) % 3 > 0
    (done,) = trained(small_data, mask={"out.weight": keep})
    assert not done.state["out.weight"][~keep].any() and done.state["out.weight"][keep].all()


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_stack_gives_what_its_copies_give_alone(small_data, backend):
    model = Model("lenet", options={"hidden": [6]})
    together = trained(small_data, seeds=(0, 1), model=model, backend=backend)
    for copy, seed in zip(together, (0, 1)):
        (alone,) = trained(small_data, seeds=(seed,), model=model, backend="loop")
        for n, t in alone.state.items():
            torch.testing.assert_close(copy.state[n], t, rtol=0, atol=1e-12)


def test_a_stack_measures_each_copys_statistics(small_data):
    together = trained(small_data, seeds=(0, 1), backend="loop")
    for copy, seed in zip(together, (0, 1)):
        (alone,) = trained(small_data, seeds=(seed,), backend="loop")
        for n in ("norm.running_mean", "norm.running_var", "conv.weight"):
            torch.testing.assert_close(copy.state[n], alone.state[n], rtol=0, atol=1e-12)


def test_a_stopped_run_goes_on_to_the_same_average(small_data):
    average, kept, asked = Average(20, 9), {}, iter([False, True])  # saves itself at iterations 1 and 65
    (straight,) = trained(small_data, 90, average)
    with pytest.raises(Stopped):
        trained(small_data, 90, average, checkpoints=Checkpoints(save=kept.update, stop=lambda: next(asked)))
    (resumed,) = trained(small_data, 90, average, checkpoints=Checkpoints(load=lambda: {n: t.clone() for n, t in kept.items()}))
    assert all(torch.equal(t, resumed.state[n]) for n, t in straight.state.items()) and straight.metrics == resumed.metrics
    assert kept["sums/conv.weight"].any()  # some were taken before the stop


def test_iterates_are_rounded_and_their_average_is_not(small_data):
    """SWALP: 8 bits while training, a mean and an evaluation at full precision."""
    (mean,), (last,) = trained(small_data, precision="bfp8"), trained(small_data, 10, None, precision="bfp8")

    def on_grid(t: torch.Tensor) -> bool:
        return torch.equal(bfp.quantise(t, torch.tensor(1), 0, block="row" if t.dim() > 1 else "tensor"), t)

    assert all(on_grid(last.state[n]) for n in parameters(small_data)) and not on_grid(mean.state["conv.weight"])
    net = LIBRARY.model("conv-norm")(small_data.input_shape, 3).eval()
    net.load_state_dict(mean.state)
    loss = nn.functional.cross_entropy(net(small_data.test.x), small_data.test.y).item()
    assert mean.metrics["end"]["test_loss"] == pytest.approx(loss, rel=1e-5)  # what rounds activations would be off by a percent


def test_a_mask_that_moves_has_no_average():
    segment = Segment(Optimizer("sgd", 0.1), 2, 0, 4, Evaluate(4), 0)
    with pytest.raises(ValueError, match="can't be averaged under a mask that moves"):
        dataclasses.replace(segment, average=EVERY, regrow=Regrow(2))
