"""Plans of text: batches are counted in tokens where they are timed, scaled and stacked."""

from __future__ import annotations

import dataclasses

import pytest

from bench import effort, estimate, plan
from bench.execute import MOST_SCORES, most_stacked
from bench.flags import Flags
from ltcore.library import Library
from ltcore.stages import Stage
from replications import registry


@pytest.fixture(scope="module")
def smoke():
    return plan.make(registry.load("yu2020"), Flags("smoke", ("wikitext2-lstm", "wmt14-transformer-base")))


def _training(made, task):
    return next(
        s for s in made.stages if s.kind == "train" and s.params["task"]["name"] == task and s.params["stop"] > s.params["start"] + 1
    )


def test_steps_and_evaluations_are_timed_for_real(smoke):
    costs = estimate._costs([_training(smoke, task) for task in ("language-model", "translate")], smoke, "cpu")
    assert len(costs) == 2 and all(0 < c.step_s < 5 and 0 < c.example_s < 1 for c in costs.values())
    said = estimate.summary(smoke, None, "cpu", 1)
    assert said["iterations"] > 500 and 0 < said["seconds"] < 600


def test_the_size_of_a_step_is_weights_times_tokens(smoke):
    lstm, transformer = _training(smoke, "language-model"), _training(smoke, "translate")
    h, words = 16, 500
    weights = words * h + 2 * (8 * h * h + 8 * h) + words * h + words
    assert effort.size(lstm, Library()) == 10 * 20 * weights
    assert effort.size(transformer, Library()) % 512 == 0


def test_of_a_large_net_a_share_of_the_batch_is_timed(smoke, monkeypatch):
    lstm = _training(smoke, "language-model")
    assert estimate._text_batch(lstm, Library(), "cpu") == estimate._text_batch(lstm, Library(), "cuda") == 10
    monkeypatch.setattr(estimate, "LARGEST", effort.size(lstm, Library()) // 3)
    assert estimate._text_batch(lstm, Library(), "cpu") == 3 and estimate._text_batch(lstm, Library(), "cuda") == 10


def test_a_stack_holds_as_many_scores_as_fit(smoke):
    lstm = _training(smoke, "language-model")
    big = dataclasses.replace(
        lstm, params={**lstm.params, "batch_size": 30, "classes": 33_278, "task": {"name": "language-model", "options": {"bptt": 50}}}
    )
    assert most_stacked(big, 100) == MOST_SCORES // (30 * 50 * 33_278) == 10 and most_stacked(big, 4) == 4
    pairs = Stage("train", {**lstm.params, "batch_size": 28_672, "classes": 32_768, "task": {"name": "translate", "options": {}}})
    assert most_stacked(pairs, 100) == 1 and most_stacked(lstm, 64) == 64
