"""What a record says of the machine that made it."""
from __future__ import annotations

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "torchvision", "pillow", "numpy", "safetensors", "mnist1d", "scikit-learn", "gymnasium", "box2d", "ale-py",
             "tokenizers", "sacrebleu", "num2words")  # fmt: skip


@functools.cache
def facts(device: str) -> dict[str, Any]:
    """Device, threads, versions and source hash."""
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu {platform.machine()}"
    return {
        "device": name, "capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
        "python": platform.python_version(), "versions": versions(), "source_hash": source_hash(),
    }  # fmt: skip


@functools.cache
def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8", errors="replace").splitlines() if told.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the libraries that compute."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def source_hash() -> str:
    """sha256 over the engine's source, the code that numbers come from."""
    import ltcore

    digest = hashlib.sha256()
    root = Path(ltcore.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
