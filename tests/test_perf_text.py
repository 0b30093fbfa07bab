"""``perf --model lstm|transformer``: what is measured on text and how figures hang together; never how fast anything is."""
from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import contenders_text, perf, perf_text
from bench.contenders_text import LENGTH, NETS
from ltcore.training import language, translation

LSTM = contenders_text._lstm("LSTM", 16, 50, 3, 4)
TRANSFORMER = contenders_text._transformer("Transformer", 60, 64, size="tiny")


@pytest.fixture(scope="module", params=[LSTM, TRANSFORMER], ids=lambda net: net.title)
def figures(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perf_text, "workers", lambda device: 1)
        return perf_text.measure_net(request.param, 0.02, "cpu")


def test_figures_hang_together(figures):
    rows = {r["id"]: r for r in figures["rows"]}
    assert list(rows) == ["engine", "plain", "products"] and rows["engine"]["times_engine_step"] == 1 and rows["products"]["needed_pct"] == 100
    for r in rows.values():
        assert r["tokens_per_s"] == pytest.approx(1000 * figures["step"]["tokens"] / r["ms_per_step"])
    assert figures["all_cores"]["tokens_per_s"] > 0
    json.dumps(figures, allow_nan=False)


def test_the_text_names_net_and_loops(figures):
    text = perf_text.render(figures)
    assert figures["step"]["network"] in text and all(perf_text.NAMES[r["id"]] in text for r in figures["rows"])


def test_the_needed_products_of_a_transformer_are_those_that_its_step_does():
    (x, y), net = _first(TRANSFORMER), TRANSFORMER.module()
    with FlopCounterMode(display=False) as counter:
        translation.loss(net(*(t[0] for t in x)), y[0]).backward()
    assert counter.get_total_flops() == contenders_text.needed_flop(TRANSFORMER)


def test_the_needed_products_of_a_lstm():
    matrices = 2 * (16 * 64 + 16 * 64) + 16 * 50  # of two layers input and recurrent, and the decoder's
    assert contenders_text.needed_flop(LSTM) == 3 * 2 * LSTM.tokens * matrices


def test_random_sentences_have_no_padding_and_the_usual_loop_learns_the_same_pairs():
    (source, shifted), target = _first(TRANSFORMER)[0], _first(TRANSFORMER)[1]
    assert target.shape == (1, TRANSFORMER.batch // LENGTH, LENGTH) and all(bool((t != 0).all()) for t in (source, shifted, target))
    (plain_source, plain_shifted), plain_target = next(contenders_text._pairs(TRANSFORMER, contenders_text.noise(TRANSFORMER)))
    assert plain_source.shape == source.shape[1:] and plain_target.shape == target.shape[1:]
    for ids, ahead in ((target[0], shifted[0]), (plain_target, plain_shifted)):
        torch.testing.assert_close(ids[:, :-1], ahead[:, 1:])
        assert (ids[:, -1] == translation.STOP).all() and (ahead[:, 0] == translation.STOP).all()


def test_the_usual_loop_reads_the_engines_windows():
    data = contenders_text.noise(LSTM)
    (inputs, *_), following = _first(LSTM)
    (plain_inputs,), plain_following = next(contenders_text._windows(LSTM, data))
    torch.testing.assert_close(inputs[0], plain_inputs)
    torch.testing.assert_close(following[0], plain_following)


def test_each_device_has_its_sizes():
    assert {name: set(of) for name, of in NETS.items()} == {name: {"cpu", "cuda"} for name in perf.TEXT}
    assert NETS["lstm"]["cuda"].tokens == 1500 and NETS["transformer"]["cuda"].tokens == 28_672


def test_perf_prints_them(figures, monkeypatch, capsys):
    monkeypatch.setattr(perf_text, "measure", lambda model, seconds, device: figures)
    perf.run(0.1, "cpu", True, "lstm")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(figures))


def _first(net):
    """The engine's first batch: inputs and targets (1, …)."""
    data, stack = contenders_text.noise(net), contenders_text.replicates(net)
    batches = (language.Windows if net.bptt else translation.Pairs)(data, contenders_text.segment(net), [stack[0].streams], torch.float32)
    return batches.augmented(batches.index(0), 0, *batches.memory(net.module()))
