"""``perf --model conv2|resnet20|vgg19``: the engine on convolutional nets beside other loops and the machine's own convolutions.

On CPU one process a core with one thread and one replicate each, as in a suite; on a GPU stacks of replicates by either back end.
"""
from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from tabulate import tabulate

from bench import contenders_conv as contenders
from bench.contenders_conv import NETS, Net
from bench.perf import A2C, LENET, TEXT, each_core, turns_ms
from bench.threads import threads
from bench.verbs import workers
from ltcore.data import Dataset
from ltcore.errors import UsageError
from ltcore.names import nearest
from ltcore.training import precision

TURNS = 3  # the fastest of each counts: with steps this long, what other programs take away differs from turn to turn
STACKS = (1, 8, 32)  # replicates on a GPU
STACK_BACKENDS, STACK_PRECISIONS = ("vmap", "loop"), ("fp32", "tf32", "bf16")
GOALS = {"engine_to_plain_time": 1.05, "conv2_needed_pct": 80.0, "resnet20_h200_images_per_s": 150_000}
Row = dict[str, Any]


def measure(model: str, seconds: float, device: str) -> dict[str, Any]:
    """All figures of one net as plain JSON values, with units in their names; ``cpu`` and ``all_cores`` are None on a GPU, ``cuda`` without.

    Raises:
        UsageError: a net that is not measured.
    """
    if model not in NETS:
        known = (LENET, *NETS, *TEXT, A2C)
        raise UsageError(f"unknown --model {model!r}{nearest(model, known)}: use one of {', '.join(known)}")
    data, said = contenders.cifar10()
    return measure_net(NETS[model], data, said, seconds, device)


def measure_net(net: Net, data: Dataset, said: str, seconds: float, device: str) -> dict[str, Any]:
    cores, gpu = workers("cpu"), device == "cuda"
    flop = contenders.needed_flop(net.module(data), data.input_shape, net.batch)
    return {
        "machine": {"cores": cores, "torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()},
        "step": {"network": net.title, "batch": net.batch, "optimizer": net.optimizer.name, "augment": net.augment, "data": said,
                 "needed_gflop": flop / 1e9},
        "cpu": None if gpu else one_core(net, data, seconds, cores), "all_cores": None if gpu else all_cores(net, len(data.train), seconds, cores),
        "cuda": cuda(net, data.to("cuda"), seconds, cores) if gpu else None, "goals": GOALS,
    }  # fmt: skip


# ---- one core ------------------------------------------------------------------------------------------------
def one_core(net: Net, data: Dataset, seconds: float, cores: int) -> dict[str, Any]:
    """Rows of the table: engine, the other loops, the convolutions and products alone; one thread."""
    with threads(1):
        engine = contenders.engine(net, data, contenders.replicates(net, data))
        ms = _fastest_ms({"engine": engine, **_others(net, data, cores)}, seconds)
    each = layouts(ms)
    return {"rows": _rows(net, ms, cores), "products_gflop_per_s": _gflop_per_s(net, data, net.batch, ms["products"]), "products_ms": each}


def layouts(ms: dict[str, float]) -> dict[str, float]:
    """Takes the times of each memory layout out and leaves the faster one, ``products``: the ceiling is the better that the machine can do."""
    each = {layout: ms.pop(f"products-{layout}") for layout in contenders.LAYOUTS}
    ms["products"] = min(each.values())
    return each


def _fastest_ms(loops: Mapping[str, contenders.Contender], seconds: float) -> dict[str, float]:
    return {name: min(ms) for name, ms in turns_ms(loops, seconds, TURNS).items()}


def _others(net: Net, data: Dataset, cores: int) -> dict[str, contenders.Contender]:
    return {"plain": contenders.plain(net, data), "dataloader": contenders.dataloader(net, data, cores), **_products(net, data, net.batch)}


def _products(net: Net, data: Dataset, batch: int) -> dict[str, contenders.Contender]:
    device = data.train.x.device.type
    return {f"products-{layout}": contenders.products(net.module(data), data.input_shape, batch, device, layout) for layout in contenders.LAYOUTS}


def _rows(net: Net, ms: Mapping[str, float], cores: int) -> list[Row]:
    change = "RandomCrop, RandomHorizontalFlip, " if net.augment == "crop-flip" else ""
    names = {"engine": "engine, evaluation excluded", "plain": "plain loop, data in memory",
             "dataloader": f"DataLoader, {cores} workers; PIL, {change}ToTensor, Normalize", "products": "needed convolutions and products alone"}  # fmt: skip
    return [{
        "id": name, "loop": names[name], "ms_per_step": t, "images_per_s": 1000 * net.batch / t, "times_engine_step": t / ms["engine"],
        "needed_pct": 100 * ms["products"] / t,
    } for name, t in ms.items()]  # fmt: skip


def _gflop_per_s(net: Net, data: Dataset, batch: int, ms: float) -> float:
    return contenders.needed_flop(net.module(data), data.input_shape, batch) / ms / 1e6


# ---- all cores -----------------------------------------------------------------------------------------------
def all_cores(net: Net, examples: int, seconds: float, cores: int) -> dict[str, Any]:
    """The engine in one process on each core at the same time, one replicate each, on noise."""
    each = [net.batch * rate for rate in each_core(functools.partial(_engine, net, examples), seconds, cores)]
    return {"processes": cores, "images_per_s": sum(each), "images_per_s_per_core": sum(each) / cores}


def _engine(net: Net, examples: int) -> contenders.Contender:
    data = contenders.noise(examples)
    return contenders.engine(net, data, contenders.replicates(net, data))


# ---- a GPU ---------------------------------------------------------------------------------------------------
def cuda(net: Net, data: Dataset, seconds: float, cores: int) -> dict[str, Any]:
    """Images a second summed over stacks of replicates by each back end, in each precision class beside what else runs in that class."""
    classes = {p: _class(net, data, seconds, cores, p) for p in STACK_PRECISIONS}
    hows = list(itertools.product(STACK_BACKENDS, STACK_PRECISIONS))
    rows = [_stack_row(net, data, seconds, n, how, classes[how[1]]["ceiling_images_per_s"]) for n in STACKS for how in hows]
    best = {p: max((r for r in rows if r["precision"] == p), key=lambda r: r["images_per_s"] or 0.0) for p in STACK_PRECISIONS}
    return {"device": torch.cuda.get_device_name(), "rows": rows, "best": best, "classes": classes}


def _class(net: Net, data: Dataset, seconds: float, cores: int, name: str) -> dict[str, Any]:
    """The other loops in one precision class, and its ceiling.

    The ceiling: the needed convolutions of one net at as many images a step as the largest stack has, which is easier work for the device.
    """
    batch = net.batch * max(STACKS)
    with precision.applied(name, "cuda"):
        ms = _fastest_ms(_others(net, data, cores), seconds)
        wide_ms = min(_fastest_ms(_products(net, data, batch), seconds).values())
    layouts(ms)
    return {
        "ceiling_images_per_s": 1000 * batch / wide_ms, "ceiling_gflop_per_s": _gflop_per_s(net, data, batch, wide_ms),
        "others_images_per_s": {loop: 1000 * net.batch / t for loop, t in ms.items()},
    }  # fmt: skip


def _stack_row(net: Net, data: Dataset, seconds: float, n: int, how: tuple[str, str], ceiling: float) -> Row:
    """A stack that does not fit the memory has no figures, and says so."""
    row = {"replicates": n, "backend": how[0], "precision": how[1], "ms_per_step": None, "images_per_s": None, "ceiling_pct": None, "note": ""}
    try:
        steps, spent_s = contenders.engine_cuda(net, data, contenders.replicates(net, data, n), *how)(seconds)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return row | {"note": "out of memory"}
    rate = n * net.batch * steps / spent_s
    return row | {"ms_per_step": 1000 * spent_s / steps, "images_per_s": rate, "ceiling_pct": 100 * rate / ceiling}


# ---- text ----------------------------------------------------------------------------------------------------
def render(figures: Mapping[str, Any]) -> str:
    """The figures for people."""
    step, machine = figures["step"], figures["machine"]
    head = (f"{step['network']}, batch {step['batch']}, {step['optimizer']}, augmentation {step['augment']}; "
            f"torch {machine['torch']} ({machine['capability']}), {machine['cores']} cores")  # fmt: skip
    needed = f"needed: the convolutions and products that a step can't do without, {step['needed_gflop']:.2f} GFLOP"
    body = _render_cpu(figures) if figures["cuda"] is None else _render_cuda(figures["cuda"])
    return "\n".join([head, f"data: {step['data']}", "", *body, needed])


def _render_cpu(figures: Mapping[str, Any]) -> list[str]:
    cpu, cores = figures["cpu"], figures["all_cores"]
    table = [[r["loop"], f"{r['ms_per_step']:.1f}", f"{r['images_per_s']:,.0f}", f"{r['times_engine_step']:.3f}", f"{r['needed_pct']:.0f} %"]
             for r in cpu["rows"]]  # fmt: skip
    heads = ["one thread", "ms a step", "images/s", "time ÷ engine", "needed ÷ time"]
    plain = next(r for r in cpu["rows"] if r["id"] == "plain")
    return [
        tabulate(table, heads, disable_numparse=True, colalign=("left", *["right"] * 4)), "",
        f"engine ÷ plain loop: {1 / plain['times_engine_step']:.3f}; goal ≤ {GOALS['engine_to_plain_time']}",
        f"all cores, one process and replicate each: {cores['processes']} × {cores['images_per_s_per_core']:,.0f} = {cores['images_per_s']:,.0f} images/s",
        f"the needed operations run here at {cpu['products_gflop_per_s']:.0f} GFLOP/s ("
        + ", ".join(f"{layout} {t:.1f} ms" for layout, t in cpu["products_ms"].items()) + "; the faster counts)",
    ]  # fmt: skip


def _render_cuda(cuda: Mapping[str, Any]) -> list[str]:
    table = [[r["replicates"], r["backend"], r["precision"], *(["–", "–", r["note"]] if r["note"] else
              [f"{r['ms_per_step']:.2f}", f"{r['images_per_s']:,.0f}", f"{r['ceiling_pct']:.0f} %"])] for r in cuda["rows"]]  # fmt: skip
    heads = ["replicates a stack", "back end", "precision", "ms a step", "images/s, all replicates", "of the ceiling"]
    lines = [line for name in cuda["classes"] for line in _render_class(name, cuda["classes"][name], cuda["best"][name])]
    return [cuda["device"], "", tabulate(table, heads, disable_numparse=True, colalign=["right", "left", "left", "right", "right", "right"]), "", *lines]


def _render_class(name: str, found: Mapping[str, Any], best: Row) -> list[str]:
    """The best stack of a precision class beside the other loops and the ceiling in the same class."""
    images = best["images_per_s"] or 0.0
    others = [f"  {loop}: {rate:,.0f} images/s; the best stack does {images / rate:.2f} times as many" for loop, rate in found["others_images_per_s"].items()]
    ceiling = f"needed convolutions alone {found['ceiling_images_per_s']:,.0f} images/s ({found['ceiling_gflop_per_s']:,.0f} GFLOP/s)"
    return [f"{name}: {ceiling}; best: {best['replicates']} replicates by {best['backend']}", *others]
