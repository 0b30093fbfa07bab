"""Rule 6: batched replicates equal the same replicates alone, in both back ends, for our nets and for a user's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltcore import kinds
from ltcore.data import split
from ltcore.models import MODELS as FAMILIES
from ltcore.models import split_state
from ltcore.recipe import Model, changed
from ltcore.seeds import stream
from ltcore.training import backends, supervised
from tests.conftest import RECIPE, run_all, trial
from tests.nets import LIBRARY, NETS

SEEDS = (0, 1, 2)
MODELS = {
    "lenet": (RECIPE.model, {"fc": 0.2, "output": 0.1}),
    "conv-norm": (Model("conv-norm"), {"conv": 0.3, "output": 0.1}),
    "tied": (Model("tied"), {"fc": 0.3, "output": 0.1}),
    "recurrent": (Model("recurrent"), {"recurrent": 0.3, "output": 0.1}),
}


def trials(small, name: str, **changes):
    model, rates = MODELS[name]
    recipe = changed(RECIPE, {"model": model, "pruning.rates": rates, **changes})
    return [trial(small, seed, recipe, LIBRARY) for seed in SEEDS]


def stacked_and_alone(small, name: str, backend: str | None, level: int = 1, **changes):
    """Tickets of three seeds, each with its own weights, mask, split and order: trained as one stack, and one by one by the loop."""
    ones = trials(small, name, **changes)
    done = run_all([one.mask(level).stage for one in ones], small, LIBRARY)
    jobs = []
    for one in ones:
        stage = one.ticket(level)
        jobs.append(kinds.Job("train", stage.params, {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}))
    alone = [kinds.run([job], kinds.Env(LIBRARY, lambda _: small))[0] for job in jobs]
    return kinds.run(jobs, kinds.Env(LIBRARY, lambda _: small, backend=backend)), alone


def assert_same(stacked, alone, atol: float) -> None:
    for s, a in zip(stacked, alone, strict=True):
        for n, t in a.artefacts["state"].items():
            torch.testing.assert_close(s.artefacts["state"][n], t, rtol=0, atol=atol)
        for n, t in a.artefacts["optimizer"].items():
            torch.testing.assert_close(s.artefacts["optimizer"][n], t, rtol=0, atol=10 * atol)
        assert s.curves["it"] == a.curves["it"] and s.curves["val_loss"] == pytest.approx(a.curves["val_loss"], abs=10 * atol)
        assert [(v.metric, v.at) for v in s.values] == [(v.metric, v.at) for v in a.values]


@pytest.mark.parametrize(
    ("name", "backend"), [("lenet", "vmap"), ("conv-norm", "vmap"), ("tied", "vmap"), ("conv-norm", "loop"), ("recurrent", "loop")]
)
def test_rule_6_batched_equals_alone_to_1e_10_in_float64(small_data, name, backend):
    stacked, alone = stacked_and_alone(small_data, name, backend, length="80it")
    assert_same(stacked, alone, 1e-10)
    assert [s.facts["early_stop_it"] for s in stacked] == [a.facts["early_stop_it"] for a in alone]


@pytest.mark.parametrize(("name", "backend"), [("lenet", "vmap"), ("conv-norm", "vmap")])
def test_rule_6_batched_equals_alone_to_1e_4_in_float32(small_data, name, backend):
    """The stated tolerance: sums are grouped otherwise, and Adam turns the rounding of a tiny gradient into a step of up to lr."""
    assert_same(*stacked_and_alone(small_data, name, backend, precision="fp32"), 1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize(("name", "backend"), [("lenet", "loop"), ("lenet", None), ("conv-norm", "loop")])
def test_rule_5_on_cpu_a_trial_does_not_depend_on_its_neighbours(small_data, name, backend, precision):
    """Each replicate is computed by itself: bit for bit."""
    assert_same(*stacked_and_alone(small_data, name, backend, precision=precision), 0.0)


def test_rule_6_replicates_with_masks_of_different_layers_keep_their_own(small_data):
    one = trial(small_data)
    init = run_all([one.init().stage], small_data)[one.init().stage].artefacts["state"]
    masks = [{n: torch.arange(init[n].numel()).reshape(init[n].shape) % 2 == 0} for n in ("hidden.0.weight", "hidden.1.weight")]
    jobs = [kinds.Job("train", one.ticket(0).params, {"state": init, "mask": mask}) for mask in masks]
    ends = [r.artefacts["state"] for r in kinds.run(jobs, kinds.Env(one.library, lambda _: small_data))]
    for end, mask, other in zip(ends, masks, reversed(masks)):
        assert all(not end[n][~m].any() for n, m in mask.items()) and all(end[n].all() for n in other)


# ---- a user's own modules --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["branch", "recurrent", "tied", "conv-norm"])
def test_rule_6_the_loop_equals_a_plain_loop_over_the_module(small_data, name):
    """The engine's binding of parameters and buffers against the module trained by hand with torch.optim."""
    one = trial(small_data, 0, changed(RECIPE, {"model": Model(name, "module"), "length": "20it"}), LIBRARY)
    stage = one.ticket(0)
    done = run_all([stage], small_data, LIBRARY)
    init, end = done[one.init().stage].artefacts["state"], done[stage].artefacts["state"]
    net = NETS[name]((12,), 3).double().train()
    net.load_state_dict(init, strict=False)
    opt = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], RECIPE.optimizer.lr)
    train_index, _ = split(small_data, 40, stream(0, "split"))
    for t in range(20):
        rows = train_index[torch.randperm(160, generator=stream(0, "order", t // 16))[t % 16 * 10 : t % 16 * 10 + 10]]
        opt.zero_grad()
        F.cross_entropy(net(small_data.train.x[rows].double()), small_data.train.y[rows]).backward()
        opt.step()
    own = net.state_dict()
    assert set(end) == set(init) <= set(own)
    for n, t in end.items():
        torch.testing.assert_close(t, own[n], rtol=0, atol=1e-10)
    assert any(not torch.equal(end[n].float(), init[n].float()) for n in end)


def test_rule_6_a_stock_module_keeps_replicates_apart(small_data):
    """Two copies with the same weights and batches get different dropout masks."""
    one = trial(small_data, 0, changed(RECIPE, {"model": Model("stock-dropout")}), LIBRARY)
    init = run_all([one.init().stage], small_data, LIBRARY)[one.init().stage].artefacts["state"]
    jobs = [kinds.Job("train", one.ticket(0).params, {"state": init})] * 2
    for backend in ("loop", "vmap"):
        a, b = kinds.run(jobs, kinds.Env(LIBRARY, lambda _: small_data, backend=backend))
        assert not torch.equal(a.artefacts["state"]["0.weight"], b.artefacts["state"]["0.weight"])


def test_a_frozen_parameter_does_not_move(small_data):
    one = trial(small_data, 0, changed(RECIPE, {"model": Model("tied"), "pruning.rates": {"fc": 0.3, "output": 0.1}}), LIBRARY)
    done = run_all([one.ticket(1)], small_data, LIBRARY)
    init, mask = done[one.init().stage].artefacts["state"], done[one.mask(1).stage].artefacts["mask"]
    assert torch.equal(done[one.ticket(1)].artefacts["state"]["out.weight"], init["out.weight"].double() * mask["out.weight"])


# ---- the probe -------------------------------------------------------------------------------------------------
def stack_of(net: nn.Module, copies: int = 2) -> tuple[dict, dict]:
    torch.manual_seed(0)
    stack = {n: torch.stack([t.detach().clone() for _ in range(copies)]) for n, t in net.state_dict().items()}
    return split_state(net, stack)


@pytest.mark.parametrize(("name", "takes"), [("branch", False), ("recurrent", False), ("conv-norm", True), ("stock-dropout", True)])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_rule_6_the_probe_refuses_what_vmap_cannot_run(name, takes):
    net = NETS[name]((12,), 3)
    params, buffers = stack_of(net)
    before = {n: t.clone() for n, t in (params | buffers).items()}
    x, y = torch.randn(2, 10, 12), torch.randint(3, (2, 10))
    assert backends._vmap_takes(net, params, buffers, supervised.loss, x, y) is takes
    assert all(torch.equal(before[n], t) for n, t in (params | buffers).items())  # a probe leaves no trace


def test_the_loop_is_the_choice_on_cpu_and_what_is_asked_for_is_taken():
    net = NETS["conv-norm"]((12,), 3)
    x, y = torch.randn(2, 10, 12), torch.randint(3, (2, 10))
    assert backends.choose(net, *stack_of(net), supervised.loss, x, y).name == "loop"
    assert backends.choose(net, *stack_of(net), supervised.loss, x, y, "vmap").name == "vmap"


class ElsewhereShape(torch.Tensor):
    """A tensor that says it is not on the CPU, so that the choice for a GPU can be seen without one."""

    @property
    def device(self):  # type: ignore[override]
        return torch.device("meta")


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("name", "chosen"), [("branch", "loop"), ("recurrent", "loop"), ("conv-norm", "vmap")])
def test_rule_6_off_the_cpu_a_stack_gets_vmap_and_falls_back_to_the_loop(monkeypatch, name, chosen):
    net = NETS[name]((12,), 3)
    x, y = torch.randn(2, 10, 12), torch.randint(3, (2, 10))
    probe = backends._vmap_takes
    monkeypatch.setattr(backends, "_vmap_takes", lambda *args: probe(*args[:4], x, y))
    assert backends.choose(net, *stack_of(net), supervised.loss, x.as_subclass(ElsewhereShape), y).name == chosen


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_evaluation_changes_no_buffer_and_leaves_training_mode_on(backend):
    net = NETS["conv-norm"]((12,), 3)
    params, buffers = stack_of(net)
    engine = backends.BACKENDS[backend](net, params, buffers, supervised.loss)
    x, y = torch.randn(2, 10, 12), torch.randint(3, (2, 10))
    before = {n: t.clone() for n, t in buffers.items()}
    first = engine.forward(x)
    assert torch.equal(first, engine.forward(x)) and all(torch.equal(before[n], t) for n, t in buffers.items())
    engine.grads(x, y)
    assert buffers["norm.num_batches_tracked"].tolist() == [1, 1] and buffers["drop.counter"][:, 1].tolist() == [1, 1]
    assert not torch.equal(before["norm.running_mean"], buffers["norm.running_mean"])


# ---- memory layout ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(("name", "options"), [("conv", {"depth": 4, "width": 4, "hidden": [8]}), ("resnet", {"depth": 8, "width": 4}),
                                               ("vgg", {"depth": 11, "width": 4})])  # fmt: skip
def test_the_layout_of_images_changes_no_gradient_and_none_keeps_it(name, options, copies):
    """The optimisers and the masks take gradients in the order of the weights."""
    net = FAMILIES[name]((3, 16, 16), 5, **options).double()
    g = torch.Generator().manual_seed(1)
    x = torch.randn(copies, 6, 3, 16, 16, dtype=torch.float64, generator=g)
    y = torch.randint(5, (copies, 6), generator=g)
    found = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        net.memory_format = layout
        engine = backends.Loop(net, *stack_of(net, copies), supervised.loss)
        found[layout] = (*engine.grads(x, y), engine.forward(x))
    (losses, grads, out), (other_losses, other, other_out) = found.values()
    assert torch.allclose(losses, other_losses, atol=1e-12) and torch.allclose(out, other_out, atol=1e-12)
    assert all(torch.allclose(grads[n], other[n], atol=1e-10) and other[n].is_contiguous() for n in grads)


def test_images_are_laid_out_as_the_family_asks_and_a_users_module_gets_them_plain():
    seen = []

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4 * 4, 2)

        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return self.out(self.conv(x).view(len(x), -1))  # refuses other layouts

    asking = Plain()
    asking.memory_format, asking.out = torch.channels_last, nn.Linear(3, 2)
    asking.forward = lambda x: (seen.append(x.is_contiguous(memory_format=torch.channels_last)), asking.out(x.mean((2, 3))))[1]
    x, y = torch.rand(1, 5, 3, 4, 4), torch.zeros(1, 5, dtype=torch.int64)
    for net in (Plain(), asking):
        backends.Loop(net, *stack_of(net, 1), supervised.loss).grads(x, y)
    assert seen == [False, True]
