"""What this machine has and lacks for the benchmark, and what to do about it. The network is not probed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warn", "fail"]
PYTHONS = ((3, 11), (3, 12))
REQUIRED = ("matplotlib", "mnist1d", "numpy", "pandas", "pillow", "pydantic", "PyYAML", "rich", "safetensors", "scikit-learn", "scipy", "tabulate", "typer")
OPTIONAL = {  # package -> what it is for
    "ray": "running on many GPUs or machines (--executor ray)",
    "gymnasium": "the reinforcement-learning experiments",
    "box2d": "the LunarLander experiment",
    "ale-py": "the Atari experiments",
    "datasets": "downloading text corpora",
    "tokenizers": "the translation experiments",
    "sacrebleu": "the translation experiments",
}
MEMORY_GB, DISK_GB = 4.0, 5.0  # a quick run on two cores and its store, with room to spare


@dataclass(frozen=True)
class Check:
    name: str
    status: Status
    finding: str
    advice: str = ""  # what to do; "" when nothing is


def examine(store: str | Path | None = None) -> list[Check]:
    """Every check, in a fixed order. `store` is the folder that results go to (default: here). Raises nothing: what breaks is a failed check."""
    place = Path(store) if store else Path.cwd()
    checks: list[tuple[str, Callable[[], list[Check]]]] = [
        ("python", _python),
        ("torch", _torch),
        ("cuda", _cuda),
        ("cores", _cores),
        ("memory", _memory),
        ("disk", lambda: _disk(place)),
        ("write access", lambda: [_writable("store", place), _writable("cache", _cache())]),
        ("packages", _packages),
        ("torchvision", _torchvision),
        ("data", _data),
    ]
    return [found for name, check in checks for found in _safely(name, check)]


def _safely(name: str, check: Callable[[], list[Check]]) -> list[Check]:
    try:
        return check()
    except Exception as error:  # a broken installation can raise anything; the doctor's work is to say so and go on
        return [Check(name, "fail", f"{type(error).__name__}: {error}".splitlines()[0], "mend this, then run doctor again")]


def _python() -> list[Check]:
    found = sys.version_info[:2]
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if found in PYTHONS:
        return [Check("python", "ok", text)]
    status: Status = "warn" if found > PYTHONS[-1] else "fail"
    return [Check("python", status, text, f"tested with Python {' and '.join('.'.join(map(str, v)) for v in PYTHONS)}")]


def _torch() -> list[Check]:
    if importlib.util.find_spec("torch") is None:
        return [Check("torch", "fail", "not installed", "pip install -c constraints.txt .")]
    import torch

    return [Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} thread(s) in this process")]


def _cuda() -> list[Check]:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return [Check("cuda", "ok", f"CUDA {torch.version.cuda}: " + ", ".join(f"{c.name} ({c.total_memory / 1e9:.0f} GB)" for c in cards))]
    if shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return [Check("cuda", "warn", f"a driver is here but torch ({built}) sees no GPU", "install the torch build that fits the driver")]
    return [Check("cuda", "warn", "no GPU", "runs use the CPU; paper scale of the convolutional nets needs a GPU")]


def _cores() -> list[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max")
    share = int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0] != "max" else float(usable)
    text = f"{usable} usable of {os.cpu_count()}" + (f", limited to {share:g} by the container" if share < usable else "")
    if min(share, usable) >= 2:
        return [Check("cores", "ok", text)]
    return [Check("cores", "warn", text, "the quick scale's times are for 2 cores; expect twice as long")]


def _memory() -> list[Check]:
    try:
        free_gb = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (ValueError, OSError):  # not every system counts them
        return [Check("memory", "warn", "free memory is not reported by this system", f"have at least {MEMORY_GB:g} GB free")]
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):  # counts what the page cache would give back
            free_gb = int(line.split()[1]) * 1024 / 1e9
    limit = _cgroup("memory.max")
    if limit and limit[0].isdigit():
        free_gb = min(free_gb, int(limit[0]) / 1e9)
    enough = free_gb >= MEMORY_GB
    return [Check("memory", "ok" if enough else "warn", f"{free_gb:.1f} GB available", "" if enough else f"have at least {MEMORY_GB:g} GB free")]


def _cgroup(name: str) -> list[str]:
    lines = _lines(Path("/sys/fs/cgroup") / name)
    return lines[0].split() if lines else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not this kind of system
        return []


def _disk(place: Path) -> list[Check]:
    free_gb = shutil.disk_usage(_existing(place)).free / 1e9
    enough = free_gb >= DISK_GB
    advice = "" if enough else f"have at least {DISK_GB:g} GB free, or name another folder with --store"
    return [Check("disk", "ok" if enough else "warn", f"{free_gb:.1f} GB free at {place}", advice)]


def _writable(what: str, place: Path) -> Check:
    """Tries to write a file, in the nearest folder that exists; nothing is left behind."""
    try:
        with tempfile.TemporaryFile(dir=_existing(place)) as file:
            file.write(b"x")
    except OSError as error:
        advice = "name another folder with --store" if what == "store" else "set XDG_CACHE_HOME to a folder that can be written"
        return Check(f"write access: {what}", "fail" if what == "store" else "warn", f"{place}: {error.strerror}", advice)
    return Check(f"write access: {what}", "ok", str(place))


def _existing(place: Path) -> Path:
    absolute = place.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.exists())


def _cache() -> Path:
    from ltcore.data.cache import cache_folder

    return cache_folder()


def _packages() -> list[Check]:
    lacking = [name for name in REQUIRED if _version(name) is None]
    required = Check("required packages", "fail", f"not installed: {', '.join(lacking)}", "pip install -c constraints.txt .")
    if not lacking:
        required = Check("required packages", "ok", ", ".join(f"{name} {_version(name)}" for name in REQUIRED))
    return [required, *(_optional(name, purpose) for name, purpose in OPTIONAL.items())]


def _optional(name: str, purpose: str) -> Check:
    version = _version(name)
    if version:
        return Check(f"optional: {name}", "ok", version)
    return Check(f"optional: {name}", "warn", "not installed", f"pip install {name}, for {purpose}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torchvision() -> list[Check]:
    from ltcore.data.torchvision_compat import shimmed, torchvision_datasets
    from ltcore.errors import UserError

    try:
        torchvision_datasets()
    except UserError as error:
        return [Check("torchvision", "fail", str(error), "pip install -c constraints.txt .")]
    if shimmed():
        finding = f"{_version('torchvision')}, without its compiled operators (built for another torch)"
        return [Check("torchvision", "ok", finding, "data sets need none of them; install the matching build if your own code does")]
    return [Check("torchvision", "ok", str(_version("torchvision")))]


def _data() -> list[Check]:
    from bench.data_verb import list_sets
    from ltcore.data.sources import VARIABLE

    folder = os.environ.get(VARIABLE)
    if not folder:
        variable = Check(VARIABLE, "warn", "not set", "name a folder with data sets in torchvision's layout, or let --data auto download")
    elif not Path(folder).is_dir():
        variable = Check(VARIABLE, "fail", f"{folder} is no folder", f"set {VARIABLE} to the folder with the data, or unset it")
    else:
        variable = Check(VARIABLE, "ok", folder)
    return [variable, *(_data_set(row) for row in list_sets())]


def _data_set(row: dict) -> Check:
    status: dict[str, Status] = {"ok": "ok", "built in": "ok", "missing": "warn", "incomplete": "fail", "damaged": "fail"}
    size = f" ({row['n_train']} + {row['n_test']})" if row["n_train"] else ""
    return Check(f"data: {row['name']}", status[row["status"]], f"{row['status']}{size} {row['where']}".strip(), row["advice"])
