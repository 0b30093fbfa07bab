"""``perf --model a2c``: environment steps a second of the engine on control tasks, beside the usual loop and the environments alone."""
from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from tabulate import tabulate

from bench import contenders_control as contenders
from bench.contenders import Contender
from bench.perf import each_core, medians_ms
from bench.threads import threads
from bench.verbs import workers
from ltcore.errors import UserError
from ltcore.rl.worlds import WORLDS, lacking

MEASURED = ("cartpole-v0", "acrobot-v1", "lunarlander-v3")
STACK = 3  # replicates: the trials of the paper
NAMES = {
    "engine": "engine, one replicate", "stack": f"engine, {STACK} replicates as one stack", "plain": "usual loop: gymnasium, nn.Module, autograd, torch.optim",
    "environment": "engine's environments alone", "gymnasium": "gymnasium's environments alone", "products": "needed matrix products alone",
}  # fmt: skip


def measure(seconds: float, device: str) -> dict[str, Any]:
    """All figures as plain JSON values; environments whose packages are missing are left out and said.

    Raises:
        UserError: nothing can be measured.
    """
    missing = {name: why for name in MEASURED if (why := lacking(WORLDS[name]) or lacking(WORLDS["cartpole-v0"]))}
    here = [name for name in MEASURED if name not in missing]
    if not here:
        raise UserError(missing["cartpole-v0"])
    cores = workers("cpu")
    return {
        "machine": {"cores": cores, "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()},
        "update": {"environments": contenders.ENVIRONMENTS, "steps": contenders.STEPS, "device": device},
        "worlds": {name: one_core(name, seconds, device) for name in here}, "missing": missing, "all_cores": all_cores(here[0], seconds, cores),
    }  # fmt: skip


def one_core(world: str, seconds: float, device: str) -> dict[str, Any]:
    """Rows of one environment's table; one thread."""
    with threads(1):
        ms = medians_ms(_loops(world, device), seconds)
    rows = [_row(name, t * (1 / STACK if name == "stack" else 1), ms["engine"]) for name, t in ms.items()]
    return {"rows": rows, "needed_mflop": contenders.needed_flop(world) / 1e6}


def _loops(world: str, device: str) -> dict[str, Contender]:
    return {"engine": contenders.engine(world, 1, device), "stack": contenders.engine(world, STACK, device), "plain": contenders.plain(world),
            "environment": contenders.environment(world), "gymnasium": contenders.gymnasium_alone(world), "products": contenders.products(world)}  # fmt: skip


def _row(name: str, ms: float, engine_ms: float) -> dict[str, Any]:
    """Of a stack the time that each of its replicates takes of an update."""
    return {"id": name, "loop": NAMES[name], "ms_per_update": ms, "environment_steps_per_s": 1000 * contenders.BATCH / ms, "times_engine": ms / engine_ms}


def all_cores(world: str, seconds: float, cores: int) -> dict[str, Any]:
    """The engine in one process on each core at the same time."""
    each = [contenders.BATCH * rate for rate in each_core(functools.partial(contenders.engine, world), seconds, cores)]
    return {"world": world, "processes": cores, "environment_steps_per_s": sum(each), "environment_steps_per_s_per_core": sum(each) / cores}


def render(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    update, machine, cores = figures["update"], figures["machine"], figures["all_cores"]
    lines = [f"A2C, {update['environments']} environments x {update['steps']} steps an update, networks on {update['device']}; "
             f"torch {machine['torch']} ({machine['capability']}), {machine['cores']} cores"]  # fmt: skip
    for world, found in figures["worlds"].items():
        table = [[r["loop"], f"{r['ms_per_update']:.3f}", f"{r['environment_steps_per_s']:,.0f}", f"{r['times_engine']:.2f}"] for r in found["rows"]]
        heads = [f"{WORLDS[world].label}, one thread", "ms an update", "environment steps/s", "time ÷ engine"]
        lines += ["", tabulate(table, heads, disable_numparse=True, colalign=("left", *["right"] * 3)), f"needed: {found['needed_mflop']:.1f} MFLOP an update"]
    lines += ["", f"all cores, one process each, {WORLDS[cores['world']].label}: {cores['processes']} × {cores['environment_steps_per_s_per_core']:,.0f} = "
              f"{cores['environment_steps_per_s']:,.0f} environment steps/s", *figures["missing"].values()]  # fmt: skip
    return "\n".join(lines)
