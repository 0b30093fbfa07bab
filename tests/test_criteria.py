"""Criteria: each a pure function of the weights, in the weights' shapes."""

from __future__ import annotations

import pytest
import torch

from ltcore import kinds, masks, pruning, seeds
from ltcore.criteria import CRITERIA, GRASP_TEMPERATURE, Network, Scored
from ltcore.errors import UsageError, UserError
from ltcore.library import Library
from ltcore.recipe import changed
from tests.conftest import RECIPE, run_all, trial

WEIGHTS = {"a": torch.tensor([[1.0, -3.0], [0.0, -0.5]]), "b": torch.tensor([2.0, -2.0])}


def scored(seed: int = 0) -> Scored:
    full = {n: torch.ones_like(w, dtype=torch.bool) for n, w in WEIGHTS.items()}
    gradient = {"a": torch.tensor([[0.5, 1.0], [9.0, -2.0]]), "b": torch.tensor([-0.25, 0.0])}
    return Scored(WEIGHTS, {n: w * 10 for n, w in WEIGHTS.items()}, full, seeds.stream(seed, "score"), lambda: gradient, two_layers())


def two_layers() -> Network:
    """x -> (a x) * b: outputs that are quadratic in the weights."""
    x, y = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]]), torch.tensor([0, 1, 1])
    return Network(WEIGHTS, lambda w, x, training: (x @ w["a"].T) * w["b"], (2,), lambda: (x, y))


def test_magnitude_is_the_absolute_value_of_the_final_weights():
    assert torch.equal(CRITERIA["magnitude"](scored())["a"], torch.tensor([[1.0, 3.0], [0.0, 0.5]]))


def test_largest_is_the_reverse_of_magnitude():
    low, high = CRITERIA["magnitude"](scored()), CRITERIA["largest"](scored())
    assert all(torch.equal(low[n], -high[n]) for n in WEIGHTS)


def test_rule_5_random_comes_from_its_stream_alone():
    torch.manual_seed(1)
    first = CRITERIA["random"](scored())
    torch.manual_seed(2)
    assert all(torch.equal(first[n], s) for n, s in CRITERIA["random"](scored()).items())
    assert not torch.equal(first["a"], CRITERIA["random"](scored(1))["a"])


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_weight_and_changes_none(name):
    before = {n: w.clone() for n, w in WEIGHTS.items()}
    assert {n: s.shape for n, s in CRITERIA[name](scored()).items()} == {n: w.shape for n, w in WEIGHTS.items()}
    assert all(torch.equal(before[n], w) for n, w in WEIGHTS.items())


def test_a_criterion_sees_the_end_the_start_and_the_mask(small_data):
    seen = []

    def spy(s: Scored) -> dict[str, torch.Tensor]:
        seen.append(s)
        return {n: w.abs() for n, w in s.weights.items()}

    one = trial(
        small_data, recipe=changed(RECIPE, {"pruning.criterion": "spy", "length": "8it"}), library=Library(criteria=CRITERIA | {"spy": spy})
    )
    done = run_all([one.mask(2).stage], small_data, one.library)
    init, mask = done[one.init().stage].artefacts["state"], done[one.mask(1).stage].artefacts["mask"]
    for level, s in enumerate(seen):
        end = done[one.ticket(level)].artefacts["state"]
        assert all(torch.equal(s.weights[n], end[n]) and torch.equal(s.start[n], init[n]) for n in mask)
    assert all(torch.equal(seen[1].mask[n], mask[n]) and seen[0].mask[n].all() for n in mask)
    assert sorted(seen[0].weights) == ["hidden.0.weight", "hidden.1.weight", "output.weight"]  # rule 10: no bias is ever scored


@pytest.mark.parametrize("given", [{}, {"hidden.0.weight": torch.ones(3)}])
def test_a_criterion_of_the_wrong_shape_is_the_users_error(small_data, given):
    library = Library(criteria={"bad": lambda s: given})
    one = trial(small_data, recipe=changed(RECIPE, {"pruning.criterion": "bad", "length": "8it"}), library=library)
    with pytest.raises(UserError, match=r"criterion 'bad' must give hidden\.0\.weight .*scores of shape \(16, 12\)"):
        run_all([one.mask(1).stage], small_data, library)


def test_an_unknown_criterion_names_the_nearest(small_data):
    with pytest.raises(UsageError, match="unknown criterion 'magnitud'; did you mean 'magnitude'"):
        trial(small_data, recipe=changed(RECIPE, {"pruning.criterion": "magnitud"}))


# ---- GraSP -----------------------------------------------------------------------------------------------------
def loss_of(network: Network, weights: dict[str, torch.Tensor], temperature: float = GRASP_TEMPERATURE) -> torch.Tensor:
    x, y = network.batch()
    return torch.nn.functional.cross_entropy(network.outputs(weights, x, True) / temperature, y)


def gradient_by_differences(network: Network, weights: dict[str, torch.Tensor], eps: float) -> dict[str, torch.Tensor]:
    found = {n: torch.zeros_like(w) for n, w in weights.items()}
    for n, w in weights.items():
        for i in range(w.numel()):
            step = torch.zeros_like(w).flatten()
            step[i] = eps
            ahead, behind = (loss_of(network, weights | {n: w + sign * step.reshape(w.shape)}) for sign in (1, -1))
            found[n].view(-1)[i] = (ahead - behind) / (2 * eps)
    return found


def grasp_by_differences(network: Network, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """w · Hg from losses alone: H g is the change of the gradient along g."""
    g = gradient_by_differences(network, weights, 1e-4)
    scale = 1e-2 / max(float(t.abs().max()) for t in g.values())
    ahead, behind = (gradient_by_differences(network, {n: w + sign * scale * g[n] for n, w in weights.items()}, 1e-4) for sign in (1, -1))
    return {n: w * (ahead[n] - behind[n]) / (2 * scale) for n, w in weights.items()}


def test_grasp_equals_finite_differences_in_double_precision():
    double = {n: w.double() for n, w in WEIGHTS.items()}
    network = two_layers()
    x, y = network.batch()
    network = Network(double, network.outputs, (2,), lambda: (x.double(), y))
    full = {n: torch.ones_like(w, dtype=torch.bool) for n, w in double.items()}
    found = CRITERIA["grasp"](Scored(double, double, full, seeds.stream(0), network=network))
    by_hand = grasp_by_differences(network, double)
    scale = max(float(t.abs().max()) for t in by_hand.values())
    assert scale > 0 and all(torch.allclose(found[n], by_hand[n], rtol=1e-3, atol=1e-4 * scale) for n in double)


def test_grasp_of_a_softmax_model_by_hand(small_data):
    """A linear softmax model with one weight matrix: H g is written out from the probabilities."""
    one = trial(small_data, recipe=changed(RECIPE, {"model.options": {"hidden": []}}))
    scored = one.score(one.init(), one.init(), None, criterion="grasp").stage
    done = run_all([scored], small_data)
    state = done[one.init().stage].artefacts["state"]
    x, y = (t for t in _batch(small_data, scored))
    w, bias, t = state["output.weight"].double(), state["output.bias"].double(), GRASP_TEMPERATURE
    p = torch.softmax((x @ w.T + bias) / t, 1)
    hot = torch.nn.functional.one_hot(y, 3).double()
    g = (p - hot).T @ x / (len(y) * t)
    moved = x @ g.T / t  # change of the scaled outputs along g
    change = p * moved - p * (p * moved).sum(1, keepdim=True)  # of the probabilities
    by_hand = w * (change.T @ x) / (len(y) * t)
    found = done[scored].artefacts["scores"]["output.weight"].double()
    assert torch.allclose(found, by_hand, rtol=1e-3, atol=1e-4 * float(by_hand.abs().max())) and by_hand.abs().max() > 0


def _batch(small_data, stage) -> tuple[torch.Tensor, torch.Tensor]:
    from ltcore.training.supervised import Batches, Streams

    p = stage.params
    batches = Batches(small_data, p["data"]["val"], p["batch_size"], [Streams(**p["streams"])], torch.float64)
    x, y = batches.fetch(batches.index(0))
    return x[0].flatten(1), y[0]


def test_grasp_takes_the_weights_whose_removal_keeps_the_gradient_flow():
    """To first order, setting w to 0 changes gᵀg by −2 w · Hg: what goes first (lowest score) raises it."""
    network, tiny = two_layers(), 1e-3
    found = CRITERIA["grasp"](scored())

    def flow(weights):
        leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
        return sum(float((g**2).sum()) for g in torch.autograd.grad(loss_of(network, leaves), list(leaves.values())))

    for n, i in (("a", 0), ("a", 1), ("b", 0), ("b", 1)):
        smaller = WEIGHTS[n].clone()
        smaller.view(-1)[i] *= 1 - tiny
        change = flow(WEIGHTS | {n: smaller}) - flow(WEIGHTS)
        assert change == pytest.approx(-2 * tiny * float(found[n].view(-1)[i]), rel=0.1)


# ---- SynFlow ---------------------------------------------------------------------------------------------------
def test_synflow_of_two_layers_by_hand():
    """R = sum_k |b_k| sum_j |a_kj|: every weight scores the flow through it, and both layers the same in all."""
    found = CRITERIA["synflow"](scored())
    assert found["a"].tolist() == [[2.0, 6.0], [0.0, 1.0]] and found["b"].tolist() == [8.0, 1.0]


def test_synflow_reads_no_data(small_data):
    one = trial(small_data)
    assert "data" not in one.score(one.init(), one.init(), None, criterion="synflow").stage.params


def chain(widths: tuple[int, ...], seed: int = 0) -> tuple[Network, dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    weights = {f"l{i}": torch.randn(b, a, generator=g) for i, (a, b) in enumerate(zip(widths, widths[1:]))}

    def outputs(w, x, training):
        for n in weights:
            x = (x @ w[n].T).relu()
        return x

    return Network(weights, outputs, (widths[0],)), weights


def test_rounds_of_synflow_take_what_a_loop_of_scoring_and_pruning_takes():
    """Against the algorithm as the paper writes it: score, keep the share density^(r/n), again; here with plain topk."""
    network, weights = chain((6, 8, 8, 4))
    n, density, total = 10, 0.1, sum(w.numel() for w in weights.values())
    full = {k: torch.ones_like(w, dtype=torch.bool) for k, w in weights.items()}
    mask = dict(full)
    for r in range(1, n + 1):
        s = CRITERIA["synflow"](Scored(weights, weights, mask, seeds.stream(0), network=network))
        flat = torch.cat([torch.where(mask[k], s[k], -torch.ones_like(s[k])).flatten() for k in weights])
        best = torch.zeros(total, dtype=torch.bool)
        best[flat.topk(round(density ** (r / n) * total)).indices] = True
        mask = {k: part.reshape(w.shape) for (k, w), part in zip(weights.items(), best.split([w.numel() for w in weights.values()]))}
    options = {"rounds": n, "density": density, "prunable": list(weights)}
    scores = CRITERIA["synflow"](Scored(weights, weights, full, seeds.stream(0), network=network, options=options))
    once = pruning.prune(scores, full, dict.fromkeys(weights, 1 - density), "global")
    assert all(torch.equal(once[k], mask[k]) for k in weights) and masks.kept(once) == round(density * total)


def test_rounds_of_synflow_keep_every_layer_alive_where_one_round_does_not():
    """The point of the rounds (Tanaka et al. 2020, section 5): at 0.2 % one round empties a layer, a hundred do not."""
    network, weights = chain((30, 300, 30, 10), seed=1)
    full = {k: torch.ones_like(w, dtype=torch.bool) for k, w in weights.items()}
    alive = {}
    for rounds in (1, 100):
        options = {"rounds": rounds, "density": 0.002, "prunable": list(weights)}
        scores = CRITERIA["synflow"](Scored(weights, weights, full, seeds.stream(0), network=network, options=options))
        alive[rounds] = masks.collapsed(pruning.prune(scores, full, dict.fromkeys(weights, 0.998), "global"))
    assert alive[1] and not alive[100]


def test_layers_that_are_not_pruned_are_left_out_of_the_rounds(small_data):
    from ltcore import arms

    one = trial(small_data, recipe=changed(RECIPE, {"pruning.rates": {"fc": 0.5}, "pruning.scope": "global", "length": "8it"}))
    stage = arms.synflow(one, 3)
    mask = run_all([stage, one.mask(3).stage], small_data)[stage.inputs["mask"].stage].artefacts["mask"]
    assert set(mask) == {"hidden.0.weight", "hidden.1.weight"} and masks.kept(mask) == 40  # of 320


def test_the_network_that_is_scored_is_masked_and_stays_as_it_was(small_data):
    """A pass in training mode writes to buffers: not to those of the next pass, nor to the artefact."""
    seen = []

    def spy(s: Scored) -> dict[str, torch.Tensor]:
        x, _ = s.network.batch()
        before = {n: t.clone() for n, t in s.network.state.items()}
        first, second = (s.network.outputs({}, x, True) for _ in range(2))
        seen.append((s, torch.equal(first, second) and all(torch.equal(before[n], t) for n, t in s.network.state.items())))
        return {n: w.abs() for n, w in s.weights.items()}

    from tests.nets import ConvNorm

    spy.needs_gradient = True
    library = Library(models={"conv-norm": ConvNorm}, criteria=CRITERIA | {"spy": spy})
    recipe = changed(
        RECIPE, {"model.name": "conv-norm", "pruning.criterion": "spy", "length": "8it", "pruning.rates": {"conv": 0.5, "output": 0.5}}
    )
    one = trial(small_data, recipe=recipe, library=library)
    run_all([one.mask(2).stage], small_data, library)
    s, same = seen[1]
    assert same and all(not s.network.state[n][~m].any() for n, m in s.mask.items()) and not all(m.all() for m in s.mask.values())
    assert isinstance(s.network, kinds.Network)
