"""``python -m bench perf``: the engine beside the loops that people write and beside the machine's own ceiling, all in one run.

Loops take turns (A B C A B C …) and the median over turns counts, so that drift of a shared machine strikes all of them alike.
"""
from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tabulate import tabulate

from bench import contenders
from bench.threads import threads
from bench.verbs import device_of, workers

LENET, A2C, TEXT = "lenet", "a2c", ("lstm", "transformer")
TURN_S = 0.2  # long beside a step, short beside the machine's drift
LOADERS = [(workers, normalize) for normalize in (True, False) for workers in (0, 2)]
STACKS = (1, 16, 64, 128, 256)
GOALS = {"dataloader_to_engine_core_time": 8.0, "engine_needed_pct": 60.0, "replicate_steps_per_s": 150_000}
# What one step of one replicate must move at the least, in passes over its weights in float32: the forward pass reads w, the backward
# pass writes g, and the update reads w, g, m, v and the mask and writes w, m, v.
PASSES = 10
Row = dict[str, Any]


def run(seconds: float, device: str, as_json: bool, model: str = LENET) -> None:
    """Measures and prints. ``seconds`` is the time for each figure."""
    device = device_of(device)
    if model == LENET:
        figures, text = measure(seconds, device), render
    elif model == A2C:
        from bench import perf_control

        figures, text = perf_control.measure(seconds, device), perf_control.render
    elif model in TEXT:
        from bench import perf_text

        figures, text = perf_text.measure(model, seconds, device), perf_text.render
    else:
        from bench import perf_conv

        figures, text = perf_conv.measure(model, seconds, device), perf_conv.render
    print(json.dumps(figures, indent=1, allow_nan=False) if as_json else text(figures))


def measure(seconds: float, device: str) -> dict[str, Any]:
    """All figures as plain JSON values, with units in their names; ``cuda`` is None without a GPU."""
    cores = workers("cpu")
    return {
        "machine": {"cores": cores, "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()},
        "step": {"network": "LeNet-300-100", "batch": contenders.BATCH, "optimizer": "Adam", "needed_mflop": contenders.needed_flop() / 1e6},
        "cpu": one_core(seconds, cores), "all_cores": all_cores(seconds, cores), "cuda": cuda(seconds) if device == "cuda" else None, "goals": GOALS,
    }  # fmt: skip


# ---- one core ------------------------------------------------------------------------------------------------
def one_core(seconds: float, cores: int) -> dict[str, Any]:
    """Rows of the table: engine, engine with the protocol's evaluation, the other loops, the products alone."""
    with threads(1):
        data, one = contenders.random_images(), contenders.replicates()
        loops = {
            "engine": contenders.engine(data, one), "products": contenders.products(), "evaluation": contenders.evaluation(data, one[0]),
            "plain": contenders.plain(data), **{_loader_id(*which): contenders.dataloader(data, *which) for which in LOADERS},
        }  # fmt: skip
        ms = medians_ms(loops, seconds)
    ms["engine-evaluated"] = ms["engine"] + ms["evaluation"] / contenders.EVALUATE_EVERY_IT
    used = {_loader_id(n, normalize): min(n + 1, cores) for n, normalize in LOADERS}
    rows = [_row(name, what, ms, used.get(name, 1)) for name, what in _names().items()]
    return {"rows": rows, "evaluation_ms": ms["evaluation"], "products_gflop_per_s": contenders.needed_flop() / ms["products"] / 1e6}


def _loader_id(loader_workers: int, normalize: bool) -> str:
    return f"dataloader-{loader_workers}" + ("-normalize" if normalize else "")


def _names() -> dict[str, str]:
    """Rows of the table in their order, with what they are."""
    evaluated = f"engine, {contenders.VALIDATION:,} validation examples every {contenders.EVALUATE_EVERY_IT} steps"
    loaders = {_loader_id(n, norm): f"DataLoader, {n} workers; PIL, ToTensor{', Normalize' if norm else ''}" for n, norm in LOADERS}
    return {"engine": "engine, evaluation excluded", "engine-evaluated": evaluated, "plain": "plain loop, data in memory", **loaders,
            "products": "needed matrix products alone"}  # fmt: skip


def _row(name: str, what: str, ms: Mapping[str, float], cores: int) -> Row:
    """Of a loop that keeps several cores busy, the last two figures count the time of all of them."""
    core_ms = ms[name] * cores
    return {
        "id": name, "loop": what, "ms_per_step": ms[name], "cores_used": cores, "steps_per_s_per_core": 1000 / core_ms,
        "times_engine_step": ms[name] / ms["engine"], "times_engine_core_time": core_ms / ms["engine"], "needed_pct": 100 * ms["products"] / core_ms,
    }  # fmt: skip


def medians_ms(loops: Mapping[str, contenders.Contender], seconds: float) -> dict[str, float]:
    """Milliseconds a step of each, the median over turns."""
    found = turns_ms(loops, seconds, max(1, round(seconds / TURN_S)))
    return {name: statistics.median(ms) for name, ms in found.items()}


def turns_ms(loops: Mapping[str, contenders.Contender], seconds: float, turns: int) -> dict[str, list[float]]:
    """Milliseconds a step of each, turn for turn; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(turns):
        for name, loop in loops.items():
            steps, spent_s = loop(seconds / turns)
            found[name].append(1000 * spent_s / steps)
    return found


# ---- all cores -----------------------------------------------------------------------------------------------
def all_cores(seconds: float, cores: int) -> dict[str, Any]:
    """The engine in one process on each core at the same time."""
    each = each_core(_engine, seconds, cores)
    return {"processes": cores, "steps_per_s": sum(each), "steps_per_s_per_core": sum(each) / cores}


def _engine() -> contenders.Contender:
    return contenders.engine(contenders.random_images(), contenders.replicates())


def each_core(make: Callable[[], contenders.Contender], seconds: float, cores: int) -> list[float]:
    """Steps a second of a loop in one process on each core at the same time; ``make`` is called there."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(cores)
    with concurrent.futures.ProcessPoolExecutor(cores, context, initializer=_join, initargs=(barrier,)) as pool:
        return list(pool.map(_rate, [make] * cores, [seconds] * cores))


START_LIMIT_S = 120.0  # how long a process waits for the others to be ready
_barrier: list[Any] = []


def _join(barrier: Any) -> None:
    torch.set_num_threads(1)
    _barrier.append(barrier)


def _rate(make: Callable[[], contenders.Contender], seconds: float) -> float:
    """Steps a second of this process, once all of them are ready."""
    loop = make()
    loop(0.0)
    _barrier[0].wait(START_LIMIT_S)
    steps, spent_s = loop(seconds)
    return steps / spent_s


# ---- a GPU ---------------------------------------------------------------------------------------------------
def cuda(seconds: float) -> dict[str, Any]:
    """Replicate-steps a second of stacks, and their share of what the memory's bandwidth would allow."""
    data, bandwidth = contenders.random_images().to("cuda"), _copy_bytes_per_s()
    parameters = sum(a * b + b for a, b in zip(contenders.WIDTHS, contenders.WIDTHS[1:]))
    ceiling = bandwidth / (PASSES * 4 * parameters)
    rows = []
    for n in STACKS:
        steps, spent_s = contenders.engine(data, contenders.replicates(n))(seconds)  # epochs' orders are drawn on the way, as in training
        rate = n * steps / spent_s
        rows.append({"replicates": n, "us_per_step": 1e6 * spent_s / steps, "replicate_steps_per_s": rate, "bandwidth_pct": 100 * rate / ceiling})
    return {"device": torch.cuda.get_device_name(), "copy_gb_per_s": bandwidth / 1e9, "ceiling_replicate_steps_per_s": ceiling, "rows": rows}


def _copy_bytes_per_s(size: int = 1 << 30, times: int = 20) -> float:
    """Bytes read and written by copies on the device."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        target.copy_(source)
    torch.cuda.synchronize()
    return 2 * size * times / (time.perf_counter() - started)


# ---- text ----------------------------------------------------------------------------------------------------
def render(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    step, cpu, cores, machine = (figures[k] for k in ("step", "cpu", "all_cores", "machine"))
    table = [[r["loop"], f"{r['ms_per_step']:.3f}", r["cores_used"], f"{r['steps_per_s_per_core']:,.0f}", f"{r['times_engine_step']:.2f}",
              f"{r['times_engine_core_time']:.2f}", f"{r['needed_pct']:.0f} %"] for r in cpu["rows"]]  # fmt: skip
    heads = ["one thread a process", "ms a step", "cores", "steps/s per core", "time ÷ engine", "core time ÷ engine", "needed ÷ core time"]
    lines = [
        f"{step['network']}, batch {step['batch']}, {step['optimizer']}; torch {machine['torch']} ({machine['capability']}), {machine['cores']} cores",
        "", tabulate(table, heads, disable_numparse=True, colalign=("left", *["right"] * 6)), "",
        f"needed: the matrix products that a step can't do without, {step['needed_mflop']:.1f} MFLOP, here at {cpu['products_gflop_per_s']:.0f} GFLOP/s",
        f"goals: DataLoader loop ≥ {GOALS['dataloader_to_engine_core_time']:.0f} × the engine; needed ÷ step of the engine ≥ {GOALS['engine_needed_pct']:.0f} %",
        f"all cores, one process each: {cores['processes']} × {cores['steps_per_s_per_core']:,.0f} = {cores['steps_per_s']:,.0f} steps/s",
    ]  # fmt: skip
    return "\n".join(lines + _render_cuda(figures["cuda"]))


def _render_cuda(cuda: Mapping[str, Any] | None) -> list[str]:
    if cuda is None:
        return ["no GPU was measured"]
    table = [[r["replicates"], f"{r['us_per_step']:.0f}", f"{r['replicate_steps_per_s']:,.0f}", f"{r['bandwidth_pct']:.0f} %"] for r in cuda["rows"]]
    heads = ["replicates a stack", "µs a step", "replicate-steps/s", "of the bandwidth's ceiling"]
    ceiling = f"{cuda['device']}: copies move {cuda['copy_gb_per_s']:,.0f} GB/s, which allows {cuda['ceiling_replicate_steps_per_s']:,.0f} replicate-steps/s"
    return ["", ceiling, "", tabulate(table, heads, disable_numparse=True, colalign=["right"] * 4)]
