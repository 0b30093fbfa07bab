"""Claims to parts: operands, for_each, for_any, mean_over, protocols, and the text of a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import claims
from replications import papers
from tests import made_up

ALL_CLAIMS = [(k, c.id) for k in sorted(papers.titles()) for c in papers.load(k).claims if c.tests]


def _tree(folder: Path, *tests: str, more: str = "") -> claims.Node:
    return claims.tree(made_up.paper(folder, made_up.claim(*tests, more=more)).claims[0])


def _wants(part: claims.Part) -> list[tuple[int, int, list[dict]]]:
    return [(o.sign, o.side, [dict(w) for w in o.wants]) for o in part.operands]


@pytest.mark.parametrize(("key", "claim"), ALL_CLAIMS)
def test_every_claim_becomes_parts(key: str, claim: str) -> None:
    paper = papers.load(key)
    found = list(claims.parts(claims.tree(claims.by_id(paper, claim))))
    assert found
    for part in found:
        assert all(o.protocol in paper.resolved and o.wants and o.metric for o in part.operands)
        assert len({p.text for p in found if p.protocol == part.protocol}) == sum(p.protocol == part.protocol for p in found)


def test_common_keys_stand_on_both_sides_and_own_keys_win(tmp_path: Path) -> None:
    part = _tree(
        tmp_path, "difference: [{arm: ticket}, {arm: dense, level: 0}], level: 7, metric: test_accuracy_pct, at: end, greater_than: -0.1"
    )
    assert _wants(part) == [(1, 0, [{"level": 7, "arm": "ticket"}]), (-1, 1, [{"level": 0, "arm": "dense"}])]
    assert (part.protocol, part.bound_kind, part.bound, part.operands[0].metric, part.operands[0].at) == (
        "net",
        "greater_than",
        -0.1,
        "test_accuracy_pct",
        "end",
    )
    assert part.text == "ticket@level 7 − dense@level 0 test_accuracy_pct at end > -0.1"


def test_for_each_makes_parts_that_must_all_hold(tmp_path: Path) -> None:
    node = _tree(
        tmp_path,
        "difference: [{arm: ticket}, {arm: dense, weights_remaining_pct: 100}], metric: test_accuracy_pct, at: end, "
        "for_each: {weights_remaining_pct: [80.0, 21.1], rewind: [0it, 5it]}, greater_than: 0",
    )
    assert isinstance(node, claims.All) and len(node.children) == 4
    assert _wants(node.children[3])[0] == (1, 0, [{"weights_remaining_pct": 21.1, "rewind": "5it", "arm": "ticket"}])
    assert _wants(node.children[3])[1][2] == [{"weights_remaining_pct": 100, "rewind": "5it", "arm": "dense"}]
    assert node.children[0].text == "ticket@80% − dense@100% test_accuracy_pct at end rewind=0it > 0"


def test_for_any_and_any_make_alternatives(tmp_path: Path) -> None:
    one = _tree(
        tmp_path,
        "value: {arm: ticket}, metric: test_accuracy_pct, at: end, for_any: {level: [1, 2, 7]}, greater_than: 50",
        more="any: true",
    )
    assert isinstance(one, claims.Any_) and len(one.children) == 3
    mixed = _tree(
        tmp_path,
        "value: {arm: ticket}, metric: test_accuracy_pct, at: end, for_any: {level: [1, 2]}, "
        "for_each: {seedling: [a, b]}, greater_than: 50",
        "value: {arm: dense}, metric: test_accuracy_pct, at: end, greater_than: 50",
    )
    assert isinstance(mixed, claims.All) and [type(c).__name__ for c in mixed.children] == ["Any_", "Any_", "Part"]


def test_several_protocols_must_all_hold(tmp_path: Path) -> None:
    node = _tree(tmp_path, "protocol: [net, other], value: {arm: dense}, metric: test_accuracy_pct, at: end, greater_than: 50")
    assert [p.protocol for p in claims.parts(node)] == ["net", "other"] and isinstance(node, claims.All)


def test_a_protocol_inside_an_operand(tmp_path: Path) -> None:
    part = _tree(
        tmp_path,
        "protocol: net, difference: [{arm: dense}, {arm: dense, protocol: other}], "
        "metric: test_accuracy_pct, at: end, greater_than: 0, paired: false",
    )
    assert [o.protocol for o in part.operands] == ["net", "other"] and not part.paired
    assert part.text == "dense − dense[protocol=other] test_accuracy_pct at end > 0"
    assert claims.names(
        made_up.paper(
            tmp_path,
            made_up.claim(
                "protocol: net, difference: [{arm: dense}, {arm: dense, protocol: other}], "
                "metric: test_accuracy_pct, at: end, greater_than: 0"
            ),
        ).claims[0]
    ) == ["net", "other"]


def test_mean_over_averages_conditions(tmp_path: Path) -> None:
    part = _tree(
        tmp_path, "ratio: [{arm: ticket, mean_over: {level: [1, 2]}}, {arm: reinit, level: 7}], metric: early_stop_it, greater_than: 1"
    )
    assert _wants(part) == [
        (1, 0, [{"arm": "ticket", "level": 1}, {"arm": "ticket", "level": 2}]),
        (-1, 1, [{"arm": "reinit", "level": 7}]),
    ]
    assert part.text == "ticket mean over level 1, 2 / reinit@level 7 early_stop_it > 1" and part.operands[0].at is None


def test_a_size_averaged_over_replaces_the_common_size(tmp_path: Path) -> None:
    part = _tree(
        tmp_path,
        "difference: [{arm: ticket, mean_over: {weights_remaining_pct: [80.0, 64.0]}}, {arm: dense}], "
        "level: 0, metric: test_accuracy_pct, at: end, greater_than: 0",
    )
    assert _wants(part)[0] == (1, 0, [{"arm": "ticket", "weights_remaining_pct": 80.0}, {"arm": "ticket", "weights_remaining_pct": 64.0}])


def test_difference_of_differences_has_four_signs(tmp_path: Path) -> None:
    part = _tree(
        tmp_path,
        "difference: [{difference: [{arm: ticket}, {arm: reinit}], lr: 0.01}, {difference: [{arm: ticket}, "
        "{arm: reinit}], lr: 0.1}], level: 7, "
        "metric: test_accuracy_pct, at: end, greater_than: 0",
    )
    assert [(s, side, w[0]["arm"], w[0]["lr"]) for s, side, w in _wants(part)] == [
        (1, 0, "ticket", 0.01),
        (-1, 0, "reinit", 0.01),
        (-1, 1, "ticket", 0.1),
        (1, 1, "reinit", 0.1),
    ]
    assert part.text == (
        "(ticket@level 7[lr=0.01] − reinit@level 7[lr=0.01]) − "
        "(ticket@level 7[lr=0.1] − reinit@level 7[lr=0.1]) test_accuracy_pct at end > 0"
    )
