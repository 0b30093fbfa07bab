"""The families of convolutional nets: the papers' weight counts, shapes, kinds, and the engine's exactness rules on each of them."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn

from ltcore import data, masks
from ltcore.errors import UsageError
from ltcore.models import MODELS, Conv, Dropout, ResNet, draw_state, layer_kinds, layer_sizes, skeleton, split_state
from ltcore.recipe import Evaluate, Model, Optimizer
from ltcore.training.loop import Replicate, Segment, Trained, train
from ltcore.training.supervised import Streams
from replications.papers import load
from tests.nets import needs_torchvision

CIFAR, DIGITS = (3, 32, 32), (1, 8, 8)


def net(name: str, shape: tuple[int, ...] = CIFAR, classes: int = 10, **options: object) -> nn.Module:
    return skeleton(MODELS[name], Model(name, options=options), shape, classes)


def shapes_of(name: str, shape: tuple[int, ...] = CIFAR, classes: int = 10, **options: object) -> nn.Module:
    """The net without memory for its weights: for counts and shapes of large ones."""
    with torch.device("meta"):
        return net(name, shape, classes, **options)


def sums(module: nn.Module) -> dict[str, int]:
    """Weights of each kind."""
    kinds, out = layer_kinds(module), {}
    for name, size in layer_sizes(module).items():
        out[kinds[name]] = out.get(kinds[name], 0) + size
    return out


# ---- rule 8: counts ------------------------------------------------------------------------------------------
CONVS = {
    2: ([1728, 36864], [4194304, 65536, 2560], 4_300_992),
    4: ([1728, 36864, 73728, 147456], [2097152, 65536, 2560], 2_425_024),
    6: ([1728, 36864, 73728, 147456, 294912, 589824], [1048576, 65536, 2560], 2_261_184),
}


@pytest.mark.parametrize("depth", CONVS)
def test_rule_8_conv_nets_have_the_papers_weights_layer_by_layer(depth):
    convs, linear, total = CONVS[depth]
    module, paper = shapes_of("conv", depth=depth), load("frankle2019").protocol(f"conv{depth}-cifar10")["model"]
    assert list(layer_sizes(module).values()) == convs + linear and total == sum(convs + linear)
    assert (paper["conv_weights"], paper["fc_weights"], paper["total_weights"]) == (convs, linear, total)
    assert list(layer_kinds(module).values()) == ["conv"] * depth + ["fc", "fc", "output"]
    assert sum(p.numel() for p in module.parameters()) - total == {2: 128, 4: 384, 6: 896}[depth] + 256 + 256 + 10  # biases


def test_rule_8_vgg_19_has_the_papers_weights():
    module, paper = shapes_of("vgg", depth=19), load("frankle2019").protocol("vgg19-cifar10")["model"]
    assert sums(module) == {"conv": 20_018_880, "output": 5_120} == {"conv": paper["conv_weights_total"], "output": paper["output_weights"]}
    sizes = list(layer_sizes(module).values())
    assert len(sizes) == 17 and sizes[:3] == [1_728, 36_864, 73_728] and sizes[-2:] == [2_359_296, 5_120]


def test_rule_8_resnet_20_has_the_papers_weights():
    paper = load("frankle2019").protocol("resnet18-cifar10")["model"]
    expected = {"conv": 267_696, "shortcut": 2_560, "output": 640}
    assert sums(net("resnet", depth=20)) == expected and sum(expected.values()) == 270_896 == paper["total_weights"]
    assert list(expected.values()) == [paper[key] for key in ("conv3x3_weights", "shortcut_weights", "output_weights")]


@pytest.mark.parametrize(("depth", "n"), [(32, 5), (44, 7), (56, 9)])
@pytest.mark.parametrize("w", [16, 4])
def test_rule_8_sizes_of_deeper_resnets(depth, n, w):
    """Stage s at width c = 2^s w has 2n convolutions c to c, but its first takes c / 2 channels (stage 0: an extra one takes the image)."""
    conv = 9 * (3 * w + 2 * n * w**2 + sum((2 * n - 1) * c**2 + c * c // 2 for c in (2 * w, 4 * w)))
    assert sums(shapes_of("resnet", depth=depth, width=w)) == {"conv": conv, "shortcut": w * 2 * w + 2 * w * 4 * w, "output": 40 * w}


CONFIGURATIONS = {  # Simonyan & Zisserman 2015, Table 1: columns A, B, D, E
    11: "64 M 128 M 256 256 M 512 512 M 512 512",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512",
}


@pytest.mark.parametrize("depth", CONFIGURATIONS)
def test_rule_8_vggs_follow_the_table_of_their_paper(depth):
    channels, expected, sides, side = 3, [], [], 32
    for word in CONFIGURATIONS[depth].split():
        if word == "M":
            side //= 2
            continue
        expected.append(9 * channels * int(word))
        sides.append(side)
        channels = int(word)
    module, seen = shapes_of("vgg", depth=depth), []
    assert list(layer_sizes(module).values()) == [*expected, 5120]
    for conv in module.conv:
        conv.register_forward_hook(lambda _, inputs, out: seen.append(out.shape[-1]))
    module(torch.zeros(2, *CIFAR, device="meta"))
    assert seen == sides  # the pools lie where the table has them


@needs_torchvision
def test_rule_8_resnet_50_of_torchvision():
    module = shapes_of("torchvision", (3, 224, 224), 1000, arch="resnet50")
    assert sum(p.numel() for p in module.parameters()) == 25_557_032  # printed as 25.5M
    widths, blocks = (256, 512, 1024, 2048), (3, 4, 6, 3)  # shortcuts: 64 to 256, then from the stage before
    shortcut = 64 * 256 + 256 * 512 + 512 * 1024 + 1024 * 2048
    conv = 49 * 3 * 64 + sum(b * (2 * w * w // 4 + 9 * (w // 4) ** 2) for w, b in zip(widths, blocks))
    conv += (64 - 256) * 64 + sum((a - b) * b // 4 for a, b in zip(widths, widths[1:]))  # a first block reads the stage before
    assert sums(module) == {"conv": conv, "shortcut": shortcut, "output": 2048 * 1000}
    assert sum(kind == "shortcut" for kind in layer_kinds(module).values()) == 4 and list(layer_kinds(module))[-1] == "fc.weight"


# ---- shapes, layers and errors -------------------------------------------------------------------------------
SMALL = {
    "conv-2": ("conv", {"depth": 2, "width": 4, "hidden": [12, 8], "dropout": 0.5}),
    "conv-6": ("conv", {"depth": 6, "width": 2, "hidden": [8]}),
    "vgg-11": ("vgg", {"depth": 11, "width": 3}),
    "vgg-19": ("vgg", {"depth": 19, "width": 2}),
    "resnet-14": ("resnet", {"depth": 14, "width": 4}),
    "torchvision": ("torchvision", {"arch": "shufflenet_v2_x0_5"}),
}
FAMILIES = [pytest.param(name, marks=needs_torchvision if name == "torchvision" else ()) for name in SMALL]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [CIFAR, DIGITS, (2, 9, 13)])
def test_forward_shapes(name, shape):
    family, options = SMALL[name] if name != "torchvision" else ("torchvision", {"arch": "resnet50", "width_per_group": 1})
    module = net(family, shape, 7, **options)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    assert module(x).shape == (4, 7) and module.eval()(x).shape == (4, 7) and module(x).isfinite().all()


def test_stages_of_a_resnet_halve_the_image_and_double_the_width():
    module, seen = net("resnet", depth=20), []
    for block in module.blocks:
        block.register_forward_hook(lambda _, inputs, out: seen.append(tuple(out.shape[1:])))
    module(torch.zeros(2, *CIFAR))
    assert seen == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


def test_a_resnets_block_adds_its_shortcut_before_the_last_relu():
    block = ResNet(CIFAR, 10, 8).eval().blocks[0]
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(block(x), x.relu())


def test_dropout_lies_before_each_fully_connected_layer_and_costs_nothing_at_0():
    assert not list(net("conv", depth=2).buffers())
    module = net("conv", DIGITS, depth=2, hidden=[9, 5], dropout=0.5)
    assert [m.p for m in module.modules() if isinstance(m, Dropout)] == [0.5] * 3
    assert len({int(b[0]) for b in module.buffers()}) == 3  # own keys
    seen = []
    for layer in (*module.conv, *module.hidden, module.output):
        layer.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0] == 0).float().mean().item()))
    x = torch.randn(50, *DIGITS)
    module.eval()(x)
    still, seen[:] = list(seen), []
    module.train()(x)
    assert seen[:2] == still[:2]  # inputs of the convolutions
    assert all(0.3 < dropped < 0.7 for dropped in [1 - (1 - after) / (1 - before) for after, before in zip(seen[2:], still[2:])])


@pytest.mark.parametrize(
    ("name", "shape", "options", "says"),
    [
        ("conv", CIFAR, {"depth": 3}, "depth 3 is not one of 2, 4, 6"),
        ("vgg", CIFAR, {"depth": 12}, "depth 12 is not one of 11, 13, 16, 19"),
        ("resnet", CIFAR, {"depth": 18}, "depth 18 is not 6n"),
        ("resnet", CIFAR, {"depth": 2}, "depth 2 is not 6n"),
        ("vgg", CIFAR, {"width": 0}, "width 0 is less than 1"),
        ("conv", CIFAR, {"dropout": 1.0}, "dropout probability 1.0"),
        ("conv", (1, 4, 4), {"depth": 6}, "take a smaller depth"),
        ("resnet", (40,), {}, "takes images of .channels, height, width., not inputs of 1 dimension"),
        ("vgg", CIFAR, {"dept": 11}, "dept"),
        pytest.param("torchvision", CIFAR, {"arch": "resnet5"}, "did you mean 'resnet", marks=needs_torchvision),
        pytest.param("torchvision", CIFAR, {"arch": "googlenet", "init_weights": False}, "aux_logits: false", marks=needs_torchvision),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(name, shape, options, says):
    with pytest.raises(UsageError, match=f"^model '{name}' can't be built.*{says}") as error:
        net(name, shape, **options)
    assert "\n" not in str(error.value)


class Wide(nn.Conv2d):
    """A user's own convolution."""


def test_subclasses_of_known_layers_have_their_kind():
    module = nn.Sequential(Wide(1, 2, 3), nn.ConvTranspose2d(2, 2, 3), nn.Flatten(), type("Mine", (nn.Linear,), {})(4, 5), nn.Linear(5, 3))
    assert layer_kinds(module) == {"0.weight": "conv", "3.weight": "fc", "4.weight": "output"}


def test_first_weights_are_gaussian_glorot_and_batch_norm_starts_at_1_and_0():
    state = draw_state(MODELS["resnet"], Model("resnet"), CIFAR, 10, (0, "init"))
    w = state["blocks.8.conv2.weight"]
    assert w.std() == pytest.approx(math.sqrt(2 / (9 * 64 + 9 * 64)), rel=4 / math.sqrt(2 * w.numel()))
    norms = {n: t for n, t in state.items() if "norm" in n or "shortcut.1" in n}
    ones = [t for n, t in norms.items() if n.endswith((".weight", "running_var"))]
    assert len(ones) == 2 * 21 and all((t == 1).all() for t in ones)
    assert not any(t.any() for n, t in norms.items() if n.endswith((".bias", "mean")))


# ---- rules 5, 6 and 10 in training ---------------------------------------------------------------------------
SEEDS = (0, 1)
# torchvision: 56 batch norms, most of them over 1x1 images, make one rounding grow a thousandfold a step, in a net alone too
STEPS = dict.fromkeys(SMALL, 7) | {"torchvision": 2}
SGD = Optimizer("sgd", 2e-3, momentum=0.9, weight_decay=1e-2)


@pytest.fixture(scope="module")
def images() -> data.Dataset:
    g = torch.Generator().manual_seed(3)
    x, y = torch.randn(90, *DIGITS, generator=g), torch.arange(90) % 3
    return data.from_user("images", (x[:70], y[:70], x[70:], y[70:]))


@functools.cache
def replicate(name: str, seed: int) -> Replicate:
    """Its own weights, mask (half of everything that has a kind), split and order."""
    family, options = SMALL[name]
    model, g = Model(family, options=options), torch.Generator().manual_seed(100 + seed)
    state = draw_state(MODELS[family], model, DIGITS, 3, (seed, "init"))
    mask = {n: torch.rand(state[n].shape, generator=g) < 0.5 for n in layer_kinds(net(family, DIGITS, 3, **options))}
    return Replicate(state, mask, Streams((seed, "split"), (seed, "order")))


def run(name: str, images: data.Dataset, seeds: tuple[int, ...], backend: str) -> list[Trained]:
    family, options = SMALL[name]
    segment = Segment(SGD, 10, 0, STEPS[name], Evaluate(3, ("end",)), 20, "fp64")
    return train(net(family, DIGITS, 3, **options), images, segment, [replicate(name, seed) for seed in seeds], backend=backend)


@pytest.fixture(scope="module")
def alone(images):
    """Each replicate trained by itself; every family once."""
    done: dict[str, list[Trained]] = {}
    return lambda name: done.setdefault(name, [run(name, images, (seed,), "loop")[0] for seed in SEEDS])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_rule_6_replicates_stacked_equal_the_same_alone_to_1e_10(images, alone, name, backend):
    stacked = run(name, images, SEEDS, backend)
    for s, a in zip(stacked, alone(name), strict=True):
        assert set(s.state) == set(a.state)
        for n, t in a.state.items():  # running means, variances and dropout's counters among them
            torch.testing.assert_close(s.state[n], t, rtol=1e-10, atol=1e-10)
        assert s.curves["val_loss"] == pytest.approx(a.curves["val_loss"], rel=1e-9)
        assert s.facts["early_stop_it"] == a.facts["early_stop_it"]


@pytest.mark.parametrize("name", FAMILIES)
def test_training_moves_weights_and_buffers_and_tells_replicates_apart(alone, name):
    first, second = alone(name)
    start, (family, options) = replicate(name, 0), SMALL[name]
    params, buffers = split_state(net(family, DIGITS, 3, **options), first.state)
    assert all(not torch.equal(params[n][m], start.state[n][m].double()) for n, m in start.mask.items())
    assert all(not torch.equal(t, start.state[n].to(t)) for n, t in buffers.items()) and bool(buffers) == (name != "conv-6")
    assert all(int(t) == STEPS[name] for n, t in buffers.items() if n.endswith("num_batches_tracked"))
    assert all(int(t[1]) == STEPS[name] for n, t in buffers.items() if n.endswith("counter"))  # evaluation moves neither
    assert all(not torch.equal(params[n], second.state[n]) for n in start.mask)


@pytest.mark.parametrize("name", FAMILIES)
def test_rule_10_pruned_weights_stay_0_under_momentum_and_weight_decay(alone, name):
    for seed, trained in zip(SEEDS, alone(name)):
        mask = replicate(name, seed).mask
        assert all(not trained.state[n][~m].any() and trained.state[n][m].all() for n, m in mask.items())
        assert all(not trained.optimizer[f"m/{n}"][~m].any() for n, m in mask.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_no_effective_density_of_a_convolutional_net(name):
    mask = replicate(name, 0).mask
    assert masks.effective(mask) is None and masks.effective({n: m for n, m in mask.items() if m.dim() == 4}) is None


def test_pruned_fully_connected_layers_of_a_conv_net_are_a_chain():
    kinds = layer_kinds(Conv(DIGITS, 3, 2, 4, (12, 8)))
    assert list(kinds.values()) == ["conv", "conv", "fc", "fc", "output"]
    shapes = {n: p.shape for n, p in Conv(DIGITS, 3, 2, 4, (12, 8)).named_parameters() if kinds.get(n) in ("fc", "output")}
    assert masks.effective(masks.full(shapes)) == 1.0
