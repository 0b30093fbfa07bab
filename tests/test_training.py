"""The training segment: rules 3, 4, 5, 7, 10, 11 and 12 of the engine, checkpoints inside a segment, and runs that fail."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from ltcore import data, kinds, seeds
from ltcore.errors import UsageError
from ltcore.models import skeleton
from ltcore.recipe import Evaluate, Model, Optimizer, changed
from ltcore.training import loop, supervised
from tests.conftest import RECIPE, make_small, run_all, trial
from tests.nets import LIBRARY

SCHEDULED = Optimizer("sgd", 0.05, momentum=0.9, weight_decay=1e-3, warmup_it=10, drops_it=(24, 36))
CONV = changed(RECIPE, {"model": Model("conv-norm"), "pruning.rates": {"conv": 0.3, "output": 0.1}})


def same(a: dict, b: dict) -> bool:
    """Bit for bit, signs of zero included."""
    return a.keys() == b.keys() and all(t.dtype == b[n].dtype and t.numpy().tobytes() == b[n].numpy().tobytes() for n, t in a.items())


def ends_alike(a: kinds.Result, b: kinds.Result) -> bool:
    arrays = same(a.artefacts["state"], b.artefacts["state"]) and same(a.artefacts["optimizer"], b.artefacts["optimizer"])
    return arrays and a.values == b.values and a.curves == b.curves and a.facts == b.facts


# ---- rule 3: rewind --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rewind", ["0it", "21it"])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_rule_3_a_rewound_ticket_is_w_k_times_mask_bit_for_bit(small_data, rewind, precision):
    one = trial(small_data, rewind=rewind, precision=precision)
    untrained = one.train(one.rewound(), one.mask(2), start=one.rewind_it, stop=one.rewind_it)
    done = run_all([untrained], small_data)
    w_k, mask = (done[out.stage].artefacts[out.artefact] for out in (one.rewound(), one.mask(2)))
    begun = done[untrained].artefacts["state"]
    for n, w in w_k.items():
        w = w.to(torch.float64 if precision == "fp64" else torch.float32)
        assert (begun[n].numpy().tobytes()) == ((w * mask[n] if n in mask else w).numpy().tobytes())
    assert one.ticket(2).inputs["state"] == one.rewound() and one.ticket(2).params["start"] == one.rewind_it


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_rule_3_training_does_not_touch_the_rewind_buffer(small_data, backend):
    one = trial(small_data, recipe=changed(CONV, {"rewind": "16it", "optimizer_state": "kept"}), library=LIBRARY)
    stage = one.ticket(1)
    done = run_all([one.mask(1).stage], small_data, LIBRARY)
    inputs = {role: done[out.stage].artefacts[out.artefact] for role, out in stage.inputs.items()}
    before = {role: {n: t.clone() for n, t in artefact.items()} for role, artefact in inputs.items()}
    kinds.run([kinds.Job("train", stage.params, inputs)], kinds.Env(LIBRARY, lambda _: small_data, backend=backend))
    assert sorted(before) == ["mask", "optimizer", "state"] and all(same(before[role], inputs[role]) for role in before)


# ---- rule 4: segments ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("k", [16, 21])  # at the end of an epoch, and inside one
@pytest.mark.parametrize("optimizer", [RECIPE.optimizer, SCHEDULED], ids=["adam", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_rule_4_two_segments_equal_the_straight_run_bit_for_bit(small_data, k, optimizer, precision):
    one = trial(small_data, optimizer=optimizer, precision=precision)
    first = one.train(one.init(), start=0, stop=k)
    second = one.train(first.out("state"), start=k, stop=48, optimizer=first.out("optimizer"))
    straight = one.train(one.init(), start=0, stop=48)
    fresh = one.train(first.out("state"), start=k, stop=48)
    done = run_all([second, straight, fresh], small_data)
    assert same(done[second].artefacts["state"], done[straight].artefacts["state"])
    assert same(done[second].artefacts["optimizer"], done[straight].artefacts["optimizer"])
    assert not same(done[fresh].artefacts["state"], done[straight].artefacts["state"])  # the optimiser's state does matter
    tail = [i for i, t in enumerate(done[straight].curves["it"]) if t > k + 8]
    assert [done[straight].curves["val_loss"][i] for i in tail] == done[second].curves["val_loss"][-len(tail) :]


def test_rule_4_the_dense_run_of_a_rewinding_recipe_is_the_straight_run(small_data):
    straight, rewinding = trial(small_data), trial(small_data, rewind="21it")
    ends = [run_all([one.ticket(0)], small_data)[one.ticket(0)].artefacts["state"] for one in (straight, rewinding)]
    assert same(*ends)


def batches(small, n_val: int = 40, batch: int = 10, *seeds_: int) -> supervised.Batches:
    streams = [supervised.Streams([s, "split"], [s, "order"]) for s in seeds_ or (0,)]
    return supervised.Batches(small, n_val, batch, streams, torch.float32)


def test_rule_4_batch_t_is_by_index_whatever_was_read_before(small_data):
    forward, straight_to_it = batches(small_data), batches(small_data)
    read = [forward.index(t) for t in range(40)]
    assert torch.equal(read[37], straight_to_it.index(37)) and torch.equal(read[3], forward.index(3))


# ---- rule 5: order, splits, processes --------------------------------------------------------------------------
def test_rule_5_one_permutation_per_seed_and_epoch(small_data):
    b = batches(small_data, 40, 10, 0, 1)
    epochs = [torch.cat([b.index(16 * e + t) for t in range(16)], dim=1) for e in range(3)]  # (2, 160) each
    for rows in epochs:
        assert torch.equal(rows.sort(1).values, b.train_index)
    assert len({tuple(row.tolist()) for rows in epochs for row in rows}) == 6
    expected = b.train_index[1][torch.randperm(160, generator=seeds.stream(1, "order", 2))]
    assert torch.equal(epochs[2][1], expected)


def test_rule_5_every_level_sees_the_order_and_split_of_level_0(small_data):
    one = trial(small_data, seed=3)
    assert (
        one.ticket(0).params["streams"] == one.ticket(4).params["streams"] == {"split": [3, "split"], "order": [3, "order"], "labels": None}
    )


def test_the_remainder_of_an_epoch_is_dropped(small_data):
    b = batches(small_data, 40, 30)
    assert b.per_epoch == 5 and len(set(torch.cat([b.index(t)[0] for t in range(5)]).tolist())) == 150
    assert b.index(5).shape == (1, 30) and not torch.equal(b.index(5), b.index(0))


def digest_of_a_run() -> str:
    """Weights, curves and values of a small experiment, for a comparison between processes."""
    small = make_small()
    ones = [
        trial(small, 1, changed(CONV, {"length": "20it"}), LIBRARY),
        trial(small, 2, changed(RECIPE, {"length": "20it", "precision": "fp32"}), LIBRARY),
    ]
    ones.append(trial(small, 0, changed(RECIPE, {"model": Model("stock-dropout"), "length": "20it"}), LIBRARY))
    digest = hashlib.sha256()
    for one in ones:
        result = run_all([one.ticket(1)], small, LIBRARY)[one.ticket(1)]
        digest.update(b"".join(n.encode() + t.numpy().tobytes() for n, t in result.artefacts["state"].items()))
        digest.update(repr((result.curves, result.values, sorted(result.facts.items()))).encode())
    return digest.hexdigest()


def test_rule_5_and_12_processes_agree_bit_for_bit():
    """Other hash seeds, another state of torch's generator, and a process that has trained before."""
    code = "import torch; torch.manual_seed({0}); torch.rand({0}); from tests.test_training import digest_of_a_run as d; print(d())"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(s)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": str(s)}
        )
        for s in (1, 2)
    ]
    torch.manual_seed(3)
    mine = digest_of_a_run()
    assert mine == digest_of_a_run()
    assert [child.communicate()[0].strip() for child in children] == [mine, mine]


def test_rule_5_training_leaves_torchs_own_generator_alone(small_data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = trial(small_data, 0, changed(RECIPE, {"model": Model("stock-dropout"), "length": "8it"}), LIBRARY)
    run_all([one.ticket(0)], small_data, LIBRARY)
    assert torch.equal(torch.rand(3), expected)


# ---- rule 7: selection and evaluation --------------------------------------------------------------------------
def metric(result: kinds.Result, name: str, at: str | None) -> float:
    (value,) = [v.value for v in result.values if (v.metric, v.at) == (name, at)]
    return value


def overfitting(small, **changes):
    """A run whose validation loss has its minimum well before the end."""
    one = trial(small, recipe=changed(RECIPE, {"length": "160it", "optimizer.lr": 0.03, **changes}))
    return one, run_all([one.ticket(0)], small)[one.ticket(0)]


def test_rule_7_early_stop_is_the_minimum_of_validation_loss(small_data):
    one, result = overfitting(small_data)
    losses, its = result.curves["val_loss"], result.curves["it"]
    assert its == list(range(8, 161, 8)) and metric(result, "early_stop_it", None) == its[losses.index(min(losses))] < 160
    stopped = one.train(one.init(), start=0, stop=result.facts["early_stop_it"])
    end = run_all([stopped], small_data)[stopped]
    for name in ("val_loss", "val_accuracy_pct", "test_loss", "test_accuracy_pct"):
        assert metric(result, name, "early-stop") == metric(end, name, "end")
    assert metric(result, "val_loss", "early-stop") == min(losses) < metric(result, "val_loss", "end") == losses[-1]


def test_rule_7_and_11_an_early_stop_is_read_with_the_batch_norm_statistics_of_its_step(small_data):
    one = trial(small_data, recipe=changed(CONV, {"length": "160it", "optimizer.lr": 0.1}), library=LIBRARY)
    result = run_all([one.ticket(0)], small_data, LIBRARY)[one.ticket(0)]
    stopped = one.train(one.init(), start=0, stop=result.facts["early_stop_it"])
    end = run_all([stopped], small_data, LIBRARY)[stopped]
    assert result.facts["early_stop_it"] < 160
    assert metric(result, "test_loss", "early-stop") == metric(end, "test_loss", "end") != metric(result, "test_loss", "end")


def test_rule_7_of_ties_the_first(small_data):
    _, result = overfitting(small_data, **{"optimizer.lr": 0.0})
    assert len(set(result.curves["val_loss"])) == 1 and result.facts["early_stop_it"] == 8 and not result.facts["censored"]


def test_rule_7_an_early_stop_at_the_last_evaluation_is_censored(small_data):
    one = trial(small_data, recipe=changed(RECIPE, {"length": "16it", "optimizer.lr": 1e-3}))
    (value,) = [v for v in run_all([one.ticket(0)], small_data)[one.ticket(0)].values if v.metric == "early_stop_it"]
    assert value.value == 16 and value.censored and value.resolution == 8


def test_rule_7_the_test_set_selects_nothing(small_data):
    """With other test labels, the same weights and the same early stop."""
    other = data.from_user("small", (small_data.train.x, small_data.train.y, small_data.test.x, (small_data.test.y + 1) % 3))
    (_, a), (_, b) = overfitting(small_data), overfitting(other)
    assert (
        same(a.artefacts["state"], b.artefacts["state"]) and a.curves == b.curves and a.facts["early_stop_it"] == b.facts["early_stop_it"]
    )
    assert metric(a, "test_accuracy_pct", "early-stop") > 60 > metric(b, "test_accuracy_pct", "early-stop")


def test_rule_7_the_test_set_is_read_only_where_the_protocol_reads_it(small_data, monkeypatch):
    read, evaluate = [], supervised.evaluate
    monkeypatch.setattr(supervised, "evaluate", lambda engine, b, part, *more: (read.append(part), evaluate(engine, b, part, *more))[1])
    _, result = overfitting(small_data, **{"evaluate.test": ("early-stop", "100it"), "evaluate.train": ()})
    assert read.count("test") == 2 and "train" not in read
    assert {v.at for v in result.values if v.metric == "test_loss"} == {"early-stop", "100it"}


def test_rule_7_a_declared_step_reads_the_weights_of_that_step(small_data):
    one, result = overfitting(small_data, **{"evaluate.test": ("21it",)})
    stopped = one.train(one.init(), start=0, stop=21)
    done = run_all([stopped], small_data)[stopped]
    by_hand = accuracy_and_loss(small_data, one, done.artefacts["state"])
    assert (metric(result, "test_accuracy_pct", "21it"), metric(result, "test_loss", "21it")) == pytest.approx(by_hand, rel=1e-12)


def accuracy_and_loss(small, one, state) -> tuple[float, float]:
    """Of the test set, in one batch, by the module itself."""
    module = skeleton(one.library.model(one.recipe.model.name), one.recipe.model, small.input_shape, small.classes).double().eval()
    module.load_state_dict(state)
    out = module(small.test.x.double()).detach()
    return 100 * float((out.argmax(1) == small.test.y).double().mean()), float(F.cross_entropy(out, small.test.y))


@pytest.mark.parametrize("chunk", [7, 59, 60, 500])
def test_rule_7_the_last_batch_of_an_evaluation_counts_like_every_other(small_data, monkeypatch, chunk):
    monkeypatch.setitem(supervised.CHUNK, "cpu", chunk)  # 60 test examples: a last batch of 4, of 1, and whole ones
    one = trial(small_data, length="24it")
    result = run_all([one.ticket(0)], small_data)[one.ticket(0)]
    by_hand = accuracy_and_loss(small_data, one, result.artefacts["state"])
    assert (metric(result, "test_accuracy_pct", "end"), metric(result, "test_loss", "end")) == pytest.approx(by_hand, rel=1e-12)
    resolutions = {v.metric: v.resolution for v in result.values}
    assert resolutions["test_accuracy_pct"] == 100 / 60 and resolutions["val_accuracy_pct"] == 100 / 40


def test_validation_examples_are_not_trained_on(small_data):
    b = batches(small_data, 40, 10, 0, 5)
    for train, val in zip(b.train_index, b.val_index):
        assert sorted(train.tolist() + val.tolist()) == list(range(200)) and len(val) == 40
    assert not torch.equal(b.val_index[0], b.val_index[1])


# ---- rules 10 and 11 -------------------------------------------------------------------------------------------
def test_rule_10_biases_and_norms_train_but_are_never_pruned(small_data):
    one = trial(small_data, recipe=CONV, library=LIBRARY)
    done = run_all([one.ticket(3)], small_data, LIBRARY)
    state, mask = done[one.ticket(3)].artefacts["state"], done[one.mask(3).stage].artefacts["mask"]
    assert sorted(mask) == ["conv.weight", "out.weight"]
    assert all(state[n].all() for n in ("norm.weight", "norm.bias", "out.bias"))


def test_rule_11_batch_norm_statistics_after_a_rewind_are_those_of_w_k(small_data):
    one = trial(small_data, recipe=changed(CONV, {"rewind": "20it"}), library=LIBRARY)
    begun = one.train(one.rewound(), one.mask(1), start=20, stop=20)
    done = run_all([begun, one.ticket(1)], small_data, LIBRARY)
    w_k, state, end = (done[s].artefacts["state"] for s in (one.rewound().stage, begun, one.ticket(1)))
    names = ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "drop.counter")
    assert same({n: w_k[n] for n in names}, {n: state[n] for n in names})
    assert int(state["norm.num_batches_tracked"]) == 20 and int(end["norm.num_batches_tracked"]) == 48
    assert state["norm.running_mean"].any() and not torch.equal(state["norm.running_mean"], end["norm.running_mean"])


def test_rule_11_rewound_to_0_batch_norm_starts_anew(small_data):
    one = trial(small_data, recipe=CONV, library=LIBRARY)
    begun = one.train(one.rewound(), one.mask(1), start=0, stop=0)
    state = run_all([begun], small_data, LIBRARY)[begun].artefacts["state"]
    assert not state["norm.running_mean"].any() and (state["norm.running_var"] == 1).all() and int(state["norm.num_batches_tracked"]) == 0


# ---- a segment that stops and goes on --------------------------------------------------------------------------
class Stopping:
    """Saves on every check and stops at the n-th."""

    def __init__(self, at: int, saved: dict | None = None):
        self.left, self.saved = at, saved

    def checkpoints(self) -> loop.Checkpoints:
        return loop.Checkpoints(lambda: self.saved, self.save, lambda: True, self.stop)

    def save(self, tensors: dict) -> None:
        self.saved = {n: t.clone() for n, t in tensors.items()}

    def stop(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("model", ["lenet", "conv-norm", "stock-dropout"])
def test_a_segment_stopped_inside_goes_on_to_the_same_bits(small_data, model, at):
    recipe = changed(
        RECIPE if model == "lenet" else CONV, {"length": "150it", "optimizer": SCHEDULED, "evaluate.test": ("early-stop", "end", "50it")}
    )
    one = trial(small_data, 0, changed(recipe, {"model.name": model}), LIBRARY)
    init = run_all([one.init().stage], small_data, LIBRARY)[one.init().stage].artefacts["state"]
    job = kinds.Job("train", one.ticket(0).params, {"state": init})
    whole = kinds.run([job], kinds.Env(LIBRARY, lambda _: small_data))[0]
    first = Stopping(at)
    with pytest.raises(loop.Stopped):
        kinds.run([job], kinds.Env(LIBRARY, lambda _: small_data, checkpoints=first.checkpoints()))
    assert int(first.saved["progress"][0]) == 64 * at + 1
    torch.rand(17)  # a new process would find torch's generator in another state
    again = kinds.run([job], kinds.Env(LIBRARY, lambda _: small_data, checkpoints=Stopping(99, first.saved).checkpoints()))[0]
    assert ends_alike(whole, again)


# ---- runs that fail --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", [Optimizer("sgd", 1e200), Optimizer("sgd", 1e40, momentum=0.9)])
def test_a_run_whose_loss_is_no_number_diverged(small_data, optimizer):
    one = trial(small_data, optimizer=optimizer)
    result = run_all([one.ticket(1)], small_data)[one.ticket(1)]
    assert result.facts["failed"] == "diverged" and metric(result, "test_loss", "end") == float("inf")
    assert result.facts["density_prunable"] < 1  # counted all the same


def test_a_run_that_learns_nothing_stayed_at_chance(small_data):
    one = trial(small_data, control="shuffled-labels")
    assert run_all([one.ticket(0)], small_data)[one.ticket(0)].facts["failed"] == "stayed at chance"


def test_a_run_that_learns_did_not_fail(small_data):
    assert overfitting(small_data)[1].facts["failed"] == ""


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("precision", "fp61", "unknown precision 'fp61'; did you mean 'fp64'"),
        ("optimizer.name", "adamw", "unknown optimizer.name 'adamw'; did you mean 'adam'"),
        ("pruning.scope", "globl", "did you mean 'global'"),
        ("pruning.rates.fc", -0.2, "not a share from 0 to 1"),
        ("pruning.rates.fc", 20.0, "not a share"),
        ("batch_size", 0, "less than 1"),
        ("evaluate.every_it", 0, "less than 1"),
        ("data.val", -1, "less than 0"),
        ("model.init", "glorot", "did you mean 'glorot-normal'"),
        ("optimizer_state", "keep", "unknown optimizer_state"),
        ("evaluate.test", ("1ep",), "bad point '1ep'"),
        ("control", "nothing", "unknown control"),
        ("data.labels", "shuffle", "did you mean 'shuffled'"),
        ("batch_size", 161, "larger than the 160 training examples"),
        ("data.val", 200, "leaves none"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused_before_anything_runs(small_data, field, value, says):
    with pytest.raises(UsageError, match=says):
        trial(small_data, recipe=changed(RECIPE, {field: value}))


def test_evaluation_points_are_multiples_of_the_interval_and_the_end():
    def points(start: int, stop: int) -> list[int]:
        return loop.evaluation_points(loop.Segment(RECIPE.optimizer, 10, start, stop, Evaluate(8), 40))

    assert points(0, 24) == [8, 16, 24] and points(0, 20) == [8, 16, 20] and points(12, 24) == [16, 24] and points(16, 24) == [24]
    assert points(0, 5) == [5] and points(0, 0) == [] and points(16, 16) == []
