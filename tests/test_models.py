"""Rule 8 (weight counts are the paper's), kinds of layer, first weights and their randomness, and the density ladder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ltcore import masks
from ltcore.errors import UsageError, UserError
from ltcore.library import Library
from ltcore.models import MODELS, Dropout, LeNet, draw_state, layer_kinds, layer_sizes, skeleton
from ltcore.pruning import prune
from ltcore.recipe import Model, changed
from replications.frankle2019 import LENET
from replications.papers import load
from tests.conftest import RECIPE, run_all, trial

MNIST = ((1, 28, 28), 10)
LENET_300_100 = Model("lenet", "glorot-normal", {"hidden": [300, 100]})


# ---- rule 8: counts ------------------------------------------------------------------------------------------
def test_rule_8_lenet_300_100_has_the_papers_weights_layer_by_layer():
    sizes = layer_sizes(LeNet(*MNIST))
    assert sizes == {"hidden.0.weight": 235_200, "hidden.1.weight": 30_000, "output.weight": 1_000}
    assert sum(sizes.values()) == 266_200 == load("frankle2019").protocol("lenet-mnist")["model"]["total_weights"]


def test_rule_8_the_recipe_of_the_paper_builds_that_network():
    module = skeleton(MODELS[LENET.model.name], LENET.model, *MNIST)
    assert [tuple(p.shape) for p in module.parameters()] == [(300, 784), (300,), (100, 300), (100,), (10, 100), (10,)]
    assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_rule_8_sizes_of_the_size_sweep_are_the_models_counts():
    sweep = next(s for s in load("frankle2019").protocol("lenet-ablations")["sweeps"] if s["id"] == "size")
    assert len(sweep["hidden"]) == 10
    assert [sum(layer_sizes(LeNet(*MNIST, hidden)).values()) for hidden in sweep["hidden"]] == sweep["total_weights"]


def lenet_ladder(levels: int) -> list[float]:
    """Percent of all weights kept, level by level, by the recipe's rates on LeNet-300-100's shapes."""
    kinds, rates = layer_kinds(LeNet(*MNIST)), LENET.pruning.rates
    sizes, percents = layer_sizes(LeNet(*MNIST)), []
    mask = masks.full({n: torch.Size([k]) for n, k in sizes.items()})
    scores = {n: torch.rand(k, generator=torch.Generator().manual_seed(0)) for n, k in sizes.items()}
    for _ in range(levels + 1):
        percents.append(100 * masks.report(mask, sum(sizes.values())).density_all)
        mask = prune(scores, mask, {n: rates[kind] for n, kind in kinds.items()}, LENET.pruning.scope)
    return percents


def test_rule_8_density_ladder_prints_the_papers_sizes():
    ladder = lenet_ladder(15)
    assert [ladder[level] for level in (3, 7, 9, 12, 15)] == pytest.approx([51.3, 21.1, 13.5, 7.0, 3.6], abs=0.1)


def test_rule_8_density_ladder_equals_the_published_one_at_every_level():
    published = load("frankle2019").ladder("lenet-mnist")
    assert sorted(published) == list(range(26))
    ours = lenet_ladder(25)
    for level, pct in published.items():
        places = len(str(pct).partition(".")[2])  # as many as are printed
        assert pct in (round(ours[level], places), math.floor(ours[level] * 10**places) / 10**places), (level, pct, ours[level])


# ---- kinds of layer ------------------------------------------------------------------------------------------
class Convolutional(nn.Module):
    def __init__(self, input_shape=(1, 8, 8), classes=3):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.fc, self.out = nn.Linear(4 * 36, 5), nn.Linear(5, classes)


class Recurrent(nn.Module):
    def __init__(self, input_shape=(6,), classes=3):
        super().__init__()
        self.words, self.lstm, self.out = nn.Embedding(10, 4), nn.LSTM(4, 5, num_layers=2, bidirectional=True), nn.Linear(10, classes)


class Own(nn.Module):
    """A user's own parameter and own say about what may be pruned."""

    def __init__(self, input_shape=(6,), classes=3):
        super().__init__()
        self.matrix, self.head = nn.Parameter(torch.zeros(6, 6)), nn.Linear(6, classes)
        self.layer_kinds = {"matrix": "fc", "head.weight": "fc"}


class Kindless(nn.Module):
    def __init__(self, input_shape=(6,), classes=3):
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(12, classes))

    def forward(self, x):
        return x @ self.matrix


def test_rule_10_biases_and_normalisation_have_no_kind():
    assert layer_kinds(Convolutional()) == {"conv.weight": "conv", "fc.weight": "fc", "out.weight": "output"}


def test_kinds_of_embedding_and_every_direction_of_an_lstm():
    kinds = layer_kinds(Recurrent())
    assert kinds.pop("words.weight") == "embedding" and kinds.pop("out.weight") == "output"
    assert set(kinds.values()) == {"recurrent"} and len(kinds) == 8 and not any("bias" in n for n in kinds)


def test_a_module_overrides_its_kinds():
    assert layer_kinds(Own()) == {"matrix": "fc", "head.weight": "fc"}


def test_a_bare_layer_and_a_container_have_names():
    assert layer_kinds(nn.Linear(2, 3)) == {"weight": "output"}
    assert layer_kinds(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))) == {"0.weight": "fc", "2.weight": "output"}


def test_a_model_without_any_kind_is_refused_before_training(small_data):
    one = trial(small_data, recipe=changed(RECIPE, {"model": Model("kindless", "module")}), library=Library(models={"kindless": Kindless}))
    with pytest.raises(UserError, match="attribute layer_kinds"):
        run_all([one.init().stage], small_data, one.library)


# ---- first weights -------------------------------------------------------------------------------------------
def lenet_state(*path: object) -> dict[str, torch.Tensor]:
    return draw_state(LeNet, LENET_300_100, *MNIST, path or (0, "init"))


def test_gaussian_glorot_and_zero_biases():
    """sd = sqrt(2 / (inputs + outputs)), normal, not cut off; biases 0."""
    state = lenet_state()
    for name, fans in (("hidden.0", 784 + 300), ("hidden.1", 300 + 100), ("output", 100 + 10)):
        w, sd = state[f"{name}.weight"].double(), math.sqrt(2 / fans)
        n = w.numel()
        assert abs(w.mean()) < 4 * sd / math.sqrt(n) and w.std() == pytest.approx(sd, rel=4 / math.sqrt(2 * n))
        assert (w / sd).pow(4).mean() == pytest.approx(3, abs=4 * math.sqrt(96 / n))  # a uniform draw gives 1.8, one cut at 2 sd 2.1
        assert not state[f"{name}.bias"].any() and state[f"{name}.weight"].dtype == torch.float32
    assert (state["hidden.0.weight"].abs() > 3 * math.sqrt(2 / 1084)).any()


def test_rule_5_a_draw_depends_on_its_path_alone():
    torch.manual_seed(1)
    first = lenet_state(0, "init")["output.weight"]
    torch.manual_seed(2)
    assert torch.equal(first, lenet_state(0, "init")["output.weight"])
    others = [lenet_state(*path)["output.weight"] for path in ((1, "init"), (0, "reinit", 1, 0), (0, "reinit", 1, 1), (0, "reinit", 2, 0))]
    assert len({t.sum().item() for t in [first, *others]}) == 5


def test_rule_5_drawing_weights_leaves_torchs_own_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    lenet_state()
    skeleton(LeNet, LENET_300_100, *MNIST)
    assert torch.equal(torch.rand(3), expected)


def test_a_modules_own_init_is_kept_where_asked():
    state = draw_state(LeNet, Model("lenet", "module", {"hidden": [300, 100]}), *MNIST, (0, "init"))
    assert state["hidden.0.bias"].any() and state["hidden.0.weight"].abs().max() <= 1 / 28


def test_tied_weights_stand_once_in_a_state():
    def tied(input_shape, classes):
        net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
        net[1].weight = net[0].weight
        return net

    assert list(draw_state(tied, Model("tied"), (4,), 4, (0, "init"))) == ["0.weight"]


@pytest.mark.parametrize(
    ("family", "options", "error", "says"),
    [
        (LeNet, {"depth": 3}, UsageError, "model 'mine' can't be built.*depth"),
        (lambda shape, classes: 5, {}, UserError, "is a int, not an nn.Module"),
    ],
)
def test_a_model_that_cannot_be_built_is_the_users_error(family, options, error, says):
    with pytest.raises(error, match=says):
        skeleton(family, Model("mine", options=options), *MNIST)


# ---- our dropout ---------------------------------------------------------------------------------------------
def test_rule_5_dropout_is_a_function_of_key_and_step():
    torch.manual_seed(0)
    layer, x = Dropout(0.5), torch.ones(40, 50)
    counter = layer.counter.clone()
    first, second = layer(x), layer(x)
    layer.counter.copy_(counter)
    torch.manual_seed(99)
    assert torch.equal(layer(x), first) and torch.equal(layer(x), second) and not torch.equal(first, second)
    assert layer.counter[1] == counter[1] + 2


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    torch.manual_seed(0)
    layer, x = Dropout(0.3), torch.ones(100, 1000)
    out = layer(x)
    assert (out == 0).float().mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 1e5)) and out.max() == pytest.approx(1 / 0.7)
    kept = (out != 0).double()
    neighbours = torch.corrcoef(torch.stack([kept.flatten()[:-1], kept.flatten()[1:]]))[0, 1]
    steps = torch.corrcoef(torch.stack([kept.flatten(), (layer(x) != 0).double().flatten()]))[0, 1]
    assert abs(neighbours) < 0.015 and abs(steps) < 0.015
    assert torch.equal(layer.eval()(x), x)
