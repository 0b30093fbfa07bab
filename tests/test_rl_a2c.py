"""The A2C loop: alone or in a stack, broken off or not, under a mask, by its own clock, and that it learns."""
import dataclasses
import math

import pytest
import torch

from ltcore import seeds, tasks
from ltcore.errors import UsageError, UserError
from ltcore.jobs import Value
from ltcore.models import MODELS, draw_state, skeleton
from ltcore.recipe import Evaluate, Model, Optimizer, Task
from ltcore.rl import a2c, player, worlds
from ltcore.training.loop import Checkpoints, Replicate, Segment, Stopped
from ltcore.training.supervised import Streams

pytest.importorskip("gymnasium")
RMSPROP, ADAM = Optimizer("rmsprop", 1e-3), Optimizer("adam", 1e-3)
MLP = Model("actor-critic", "module", {"hidden": [16, 16]})
OPTIONS = {"window": 20, "reward_scale": 0.01}


def _segment(stop=120, start=0, optimizer=RMSPROP, precision="fp32", batch=32, **options):
    return Segment(optimizer, batch, start, stop, Evaluate(40), 0, precision, task=Task("a2c", {**OPTIONS, **options}))


def _net(name="cartpole-v0", model=MLP, **options):
    data = worlds.load(name, options)
    net = (MODELS[model.name], model, data.input_shape, data.classes)
    return data, skeleton(*net), lambda seed: draw_state(*net, [seed, "init"])


def _replicate(draw, seed, density=1.0, **more):
    state, g = draw(seed), torch.Generator().manual_seed(seed)
    mask = {n: torch.rand(t.shape, generator=g) < density for n, t in state.items()} if density < 1 else {}
    return Replicate(state, mask, Streams([seed, "split"], [seed, "order"]), **more)


def _same(one, other):
    assert one.metrics == other.metrics and one.curves == other.curves and one.facts == other.facts
    for part in ("state", "optimizer"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize(("optimizer", "precision"), [(RMSPROP, "fp32"), (ADAM, "fp64")])
def test_replicates_of_a_stack_are_what_they_are_alone(optimizer, precision):
    data, module, draw = _net()
    segment, copies = _segment(optimizer=optimizer, precision=precision), [_replicate(draw, seed, 0.8) for seed in range(3)]
    together = a2c.train(module, data, segment, copies)
    assert len({t.facts["updates"] for t in together}) > 1  # they left the stack at different times
    for copy, trained in zip(copies, together):
        _same(trained, a2c.train(module, data, segment, [copy])[0])


def test_a_stack_in_batched_products_is_its_replicates_alone(monkeypatch):
    """As on a GPU; replicates leave it one after the other."""
    data, module, draw = _net()
    segment, copies = _segment(60, precision="fp64"), [_replicate(draw, seed, 0.8) for seed in range(3)]
    alone = [a2c.train(module, data, segment, [copy])[0] for copy in copies]
    monkeypatch.setattr(a2c._Run, "_parts", lambda self: [slice(None)])
    for one, other in zip(a2c.train(module, data, segment, copies), alone):
        assert one.facts == other.facts and one.metrics == other.metrics
        for n in one.state:
            torch.testing.assert_close(one.state[n], other.state[n], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("world", ["cartpole-v0", "acrobot-v1"])
def test_a_segment_that_is_broken_off_goes_on_as_if_it_had_not_been(world):
    data, module, draw = _net(world, **({"max_steps": 60} if world == "acrobot-v1" else {}))
    copies = [_replicate(draw, seed, 0.9) for seed in range(2)]
    straight = a2c.train(module, data, _segment(200), copies)
    saved, asked = {}, []

    def stop():
        asked.append(None)
        return len(asked) % 3 == 0

    stops = Checkpoints(lambda: saved or None, lambda tensors: saved.update({n: t.clone() for n, t in tensors.items()}), stop=stop)
    broken_off = 0
    while True:
        try:
            resumed = a2c.train(module, data, _segment(200), copies, stops)
            break
        except Stopped:
            broken_off += 1
    assert broken_off
    for one, other in zip(straight, resumed):
        _same(one, other)


@pytest.mark.skipif(bool(worlds.lacking(worlds.WORLDS["lunarlander-v3"])), reason="needs Box2D")
def test_what_cannot_be_saved_stops_without_a_checkpoint():
    data, module, draw = _net("lunarlander-v3")
    saved = []
    with pytest.raises(Stopped):
        a2c.train(module, data, _segment(), [_replicate(draw, 0)], Checkpoints(save=saved.append, stop=lambda: True))
    assert not saved


def test_pruned_weights_and_their_optimizer_state_stay_zero():
    data, module, draw = _net()
    copy = _replicate(draw, 0, 0.3)
    trained = a2c.train(module, data, _segment(), [copy])[0]
    for name, mask in copy.mask.items():
        assert not trained.state[name][~mask].any() and not trained.optimizer[f"v/{name}"][~mask].any()
    kept = torch.cat([(trained.state[n] != copy.state[n])[m] for n, m in copy.mask.items()])
    assert kept.float().mean() > 0.5


def test_a_segment_ends_with_the_update_in_which_its_last_episode_ends():
    data, module, draw = _net()
    facts = a2c.train(module, data, _segment(stop=90, start=40), [_replicate(draw, 0)])[0].facts
    assert 50 <= facts["episodes"] <= 50 + 8 * 4  # 8 environments, 4 steps an update
    assert facts["environment_steps"] == 32 * facts["updates"] and facts["failed"] == ""


def test_the_return_is_the_mean_of_the_last_episodes():
    data, module, draw = _net(max_steps=5)  # nothing falls so soon: every episode has 5 steps
    trained = a2c.train(module, data, _segment(stop=50, window=10), [_replicate(draw, 0)])[0]
    assert trained.metrics == {"end": {"episode_return": 5.0}} and trained.facts["return_window"] == 10
    assert set(trained.curves["episode_return"]) == {5.0} and trained.curves["episode"][-1] == trained.facts["episodes"]


def test_the_record_has_the_return_and_what_one_episode_weighs_in_it():
    data, module, draw = _net(max_steps=5)
    trained = a2c.train(module, data, _segment(stop=50, window=10), [_replicate(draw, 0)])[0]
    assert tasks.TASKS["a2c"].values(trained, {}) == [Value("episode_return", 5.0, "end", 0.5)]
    nothing = dataclasses.replace(trained, metrics={"end": {"episode_return": math.nan}})
    assert tasks.TASKS["a2c"].values(nothing, {}) == [Value("episode_return", -math.inf, "end", 0.0)]


def test_batches_as_the_clock():
    data, module, draw = _net()
    assert a2c.train(module, data, _segment(stop=37, unit="batches"), [_replicate(draw, 0)])[0].facts["updates"] == 37


def test_a_segment_of_length_zero_plays_and_learns_nothing():
    data, module, draw = _net()
    copy = _replicate(draw, 0)
    trained = a2c.train(module, data, _segment(stop=0), [copy])[0]
    assert all(torch.equal(trained.state[n], copy.state[n]) for n in copy.state)
    assert trained.facts["return_window"] == 20 and 9 <= trained.metrics["end"]["episode_return"] < 60


def test_the_optimizers_state_is_taken_on():
    data, module, draw = _net()
    first = a2c.train(module, data, _segment(stop=60, optimizer=ADAM), [_replicate(draw, 0)])[0]
    again = Replicate(first.state, {}, Streams([0, "split"], [0, "order"]), first.optimizer)
    fresh = dataclasses.replace(again, optimizer=None)
    kept, new = (a2c.train(module, data, _segment(stop=90, start=60, optimizer=ADAM), [r])[0] for r in (again, fresh))
    assert kept.optimizer["step"] == first.facts["updates"] + kept.facts["updates"] and new.optimizer["step"] == new.facts["updates"]
    assert any(not torch.equal(kept.state[n], new.state[n]) for n in kept.state)


@pytest.mark.parametrize("options", [{"reward_scale": 0.5}, {"reward_clip": 0.1}, {"advantage_clip": 0.001}, {"discount": 0.5}, {"gae": 0.5}, {"entropy": 1.0}, {"value": 3.0}])
def test_every_option_of_learning_changes_what_is_learned(options):
    data, module, draw = _net()
    copy = _replicate(draw, 0)
    plain, other = (a2c.train(module, data, _segment(stop=4, unit="batches", steps=8, **o), [copy])[0].state for o in ({}, options))
    assert any(not torch.equal(plain[n], other[n]) for n in plain)


def _return(rewards, terminated, truncated, finals, i, value):
    """Of copy i from the first step given, forward and step by step."""
    total = 0.0
    for k, reward in enumerate(rewards):
        total += 0.9**k * float(reward[i]) * 0.5
        if terminated[k][i]:
            return total
        if truncated[k][i]:
            break
    return total + 0.9 ** (k + 1) * value(finals[k][i])


def test_updates_are_those_of_autograd_and_torchs_rmsprop_over_ends_and_cuts():
    """A plain A2C of one copy in the same environments with the same noise."""
    data, module, draw = _net(max_steps=12)
    copy, n, steps, updates = _replicate(draw, 0, 0.8), 8, 4, 20
    segment = _segment(updates, precision="fp64", unit="batches", discount=0.9, entropy=0.02, value=0.3, reward_scale=0.5)
    [trained] = a2c.train(module, data, segment, [copy])
    net = module.double()
    net.load_state_dict({name: (t * copy.mask[name]).double() for name, t in copy.state.items()})
    optimizer, path = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.99, eps=1e-8), (0, "order", "a2c", 0)
    copies = data.make(n, seeds.stream_seed(*path, "environment"))
    drawn = torch.empty(player.CHUNK, steps, n, 2, dtype=torch.float64).exponential_(generator=seeds.stream(*path, "actions", 0))
    ends = cuts = 0
    for u in range(updates):
        seen, taken, told = [], [], []
        for t in range(steps):
            seen.append(torch.from_numpy(copies.observation).double())
            taken.append((net(seen[-1])[:, :-1] - drawn[u, t].log()).argmax(1))
            told.append(copies.step(taken[-1].numpy()))
        rewards, terminated, truncated, finals = zip(*((s.reward, s.terminated, s.truncated, s.final) for s in told))
        ends, cuts = ends + sum(int(e.sum()) for e in terminated), cuts + sum(int(c.sum()) for c in truncated)
        value = lambda x: float(net(torch.from_numpy(x)[None].double())[0, -1].detach())  # noqa: E731
        target = torch.tensor([_return(rewards[t:], terminated[t:], truncated[t:], finals[t:], i, value) for t in range(steps) for i in range(n)], dtype=torch.float64)
        out = net(torch.cat(seen))
        policy = torch.distributions.Categorical(logits=out[:, :-1])
        gain = policy.log_prob(torch.cat(taken)) * (target - out[:, -1]).detach() + 0.02 * policy.entropy()
        optimizer.zero_grad()
        (0.3 * (target - out[:, -1]).square() - gain).mean().backward()
        for name, p in net.named_parameters():
            p.grad *= copy.mask[name]
        optimizer.step()
    assert ends > 5 and cuts > 5
    for name, t in net.state_dict().items():
        torch.testing.assert_close(trained.state[name], t, rtol=0, atol=1e-10)


def test_it_learns():
    data, module, draw = _net(model=Model("actor-critic", "module", {"hidden": [64, 64]}))
    segment = _segment(500, optimizer=Optimizer("rmsprop", 1e-3), batch=128, entropy=0.001)
    for trained in a2c.train(module, data, segment, [_replicate(draw, seed) for seed in range(2)]):
        assert trained.metrics["end"]["episode_return"] > 80  # random play: 22


@pytest.mark.skipif(bool(worlds.lacking(worlds.WORLDS["atari-breakout"])), reason="needs ale-py")
def test_a_convolution_learns_from_frames():
    data, module, draw = _net("atari-breakout", Model("actor-critic-conv", "module", {"width": 4, "hidden": [16]}))
    segment = _segment(stop=3, unit="batches", optimizer=ADAM, batch=16, reward_clip=1.0, advantage_clip=1.0)
    copies = [_replicate(draw, seed, 0.5) for seed in range(2)]
    together = a2c.train(module, data, segment, copies)
    assert [t.facts["updates"] for t in together] == [3, 3] and together[0].facts["failed"] == "no episode came to its end"
    assert not any(together[0].state[n][~m].any() for n, m in copies[0].mask.items())
    alone = a2c.train(module, data, segment, copies[:1])[0]
    assert all(torch.equal(together[0].state[n], alone.state[n]) for n in alone.state)


@pytest.mark.parametrize(("options", "message"), [
    ({"entropie": 1.0}, "unexpected keyword argument 'entropie'"), ({"unit": "frames"}, "counts episodes or batches, not 'frames'"),
    ({"steps": 5}, "a batch of 32 is not a number of environments times 5 steps"), ({"steps": 0}, "0 is not a whole number from 1 up"),
    ({"window": 0}, "bad value for 'task.options.window': 0 is not a whole number from 1 up"), ({"window": -5}, "-5 is not a whole number"),
    ({"discount": 1.5}, "1.5 is not a number from 0 to 1"), ({"entropy": "much"}, "'much' is not a number from 0 up"),
])  # fmt: skip
def test_options_that_mean_nothing(options, message):
    with pytest.raises(UsageError, match=message):
        a2c.settings({**OPTIONS, **options}, 32)


def test_a_model_without_a_value_is_refused():
    data, module, draw = _net(model=Model("lenet", "module", {"hidden": [8]}))
    with pytest.raises(UserError, match="needs a model such as actor-critic, that gives 2 logits and a value; LeNet gives 2 numbers"):
        a2c.train(module, data, _segment(), [_replicate(draw, 0)])


def test_half_precision_is_refused():
    data, module, draw = _net()
    with pytest.raises(UsageError, match="fp32, fp64 or tf32, not bf16"):
        a2c.train(module, data, _segment(precision="bf16"), [_replicate(draw, 0)])
