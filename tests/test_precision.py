"""Precision classes: what they round, what they leave alone, and that they leave no trace."""
from __future__ import annotations

import pytest
import torch

from ltcore import kinds
from ltcore.models import MODELS, own_state
from ltcore.recipe import WORDS, Evaluate, Model, Optimizer, changed
from ltcore.training import backends, precision, supervised
from ltcore.training.loop import Replicate, Segment, train
from ltcore.training.supervised import Streams
from tests.conftest import RECIPE, run_all, trial
from tests.nets import LIBRARY


def test_a_recipe_names_the_classes_that_there_are():
    assert set(WORDS["precision"]) == set(precision.PRECISIONS)


def switches() -> tuple:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("before", ["highest", "medium"])
@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_a_class_sets_pytorchs_switches_whatever_they_were_and_puts_them_back(name, before):
    own = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    outside, tf32 = switches(), name == "tf32"
    try:
        with pytest.raises(ZeroDivisionError), precision.applied(name, "cpu"):
            assert switches() == ("high" if tf32 else "highest", tf32, name == "bf16")
            with torch.backends.cudnn.flags(enabled=True):  # as a user's module may
                pass
            raise ZeroDivisionError
        assert switches() == outside
    finally:
        torch.set_float32_matmul_precision(own)


def ends(small, name: str, model: str = "conv-norm", backend: str | None = None, length: str = "4it"):
    one = trial(small, 0, changed(RECIPE, {"model": Model(model), "precision": name, "length": length, "optimizer": Optimizer("sgd", 0.05)}), LIBRARY)
    init = run_all([one.init().stage], small, LIBRARY)[one.init().stage].artefacts["state"]
    [result] = kinds.run([kinds.Job("train", one.ticket(0).params, {"state": init})], kinds.Env(LIBRARY, lambda _: small, backend=backend))
    return result


@pytest.mark.parametrize("model", ["lenet", "conv-norm"])
def test_bf16_keeps_weights_in_float32_and_differs_from_fp32_by_rounding(small_data, model):
    exact, rounded = (ends(small_data, name, model).artefacts["state"] for name in ("fp32", "bf16"))
    gaps = [(rounded[n] - t).abs().max() / t.abs().max() for n, t in exact.items() if t.dim() > 1]  # biases are sums that cancel
    assert all(rounded[n].dtype == t.dtype for n, t in exact.items())
    assert 1e-5 < max(gaps) < 0.05


def test_bf16_passes_run_in_bf16_and_the_loss_does_not(small_data, monkeypatch):
    passes, losses, original = set(), set(), supervised.loss

    class Watch(MODELS["lenet"]):
        def forward(self, x):
            out = super().forward(x)
            passes.add(out.dtype)
            return out

    def watched(out, y):
        losses.add(original(out, y).dtype)
        return original(out, y)

    monkeypatch.setattr(supervised, "loss", watched)
    state = own_state(Watch((12,), 3, (8,)))
    segment = Segment(Optimizer("sgd", 0.1), 10, 0, 2, Evaluate(10, ("end",)), 40, "bf16")
    train(Watch((12,), 3, (8,)), small_data, segment, [Replicate(state, {}, Streams([0, "split"], [0, "order"]))])
    assert passes == {torch.bfloat16} and losses == {torch.float32}


def test_evaluation_of_rounded_outputs_is_not_rounded():
    """The mean loss of outputs that are bf16 numbers, by hand."""
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.5, -1.0, 3.0]])
    with precision.applied("bf16", "cpu"):
        found = supervised.loss(logits.bfloat16(), torch.tensor([2, 0]))
    assert float(found) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.tensor([2, 0]))), abs=1e-6)


@pytest.mark.parametrize(("name", "model"), [("bf16", "lenet"), ("tf32", "lenet"), ("tf32", "conv-norm")])
def test_stacked_by_vmap_equals_alone_within_the_rounding(small_data, name, model):
    one, other = (ends(small_data, name, model, backend).artefacts["state"] for backend in ("loop", "vmap"))
    for n, t in one.items():
        torch.testing.assert_close(t, other[n], rtol=0, atol=0.05 if name == "bf16" else 1e-4)


def test_rounded_passes_of_a_lenet_do_not_take_the_chain():
    net, x, y = MODELS["lenet"]((16,), 3, (8,)), torch.rand(1, 4, 16), torch.zeros(1, 4, dtype=torch.int64)
    params = {n: p.detach()[None].clone() for n, p in net.named_parameters()}
    for name, chosen in (("fp32", "chain"), ("bf16", "loop")):
        with precision.applied(name, "cpu"):
            assert backends.choose(net, params, {}, supervised.loss, x, y).name == chosen
