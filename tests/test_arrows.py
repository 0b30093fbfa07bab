"""The floors import downwards only, and importing does nothing but define."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {"ltcore": {"replications", "bench", "tests"}, "replications": {"bench", "tests"}, "bench": {"tests"}}
MODULES = [(floor, file) for floor in FORBIDDEN for file in sorted((ROOT / floor).rglob("*.py"))]


def imported(source: str, package: str) -> set[str]:
    """Top-level packages that a module names in any import, at its head or inside a function; relative ones stay in their package."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(package if node.level else node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
            names |= {a.value.partition(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return names


@pytest.mark.parametrize(("floor", "file"), MODULES, ids=[str(f.relative_to(ROOT)) for _, f in MODULES])
def test_arrows_go_down_only(floor, file):
    assert not imported(file.read_text(), floor) & FORBIDDEN[floor]


def test_every_floor_was_looked_at():
    assert {floor for floor, _ in MODULES} == set(FORBIDDEN) and len(MODULES) > 40


def test_the_parser_sees_every_way_to_import():
    source = (
        "import bench.cli as c\ndef f():\n    from replications.papers import load\n    importlib.import_module('tests.x')\nfrom . import y"
    )
    assert imported(source, "ltcore") == {"bench", "replications", "tests", "ltcore"}


QUIET = """
import random, sys, threading
import numpy, torch
torch.set_num_threads(2)
def world():
    return (torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate(), torch.get_num_threads(),
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark, threading.active_count())
before = world()
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
assert world() == before, [i for i, (a, b) in enumerate(zip(before, world())) if a != b]
"""


def test_importing_changes_nothing_in_the_world():
    """No seed set, no number drawn, no thread count changed, no thread started, nothing printed."""
    names = [
        str(f.relative_to(ROOT).with_suffix("")).replace(os.sep, ".")
        for floor, f in MODULES
        if floor != "bench" and f.stem not in ("__init__", "__main__")
    ]
    done = subprocess.run([sys.executable, "-W", "error", "-c", QUIET, *names], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_registries_are_plain_dict_literals():
    """No registration by decorator: a reader sees the whole table in one place."""
    tables = {
        "ltcore/arms.py": "ARMS",
        "ltcore/criteria.py": "CRITERIA",
        "ltcore/measures.py": "MEASURES",
        "ltcore/transforms.py": "TRANSFORMS",
        "ltcore/models/__init__.py": "MODELS",
    }
    for file, name in tables.items():
        tree = ast.parse((ROOT / file).read_text())
        assigned = [
            n.value
            for n in tree.body
            if isinstance(n, (ast.Assign, ast.AnnAssign)) and name in ast.unparse(getattr(n, "target", None) or n.targets[0])
        ]
        assert len(assigned) == 1 and isinstance(assigned[0], ast.Dict), file
