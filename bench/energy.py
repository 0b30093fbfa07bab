"""Energy of a GPU by NVML's own counter, where package ``pynvml`` (optional) and the device answer; None everywhere else."""

from __future__ import annotations

import functools
from typing import Any


def joules(device: str, nvml: Any = None) -> float | None:
    """Energy that the GPU has drawn since its driver was loaded; a difference of two readings is what the time between cost.

    It counts everything that runs on the GPU, which here is one process.

    Args:
        device: as torch names it; a CPU has no counter.
        nvml: stands in for ``pynvml`` in tests.
    """
    nvml = (nvml or _nvml()) if device.startswith("cuda") else None
    if nvml is None:
        return None
    try:
        return nvml.nvmlDeviceGetTotalEnergyConsumption(_handle(nvml)) / 1000  # millijoules
    except nvml.NVMLError:
        return None


def _handle(nvml: Any) -> Any:
    """By its UUID: CUDA_VISIBLE_DEVICES renumbers the devices, NVML does not."""
    import torch

    nvml.nvmlInit()
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}")


@functools.cache
def _nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def spent(before: float | None, after: float | None, shares: int) -> dict[str, float]:
    """What a record says of it: joules of one of ``shares`` replicates, or nothing."""
    return {} if before is None or after is None else {"energy_J": round((after - before) / shares, 3)}
