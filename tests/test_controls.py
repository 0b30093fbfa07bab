"""Negative controls on MNIST-1D: with the mechanism broken no headline claim replicates, beside a positive run in which it does.

The dearest test of the suite: about 500 small networks are trained.
"""
from __future__ import annotations

import pytest

from bench import controls
from bench.store import Store
from replications import papers, registry


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return controls.run("frankle2019", Store(tmp_path_factory.mktemp("controls")))


def test_every_headline_claim_on_lenet_has_a_control():
    headline = {c.id for c in papers.load("frankle2019").claims if c.strength == "headline" and list(c.protocols or ()) == ["lenet-mnist"]}
    assert headline == {claim for control in registry.load("frankle2019").controls for claim in control.claims}


def test_positive_replicates_and_control_does_not(found):
    assert found, "no control ran"
    broken = [v for v in found if not v.holds]
    assert not broken, controls.render(broken)
