"""Channels as weights, and the physically smaller network: exact to the masked one in float64, in one pass and over many steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ltcore import channels, compact, cost, data
from ltcore.models import MODELS, draw_state, own_state
from ltcore.recipe import Evaluate, Model, Optimizer
from ltcore.training.loop import Replicate, Segment, train
from ltcore.training.supervised import Streams
from replications.papers import load
from tests.nets import HAS_TORCHVISION, needs_torchvision

NETS = {
    "vgg": ("vgg", {"depth": 11, "width": 4}),
    "preresnet": ("preresnet", {"depth": 20, "width": 4}),
    "basic blocks": ("torchvision", {"arch": "resnet18"}),
    "bottlenecks": ("torchvision", {"arch": "resnet50"}),
}
ALL = [pytest.param(n, marks=[needs_torchvision] if NETS[n][0] == "torchvision" else []) for n in NETS]
SHAPE, CLASSES = (3, 16, 16), 5


def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    family, options = NETS[name]
    return MODELS[family](SHAPE, CLASSES, **options).double()


def randomised(module: nn.Module) -> nn.Module:
    """Scales, shifts and statistics that are no round numbers."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for t, low in ((layer.weight, 0.3), (layer.bias, -1.0), (layer.running_mean, -1.0), (layer.running_var, 0.5)):
                nn.init.uniform_(t, low, low + 1.5)
    return module


def some(module: nn.Module, share: float, seed: int) -> dict[str, torch.Tensor]:
    """A random mask of channels that leaves every norm at least one."""
    generator, parameters, mask = torch.Generator().manual_seed(seed), dict(module.named_parameters()), {}
    for name in channels.kinds(module):
        keep = torch.rand(len(parameters[name]), generator=generator) >= share
        keep[int(torch.randint(len(keep), (), generator=generator))] = True
        mask[name] = keep
    return mask


def masked(module: nn.Module, mask: dict[str, torch.Tensor]) -> nn.Module:
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name in mask:
                p.mul_(mask[name])
    return module


def small(module: nn.Module, name: str, keep: dict[str, torch.Tensor]) -> nn.Module:
    out = compact.narrow(net(name), keep).double()
    out.load_state_dict(compact.shrink(module, module.state_dict(), keep))
    return out


# ---- masks of channels as masks of weights ---------------------------------------------------------------------
def test_a_mask_of_channels_expands_to_rows_columns_scale_and_shift():
    module = MODELS["vgg"]((1, 8, 8), 2, depth=11, width=1)  # widths 1, 2, 4, 4, 8, 8, 8, 8
    keep = {"norm.1.weight": torch.tensor([True, False]), "norm.7.weight": torch.tensor([True] * 7 + [False])}
    mask = channels.expand(module, keep)
    assert sorted(mask) == [
        "conv.1.weight",
        "conv.2.weight",
        "conv.7.weight",
        "norm.1.bias",
        "norm.1.weight",
        "norm.7.bias",
        "norm.7.weight",
        "output.weight",
    ]
    assert mask["conv.1.weight"].shape == (2, 1, 3, 3) and mask["conv.1.weight"][0].all() and not mask["conv.1.weight"][1].any()
    assert mask["conv.2.weight"].shape == (4, 2, 3, 3) and mask["conv.2.weight"][:, 0].all() and not mask["conv.2.weight"][:, 1].any()
    assert mask["output.weight"].tolist() == [[True] * 7 + [False]] * 2
    assert mask["norm.1.bias"].tolist() == [True, False]


def test_a_convolution_between_two_pruned_norms_loses_outputs_and_inputs():
    module = MODELS["vgg"]((1, 8, 8), 2, depth=13, width=2)
    keep = {"norm.0.weight": torch.tensor([True, False]), "norm.1.weight": torch.tensor([False, True])}
    assert channels.expand(module, keep)["conv.1.weight"].any((2, 3)).tolist() == [[False, False], [True, False]]


# ---- exactness -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(("share", "seed"), [(0.5, 0), (0.8, 1)])
def test_the_smaller_network_gives_the_masked_networks_outputs(name, mode, share, seed):
    whole = randomised(net(name))
    keep = some(whole, share, seed)
    lean = small(whole, name, keep)
    masked(whole, channels.expand(whole, keep))
    x = torch.randn(6, *SHAPE, dtype=torch.float64)
    a, b = (m.train(mode == "train")(x) for m in (whole, lean))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert cost.parameters(lean) < cost.parameters(whole) and cost.forward_flops(lean, SHAPE) < cost.forward_flops(whole, SHAPE)


@pytest.mark.parametrize("name", ALL)
def test_with_all_channels_the_smaller_network_is_the_network(name):
    whole = randomised(net(name))
    keep = {n: torch.ones_like(p, dtype=torch.bool) for n, p in whole.named_parameters() if n in channels.kinds(whole)}
    lean, x = small(whole, name, keep), torch.randn(4, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(whole.eval()(x), lean.eval()(x), rtol=1e-12, atol=1e-12)
    assert cost.parameters(lean) == cost.parameters(whole)


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_scale_and_shift_alone_carry_the_mask(share, seed):
    """What else the mask covers is dead weight: a network whose batch norms alone are masked computes the same."""
    whole, norms_only = net("preresnet"), net("preresnet")
    keep = some(whole, share, seed)
    masked(whole, channels.expand(whole, keep))
    masked(norms_only, {n: m for n, m in channels.expand(norms_only, keep).items() if ".norm" in n or n.startswith("norm")})
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(whole.eval()(x), norms_only.eval()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["vgg", "preresnet"])
def test_trained_alike_they_stay_equal(name):
    """Steps of SGD with momentum, weight decay and L1 on the scales: the smaller network's weights are the masked one's."""
    family, options = NETS[name]
    model, digits = Model(family, "slimming", options), data.load("digits", "auto")
    state = {
        n: t.double() if t.is_floating_point() else t for n, t in draw_state(MODELS[family], model, (1, 8, 8), 10, [0, "init"]).items()
    }
    whole = MODELS[family]((1, 8, 8), 10, **options)
    keep = some(whole, 0.5, 3)
    lean = compact.narrow(MODELS[family]((1, 8, 8), 10, **options), keep)
    segment = Segment(Optimizer("sgd", 0.05, 0.9, weight_decay=1e-3, bn_l1=1e-3), 32, 0, 12, Evaluate(12, ("end",)), 50, "fp64")
    streams = Streams([0, "split"], [0, "order"])
    (a,) = train(whole, digits, segment, [Replicate(state, channels.expand(whole, keep), streams)])
    (b,) = train(lean, digits, segment, [Replicate(compact.shrink(whole, state, keep), {}, streams)])
    assert a.metrics["end"]["test_loss"] == pytest.approx(b.metrics["end"]["test_loss"], rel=1e-8)
    for n, t in compact.shrink(whole, a.state, keep).items():
        torch.testing.assert_close(t, b.state[n], rtol=1e-7, atol=1e-9)


def test_fresh_weights_of_a_smaller_network_are_drawn_for_its_own_shape():
    options = {"depth": 11, "width": 16}
    keep = some(MODELS["vgg"](SHAPE, 5, **options), 0.5, 0)
    state = draw_state(compact.smaller(MODELS["vgg"], keep), Model("vgg", "slimming", options), SHAPE, 5, [0, "fresh"])
    outputs = int(keep["norm.7.weight"].sum())
    assert state["conv.7.weight"].shape[:2] == (outputs, int(keep["norm.6.weight"].sum()))
    assert float(state["conv.7.weight"].std()) == pytest.approx((2 / (9 * outputs)) ** 0.5, rel=0.05)
    assert state["norm.7.weight"].unique().tolist() == [0.5] and not state["output.bias"].any()


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, groups=2), nn.Conv1d(2, 2, 1)])
def test_layers_that_can_not_be_narrowed_are_named(layer):
    module = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))
    module.channel_links = {"1": channels.Link("0")}
    with pytest.raises(ValueError, match=type(layer).__name__):
        compact.narrow(module, {"1.weight": torch.tensor([True] + [False] * (layer.out_channels - 1))})


# ---- rule 8: the paper's counts --------------------------------------------------------------------------------
@pytest.mark.parametrize(("network", "family", "options"), [("vgg16", "vgg", {"depth": 16}), ("preresnet101", "preresnet", {"depth": 101})])
@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_rule_8_parameters_and_channels_of_the_papers_networks(network, family, options, dataset, classes):
    printed = load("earlybird2020").protocol("eb-existence")["model"][network]
    with torch.device("meta"):
        module = MODELS[family]((3, 32, 32), classes, **options)
    sizes = {n: p.numel() for n, p in module.named_parameters()}
    assert cost.parameters(module) == sum(sizes.values()) == printed["weights"][dataset]
    assert sum(sizes[n] for n in channels.kinds(module)) == sum(sizes[n] for n in channels.scales(module)) == printed["channels"]


def test_flops_are_counted_as_the_papers_table_is():
    """LT one-shot is two trainings of VGG-16: 160 epochs of 50,000 images, three passes, 2 a multiply-add; Table 2 prints 605 x 0.05e15."""
    row = next(r for r in load("earlybird2020").published if r.id == "vgg16-c100-lt-one-shot-p10-flops")
    with torch.device("meta"):
        module = MODELS["vgg"]((3, 32, 32), 100, depth=16)
    assert cost.training_flops(module, (3, 32, 32), 2 * 160 * 50_000) == pytest.approx(row.value, rel=0.01)


def test_state_names_of_the_smaller_network_are_its_own():
    name = "basic blocks" if HAS_TORCHVISION else "preresnet"
    whole = net(name)
    keep = some(whole, 0.5, 0)
    assert set(compact.shrink(whole, own_state(whole), keep)) == set(own_state(compact.narrow(net(name), keep)))
