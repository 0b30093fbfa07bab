"""The written-out gradient of LeNets equals autograd's bit for bit, and stands in for it only where it may."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ltcore.models import LeNet, draw_state, layer_sizes, skeleton
from ltcore.recipe import Evaluate, Model, Optimizer
from ltcore.training import backends, supervised
from ltcore.training.loop import Replicate, Segment, train
from ltcore.training.supervised import Streams


def stacked(hidden: list[int], copies: int, dtype: torch.dtype = torch.float32):
    """A module and weights of several copies of it, (R, …); biases are drawn too, so that none is 0."""
    model = Model("lenet", options={"hidden": hidden})
    states = [draw_state(LeNet, model, (3, 4), 5, [r, "init"]) for r in range(copies)]
    g = torch.Generator().manual_seed(3)
    params = {n: torch.stack([s[n] for s in states]).to(dtype) for n in states[0]}
    return skeleton(LeNet, model, (3, 4), 5), {n: p + 0.1 * torch.randn(p.shape, generator=g, dtype=dtype) for n, p in params.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 7, 60])
@pytest.mark.parametrize(("hidden", "copies"), [([300, 100], 1), ([8, 8], 3), ([], 2), ([20, 11, 6, 5], 1)])
def test_losses_and_gradients_equal_autograds_bit_for_bit(hidden, copies, batch, dtype):
    module, params = stacked(hidden, copies, dtype)
    g = torch.Generator().manual_seed(0)
    engines = [backends.BACKENDS[name](module, params, {}, supervised.loss) for name in ("chain", "loop")]
    for _ in range(3):  # the memory of the step before is used again
        x, y = torch.randn(copies, batch, 3, 4, generator=g, dtype=dtype), torch.randint(5, (copies, batch), generator=g)
        (losses, grads), (expected_losses, expected) = (e.grads(x, y) for e in engines)
        assert torch.equal(losses, expected_losses)
        assert list(grads) == list(expected)
        assert all(torch.equal(grads[n], expected[n]) for n in expected)


@pytest.mark.parametrize("optimizer", [Optimizer("adam", 1e-2), Optimizer("sgd", 1e-1, momentum=0.9, weight_decay=1e-3)])
def test_training_ends_at_the_same_bits(small_data, optimizer):
    module = skeleton(LeNet, Model("lenet"), (12,), 3)
    state = draw_state(LeNet, Model("lenet"), (12,), 3, [0, "init"])
    mask = {n: torch.arange(state[n].numel()).reshape(state[n].shape) % 3 == 0 for n in layer_sizes(module)}
    one = Replicate(state, mask, Streams([0, "split"], [0, "order"]))
    segment = Segment(optimizer, 10, 0, 150, Evaluate(20), 40)
    ends = [train(module, small_data, segment, [one], backend=name)[0] for name in (None, "chain", "loop")]
    for end in ends[1:]:
        assert all(torch.equal(end.state[n], t) for n, t in ends[0].state.items())
        assert all(torch.equal(end.optimizer[n], t) for n, t in ends[0].optimizer.items())
        assert (end.metrics, end.curves) == (ends[0].metrics, ends[0].curves)


class Scaled(LeNet):
    """A user's net on top of ours: its forward pass is not the chain's."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def chosen(module, params, buffers=None, loss=supervised.loss) -> str:
    return backends.choose(module, params, buffers or {}, loss, torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, dtype=torch.int64)).name


def test_it_is_chosen_for_plain_lenets_under_cross_entropy_only():
    module, params = stacked([8, 8], 1)
    assert chosen(module, params) == "chain"
    assert chosen(Scaled((3, 4), 5, [8, 8]), params) == "loop"
    assert chosen(module, params, loss=lambda out, y: supervised.loss(out, y)) == "loop"
    frozen = {"output.bias": params.pop("output.bias")}
    assert chosen(module, params, frozen) == "loop"
