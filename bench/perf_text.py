"""``perf --model lstm|transformer``: tokens a second of the engine on text, beside PyTorch's own layers and the needed matrix products alone."""
from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from tabulate import tabulate

from bench import contenders_text as contenders
from bench.contenders import Contender
from bench.contenders_text import NETS, Net
from bench.perf import each_core, turns_ms
from bench.threads import threads
from bench.verbs import workers
from ltcore.data import Corpus

TURNS = 3  # the fastest of each counts, as for convolutional nets
STACK = 3  # replicates: the trials of the paper
NAMES = {
    "engine": "engine, one replicate", "stack": f"engine, {STACK} replicates as one stack", "plain": "usual loop: PyTorch's layers, autograd, torch.optim",
    "products": "needed matrix products alone",
}  # fmt: skip


def measure(model: str, seconds: float, device: str) -> dict[str, Any]:
    """All figures of one net as plain JSON values; ``all_cores`` is None on a GPU."""
    return measure_net(NETS[model][device], seconds, device)


def measure_net(net: Net, seconds: float, device: str) -> dict[str, Any]:
    cores, flop = workers("cpu"), contenders.needed_flop(net)
    with threads(1 if device == "cpu" else torch.get_num_threads()):
        found = turns_ms(_loops(net, contenders.noise(net).to(device), device), seconds, TURNS)
    ms = {name: min(each) / (STACK if name == "stack" else 1) for name, each in found.items()}
    return {
        "machine": {"cores": cores, "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(), "device": device},
        "step": {"network": net.title, "tokens": net.tokens, "optimizer": net.optimizer.name, "needed_gflop": flop / 1e9},
        "rows": [_row(name, t, ms, net.tokens) for name, t in ms.items()], "products_gflop_per_s": flop / ms["products"] / 1e6,
        "all_cores": all_cores(net, seconds, cores) if device == "cpu" else None,
    }  # fmt: skip


def _loops(net: Net, data: Corpus, device: str) -> dict[str, Contender]:
    """A stack on CPU is copy after copy: no row of its own."""
    stacked = {} if device == "cpu" else {"stack": contenders.engine(net, data, contenders.replicates(net, STACK))}
    return {"engine": contenders.engine(net, data, contenders.replicates(net)), **stacked, "plain": contenders.plain(net, data),
            "products": contenders.products(net, device)}  # fmt: skip


def _row(name: str, ms: float, every: Mapping[str, float], tokens: int) -> dict[str, Any]:
    return {"id": name, "loop": NAMES[name], "ms_per_step": ms, "tokens_per_s": 1000 * tokens / ms, "times_engine_step": ms / every["engine"],
            "needed_pct": 100 * every["products"] / ms}  # fmt: skip


def all_cores(net: Net, seconds: float, cores: int) -> dict[str, Any]:
    """The engine in one process on each core at the same time, one replicate each."""
    each = [net.tokens * rate for rate in each_core(functools.partial(_engine, net), seconds, cores)]
    return {"processes": cores, "tokens_per_s": sum(each), "tokens_per_s_per_core": sum(each) / cores}


def _engine(net: Net) -> Contender:
    return contenders.engine(net, contenders.noise(net), contenders.replicates(net))


def render(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    step, machine, cores = figures["step"], figures["machine"], figures["all_cores"]
    table = [[r["loop"], f"{r['ms_per_step']:.1f}", f"{r['tokens_per_s']:,.0f}", f"{r['times_engine_step']:.3f}", f"{r['needed_pct']:.0f} %"]
             for r in figures["rows"]]  # fmt: skip
    heads = ["a step and replicate" if cores is None else "one thread", "ms", "tokens/s", "time ÷ engine", "needed ÷ time"]
    together = [] if cores is None else [
        f"all cores, one process and replicate each: {cores['processes']} × {cores['tokens_per_s_per_core']:,.0f} = {cores['tokens_per_s']:,.0f} tokens/s"]  # fmt: skip
    return "\n".join([
        f"{step['network']}, {step['tokens']:,} tokens a step, {step['optimizer']}, random text; "
        f"torch {machine['torch']} ({machine['capability']}), {machine['cores']} cores, on {machine['device']}", "",
        tabulate(table, heads, disable_numparse=True, colalign=("left", *["right"] * 4)), "", *together,
        f"needed: the products that a step can't do without, {step['needed_gflop']:.2f} GFLOP, here at {figures['products_gflop_per_s']:.0f} GFLOP/s",
    ])  # fmt: skip
