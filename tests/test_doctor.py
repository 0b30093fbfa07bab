import importlib.metadata
import importlib.util
import os
import sys

import pytest

from bench import doctor
from bench.doctor import Check, examine
from ltcore.data import download, torchvision_compat
from ltcore.errors import UserError


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LTCORE_DATA", raising=False)
    monkeypatch.setattr(download, "reachable", lambda urls: pytest.fail("doctor asked the network"))


def find(checks, name):
    return next(one for one in checks if one.name == name)


def test_every_check_has_a_known_status_one_line_and_advice_where_something_is_wrong(tmp_path):
    checks = examine(tmp_path)
    assert {one.status for one in checks} <= {"ok", "warn", "fail"}
    for one in checks:
        assert one.finding and "\n" not in one.finding + one.advice
        assert one.status == "ok" or one.advice, one
    names = [one.name for one in checks]
    assert len(set(names)) == len(names)
    assert {"python", "torch", "cuda", "cores", "memory", "disk", "write access: store", "torchvision", "LTCORE_DATA", "data: mnist"} <= set(names)


def test_a_healthy_installation_fails_nothing(tmp_path):
    assert [one for one in examine(tmp_path) if one.status == "fail"] == []


def test_nothing_is_written_into_the_store(tmp_path):
    examine(tmp_path / "results" / "store")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("broken", ["_python", "_torch", "_cuda", "_cores", "_memory", "_disk", "_packages", "_torchvision", "_data"])
def test_a_check_that_breaks_is_a_failed_check(monkeypatch, broken):
    def explode(*_):
        raise OSError(f"{broken} broke\nin two lines")

    monkeypatch.setattr(doctor, broken, explode)
    failed = [one for one in examine() if one.status == "fail"]
    assert [one.finding for one in failed] == [f"OSError: {broken} broke"]


def test_missing_packages(monkeypatch):
    have = importlib.metadata.version

    def version(name):
        if name in ("pandas", "ray"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "9.9" if name == "gymnasium" else have(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = doctor._packages()
    assert find(checks, "required packages") == Check("required packages", "fail", "not installed: pandas", "pip install -c constraints.txt .")
    assert find(checks, "optional: ray").status == "warn" and "pip install ray" in find(checks, "optional: ray").advice
    assert find(checks, "optional: gymnasium") == Check("optional: gymnasium", "ok", "9.9")


def test_missing_torch_is_said_without_a_traceback(monkeypatch):
    spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else spec(name))
    monkeypatch.setitem(sys.modules, "torch", None)  # import torch raises
    checks = examine()
    assert find(checks, "torch") == Check("torch", "fail", "not installed", "pip install -c constraints.txt .")
    assert find(checks, "cuda").status == "fail" and "torch" in find(checks, "cuda").finding


def test_torchvision_that_does_not_import(monkeypatch):
    def refuse():
        raise UserError("torchvision does not import (no such file)")

    monkeypatch.setattr(torchvision_compat, "torchvision_datasets", refuse)
    assert find(examine(), "torchvision").status == "fail"


@pytest.mark.parametrize(("version", "status"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "warn")])
def test_python_versions(monkeypatch, version, status):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    assert doctor._python()[0].status == status


def test_ltcore_data(monkeypatch, tmp_path):
    assert find(examine(), "LTCORE_DATA").status == "warn"
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path))
    assert find(examine(), "LTCORE_DATA") == Check("LTCORE_DATA", "ok", str(tmp_path))
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"")
    assert find(examine(), "data: mnist").status == "fail"
    monkeypatch.setenv("LTCORE_DATA", str(tmp_path / "gone"))
    checks = examine()
    assert find(checks, "LTCORE_DATA").status == "fail" and find(checks, "data: mnist").status == "warn"


def test_a_store_that_cannot_be_written(monkeypatch, tmp_path):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    checks = examine(tmp_path)
    assert find(checks, "write access: store") == Check("write access: store", "fail", f"{tmp_path}: Permission denied",
                                                        "name another folder with --store")
    assert find(checks, "write access: cache").status == "warn"


def test_little_of_everything(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert doctor._cores()[0].status == "warn"
    monkeypatch.setattr(doctor, "_cgroup", lambda name: {"cpu.max": ["50000", "100000"], "memory.max": ["1000000000"]}[name])
    assert "limited to 0.5 by the container" in doctor._cores()[0].finding
    assert doctor._memory()[0].status == "warn" and float(doctor._memory()[0].finding.split()[0]) <= 1.0
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
    assert doctor._disk(tmp_path)[0] == Check("disk", "warn", f"1.0 GB free at {tmp_path}",
                                              "have at least 5 GB free, or name another folder with --store")
