"""Translation: batches, padding, causality, stacks, loss, schedule, beam search, BLEU, averages, resuming, and bad calls."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ltcore import data
from ltcore.data.corpus import Sentences
from ltcore.errors import UsageError, UserError
from ltcore.imp import Trial
from ltcore.models import LanguageLSTM, Transformer, draw_state, layer_kinds, skeleton
from ltcore.models.transformer import PAD, positions
from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, Task, changed
from ltcore.training import backends, beam, loop, optimizers, translation
from ltcore.training.loop import Checkpoints, Replicate, Segment, Stopped
from ltcore.training.supervised import Streams
from tests.conftest import run_all, trial

TINY = {"size": "tiny", "width": 16, "inner": 24, "heads": 2, "layers": 1}
KINDS = ("embedding", "attention", "fc", "bias")
ADAM = Optimizer("adam", 3e-3, betas=(0.9, 0.98), schedule="inverse-sqrt", warmup_it=10)
RECIPE = Recipe(
    Model("transformer", "module", TINY), Data("number-words", val=20), ADAM, 300, "14it", Evaluate(7, ("end",)),
    Pruning(dict.fromkeys(KINDS, 0.2), scope="global"), rewind="4it", precision="fp64", task=Task("translate", {"beam": 1}),
)  # fmt: skip


@pytest.fixture(scope="module")
def numbers() -> data.Corpus:
    return data.load("number-words", train=300, test=20, vocabulary=90)


def net(classes: int = 90, **options: object) -> Transformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer((), classes, **{**TINY, **options}).double().eval()


def segment(start: int = 0, stop: int = 6, tokens: int = 300, options: dict | None = None, **more: object) -> Segment:
    return Segment(
        ADAM, tokens, start, stop, Evaluate(3, ("end",)), 20, "fp64", task=Task("translate", {"beam": 1, **(options or {})}), **more
    )


def replicate(corpus: data.Corpus, seed: int, **options: object) -> Replicate:
    state = draw_state(Transformer, Model("transformer", "module", {**TINY, **options}), (), corpus.classes, [seed, "init"])
    mask = {n: torch.rand(t.shape, generator=torch.Generator().manual_seed(seed)) < 0.7 for n, t in state.items() if t.dim() > 1}
    return Replicate(state, mask, Streams([seed, "split"], [seed, "order"]))


def pieces(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 90, shape, generator=torch.Generator().manual_seed(seed))


# ---- the network -----------------------------------------------------------------------------------------------
def test_big_has_the_parameters_that_the_paper_prints():
    with torch.device("meta"):
        counts = {size: sum(p.numel() for p in Transformer((), 32_768, size).parameters()) for size in ("base", "big")}
    assert counts["big"] == pytest.approx(210e6, rel=1e-3)
    d, f, n = 512, 2048, 6
    attention, feed = 4 * (d * d + d), 2 * d * f + f + d
    assert counts["base"] == 32_768 * d + n * (attention + feed + 4 * d) + n * (2 * attention + feed + 6 * d)


def test_everything_but_norms_has_a_kind_and_layers_can_be_told_from_the_embedding():
    names, kinds = dict(net().named_parameters()), layer_kinds(net())
    assert {n for n in names if n not in kinds} == {n for n in names if ".norm." in n} and set(kinds.values()) == set(KINDS)
    assert [n for n, k in kinds.items() if k == "embedding"] == ["embedding.weight"] and kinds["encoder.0.inner.weight"] == "fc"
    assert kinds["decoder.0.cross.key.weight"] == "attention" and kinds["decoder.0.cross.key.bias"] == "bias"


def test_positions_are_sines_and_cosines_of_geometric_frequencies():
    table = positions(2, 3, 6)
    by_hand = [f(p * 10_000 ** (-k / 2)) for p in (2, 3, 4) for f in (math.sin, math.cos) for k in range(3)]
    assert table.flatten().tolist() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_causal_mask_holds(pre_norm):
    module, source, target = net(pre_norm=pre_norm), pieces(2, 6), pieces(2, 7, seed=1)
    before, later = module(source, target), target.clone()
    later[:, 4:] = pieces(2, 3, seed=2)
    after = module(source, later)
    assert torch.equal(before[:, :4], after[:, :4]) and not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("pre_norm", [False, True])
def test_padding_does_not_leak(pre_norm):
    module, source, target = net(pre_norm=pre_norm), pieces(3, 5), pieces(3, 4, seed=1)
    padded = module(F.pad(source, (0, 6)), F.pad(target, (0, 3)))
    torch.testing.assert_close(padded[:, :4], module(source, target), rtol=0, atol=1e-13)
    rows = torch.cat([F.pad(source, (0, 6)), torch.zeros(1, 11, dtype=torch.int64)])  # a row of padding alone
    out = module(rows, F.pad(torch.cat([target, target[:1]]), (0, 3)))
    assert out.isfinite().all() and torch.allclose(out[:3], padded, rtol=0, atol=1e-13)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_decoding_step_by_step_equals_the_pass_over_the_whole(pre_norm):
    module, source, target = net(pre_norm=pre_norm), F.pad(pieces(3, 5), (0, 2)), pieces(3, 6, seed=1)
    memory, hidden = module.encode(source)
    cache, whole = module.start(memory), module(source, target)
    for place in range(6):
        torch.testing.assert_close(module.step(target[:, place], place, cache, hidden), whole[:, place], rtol=0, atol=1e-13)


def test_bad_sizes_are_refused():
    for options, said in (({"size": "huge"}, "not one of base"), ({"size": "tiny", "width": 18, "heads": 4}, "does not divide")):
        with pytest.raises(ValueError, match=said):
            Transformer((), 10, **options)
    with pytest.raises(ValueError, match="pieces of sentences"):
        Transformer((3, 8, 8), 10)


# ---- batches ---------------------------------------------------------------------------------------------------
def pairs(corpus: data.Corpus, *seeds: int, tokens: int = 300) -> translation.Pairs:
    return translation.Pairs(corpus, segment(tokens=tokens), [Streams([s, "split"], [s, "order"]) for s in seeds], torch.float64)


def test_batches_are_a_function_of_seed_and_t_and_an_epoch_shows_no_pair_twice(numbers):
    one, other = pairs(numbers, 0, 1), pairs(numbers, 1)
    epoch = [one.index(t) for t in range(one.per_epoch)]
    for t in (one.per_epoch + 3, 5, 0):
        assert torch.equal(one.index(t)[1], other.index(t)[0]) and torch.equal(one.index(t), pairs(numbers, 0, 1).index(t))
    for r in range(2):
        seen = torch.cat([index[r] for index in epoch]).tolist()
        assert len(seen) == len(set(seen)) > 0.8 * len(numbers.train)
    assert any(not torch.equal(index[0], index[1]) for index in epoch)
    assert not torch.equal(one.index(0), one.index(one.per_epoch)) or one.index(0).shape != one.index(one.per_epoch).shape


def test_batches_keep_to_their_tokens_and_pad_to_their_bucket(numbers):
    p = pairs(numbers, 0)
    for t in range(p.per_epoch):
        (source, shifted), target = p.augmented(p.index(t), t)
        assert (
            source.shape == shifted.shape == target.shape
            and source.shape[1] * source.shape[2] <= 300
            and source.shape[2] in translation.BOUNDS
        )
        longest = torch.maximum((source != PAD).sum(2).max(), (target != PAD).sum(2).max())
        assert longest > 0.5 * source.shape[2] or source.shape[2] <= 8


def test_a_batch_is_sentences_with_end_marks_by_hand():
    part = Sentences(torch.tensor([5, 6, 7]), torch.tensor([8, 9]), torch.tensor([0, 1, 3]), torch.tensor([0, 2, 2]))
    (source, shifted), target = translation.batch(part, torch.tensor([1, 0]), 4)
    assert (
        source.tolist() == [[6, 7, 2, 0], [5, 2, 0, 0]]
        and shifted.tolist() == [[2, 0, 0, 0], [2, 8, 9, 0]]
        and target.tolist() == [[2, 0, 0, 0], [8, 9, 2, 0]]
    )


def test_buckets_hold_every_sentence_that_is_short_enough_once():
    lengths = [1, 3, 4, 10, 11, 11, 30, 255, 256, 300]
    at = torch.tensor([0, *itertools.accumulate(lengths)])
    part = Sentences(torch.full((sum(lengths),), 3), torch.full((sum(lengths),), 3), at, at)
    found = translation.buckets(part, 24)
    assert sorted(i for _, _, members in found for i in members.tolist()) == list(range(8))  # 256 and its end mark are 257 tokens
    assert all(size == max(1, 24 // bound) or size == len(members) for bound, size, members in found)
    assert all(lengths[i] + 1 <= bound for bound, _, members in found for i in members.tolist())


# ---- loss and schedule -----------------------------------------------------------------------------------------
def test_label_smoothing_is_torchs_and_by_hand():
    out, y = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.tensor([[1, 4, 0], [2, 0, 0]])
    logs, kept = out.log_softmax(2), [(0, 0, 1), (0, 1, 4), (1, 0, 2)]
    by_hand = -sum(0.9 * logs[i, j, k] + 0.1 / 5 * logs[i, j].sum() for i, j, k in kept) / 3
    assert float(translation.goal({}).loss(out, y)) == pytest.approx(float(by_hand), abs=1e-12)
    torchs = nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=PAD)(out.reshape(-1, 5), y.reshape(-1))
    assert torch.equal(translation.goal({"label_smoothing": 0.1}).loss(out, y), torchs)
    assert float(translation.goal({"label_smoothing": 0}).loss(out, y)) == pytest.approx(-float(sum(logs[k] for k in kept)) / 3, abs=1e-12)


def test_the_schedule_rises_for_its_warm_up_and_falls_with_the_root():
    adam = Optimizer("adam", 5e-4, schedule="inverse-sqrt", warmup_it=4000)
    rates = [optimizers.learning_rate(adam, t) for t in (1, 2000, 4000, 16_000, 64_000)]
    assert rates == pytest.approx([5e-4 / 4000, 2.5e-4, 5e-4, 2.5e-4, 1.25e-4])


# ---- beam search and BLEU --------------------------------------------------------------------------------------
class Table:
    """Says the next of four pieces (0 padding, 1 ends, 2, 3) from the last one and the place, by a table; no source."""

    def __init__(self, seed: int, sentences: int = 3):
        self.logs = 2 * torch.randn(sentences, 4, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

    def encode(self, source):
        return source[:, :1, None].double(), source[:, 0]

    def start(self, memory):
        return [{"own_key": memory[:, 0, 0].long(), "own_value": memory}]

    def step(self, piece, place, cache, hidden):
        return self.logs[hidden, piece, place]


def by_force(table: Table, sentence: int, penalty: float, longest: int) -> list[int]:
    """The best of all translations of at most ``longest`` pieces, the end mark among them."""
    best, found = -math.inf, []
    for n in range(longest):
        for body in itertools.product((2, 3), repeat=n):
            total, last = 0.0, 1
            for place, piece in enumerate((*body, 1)):
                logs = table.logs[sentence, last, place].log_softmax(0)
                total, last = total + float(logs[piece]), piece
            if total / (n + 1) ** penalty > best:
                best, found = total / (n + 1) ** penalty, list(body)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_a_wide_beam_finds_the_best_of_all(seed, penalty):
    table, source = Table(seed), torch.arange(3)[:, None]
    assert beam.search(table, source, 64, penalty, 4, stop=1, pad=0) == [by_force(table, i, penalty, 4) for i in range(3)]


def test_a_beam_of_one_takes_the_likeliest_piece_each_time():
    table = Table(5)
    for i, found in enumerate(beam.search(table, torch.arange(3)[:, None], 1, 0.6, 6, stop=1, pad=0)):
        last, greedy = 1, []
        for place in range(6):
            last = int(table.logs[i, last, place, 1:].argmax()) + 1
            if last == 1:
                break
            greedy.append(last)
        assert found == greedy


def test_a_beam_of_one_is_greedy_with_the_network_too():
    module, source = net(), pieces(4, 5)
    for row, found in zip(source, beam.search(module, source, 1, 0.6, 8, 2, PAD)):
        written = [2]
        while len(written) < 9:
            scores = module(row[None], torch.tensor([written]))[0, -1]
            scores[PAD] = -math.inf
            written.append(int(scores.argmax()))
            if written[-1] == 2:
                break
        assert found == [p for p in written[1:] if p != 2]


def test_bleu_is_sacrebleus_with_its_signature(numbers):
    import sacrebleu

    p, texts = pairs(numbers, 0), numbers.test.texts
    spoilt = [texts[0].replace("hundert", "tausend"), *texts[1:10], *texts[11:], ""]
    assert translation.bleu(list(texts), p) == pytest.approx(100.0)
    assert translation.bleu(spoilt, p) == sacrebleu.corpus_bleu(spoilt, [list(texts)]).score < 100
    assert p.facts == {"bleu_signature": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"}


def test_translations_stand_in_the_order_of_the_part(numbers):
    class Copies:
        """Writes what it reads."""

        def encode(self, source):
            return source[..., None].double(), source

        def start(self, memory):
            return [{"own_key": memory[:, :1], "own_value": memory[:, :1]}]

        def step(self, piece, place, cache, hidden):
            return 50 * F.one_hot(hidden[:, min(place, hidden.shape[1] - 1)], 90).double()

    swapped = dataclasses.replace(
        numbers,
        test=Sentences(numbers.test.target, numbers.test.target, numbers.test.target_at, numbers.test.target_at, numbers.test.texts),
    )
    assert translation.translations(Copies(), pairs(swapped, 0)) == list(numbers.test.texts)


# ---- training --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_stacked_copies_equal_single_ones(numbers, backend):
    model = Model("transformer", "module", {**TINY, "dropout": 0.2})
    module, copies = skeleton(Transformer, model, (), numbers.classes), [replicate(numbers, seed, dropout=0.2) for seed in range(3)]
    together = loop.train(module, numbers, segment(), copies, backend=backend)
    for one, whole in zip(copies, together):
        [single] = loop.train(module, numbers, segment(), [one], backend="loop")
        for n, t in single.state.items():
            torch.testing.assert_close(whole.state[n], t, rtol=0, atol=1e-11)
        for name, value in single.metrics["end"].items():
            assert whole.metrics["end"][name] == pytest.approx(value, abs=1e-9)


def test_the_mean_loss_of_a_part_counts_every_piece_once(numbers):
    module, p = net(), pairs(numbers, 0)
    engine = backends.Loop(
        module,
        {n: t.detach()[None] for n, t in module.named_parameters()},
        {n: t[None] for n, t in module.named_buffers()},
        translation.loss,
    )
    total, count = 0.0, 0
    for i in range(20):
        (source, shifted), target = translation.batch(numbers.val, torch.tensor([i]), 60)
        total += float(F.cross_entropy(module(source, shifted)[0], target[0], ignore_index=PAD, reduction="sum").detach())
        count += int((target != PAD).sum())
    found = translation.evaluate(engine, p, "val", module)
    assert float(found[0, 0]) == pytest.approx(total / count, abs=1e-12) and found[0, 1].isnan()


def numbers_trial(corpus: data.Corpus, **changes: object) -> Trial:
    return trial(corpus, 0, changed(RECIPE, changes))


def test_it_learns_prunes_everything_and_says_the_signature(numbers):
    one = numbers_trial(numbers, **{"length": "60it", "rewind": "10it", "model.options": {**TINY, "width": 32}, "optimizer.lr": 0.01})
    done = run_all([one.ticket(1)], numbers)
    dense, ticket = (done[one.ticket(level)] for level in (0, 1))
    values = {(v.metric, v.at): v.value for v in dense.values}
    assert values["test_loss", "end"] < 0.6 * math.log(numbers.classes) and 0 <= values["bleu", "end"] <= 100
    assert {m for m, _ in values} == {"val_loss", "test_loss", "bleu", "early_stop_it"} and set(dense.curves) == {
        "it",
        "val_loss",
        "train_loss",
    }
    assert dense.facts["bleu_signature"].startswith("nrefs:1|case:mixed") and dense.facts["failed"] == ""
    assert ticket.facts["density_all"] == pytest.approx(0.8, abs=1e-3)


def test_embeddings_stay_dense_where_only_layers_are_pruned(numbers):
    one = numbers_trial(numbers, **{"pruning.rates": dict.fromkeys(("attention", "fc", "bias"), 0.5)})
    done = run_all([one.mask(1).stage], numbers)
    mask = done[one.mask(1).stage].artefacts["mask"]
    assert "embedding.weight" not in mask and {"encoder.0.attention.key.weight", "decoder.0.inner.weight"} < set(mask)


def test_the_last_checkpoints_are_averaged_where_the_task_says_so(numbers):
    options = {"beam": 1, "average": 3, "average_every_it": 2}
    one = numbers_trial(numbers, **{"task.options": options, "rewind": "0it"})
    assert one.ticket(0).params["average"] == {"from_it": 8, "every_it": 2}
    ends = [
        run_all([other.ticket(0)], numbers)[other.ticket(0)]
        for other in (one, *(numbers_trial(numbers, length=f"{n}it", rewind="0it") for n in (10, 12, 14)))
    ]
    for n, t in ends[0].artefacts["state"].items():
        if t.is_floating_point():
            torch.testing.assert_close(t, sum(e.artefacts["state"][n] for e in ends[1:]) / 3, rtol=0, atol=1e-12)
    assert {v.at for v in ends[0].values} >= {"end", "last-iterate"}
    assert "average" not in numbers_trial(numbers).ticket(0).params


def test_resuming_equals_the_unbroken_run(numbers):
    module, one, kept = skeleton(Transformer, Model("transformer", "module", TINY), (), numbers.classes), replicate(numbers, 0), {}
    [unbroken] = loop.train(module, numbers, segment(), [one])
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        loop.train(
            module,
            numbers,
            segment(),
            [one],
            Checkpoints(save=lambda t: kept.update({n: x.clone() for n, x in t.items()}), stop=lambda: next(asked)),
        )
    [resumed] = loop.train(module, numbers, segment(), [one], Checkpoints(load=lambda: kept))
    assert all(torch.equal(t, resumed.state[n]) for n, t in unbroken.state.items())
    assert unbroken.metrics == resumed.metrics and unbroken.curves == resumed.curves


# ---- bad calls -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"length": "3ep"}, "are iterations, such as 50000it"),
        ({"task.options": {"beams": 5}}, "no option 'beams'; it takes label_smoothing"),
        ({"task.options": {"beam": 0}}, "'task.options.beam': 0 is not a whole number from 1 up"),
        ({"task.options": {"label_smoothing": 3}}, "3 is not a number from 0 to 1"),
        ({"task.options": {"average_every_it": 0}}, "0 is not a whole number from 1 up"),
        ({"data.augment": "crop-flip"}, "neither labels"),
    ],
)
def test_bad_recipes_are_refused_before_anything_runs(numbers, changes, said):
    with pytest.raises(UsageError, match=said):
        _ = numbers_trial(numbers, **changes).length_it


def test_text_without_pairs_is_refused():
    topics = data.load("topics", tokens=300, held_out=100)
    with pytest.raises(UserError, match="needs pairs of sentences"):
        pairs(topics, 0)


def test_a_model_that_can_not_write_is_refused(numbers):
    with pytest.raises(UserError, match="needs a model such as transformer; LanguageLSTM has no methods encode, start and step"):
        pairs(numbers, 0).memory(LanguageLSTM((), 5, 4, 4))
