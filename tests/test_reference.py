"""An independent reference: one network in a plain PyTorch loop, written without the engine, against the engine's weights.

Shared on purpose are only the seeds' streams (which draw initial weights, split and order); the loop, Adam and SGD (torch.optim's),
the masking, the pruning and the early stop are written anew.
"""
from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from ltcore import seeds
from ltcore.data import split
from ltcore.recipe import Optimizer
from tests.conftest import RECIPE, run_all, trial

ROUNDS, STEPS, BATCH = 4, 48, 10


def plain_imp(small, optimizer: Optimizer, seed: int) -> list[dict]:
    """Iterative pruning of one network with float64 matrices; returns what every round ends with."""
    g = seeds.stream_seed(seed, "init")
    with torch.random.fork_rng():
        torch.manual_seed(g)
        sizes, w0 = [(16, 12), (8, 16), (3, 8)], []
        for out, inp in sizes:  # nn.Linear draws its own weight and bias before the Glorot draw replaces the weight
            torch.nn.Linear(inp, out)
        for out, inp in sizes:
            w0.append((torch.randn(out, inp) * (2 / (inp + out)) ** 0.5).double())
    train_index, val_index = split(small, 40, seeds.stream(seed, "split"))
    masks, rounds = [torch.ones_like(w) for w in w0], []
    for _ in range(ROUNDS):
        ws = [(w * m).requires_grad_() for w, m in zip(w0, masks)]
        bs = [torch.zeros(out, dtype=torch.float64, requires_grad=True) for out, _ in sizes]
        make = {"adam": lambda p: torch.optim.Adam(p, optimizer.lr),
                "sgd": lambda p: torch.optim.SGD(p, optimizer.lr, optimizer.momentum, weight_decay=optimizer.weight_decay)}  # fmt: skip
        opt, best, stop = make[optimizer.name]([*ws, *bs]), float("inf"), None
        for t in range(STEPS):
            order = torch.randperm(len(train_index), generator=seeds.stream(seed, "order", t // 16))
            rows = train_index[order[(t % 16) * BATCH : (t % 16 + 1) * BATCH]]
            F.cross_entropy(_forward(small.train.x[rows].double(), ws, bs), small.train.y[rows]).backward()
            for w, m in zip(ws, masks):
                w.grad *= m
            for group in opt.param_groups:
                warm = t / optimizer.warmup_it if t < optimizer.warmup_it else 1.0
                group["lr"] = optimizer.lr * warm * optimizer.factor ** sum(t >= d for d in optimizer.drops_it)
            opt.step()
            opt.zero_grad()
            if (t + 1) % 8 == 0:
                with torch.no_grad():
                    loss = F.cross_entropy(_forward(small.train.x[val_index].double(), ws, bs), small.train.y[val_index]).item()
                if loss < best:
                    best, stop = loss, t + 1
        rounds.append({"weights": [w.detach().clone() for w in ws], "biases": [b.detach().clone() for b in bs], "stop": stop})
        masks = [_prune(w.detach(), m, rate) for w, m, rate in zip(ws, masks, (0.2, 0.2, 0.1))]
    return rounds


def _forward(x, ws, bs):
    for w, b in zip(ws[:-1], bs[:-1]):
        x = torch.relu(x @ w.T + b)  # not clamp: its gradient at exactly 0 (a unit that lost all its weights) is 1
    return x @ ws[-1].T + bs[-1]


def _prune(w, m, rate):
    kept = sorted((abs(float(w.flatten()[i])), i) for i in range(w.numel()) if m.flatten()[i])
    out = m.flatten().clone()
    for _, i in kept[: int(rate * len(kept) + 0.5)]:
        out[i] = 0
    return out.reshape(m.shape)


OPTIMIZERS = {
    "adam": Optimizer("adam", 1e-2),
    "sgd": Optimizer("sgd", 0.1),
    "momentum, decay, warm-up, drops": Optimizer("sgd", 0.05, momentum=0.9, weight_decay=1e-3, warmup_it=10, drops_it=(24, 36)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("seed", [0, 3])
def test_engine_reproduces_the_plain_loop_over_rounds(small_data, name, seed):
    reference = plain_imp(small_data, OPTIMIZERS[name], seed)
    one = trial(small_data, seed, dataclasses.replace(RECIPE, optimizer=OPTIMIZERS[name]))
    done = run_all([one.ticket(ROUNDS - 1)], small_data)
    for level, expected in enumerate(reference):
        state, facts = done[one.ticket(level)].artefacts["state"], done[one.ticket(level)].facts
        names = ["hidden.0", "hidden.1", "output"]
        for layer, w, b in zip(names, expected["weights"], expected["biases"]):
            torch.testing.assert_close(state[f"{layer}.weight"], w, rtol=0, atol=1e-10)
            torch.testing.assert_close(state[f"{layer}.bias"], b, rtol=0, atol=1e-10)
            assert torch.equal(state[f"{layer}.weight"] == 0, w == 0)
        assert facts["early_stop_it"] == expected["stop"]
