"""Actor-critic networks: counts of the paper, kinds, and the written-out gradient against autograd."""
import pytest
import torch

from ltcore.models import ActorCritic, ActorCriticConv, layer_kinds, layer_sizes
from ltcore.rl import networks
from ltcore.rl.networks import Batch, Chain, Modules, OneByOne, Weights

T, N, ACTIONS, WEIGHTS = 3, 5, 4, Weights(entropy=0.3, value=0.7)


@pytest.mark.parametrize(("inputs", "actions", "width", "policy_params"), [(4, 2, 128, 33_922), (6, 3, 256, 134_147), (8, 4, 256, 134_916)])
def test_policies_have_the_papers_size(inputs, actions, width, policy_params):
    sizes = layer_sizes(ActorCritic((inputs,), actions, [width] * 3))
    of_value = {name: n for name, n in sizes.items() if name.startswith("value")}
    assert sum(sizes.values()) - sum(of_value.values()) == policy_params and sum(of_value.values()) == width + 1


def test_every_parameter_can_be_pruned_and_biases_have_their_own_kind():
    kinds = layer_kinds(ActorCritic((4,), 2, [8]))
    assert kinds == {"hidden.0.weight": "fc", "hidden.0.bias": "bias", "policy.weight": "output", "policy.bias": "bias", "value.weight": "value", "value.bias": "bias"}
    module = ActorCriticConv((4, 84, 84), 6)
    assert set(layer_kinds(module)) == {name for name, _ in module.named_parameters()}
    assert module.hidden[0].in_features == 1600


def test_a_convolution_gives_logits_and_a_value():
    module = ActorCriticConv((4, 84, 84), 6, width=4, hidden=[8])
    assert module(torch.rand(2, 4, 84, 84)).shape == (2, 7)
    with pytest.raises(ValueError, match="leave nothing of 10 x 84 pixels"):
        ActorCriticConv((4, 10, 84), 6)


def _stack(replicates, module):
    shapes = networks.chain_shapes(module)
    g = torch.Generator().manual_seed(0)
    rows = [{n: torch.randn(s, generator=g, dtype=torch.float64) / 3 for n, s in shapes.items()} for _ in range(replicates)]
    params = networks.flat(rows, shapes)
    observed = torch.randn(T, replicates, N, 6, generator=g, dtype=torch.float64)
    batch = Batch(torch.randint(ACTIONS, (replicates, T * N), generator=g), *torch.randn(2, replicates, T * N, generator=g, dtype=torch.float64))
    return shapes, params, observed, batch


def _acted(network, observed):
    return torch.stack([network.act(t, x) for t, x in enumerate(observed)])


@pytest.mark.parametrize("replicates", [1, 3])
def test_written_out_gradients_are_those_of_autograd(replicates):
    module = ActorCritic((6,), ACTIONS, [16, 8]).double()
    shapes, params, observed, batch = _stack(replicates, module)
    grads, expected = torch.zeros_like(params), torch.zeros_like(params)
    chain = Chain(module, params, grads, T, N, WEIGHTS)
    plain = Modules(module, params, expected, T, N, WEIGHTS, shapes, {}, observed[0], "loop")
    torch.testing.assert_close(_acted(chain, observed), _acted(plain, observed), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(chain.values(observed[0]), plain.values(observed[0]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(chain.value_of(replicates - 1, observed[0, -1]), chain.values(observed[0])[-1], rtol=1e-12, atol=1e-12)
    chain.gradients(batch)
    plain.gradients(batch)
    assert expected.abs().sum() > 1
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-12)


def test_a_stack_equals_its_copies_alone():
    module = ActorCritic((6,), ACTIONS, [16, 8]).double()
    _, params, observed, batch = _stack(3, module)
    whole, alone = torch.zeros_like(params), torch.zeros_like(params)
    stack = Chain(module, params, whole, T, N, WEIGHTS)
    single = OneByOne([Chain(module, params[r : r + 1], alone[r : r + 1], T, N, WEIGHTS) for r in range(3)])
    torch.testing.assert_close(_acted(stack, observed), _acted(single, observed), rtol=1e-12, atol=1e-12)
    stack.gradients(batch)
    single.gradients(batch)
    torch.testing.assert_close(whole, alone, rtol=1e-11, atol=1e-13)


def test_any_module_is_stacked_by_vmap():
    module = ActorCriticConv((2, 16, 16), 3, width=2, hidden=[4]).double()
    shapes = {n: p.shape for n, p in module.named_parameters()}
    g = torch.Generator().manual_seed(0)
    params = networks.flat([{n: torch.randn(s, generator=g, dtype=torch.float64) / 3 for n, s in shapes.items()} for _ in range(2)], shapes)
    frames = torch.randint(256, (T, 2, N, 2, 16, 16), generator=g, dtype=torch.uint8)
    batch = Batch(torch.randint(3, (2, T * N), generator=g), *torch.randn(2, 2, T * N, generator=g, dtype=torch.float64))
    grads = {}
    for backend in ("loop", "vmap"):
        grads[backend] = torch.zeros_like(params)
        network = Modules(module, params, grads[backend], T, N, WEIGHTS, shapes, {}, frames[0], backend)
        assert _acted(network, frames).shape == (T, 2, N, 4)
        network.gradients(batch)
    assert grads["loop"].abs().sum() > 0.1
    torch.testing.assert_close(grads["vmap"], grads["loop"], rtol=1e-10, atol=1e-12)


def test_the_loss_by_hand():
    # One example, logits (0, 0), value 1: log p = −ln 2, entropy ln 2; advantage 2 of action 0, target 4.
    out, y = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 2.0, 4.0]])
    ln2 = 0.6931472
    assert networks.loss(out, y, Weights(entropy=0.5, value=0.1)).item() == pytest.approx(0.1 * 9 + 2 * ln2 - 0.5 * ln2)
