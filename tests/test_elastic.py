"""Elastic tickets: the paper's worked examples, identities, every tensor written once, and the networks' weight counts."""

from __future__ import annotations

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ltcore import elastic
from ltcore.depths import at_depth
from ltcore.elastic import block_map, carry, normal_map, transfer
from ltcore.errors import UsageError
from ltcore.models import MODELS, draw_state, layer_kinds, layer_sizes, own_state, skeleton
from ltcore.recipe import Model
from replications.papers import load
from tests.nets import needs_torchvision

DATA = load("elastic2021")


# ---- block maps ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("source", "target", "order", "replicate", "expected"),
    [
        (3, 5, "append", "", (0, 1, 2, 1, 2)),  # ResNet-20 to 32, printed in Sec 3.1
        (3, 5, "interpolate", "", (0, 1, 1, 2, 2)),
        (5, 9, "append", "", (0, 1, 2, 3, 4, 1, 2, 3, 4)),  # ResNet-32 to 56; in the code 0:0;1:1,5;2:2,6;3:3,7;4:4,8
        (5, 9, "interpolate", "", (0, 1, 1, 2, 2, 3, 3, 4, 4)),  # in the code 0:0;1:1,2;2:3,4;3:5,6;4:7,8
        (5, 9, "append", "1234", (0, 1, 2, 3, 4, 1, 2, 3, 4)),
        (5, 9, "append", "12", (0, 1, 2, 1, 2, 1, 2, 3, 4)),  # appended as a whole after the last replicated block
        (5, 9, "interpolate", "12", (0, 1, 1, 1, 2, 2, 2, 3, 4)),
        (5, 9, "append", "23", (0, 1, 2, 3, 2, 3, 2, 3, 4)),
        (5, 9, "interpolate", "34", (0, 1, 2, 3, 3, 3, 4, 4, 4)),
        (5, 7, "append", "", (0, 1, 2, 3, 4, 1, 2)),  # a run that is cut at the target's length
        (2, 9, "append", "", (0, *[1] * 8)),  # ResNet-14 has one normal block
    ],
)
def test_worked_examples_of_stretching(source, target, order, replicate, expected):
    assert block_map(source, target, order, replicate) == expected


EXAMPLES = yaml.safe_load(DATA.path.read_text(encoding="utf-8"))["ett_rules"]["worked_examples"]


def coded(text: str) -> tuple[int, ...]:
    """A map as the official code writes it, ``source:targets;…``, as the source of each place."""
    pairs = [entry.split(":") for entry in text.split(" ")[0].split(";")]
    places = {int(place): int(source) for source, targets in pairs for place in targets.split(",")}
    return tuple(places[i] for i in range(len(places)))


def test_the_files_own_examples_and_block_counts():
    blocks = EXAMPLES["cifar_blocks_per_stage"]
    assert blocks == {n: len(elastic.stages(net("resnet", **at_depth("resnet", {"width": 1}, n)))[0].units) for n in blocks}
    pair = blocks["resnet32"], blocks["resnet56"]
    assert block_map(*pair, "interpolate") == coded(EXAMPLES["resnet32_to_56_interpolate_code_mapping"])
    assert block_map(*pair, "append") == coded(EXAMPLES["resnet32_to_56_append_code_mapping"])
    for order in elastic.ORDERS:
        printed = tuple(int(b[1:]) for b in EXAMPLES[f"resnet20_to_32_{order}"].split())
        assert block_map(blocks["resnet20"], blocks["resnet32"], order) == printed


def test_with_one_replicated_block_the_two_orders_are_one():
    assert block_map(5, 9, "append", "1") == block_map(5, 9, "interpolate", "1") == (0, 1, 1, 1, 1, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("order", "drop", "expected"),
    [
        ("append", "", (0, 1, 2, 3, 4)), ("append", "5678", (0, 1, 2, 3, 4)), ("append", "1234", (0, 5, 6, 7, 8)),
        ("append", "1357", (0, 2, 4, 6, 8)), ("append", "2468", (0, 1, 3, 5, 7)), ("interpolate", "", (0, 1, 3, 5, 7)),
    ],
)  # fmt: skip
def test_worked_examples_of_squeezing_56_to_32(order, drop, expected):
    assert block_map(9, 5, order, drop=drop) == expected


def test_blocks_of_the_imagenet_resnets_stage_by_stage():
    r18, r34 = [2, 2, 2, 2], [3, 4, 6, 3]
    assert [block_map(a, b) for a, b in zip(r18, r34)] == [(0, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1, 1, 1), (0, 1, 1)]
    assert [block_map(b, a) for a, b in zip(r18, r34)] == [(0, 1)] * 4


counts = st.integers(1, 12)


@given(counts, counts, st.sampled_from(elastic.ORDERS))
def test_the_closed_forms_of_the_papers_file(source, target, order):
    found = normal_map(source, target, order)
    forms = {
        "append": [((j - 1) % source) + 1 if target > source else j for j in range(1, target + 1)],
        "interpolate": [(j - 1) * source // target + 1 for j in range(1, target + 1)],
    }
    assert list(found) == forms[order]


@given(counts, st.integers(0, 12), st.data())
def test_of_chosen_units_all_are_kept_and_only_they_are_replicated_evenly(source, extra, data):
    chosen = "".join(str(i) for i in sorted(data.draw(st.sets(st.integers(1, min(source, 9)), min_size=1))))
    for order in elastic.ORDERS:
        found = normal_map(source, source + extra, order, chosen)
        assert len(found) == source + extra and set(found) == set(range(1, source + 1))
        times = [found.count(i) for i in range(1, source + 1)]
        assert all(times[i - 1] == 1 for i in range(1, source + 1) if str(i) not in chosen)
        replicated = [times[int(d) - 1] for d in chosen]
        assert max(replicated) - min(replicated) <= 1
        if order == "append" or len(chosen) < source:
            assert replicated == sorted(replicated, reverse=True)  # the earlier ones first


@given(counts, st.integers(0, 12), st.integers(1, 4), st.sampled_from(elastic.ORDERS))
def test_stretched_then_squeezed_is_the_identity_where_the_rules_allow_it(source, extra, times, order):
    """Appended runs at any length, interpolated ones where the ratio is a whole number."""
    target = source + extra if order == "append" else source * times
    there, back = normal_map(source, target, order), normal_map(target, source, order)
    assert tuple(there[i - 1] for i in back) == tuple(range(1, source + 1))


def test_interpolation_at_another_ratio_does_not_come_back():
    there, back = normal_map(2, 3, "interpolate"), normal_map(3, 2, "interpolate")
    assert there == (1, 1, 2) and tuple(there[i - 1] for i in back) == (1, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: block_map(3, 5, "sideways"), lambda: block_map(1, 3), lambda: block_map(5, 9, replicate="5"), lambda: block_map(5, 9, replicate="11"),
        lambda: block_map(5, 9, replicate="B1"), lambda: block_map(9, 5, drop="123"), lambda: block_map(9, 5, drop="0123"),
    ],
)  # fmt: skip
def test_rules_that_mean_nothing_are_refused(call):
    with pytest.raises(UsageError):
        call()


# ---- networks --------------------------------------------------------------------------------------------------
IMAGE, FLAT = (3, 8, 8), (1, 28, 28)


def net(family: str, shape=IMAGE, **options):
    return skeleton(MODELS[family], Model(family, options=options), shape, 10)


PAIRS = {
    "resnet": (IMAGE, {"depth": 20, "width": 2}, {"depth": 32, "width": 2}),
    "vgg": (IMAGE, {"depth": 13, "width": 2}, {"depth": 19, "width": 2}),
    "vgg-fc": (IMAGE, {"depth": 13, "width": 2, "linear": 2}, {"depth": 13, "width": 2, "linear": 5}),
    "lenet": (FLAT, {"hidden": [30, 30, 10]}, {"hidden": [30, 30, 30, 30, 10]}),
}


def pair(name: str):
    shape, small, large = PAIRS[name]
    return net(name.partition("-")[0], shape, **small), net(name.partition("-")[0], shape, **large)


def lived(module) -> dict[str, torch.Tensor]:
    """A state in which no two tensors are alike, running statistics included."""
    g = torch.Generator().manual_seed(3)
    return {
        n: torch.rand(t.shape, generator=g) if t.is_floating_point() else torch.tensor(i)
        for i, (n, t) in enumerate(own_state(module).items())
    }


def mask_of(module) -> dict[str, torch.Tensor]:
    state = lived(module)
    return {n: state[n] > 0.4 for n in layer_kinds(module)}


def alike(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("name", PAIRS)
def test_a_ticket_moved_to_its_own_network_is_itself(name):
    for module in pair(name):
        plan = transfer(module, module)
        assert alike(carry(lived(module), plan), lived(module)) and alike(carry(mask_of(module), plan), mask_of(module))
        assert not plan.replicas


@pytest.mark.parametrize("order", elastic.ORDERS)
@pytest.mark.parametrize("name", PAIRS)
def test_moved_there_and_back_is_itself(name, order):
    small, large = pair(name)
    for tensors in (lived(small), mask_of(small)):
        assert alike(carry(carry(tensors, transfer(small, large, order)), transfer(large, small, order)), tensors)


@pytest.mark.parametrize("name", PAIRS)
def test_every_tensor_of_the_target_is_written_and_fits(name):
    for source, target in (pair(name), pair(name)[::-1]):
        moved = carry(lived(source), transfer(source, target))
        assert {n: t.shape for n, t in moved.items()} == {n: t.shape for n, t in own_state(target).items()}
        target.load_state_dict(moved)
        assert set(carry(mask_of(source), transfer(source, target))) == set(layer_kinds(target))


def test_resnet_20_to_32_block_by_block():
    small, large = pair("resnet")
    plan = transfer(small, large)
    assert plan.maps == ((0, 1, 2, 1, 2),) * 3
    origin = {n.partition(".conv1")[0]: o.partition(".conv1")[0] for n, o in plan.origin.items() if n.endswith("conv1.weight")}
    assert origin == {f"blocks.{5 * s + j}": f"blocks.{3 * s + i}" for s in range(3) for j, i in enumerate((0, 1, 2, 1, 2))}
    assert plan.origin["blocks.9.norm2.running_var"] == "blocks.5.norm2.running_var" and plan.origin["output.weight"] == "output.weight"
    assert plan.origin["blocks.10.shortcut.0.weight"] == "blocks.6.shortcut.0.weight"
    assert {n.split(".")[1] for n in plan.replicas} == {str(5 * s + j) for s in range(3) for j in (3, 4)}


# ---- the ResNets of ImageNet: stages of different depth ---------------------------------------------------------
RGB = (3, 16, 16)
IMAGENET = EXAMPLES["imagenet_basic_blocks_per_stage"]
IMAGENET_MAPS = {
    ("resnet18", "resnet26"): ((0, 1), (0, 1, 1), (0, 1, 1, 1), (0, 1, 1)),
    ("resnet18", "resnet34"): ((0, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1, 1, 1), (0, 1, 1)),
    ("resnet26", "resnet34"): ((0, 1, 1), (0, 1, 2, 1), (0, 1, 2, 3, 1, 2), (0, 1, 2)),
    ("resnet26", "resnet18"): ((0, 1),) * 4,
    ("resnet34", "resnet18"): ((0, 1),) * 4,
    ("resnet34", "resnet26"): ((0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 2)),
}


@pytest.fixture(scope="module")
def imagenet():
    return {n: net("torchvision", RGB, arch=n) for n in IMAGENET}


@needs_torchvision
def test_resnets_of_imagenet_have_the_files_blocks_and_weights(imagenet):
    assert {n: [len(s.units) for s in elastic.stages(m)] for n, m in imagenet.items()} == IMAGENET
    paper = DATA.protocol("imagenet-resnet")["model"]["weights"]  # all parameters, for 1,000 classes
    with torch.device("meta"):
        whole = {n: skeleton(MODELS["torchvision"], Model("torchvision", options={"arch": n}), (3, 224, 224), 1000) for n in paper}
    assert {n: sum(p.numel() for p in m.parameters()) for n, m in whole.items()} == paper


@needs_torchvision
@pytest.mark.parametrize(("source", "target"), IMAGENET_MAPS)
def test_a_ticket_moves_between_the_resnets_of_imagenet_stage_by_stage(imagenet, source, target):
    plan, state = transfer(imagenet[source], imagenet[target]), lived(imagenet[source])
    assert plan.maps == IMAGENET_MAPS[source, target]
    moved, mask = carry(state, plan), carry(mask_of(imagenet[source]), plan)
    assert {n: t.shape for n, t in moved.items()} == {n: t.shape for n, t in own_state(imagenet[target]).items()}
    for n, t in moved.items():  # found again one by one, from the maps alone
        stage, _, rest = n.partition(".")
        if not stage.startswith("layer"):
            assert torch.equal(t, state[n])
            continue
        place, _, leaf = rest.partition(".")
        origin = f"{stage}.{plan.maps[int(stage[-1]) - 1][int(place)]}.{leaf}"
        assert plan.origin[n] == origin and torch.equal(t, state[origin])
    kinds = layer_kinds(imagenet[target])
    assert set(mask) == set(kinds) and {"layer2.0.downsample.0.weight", "fc.weight"} <= set(mask)


@needs_torchvision
def test_resnets_of_imagenet_there_and_back(imagenet):
    for n, module in imagenet.items():
        assert alike(carry(lived(module), transfer(module, module)), lived(module)), n
    for small, large in (("resnet18", "resnet26"), ("resnet18", "resnet34"), ("resnet26", "resnet34")):
        for order in elastic.ORDERS[: 1 if small == "resnet26" else 2]:  # of 2 and 3 normal blocks no whole number
            there, back = transfer(imagenet[small], imagenet[large], order), transfer(imagenet[large], imagenet[small], order)
            assert alike(carry(carry(lived(imagenet[small]), there), back), lived(imagenet[small]))


@needs_torchvision
def test_a_wider_or_a_bottlenecked_resnet_is_refused(imagenet):
    for other in (net("torchvision", RGB, arch="resnet50"), net("resnet", IMAGE, depth=20, width=2)):
        with pytest.raises(UsageError, match="along depth only"):
            transfer(imagenet["resnet18"], other)


def test_a_module_that_says_its_stages_can_be_stretched():
    def row(n: int) -> torch.nn.Module:
        module = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(n)), torch.nn.Linear(3, 2))
        module.unit_stages = (tuple((f"{i}.",) for i in range(n)),)
        return module

    with pytest.raises(UsageError, match="'2.weight' of the target"):  # the output's name differs from depth to depth
        transfer(row(2), row(3))
    assert transfer(row(3), row(3)).maps == ((0, 1, 2),)


@needs_torchvision
def test_enlarged_images_give_what_enlarged_input_gives():
    plain, enlarging = (net("torchvision", (3, 8, 8), arch="resnet18", **o).eval() for o in ({}, {"enlarge": 32}))
    enlarging.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", align_corners=False)
    with torch.no_grad():
        assert torch.equal(enlarging(x), plain(large)) and not torch.equal(plain(x), plain(large))


def test_vgg_13_to_19_layer_by_layer():
    small, large = pair("vgg")
    plan = transfer(small, large)
    assert plan.maps == ((0, 1), (0, 1), (0, 1, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1), ())
    convs = [int(plan.origin[f"conv.{i}.weight"].split(".")[1]) for i in range(16)]
    norms = [int(plan.origin[f"norm.{i}.running_mean"].split(".")[1]) for i in range(16)]
    assert convs == norms == [0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 7, 7, 8, 9, 9, 9]


def test_fully_connected_layers_are_all_normal_and_an_mlps_first_of_a_width_is_not():
    assert transfer(*pair("vgg-fc")).maps[-1] == (0, 0, 0, 0)
    plan = transfer(*pair("lenet"))
    assert plan.maps == ((0, 1, 1, 1), (0,))
    assert [plan.origin[f"hidden.{i}.weight"] for i in range(5)] == [f"hidden.{i}.weight" for i in (0, 1, 1, 1, 2)]
    squeezed = transfer(*pair("lenet")[::-1])
    assert [squeezed.origin[f"hidden.{i}.bias"] for i in range(3)] == ["hidden.0.bias", "hidden.1.bias", "hidden.4.bias"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (net("resnet", depth=20, width=2), net("resnet", depth=32, width=4)), (net("resnet", depth=20, width=2), net("vgg", depth=13, width=2)),
        (net("lenet", FLAT, hidden=[30, 30, 10]), net("lenet", FLAT, hidden=[30, 30])), (net("conv", depth=2, width=2), net("conv", depth=4, width=2)),
        (net("resnet", depth=8, width=2), net("resnet", depth=14, width=2)),
    ],
)  # fmt: skip
def test_networks_that_differ_in_more_than_depth_are_refused(source, target):
    with pytest.raises(UsageError):
        transfer(source, target)


def test_a_tensor_that_would_be_written_twice_is_found():
    small, large = pair("resnet")
    writes = [elastic._Write(n, n, False) for n in own_state(small)]
    with pytest.raises(UsageError, match="made of 2 tensors"):
        elastic._check([*writes, writes[0]], own_state(small), own_state(small))
    with pytest.raises(UsageError, match="made of 0 tensors"):
        elastic._check(writes[1:], own_state(small), own_state(small))


# ---- rule 8: counts of the paper's networks ------------------------------------------------------------------------
def sizes_at(family: str, options: dict, name: str, shape) -> dict[str, int]:
    with torch.device("meta"):
        return layer_sizes(net(family, shape, **at_depth(family, options, name)))


def test_rule_8_networks_by_name_have_the_papers_weights():
    paper = DATA.protocol("mnist-mlp-depth")["model"]["weights"]
    assert {n: sum(sizes_at("lenet", {"hidden": [300, 100]}, n, FLAT).values()) for n in paper} == paper
    paper = DATA.protocol("cifar10-vgg")["model"]["conv_weights"]
    assert {n: sum(v for k, v in sizes_at("vgg", {}, n, (3, 32, 32)).items() if k.startswith("conv")) for n in paper} == paper
    paper = DATA.protocol("cifar10-vgg13-fc-depth")["model"]["prunable_weights"]
    assert {n: sum(v for k, v in sizes_at("vgg", {}, n, (3, 32, 32)).items() if k != "output.weight") for n in paper} == paper
    paper = DATA.protocol("cifar10-resnet-all-pairs")["model"]["weights"]  # all parameters
    with torch.device("meta"):
        nets = {n: net("resnet", (3, 32, 32), **at_depth("resnet", {}, n)) for n in paper}
    assert {n: sum(p.numel() for p in module.parameters()) for n, module in nets.items()} == paper


def test_a_network_by_name_changes_depth_alone():
    assert at_depth("resnet", {"depth": 20, "width": 4}, "resnet56") == {"depth": 56, "width": 4}
    assert at_depth("vgg", {"depth": 16, "width": 4}, "vgg13-3fc") == {"depth": 13, "width": 4, "linear": 3}
    assert at_depth("lenet", {"hidden": [40, 40, 20]}, "mlp-3") == {"hidden": [40, 40, 40, 20]}
    assert at_depth("torchvision", {"arch": "resnet18", "enlarge": 8}, "resnet26") == {"arch": "resnet26", "enlarge": 8}
    for family, name in (("torchvision", "vgg13"), ("resnet", "vgg13"), ("conv", "conv2"), ("lenet", "mlp-")):
        with pytest.raises(UsageError, match="unknown network"):
            at_depth(family, {"hidden": [3, 2]}, name)


def test_fully_connected_layers_of_a_vgg_leave_the_plain_one_as_it_was():
    plain, one = (draw_state(MODELS["vgg"], Model("vgg", options=o), IMAGE, 10, [0]) for o in ({"width": 2}, {"width": 2, "linear": 1}))
    assert alike(plain, one)
    deep = net("vgg", depth=11, width=2, linear=3)
    assert list(layer_kinds(deep).values())[-3:] == ["fc", "fc", "output"] and deep(torch.zeros(2, *IMAGE)).shape == (2, 10)


def test_kaiming_normal_with_uniform_norm_scales():
    state = draw_state(MODELS["resnet"], Model("resnet", "kaiming-normal", {"depth": 14, "width": 16}), IMAGE, 10, [0])
    conv, scales = state["blocks.3.conv2.weight"], torch.cat([t for n, t in state.items() if n.endswith(("norm1.weight", "norm2.weight"))])
    assert float(conv.std()) == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03) and abs(float(conv.mean())) < 0.005
    assert scales.min() >= 0 and scales.max() <= 1 and float(scales.mean()) == pytest.approx(0.5, abs=0.06)
    assert not any(t.any() for n, t in state.items() if n.endswith(("norm1.bias", "norm2.bias")))
    assert state["output.bias"].any()  # as the layer draws it
