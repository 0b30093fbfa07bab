"""The sparsest level that still matches the dense net."""

from __future__ import annotations

from pathlib import Path

from bench.insights import sparsest_matching
from tests import made_up
from tests.made_up import run, values


def test_sparsest_matching_level_with_its_interval(tmp_path: Path) -> None:
    dense = values("dense", [90.0, 91.0, 92.0])
    offsets = {1: [0.5, 0.6, 0.5], 2: [0.0, 0.4, 0.0], 3: [-0.3, 0.3, 0.1], 4: [-0.8, 0.2, -0.3], 5: [-2.0, -2.1, -2.0], 6: [0.5, 0.5, 0.6]}
    ms = dense + [m for level, o in offsets.items() for m in values("ticket", [90 + o[0], 91 + o[1], 92 + o[2]], level=level)]
    paper = made_up.paper(tmp_path)
    found = sparsest_matching(paper, [m for m in ms if m.condition.get("level") != 6], run(3))
    assert len(found) == 1 and (found[0]["at"], found[0]["n"]) == ("end", 3)
    # level 1: .53 +- .1 holds; 2: .13 - .39 does not; 3: mean .03 still matches; 4: mean -.3 no more, but not worse with confidence; 5 is
    assert [found[0][k]["level"] for k in ("confirmed", "estimate", "possible")] == [1, 3, 4]
    assert [x["level"] for x in found[0]["levels"]] == [1, 2, 3, 4, 5]
    lucky = sparsest_matching(paper, ms, run(3))[0]  # one lucky level beyond the fall changes neither of the first two
    assert [lucky[k]["level"] for k in ("confirmed", "estimate", "possible")] == [1, 3, 6]


def test_sparsest_matching_needs_a_dense_net_and_keeps_settings_apart(tmp_path: Path) -> None:
    paper = made_up.paper(tmp_path)
    assert sparsest_matching(paper, values("ticket", [90.0, 90.0, 90.1], level=1), run(3)) == []
    ms = values("dense", [90.0, 91.0, 92.0]) + [
        m for rw, x in (("0it", 80.0), ("5it", 95.0)) for m in values("ticket", [x, x, x + 0.1], level=1, rewind=rw)
    ]
    found = sparsest_matching(paper, ms, run(3))
    assert [(f["setting"], f["confirmed"]) for f in found] == [
        ({"rewind": "0it"}, None),
        ({"rewind": "5it"}, {"level": 1, "weights_remaining_pct": None}),
    ]
