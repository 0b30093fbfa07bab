"""Language models: sizes of the network, windows, memory, perplexity by hand, stacks, resuming, and bad calls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ltcore import data, kinds
from ltcore.arms import ARMS
from ltcore.data import words
from ltcore.errors import UsageError, UserError
from ltcore.imp import DataFacts, Trial
from ltcore.library import Library
from ltcore.models import MODELS, LanguageLSTM, draw_state, layer_kinds, skeleton
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, Task, changed
from ltcore.training import backends, language, loop
from ltcore.training.loop import Checkpoints, Replicate, Segment, Stopped
from ltcore.training.supervised import Streams
from tests.conftest import run_all, trial

WORDS = [f"w{i}" for i in range(17)]


def corpus(lines: int = 60) -> data.Corpus:
    """Lines of seven words in a pattern; a word tells much of the next."""
    text = [" ".join(WORDS[(i * i + j) % 17] for j in range(7)) for i in range(lines)]
    return words.corpus("made", {"train": text[: lines - 20], "valid": text[-20:-10], "test": text[-10:]}, {}, source="test")


SMALL = corpus()
ALL = dict.fromkeys(("embedding", "recurrent", "output", "bias"), 0.2)
RECIPE = Recipe(
    Model("lstm", "module", {"embedding": 6, "hidden": 8, "dropout": 0.4}), Data("made", val=80),
    Optimizer("adam", 1e-2, eps=1e-3), 4, "3ep", Evaluate(7, ("early-stop", "end"), ("end",)), Pruning(ALL, scope="global"),
    rewind="1ep", precision="fp64", task=Task("language-model", {"bptt": 5}),
)  # fmt: skip


def lstm_trial(recipe: Recipe = RECIPE, seed: int = 0) -> Trial:
    return trial(SMALL, seed, recipe)


def segment(start: int = 0, stop: int = 12, bptt: int = 5, batch: int = 4, **more: object) -> Segment:
    return Segment(
        Optimizer("adam", 1e-2, eps=1e-3),
        batch,
        start,
        stop,
        Evaluate(6, ("end",)),
        80,
        "fp64",
        task=Task("language-model", {"bptt": bptt}),
        **more,
    )


def replicate(seed: int, **options: object) -> Replicate:
    state = draw_state(LanguageLSTM, Model("lstm", "module", {"embedding": 6, "hidden": 8, **options}), (), SMALL.classes, [seed, "init"])
    mask = {n: torch.rand(t.shape, generator=torch.Generator().manual_seed(seed)) < 0.7 for n, t in state.items() if t.is_floating_point()}
    return Replicate(state, mask, Streams([seed, "split"], [seed, "order"]))


def module(**options: object) -> nn.Module:
    return skeleton(LanguageLSTM, Model("lstm", "module", {"embedding": 6, "hidden": 8, **options}), (), SMALL.classes)


# ---- the network -----------------------------------------------------------------------------------------------
def test_the_papers_network_has_its_counts_of_parameters():
    net, counts = LanguageLSTM((), 33_278), dict[str, int]()
    for name, p in net.named_parameters():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + p.numel()
    assert counts == {"embedding": 21_630_700, "lstm": 6_770_400, "decoder": 21_663_978}
    assert set(layer_kinds(net)) == {name for name, _ in net.named_parameters()}  # all of them can be pruned, biases too
    assert set(layer_kinds(net).values()) == set(ALL)


def test_a_tied_decoder_is_one_matrix_and_bad_widths_are_refused():
    net = LanguageLSTM((), 10, 6, 6, tied=True)
    assert net.decoder.weight is net.embedding.weight and "decoder.weight" not in layer_kinds(net)
    for options in ({"embedding": 6, "hidden": 7, "tied": True}, {"layers": 0}):
        with pytest.raises(ValueError, match="width|at least 1"):
            LanguageLSTM((), 10, **options)
    with pytest.raises(ValueError, match="words of a text"):
        LanguageLSTM((1, 8, 8), 10)


def test_memory_carried_over_windows_equals_one_long_window():
    net = module(dropout=0.0).double().eval()
    x = torch.randint(SMALL.classes, (3, 20), generator=torch.Generator().manual_seed(0))
    whole, end = net(x, *net.memory(3))
    memory, parts = net.memory(3), []
    for a in range(0, 20, 5):
        out, memory = net(x[:, a : a + 5], *memory)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-14)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-14) for a, b in zip(memory, end))


# ---- windows ---------------------------------------------------------------------------------------------------
def windows(**more: object) -> language.Windows:
    return language.Windows(SMALL, segment(**more), [Streams([0, "split"], [0, "order"])] * 2, torch.float64)


def test_windows_are_a_function_of_t_and_rows_go_on_where_they_were():
    w = windows(batch=3, bptt=4)
    row = len(SMALL.train) // 3
    assert w.per_epoch == (row - 1) // 4
    for t in (0, 1, w.per_epoch - 1, w.per_epoch + 1):
        (x, _, _), y = w.augmented(w.index(t), t, *w.memory(module()))
        place = t % w.per_epoch * 4
        for r in range(2):
            expected = [SMALL.train.ids[b * row + place : b * row + place + 5] for b in range(3)]
            assert torch.equal(x[r], torch.stack([e[:-1] for e in expected])) and torch.equal(y[r], torch.stack([e[1:] for e in expected]))


def test_memory_starts_anew_with_every_epoch_and_only_then():
    w = windows(batch=3, bptt=4)
    full = tuple(torch.ones_like(m) for m in w.memory(module()))
    zeroed = [float(w.augmented(w.index(t), t, *full)[0][1].sum()) == 0 for t in range(2 * w.per_epoch)]
    assert [t for t, zero in enumerate(zeroed) if zero] == [0, w.per_epoch]


# ---- perplexity ------------------------------------------------------------------------------------------------
class Unigram(nn.Module):
    """Says the same of every next word, and counts in its memory how many it has seen."""

    def __init__(self, input_shape, classes):
        super().__init__()
        self.scores = nn.Parameter(torch.arange(classes, dtype=torch.float64) / 7)
        self.layer_kinds = {"scores": "output"}

    def memory(self, batch):
        return (self.scores.new_zeros(1, batch, 1),)

    def forward(self, x, seen):
        return self.scores.expand(*x.shape, -1), (seen + x.shape[1],)


@pytest.mark.parametrize("part", ["val", "test", "train"])
def test_log_perplexity_is_the_mean_over_all_tokens_but_the_first_by_hand(part):
    w, net = windows(), Unigram((), SMALL.classes)
    engine = backends.Loop(net, {"scores": net.scores.detach()[None].repeat(2, 1)}, {}, language.loss)
    found = language.evaluate(engine, w, part, net)
    ids = {"val": SMALL.val.ids[:80], "test": SMALL.test.ids, "train": SMALL.train.ids}[part]
    logs = net.scores.detach().log_softmax(0)
    by_hand = -sum(float(logs[i]) for i in ids[1:]) / (len(ids) - 1)
    assert found.shape == (2, 1) and found[:, 0].tolist() == pytest.approx([by_hand] * 2, abs=1e-12)
    assert w.size(part) == len(ids)


def test_an_evaluation_carries_memory_along_its_rows():
    w, net = windows(bptt=3), module(dropout=0.0)
    stack = {n: p.detach()[None].double() for n, p in net.named_parameters()}
    w.streams = w.streams[:1]
    found = language.evaluate(backends.Loop(net, stack, {}, language.loss), w, "test", net)
    alone, (x, y) = backends.alone(net, stack, {}, 0), w.rows("test")
    with torch.no_grad():
        out, _ = alone(x, *(m.double() for m in net.memory(language.ROWS)))
    nats = nn.functional.cross_entropy(out.flatten(0, 1), y.flatten(), ignore_index=language.NO_TOKEN, reduction="sum")
    assert float(found) == pytest.approx(float(nats) / (len(SMALL.test) - 1), abs=1e-12)


# ---- training --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_stacked_copies_equal_single_ones(backend):
    net, copies = module(dropout=0.4), [replicate(seed, dropout=0.4) for seed in range(3)]
    if backend == "vmap":  # vmap takes nn.LSTM's gradient but not its forward pass without one
        _steps_alike(net, copies)
        return
    together = loop.train(net, SMALL, segment(), copies, backend=backend)
    for one, whole in zip(copies, together):
        [single] = loop.train(net, SMALL, segment(), [one], backend="loop")
        for n, t in single.state.items():
            torch.testing.assert_close(whole.state[n], t, rtol=0, atol=1e-12)
        assert whole.metrics["end"]["log_perplexity"] == pytest.approx(single.metrics["end"]["log_perplexity"], abs=1e-12)


def _steps_alike(net: nn.Module, copies: list[Replicate]) -> None:
    w = language.Windows(SMALL, segment(), [c.streams for c in copies], torch.float64)
    names = [n for n, _ in net.named_parameters()]

    def engine(rows: list[Replicate], kind: type) -> backends.Loop | backends.Vmap:
        stack = {n: torch.stack([r.state[n] for r in rows]) for n in rows[0].state}
        params = {n: stack[n].double() for n in names}
        return kind(net, params, {n: t for n, t in stack.items() if n not in names}, language.loss)

    memory, stacked, single = w.memory(net), engine(copies, backends.Vmap), [engine([c], backends.Loop) for c in copies]
    for t in range(3):
        (x, *m), y = w.augmented(w.index(t), t, *memory)
        losses, grads = stacked.grads((x, *m), y)
        for r, one in enumerate(single):
            loss, grad = one.grads((x[r : r + 1], *(part[r : r + 1] for part in m)), y[r : r + 1])
            assert float(losses[r]) == pytest.approx(float(loss), abs=1e-12)
            assert all(torch.allclose(grads[n][r], g[0], rtol=0, atol=1e-12) for n, g in grad.items())
            assert all(torch.allclose(a[r], b[0], rtol=0, atol=1e-12) for a, b in zip(stacked.carried, one.carried))
        memory = stacked.carried


def test_it_learns_and_prunes_biases_with_the_rest():
    one = lstm_trial(changed(RECIPE, {"length": "20ep", "optimizer.lr": 0.03}))
    done = run_all([one.ticket(2)], SMALL)
    dense, ticket = (done[one.ticket(level)] for level in (0, 2))
    values = {(v.metric, v.at): v.value for v in dense.values}
    assert (
        values["log_perplexity", "end"] < 0.8 * math.log(SMALL.classes)
        and values["val_log_perplexity", "early-stop"] <= values["val_log_perplexity", "end"]
    )
    assert dense.facts["failed"] == "" and {"it", "val_log_perplexity", "train_loss"} == set(dense.curves)
    sizes = sum(t.numel() for n, t in ticket.artefacts["state"].items() if t.is_floating_point())
    assert ticket.facts["density_all"] == pytest.approx(0.64, abs=1 / sizes)
    assert all(int((ticket.artefacts["state"][n] != 0).sum()) <= int(m.sum()) for n, m in done[one.mask(2).stage].artefacts["mask"].items())
    assert any("bias" in n and not m.all() for n, m in done[one.mask(2).stage].artefacts["mask"].items())


@pytest.mark.parametrize("k", ["1ep", "9it"])  # at the end of an epoch, and inside one
def test_two_segments_equal_the_straight_run_bit_for_bit(k):
    cut, straight = lstm_trial(changed(RECIPE, {"rewind": k})), lstm_trial(changed(RECIPE, {"rewind": "0it"}))
    ends = [run_all([one.ticket(0)], SMALL)[one.ticket(0)] for one in (cut, straight)]
    assert all(torch.equal(t, ends[1].artefacts["state"][n]) for n, t in ends[0].artefacts["state"].items())
    assert [v for v in ends[0].values if v.at == "end"] == [v for v in ends[1].values if v.at == "end"]


def test_resuming_from_a_checkpoint_equals_the_unbroken_run(monkeypatch):
    monkeypatch.setattr(loop, "CHECK_EVERY_IT", 1)
    net, one, kept = module(dropout=0.4), replicate(0, dropout=0.4), {}
    [unbroken] = loop.train(net, SMALL, segment(), [one])
    asked = iter([False] * 7 + [True])
    with pytest.raises(Stopped):
        loop.train(
            net,
            SMALL,
            segment(),
            [one],
            Checkpoints(save=lambda t: kept.update({n: x.clone() for n, x in t.items()}), stop=lambda: next(asked)),
        )
    assert float(kept["memory/memory/0"].abs().sum()) > 0
    [resumed] = loop.train(net, SMALL, segment(), [one], Checkpoints(load=lambda: kept))
    assert all(torch.equal(t, resumed.state[n]) for n, t in unbroken.state.items())
    assert unbroken.metrics == resumed.metrics and unbroken.curves == resumed.curves


def test_without_validation_only_the_end_is_read():
    one = lstm_trial(changed(RECIPE, {"data.val": 0, "evaluate": Evaluate(7, ("end",))}))
    values = run_all([one.ticket(0)], SMALL)[one.ticket(0)].values
    assert [(v.metric, v.at) for v in values] == [("log_perplexity", "end")]


def test_a_trial_that_diverged_or_only_guesses_is_named():
    w = windows()
    assert language.failure({"end": {"log_perplexity": math.inf}}, w) == "diverged"
    assert language.failure({"end": {"log_perplexity": math.log(SMALL.classes)}}, w) == "stayed at chance"
    assert language.failure({"end": {"log_perplexity": 1.0}}, w) == ""
    blown = lstm_trial(changed(RECIPE, {"optimizer": Optimizer("sgd", 1e200), "rewind": "0it"}))
    assert run_all([blown.ticket(0)], SMALL)[blown.ticket(0)].facts["failed"] == "diverged"


# ---- bad calls -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 100}, "leave no window of 5"),
        ({"task.options": {"window": 5}}, "no option 'window'; it takes bptt"),
        ({"task.options": {"bptt": "x"}}, "'x' is not a whole number from 1 up"),
        ({"task.options": {"bptt": 0}}, "bad value for 'task.options.bptt': 0 is not a whole number from 1 up"),
        ({"data.labels": "shuffled"}, "neither labels"),
        ({"task": Task()}, "is a corpus: nothing to classify"),
    ],
)
def test_bad_recipes_are_refused_before_anything_runs(changes, said):
    with pytest.raises(UsageError, match=said):
        lstm_trial(changed(RECIPE, changes))


def test_what_reads_labels_is_refused():
    with pytest.raises(UsageError, match="criterion 'snip' scores weights by a gradient on labelled examples"):
        ARMS["snip"](lstm_trial(), 1)
    with pytest.raises(UsageError, match="task language-model has none of"):
        ARMS["ticket-path"](lstm_trial(), 1)


def test_pictures_and_models_without_memory_are_refused(small_data):
    facts = DataFacts("small", "", 200, (12,), 3)
    with pytest.raises(UsageError, match="needs a corpus"):
        Trial(RECIPE, facts, 0)
    with pytest.raises(UserError, match="needs a running text"):
        language.Windows(small_data, segment(), [], torch.float32)
    one = lstm_trial(changed(RECIPE, {"data.val": 10_000}))
    with pytest.raises(UserError, match="data.val asks for 10,000"):
        run_all([one.ticket(0)], SMALL)

    class Forgets(nn.Sequential):
        def __init__(self, input_shape, classes):
            super().__init__(nn.Embedding(classes, classes))

    library = Library(models=MODELS | {"forgets": Forgets})
    one = trial(SMALL, 0, changed(RECIPE, {"model": Model("forgets", "module"), "pruning.rates": {"embedding": 0.2}}), library)
    with pytest.raises(UserError, match="Forgets has no method memory"):
        run_all([one.ticket(0)], SMALL, library)


def test_tasks_share_the_classification_loop_without_a_word_in_its_stages(small_data):
    assert "task" not in trial(small_data).ticket(0).params
    assert lstm_trial().ticket(0).params["task"] == {"name": "language-model", "options": {"bptt": 5}}
    assert kinds.segment(lstm_trial().ticket(0).params).task == RECIPE.task
