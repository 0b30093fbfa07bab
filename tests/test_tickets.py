"""Ticket files: a round trip keeps every bit, and whatever else is in a file gives one clear line."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ltcore import tickets
from ltcore.errors import UserError
from ltcore.models import VGG, LeNet
from ltcore.tickets import Ticket
from tests.nets import Tied

ABOUT = {"model": "lenet", "level": 3, "data": {"name": "mnist"}, "note": "żółw"}


def a_ticket() -> Ticket:
    g = torch.Generator().manual_seed(0)
    weights = {n: torch.randn(p.shape, generator=g) for n, p in LeNet((12,), 3, (5, 4)).state_dict().items()}
    mask = {n: torch.rand(w.shape, generator=g) < 0.3 for n, w in weights.items() if n.endswith("weight")}
    return Ticket(mask, weights, ABOUT)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    tickets.save(path, a_ticket())
    return path


def refused(path) -> str:
    with pytest.raises(UserError) as error:
        tickets.load(path)
    text = str(error.value)
    assert text and "\n" not in text and error.value.exit_code == 1
    return text


# ---- round trip ------------------------------------------------------------------------------------------------
def test_a_ticket_comes_back_bit_for_bit(file):
    before, after = a_ticket(), tickets.load(file)
    assert after.about == ABOUT and after.density == before.density
    for part in ("mask", "weights"):
        a, b = getattr(before, part), getattr(after, part)
        assert a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def test_masks_are_packed_bits(file):
    raw = load_file(file)
    assert raw["mask/hidden.0.weight"].dtype == torch.uint8 and raw["mask/hidden.0.weight"].numel() == 8  # 60 weights
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["masks"])["mask/hidden.0.weight"] == [5, 12]


def test_packing_order_is_fixed(tmp_path):
    tickets.save_tensors(tmp_path / "m", {"m": torch.tensor([True] + [False] * 7 + [True, True])})
    assert load_file(tmp_path / "m")["m"].tolist() == [0b1000_0000, 0b1100_0000]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 3))
def test_masks_of_any_shape_come_back(tmp_path, shape, seed):
    m = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    tickets.save_tensors(tmp_path / "m", {"m": m, "w": m.to(torch.float64), "count": torch.tensor(3)}, {"a": [1, None]})
    tensors, about = tickets.load_tensors(tmp_path / "m")
    assert torch.equal(tensors["m"], m) and tensors["m"].dtype == torch.bool and tensors["w"].dtype == torch.float64
    assert about == {"a": [1, None]} and int(tensors["count"]) == 3


def test_tensors_that_share_memory_can_be_saved(tmp_path):
    whole = torch.arange(6.0)
    tickets.save_tensors(tmp_path / "m", {"a": whole[:3], "b": whole.reshape(2, 3).T})
    tensors, _ = tickets.load_tensors(tmp_path / "m")
    assert tensors["a"].tolist() == [0, 1, 2] and tensors["b"].tolist() == [[0, 3], [1, 4], [2, 5]]


# ---- files that are none ---------------------------------------------------------------------------------------
def test_a_missing_file(tmp_path):
    assert refused(tmp_path / "none") == f"no such file: {tmp_path / 'none'}"


def test_a_folder(tmp_path):
    refused(tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_not_opened(tmp_path, protocol):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps(Trap(), protocol))
    assert "not a safetensors file" in refused(path) and not (tmp_path / "sprung").exists()


def test_a_torch_checkpoint_is_not_opened(tmp_path):
    torch.save({"mask/w": torch.ones(2)}, tmp_path / "a.pt")
    assert "not a safetensors file" in refused(tmp_path / "a.pt")


def test_every_truncation(file, tmp_path):
    whole = file.read_bytes()
    for size in (*range(0, 64), *range(64, len(whole), 97), len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:size])
        assert "damaged" in refused(tmp_path / "cut")


def test_a_foreign_safetensors_file(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "foreign")
    assert "not one of ours" in refused(tmp_path / "foreign")
    save_file({"w": torch.ones(2)}, tmp_path / "other", metadata={"format": "pt"})
    assert "not one of ours" in refused(tmp_path / "other")


def test_tensors_of_ours_that_are_no_ticket(tmp_path):
    tickets.save_tensors(tmp_path / "state", {"w": torch.ones(2)})
    assert "holds tensors, but no ticket" in refused(tmp_path / "state")


def test_a_mask_of_another_shape_than_its_weights(tmp_path):
    tickets.save(tmp_path / "t", Ticket({"w": torch.ones(2, 3, dtype=torch.bool)}, {"w": torch.ones(3, 2)}))
    assert "the mask of 'w' does not fit its weights" in refused(tmp_path / "t")


def test_a_mask_without_weights_or_that_is_no_mask(tmp_path):
    tickets.save(tmp_path / "t", Ticket({"w": torch.ones(2, dtype=torch.bool)}, {}))
    assert "does not fit its weights" in refused(tmp_path / "t")
    tickets.save(tmp_path / "t", Ticket({"a\nb": torch.ones(2)}, {"a\nb": torch.ones(2)}))
    assert "does not fit its weights" in refused(tmp_path / "t")


@pytest.mark.parametrize("shape", [[10**30], [-1], [-8, -1], [2.5], "ab", None, {}, [[2]], [3, 5], [2**40, 2**40], True])
def test_a_declared_mask_shape_that_is_nonsense(tmp_path, shape):
    head = {"format": tickets.FORMAT, "masks": json.dumps({"mask/w": shape}), "about": '{"ticket": {}}'}
    save_file({"mask/w": torch.zeros(2, dtype=torch.uint8), "weights/w": torch.ones(3, 4)}, tmp_path / "t", metadata=head)
    refused(tmp_path / "t")


@pytest.mark.parametrize("key", ["masks", "about"])
@pytest.mark.parametrize("text", ["", "5", "null", "[]", '"x"', "{", "[" * 100_000, '{"ticket": 5}'])
def test_metadata_that_is_nonsense(tmp_path, key, text):
    head = {"format": tickets.FORMAT, "masks": '{"mask/w": [3]}', "about": '{"ticket": {}}', key: text}
    save_file({"mask/w": torch.zeros(1, dtype=torch.uint8), "weights/w": torch.ones(3)}, tmp_path / "t", metadata=head)
    refused(tmp_path / "t")


# ---- fuzz ------------------------------------------------------------------------------------------------------
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ticket_or_one_line(path) -> None:
    try:
        assert isinstance(tickets.load(path), Ticket)
    except UserError as error:
        assert str(error) and "\n" not in str(error)


@FUZZ
@given(st.binary(max_size=300))
def test_random_bytes_never_give_anything_else(tmp_path, noise):
    (tmp_path / "x").write_bytes(noise)
    refused(tmp_path / "x")


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6))
def test_mutated_files_never_give_anything_else(tmp_path, changes):
    tickets.save(tmp_path / "x", a_ticket())
    whole = bytearray((tmp_path / "x").read_bytes())
    for place, value in changes:
        whole[place % len(whole)] = value
    (tmp_path / "x").write_bytes(whole)
    ticket_or_one_line(tmp_path / "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda j: st.lists(j, max_size=3) | st.dictionaries(st.text(max_size=8), j, max_size=3),
)


@FUZZ
@given(
    st.fixed_dictionaries({"mask/w": JSON}),
    JSON,
    st.sampled_from(list(torch.zeros(1, dtype=d) for d in (torch.uint8, torch.float32, torch.int64, torch.bool))),
)
def test_metadata_of_any_json_never_gives_anything_else(tmp_path, shapes, about, tensor):
    head = {"format": tickets.FORMAT, "masks": json.dumps(shapes), "about": json.dumps({"ticket": about})}
    save_file({"mask/w": tensor, "weights/w": torch.ones(1)}, tmp_path / "x", metadata=head)
    ticket_or_one_line(tmp_path / "x")


# ---- use -------------------------------------------------------------------------------------------------------
def test_apply_puts_masked_weights_into_a_users_module():
    class Mine(LeNet):
        pass

    ticket, module = a_ticket(), Mine((12,), 3, (5, 4)).double()
    assert ticket.apply(module) is module
    for n, p in module.state_dict().items():
        expected = ticket.weights[n] * ticket.mask[n] if n in ticket.mask else ticket.weights[n]
        assert torch.equal(p, expected.double())


def test_apply_keeps_tied_weights_tied():
    net = Tied((12,), 3)
    weights = {n: torch.full_like(t, 2.0) for n, t in net.state_dict().items() if n != "second.weight"}
    Ticket({"first.weight": torch.eye(12, dtype=torch.bool)}, weights).apply(net)
    assert net.second.weight is net.first.weight and torch.equal(net.second.weight, 2 * torch.eye(12))


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (lambda: LeNet((12,), 3, (5, 6)), r"'hidden\.1\.weight' is \(4, 5\) in the ticket, \(6, 5\) in the model"),
        (lambda: nn.Sequential(nn.Linear(12, 5)), "no such tensor"),
        (
            lambda: nn.ModuleDict({"hidden": LeNet((12,), 3, (5, 4)).hidden, "output": nn.Linear(4, 3), "more": nn.Linear(2, 2)}),
            r"it has no more\.bias",
        ),
    ],
)
def test_apply_leaves_a_module_that_does_not_fit_untouched(module, says):
    net = module()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    with pytest.raises(UserError, match=says):
        a_ticket().apply(net)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_rule_9_density_is_the_fraction_of_prunable_weights_kept():
    ticket = Ticket(
        {"a": torch.tensor([True, False, False, False]), "b": torch.tensor([True, True])}, {"a": torch.ones(4), "b": torch.ones(2)}
    )
    assert ticket.density == 0.5


# ---- a user's own model ----------------------------------------------------------------------------------------
def torchvision_style(classes: int = 4, width: int = 2) -> nn.Module:
    """VGG-11 as torchvision's ``features``: convolutions and norms in turn, under other names than ours."""
    layers, channels = [], 3
    for factor in (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8):
        if factor == "M":
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            continue
        layers += [nn.Conv2d(channels, width * factor, 3, padding=1), nn.BatchNorm2d(width * factor), nn.ReLU()]
        channels = width * factor
    return nn.Sequential(nn.ModuleDict({"features": nn.Sequential(*layers)})["features"], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def a_vgg_ticket(classes: int = 4) -> tuple[nn.Module, Ticket]:
    torch.manual_seed(0)
    net = VGG((3, 16, 16), classes, depth=11, width=2, bias=True)
    for norm in net.norm:
        norm.running_mean.normal_()
        norm.weight.data.normal_()
    weights = {n: t.clone() for n, t in net.state_dict().items()}
    mask = {n: torch.rand(w.shape) < 0.4 for n, w in weights.items() if w.dim() == 4}
    return net, Ticket(mask, weights)


def test_a_ticket_loads_into_a_users_model_of_other_names_and_gives_the_same_outputs():
    net, ticket = a_vgg_ticket()
    mine = ticket.renamed(torchvision_style()).apply(torchvision_style())
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(mine.eval()(x), ticket.apply(net).eval()(x))
    assert ticket.renamed(net).weights.keys() == ticket.weights.keys()


def test_an_output_layer_for_other_classes_keeps_its_own_weights():
    _, ticket = a_vgg_ticket(classes=4)
    mine = torchvision_style(classes=7)
    before = {n: t.clone() for n, t in mine.state_dict().items() if n.startswith("3.")}
    with pytest.raises(UserError, match=r"'3\.weight' is \(4, 16\) in the ticket, \(7, 16\) in the model"):
        ticket.renamed(mine).apply(mine)
    ticket.renamed(mine).apply(mine, fresh=["3"])
    assert len(before) == 2 and all(torch.equal(mine.state_dict()[n], t) for n, t in before.items())
    assert torch.equal(mine[0][0].weight, ticket.weights["conv.0.weight"] * ticket.mask["conv.0.weight"])


def test_a_model_with_other_layers_is_refused():
    _, ticket = a_vgg_ticket()
    with pytest.raises(UserError, match="8 layers with bias, weight in the ticket, 9 in the model"):
        ticket.renamed(nn.Sequential(torchvision_style(), nn.Conv2d(1, 1, 1)))


@pytest.mark.parametrize("optimizer", [
    lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2), lambda p: torch.optim.Adam(p, 0.01, weight_decay=1e-2),
])  # fmt: skip
def test_a_held_ticket_stays_sparse_in_a_users_own_loop(optimizer):
    _, ticket = a_vgg_ticket()
    mine = torchvision_style()
    ticket = ticket.renamed(mine)
    handles, step = ticket.hold(ticket.apply(mine)), optimizer(mine.parameters())
    for _ in range(3):
        step.zero_grad()
        mine(torch.randn(8, 3, 16, 16)).square().sum().backward()
        step.step()
    parameters = dict(mine.named_parameters())
    assert len(handles) == len(ticket.mask) == 8
    assert all(not parameters[n][~m].any() and not torch.equal(parameters[n], ticket.weights[n] * m) for n, m in ticket.mask.items())
