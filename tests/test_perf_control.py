"""``perf --model a2c``: what is measured on control tasks and how figures hang together; never how fast anything is."""
from __future__ import annotations

import json

import pytest
import torch

from bench import contenders_control, perf, perf_control
from ltcore.errors import UserError
from ltcore.rl.returns import advantages

pytest.importorskip("gymnasium")


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perf_control, "workers", lambda device: 1)
        patch.setattr(perf_control, "MEASURED", ("cartpole-v0", "acrobot-v1"))
        return perf_control.measure(0.02, "cpu")


def test_figures_hang_together(figures):
    assert set(figures["worlds"]) == {"cartpole-v0", "acrobot-v1"} and not figures["missing"]
    for found in figures["worlds"].values():
        rows = {r["id"]: r for r in found["rows"]}
        assert list(rows) == list(perf_control.NAMES) and rows["engine"]["times_engine"] == 1
        for r in rows.values():
            assert r["environment_steps_per_s"] == pytest.approx(128_000 / r["ms_per_update"])
    assert figures["all_cores"]["environment_steps_per_s"] > 0
    json.dumps(figures, allow_nan=False)


def test_the_text_names_environments_and_loops(figures):
    text = perf_control.render(figures)
    assert "CartPole-v0, one thread" in text and all(name in text for name in perf_control.NAMES.values())


def test_the_needed_products_of_an_update():
    weights = [4 * 128, 128 * 128, 128 * 128, 128 * 3]  # two logits and a value
    assert contenders_control.needed_flop("cartpole-v0") == 2 * (160 * sum(weights) + 128 * (sum(weights) + sum(weights[1:])))


def test_the_usual_loops_returns_are_the_engines_where_nothing_is_cut():
    g = torch.Generator().manual_seed(0)
    rewards, values = torch.rand(4, 3, generator=g), torch.zeros(4, 3)
    following, ended = torch.rand(3, generator=g), torch.rand(4, 3, generator=g) < 0.3
    found = contenders_control._returns(list(rewards), list((~ended).float()), following)
    after = torch.stack([*values[1:], following])
    expected = advantages(rewards.numpy(), values.numpy(), after.numpy(), ended.numpy(), ended.numpy(), 0.99, 1.0)
    torch.testing.assert_close(found, torch.from_numpy(expected).float())


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(perf_control, "lacking", lambda world: f"environment {world.label} needs the package gymnasium: pip install gymnasium")
    with pytest.raises(UserError, match="CartPole-v0 needs the package gymnasium"):
        perf_control.measure(0.02, "cpu")


def test_perf_prints_them(figures, monkeypatch, capsys):
    monkeypatch.setattr(perf_control, "measure", lambda seconds, device: figures)
    perf.run(0.1, "cpu", True, "a2c")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(figures))
