"""Energy readings: a counter where there is one, nothing where there is none."""

from __future__ import annotations

import types

import pytest

from bench import energy


class NVMLError(Exception):
    """As pynvml's."""


def fake(reading: int | None) -> types.SimpleNamespace:
    """pynvml with a GPU whose counter stands at so many millijoules; None: the device has no counter."""

    def read(handle: str) -> int:
        assert handle == "GPU-abc"
        if reading is None:
            raise NVMLError("Not Supported")
        return reading

    return types.SimpleNamespace(NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
                                 nvmlDeviceGetTotalEnergyConsumption=read)  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: types.SimpleNamespace(uuid="abc"))


def test_the_counter_is_in_joules(gpu):
    assert energy.joules("cuda", fake(2_500)) == 2.5


def test_no_counter_no_energy(gpu):
    assert energy.joules("cuda", fake(None)) is None and energy.joules("cpu", fake(1)) is None


@pytest.mark.parametrize(("before", "after", "expected"), [(1.0, 7.0, {"energy_J": 2.0}), (None, 7.0, {}), (1.0, None, {})])
def test_a_stack_shares_what_it_cost(before, after, expected):
    assert energy.spent(before, after, 3) == expected
