"""``perf``: what is measured and how figures hang together; never how fast anything is."""
from __future__ import annotations

import json

import pytest
import torch

from bench import contenders, perf


def test_the_needed_products_of_lenet_are_67_6_mflop():
    assert contenders.needed_flop() == 67_608_000
    assert contenders.needed_flop() == 2 * 60 * (2 * (235_200 + 30_000 + 1_000) + 30_000 + 1_000)


def test_the_gradient_by_the_first_input_is_not_needed():
    forward, by_weights, by_inputs = 2 * 5 * (4 * 3 + 3 * 2), 2 * 5 * (4 * 3 + 3 * 2), 2 * 5 * (3 * 2)
    assert contenders.needed_flop((4, 3, 2), 5) == forward + by_weights + by_inputs


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perf, "workers", lambda device: 2)
        return perf.measure(0.1, "cpu")


def rows(figures) -> dict:
    return {r["id"]: r for r in figures["cpu"]["rows"]}


def test_every_loop_is_there_and_every_figure_positive(figures):
    loaders = {"dataloader-0", "dataloader-2", "dataloader-0-normalize", "dataloader-2-normalize"}
    assert set(rows(figures)) == {"engine", "engine-evaluated", "plain", "products"} | loaders
    for row in figures["cpu"]["rows"]:
        assert all(v > 0 for v in row.values() if not isinstance(v, str)), row
    assert figures["cpu"]["evaluation_ms"] > 0 and figures["cpu"]["products_gflop_per_s"] > 0
    assert figures["step"]["needed_mflop"] == 67.608
    assert figures["cuda"] is None


def test_ratios_follow_from_the_times(figures):
    found = rows(figures)
    engine, floor = found["engine"]["ms_per_step"], found["products"]["ms_per_step"]
    for row in found.values():
        core_ms = row["ms_per_step"] * row["cores_used"]
        assert row["times_engine_step"] == pytest.approx(row["ms_per_step"] / engine)
        assert row["times_engine_core_time"] == pytest.approx(core_ms / engine)
        assert row["steps_per_s_per_core"] == pytest.approx(1000 / core_ms)
        assert row["needed_pct"] == pytest.approx(100 * floor / core_ms)
    assert found["engine-evaluated"]["ms_per_step"] == pytest.approx(engine + figures["cpu"]["evaluation_ms"] / 100)
    assert {n: r["cores_used"] for n, r in found.items() if r["cores_used"] > 1} == {"dataloader-2": 2, "dataloader-2-normalize": 2}


def test_all_cores_are_summed(figures):
    cores = figures["all_cores"]
    assert cores["processes"] == 2 and cores["steps_per_s"] == pytest.approx(2 * cores["steps_per_s_per_core"]) and cores["steps_per_s"] > 0


def test_json_is_alone_on_stdout_and_the_text_names_the_loader_workers(figures, monkeypatch, capsys):
    monkeypatch.setattr(perf, "measure", lambda seconds, device: figures)
    perf.run(0.1, "cpu", True)
    assert json.loads(capsys.readouterr().out) == figures
    perf.run(0.1, "cpu", False)
    text = capsys.readouterr().out
    assert "DataLoader, 0 workers; PIL, ToTensor, Normalize" in text and "DataLoader, 2 workers; PIL, ToTensor" in text
    assert "evaluation excluded" in text and "67.6 MFLOP" in text


def test_figures_of_a_gpu_are_shown(figures):
    row = {"replicates": 64, "us_per_step": 400.0, "replicate_steps_per_s": 160_000.0, "bandwidth_pct": 41.0}
    cuda = {"device": "a GPU", "copy_gb_per_s": 4100.0, "ceiling_replicate_steps_per_s": 390_000.0, "rows": [row]}
    text = perf.render({**figures, "cuda": cuda})
    assert "a GPU: copies move 4,100 GB/s" in text and "160,000" in text and "41 %" in text


def test_the_loader_serves_what_the_engine_sees():
    data = contenders.random_images(130)
    pictures = contenders._Pictures(data, lambda image: torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 28, 28))
    x, y = pictures[7]
    assert len(pictures) == 130 and y == int(data.train.y[7])
    assert torch.equal(data.prepare(x), data.prepare(data.train.x[7]))


def test_the_engines_turn_is_the_training_loop_itself(monkeypatch):
    asked = []
    original = contenders.train

    def spy(*args):
        asked.append(args)
        return original(*args)

    monkeypatch.setattr(contenders, "train", spy)
    monkeypatch.setattr(contenders, "VALIDATION", 100)
    steps, spent_s = contenders.engine(contenders.random_images(400), contenders.replicates())(0.0)
    assert steps == contenders.CHECK_EVERY_IT and spent_s > 0
    assert len(asked) == 1 and asked[0][2].batch_size == 60
