"""Verdicts: the parts of a claim, the measurements and one rule, to what the paper's claim came to here.

A part is tested by `bench.statistics`; what can keep it from a verdict is fixed before the runs: fewer than three trials, trials
missing of the declared n, trials that failed, early stops beyond the end of training (censored) unless that works against the
claim, a dense net outside its published band. A claim follows from its parts alone (`_combine`).
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import claims as grammar
from bench import statistics as st
from bench.claims import All, Node, Operand, Part
from bench.curves import OVER
from bench.custom import TREES
from bench.joins import Join, Series, TrialValue, incomplete
from bench.measurement import Gate

if TYPE_CHECKING:
    from replications.papers import PaperData
    from replications.papers_schema import Claim

REPLICATED, NOT_REPLICATED, INCONCLUSIVE, NOT_RUN = "replicated", "not-replicated", "inconclusive", "not-run"


@dataclass(frozen=True)
class Result:
    """One part's outcome, as the comparison shows it; ``failed`` names trials that did not count."""

    protocol: str
    test: str
    n: int | None
    effect: float | None
    bound: float
    ci95: list[float] | None
    p: float | None
    verdict: str
    why: str
    failed: str = ""

    def shown(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "failed"}


@dataclass(frozen=True)
class Gated:
    """The dense net against one published band; ``passed`` is None where nothing is tested (rows not comparable)."""

    protocol: str
    gate: Gate
    passed: bool | None
    why: str
    measured: float | None = None

    def shown(self) -> dict[str, Any]:
        g = self.gate
        return {"protocol": self.protocol, "condition": dict(g.condition), "metric": g.metric, "at": g.at, "low": g.low, "high": g.high,
                "source": g.source, "measured": self.measured, "passed": self.passed, "why": self.why}


# ---- claims -----------------------------------------------------------------------------------------------------
def judge(paper: PaperData, join: Join) -> list[dict[str, Any]]:
    """Every claim of the paper with its verdict, in the order of the file."""
    gates = gate_results(join)
    return [judge_claim(claim, paper, join, gates) for claim in paper.claims]


def judge_claim(claim: Claim, paper: PaperData, join: Join, gates: Sequence[Gated]) -> dict[str, Any]:
    """One claim: its verdict, why, and its parts with their own verdicts."""
    by_hand = TREES.get((paper.key, claim.id))
    if claim.custom and not by_hand:
        return _claim(claim, NOT_RUN, "custom test not implemented", [])
    node = by_hand() if by_hand else grammar.tree(claim)
    alpha = st.ALPHA_LOOK if join.run.looks > 1 else st.ALPHA
    results = _assess_all(node, join, gates, alpha)
    verdict = _combine(node, iter(results))
    verdict, why = _explain(claim, join, node, results, verdict, alpha)
    return _claim(claim, verdict, why, [r.shown() for r in results])


def _claim(claim: Claim, verdict: str, why: str, shown: list[dict[str, Any]]) -> dict[str, Any]:
    run = [p["n"] for p in shown if p["verdict"] != NOT_RUN and p["n"] is not None]
    return {"id": claim.id, "strength": claim.strength, "statement": claim.statement, "source": claim.source, "ours": claim.ours,
            "verdict": verdict, "why": why, "n": min(run) if run else None, "parts": shown}


def _assess_all(node: Node, join: Join, gates: Sequence[Gated], alpha: float) -> list[Result]:
    """All parts, each at its error levels: ``Any_`` nodes share the level of holding, the J tests of the claim that of contradicting."""
    tests = _tests(_spine(node))

    def walk(n: Node, share: float, contra: float) -> list[Result]:
        if isinstance(n, Part):
            return [assess(n, join, gates, share, contra)]
        k = 1 if isinstance(n, All) else len(n.children)
        return [r for c in n.children for r in walk(c, share / k, contra)]

    return walk(node, alpha, alpha / max(1, tests))


def _spine(node: Node) -> Node:
    """The tree with one alternative (that with most tests) for each ``Any_``: to refute it all must fall, which needs no sharing."""
    if isinstance(node, Part):
        return node
    kept = tuple(_spine(c) for c in node.children)
    return All(kept) if isinstance(node, All) else max(kept, key=_tests)


def _tests(node: Node) -> int:
    """Number of one-sided tests in the tree."""
    return sum(st.one_sided_tests(p.bound_kind) for p in grammar.parts(node))


def _combine(node: Node, results: Any) -> str:
    """The tree's verdict from its parts' verdicts, in order."""
    if isinstance(node, Part):
        return next(results).verdict
    verdicts = [_combine(c, results) for c in node.children]
    return _every(verdicts) if isinstance(node, All) else _some(verdicts)


def _every(verdicts: list[str]) -> str:
    """All must hold: one contradicted contradicts the whole; not-run only where nothing was run."""
    if not verdicts or set(verdicts) == {NOT_RUN}:
        return NOT_RUN
    if NOT_REPLICATED in verdicts:
        return NOT_REPLICATED
    return REPLICATED if set(verdicts) == {REPLICATED} else INCONCLUSIVE


def _some(verdicts: list[str]) -> str:
    """One is enough: contradicted only where every alternative is."""
    if set(verdicts) == {NOT_RUN}:
        return NOT_RUN
    if REPLICATED in verdicts:
        return REPLICATED
    return NOT_REPLICATED if set(verdicts) == {NOT_REPLICATED} else INCONCLUSIVE


def _explain(claim: Claim, join: Join, node: Node, results: list[Result], verdict: str, alpha: float) -> tuple[str, str]:
    run = [r for r in results if r.verdict != NOT_RUN]
    held = sum(r.verdict == REPLICATED for r in results)
    partial = f"{len(run)} of {len(results)} parts run" if len(run) < len(results) else ""
    if verdict == NOT_RUN:
        return verdict, _joined(r.why for r in results) or "no test"
    failed = _joined(r.failed for r in results)
    if claim.needs_paper_scale and join.run.scale != "paper":
        return INCONCLUSIVE, _joined([f"needs paper scale; at this scale {held} of {len(run)} parts hold", partial, failed])
    if failed:
        return INCONCLUSIVE, _joined([failed, partial])
    if verdict == REPLICATED and partial:               # one alternative holds, another was not run
        return INCONCLUSIVE, partial
    if verdict == REPLICATED:
        one = held < len(results)
        return verdict, f"{held} of {len(results)} parts hold{', as many as are needed' if one else ''} (alpha {alpha:g} a claim)"
    if verdict == NOT_REPLICATED:
        against = [r.test for r in results if r.verdict == NOT_REPLICATED]
        return verdict, _joined([f"{len(against)} of {len(results)} parts contradicted: {'; '.join(against)}", partial])
    return verdict, _joined([partial, *(f"{r.test}: {r.why}" for r in results if r.verdict == INCONCLUSIVE)])


def _joined(reasons: Any) -> str:
    return "; ".join(dict.fromkeys(r for r in reasons if r))


# ---- parts ------------------------------------------------------------------------------------------------------
def assess(part: Part, join: Join, gates: Sequence[Gated], alpha: float, alpha_contra: float) -> Result:
    """One part: looked up, tested at ``alpha`` (holding) and ``alpha_contra`` (contradicted), and what keeps it from a verdict."""
    blank = Result(part.protocol, part.text, None, None, part.bound, None, None, NOT_RUN, "")
    looked = [look_up(o, join) for o in part.operands]
    missing = _joined(why for _, why in looked)
    if missing:
        return replace(blank, why=missing)
    sides = [o.side for o in part.operands]
    trials = _common([s for s, _ in looked], sides, part.paired)
    declared = _declared(part, join, [s for s, _ in looked])
    lacking = _joined(why if o.protocol == part.protocol else f"{o.protocol} {why}" for o, (s, _), n in zip(part.operands, looked, declared)
                      for why in incomplete({t: v for t, v in s.items() if t < n}, n))
    failed = _joined(_failures(o, s) for o, (s, _) in zip(part.operands, looked))
    good = [{t: s[t] for t in ts if t < n and not s[t].failed} for (s, _), ts, n in zip(looked, trials, declared)]
    good = [{t: s[t] for t in ts} for s, ts in zip(good, _common(good, sides, part.paired))]
    sample, problem = _sample(part, good)
    if sample is None:
        return replace(blank, n=0, verdict=INCONCLUSIVE, why=_joined([failed, lacking, problem]), failed=failed)
    log = part.kind == "ratio"
    bound = math.log(part.bound) if log else part.bound
    verdict, why = _verdict(part, sample, bound, alpha, alpha_contra, good)
    gate = _gate_problem(part, gates)
    if failed or lacking or (gate and verdict == REPLICATED):
        verdict = INCONCLUSIVE
    interval = st.ci95(sample)
    return Result(part.protocol, part.text, sample.n, _back(float(sample.mean), log), part.bound,
                  interval and [_back(x, log) for x in interval], st.p_value(sample, part.bound_kind, bound), verdict,
                  _joined([failed, lacking, gate, why]), failed)


def trial_effects(part: Part, join: Join) -> np.ndarray | None:
    """The part's effect trial by trial (n,), log ratios for a ratio, turned so that more supports the claim.

    None where a trial is missing or did not count, where sides share no seed, and for equivalences, which have no direction.
    """
    looked = [look_up(o, join) for o in part.operands]
    if any(why for _, why in looked) or not part.paired or part.bound_kind == "within":
        return None
    series = [s for s, _ in looked]
    if any(set(s) != set(series[0]) or any(v.failed for v in s.values()) for s in series):
        return None
    sides = [_side(part, series, side, part.kind == "ratio") for side in (0, 1)]
    if any(s is None for s in sides):
        return None
    (left, _), (right, _) = sides
    effect = left - right if len(right) else left
    return -effect if part.bound_kind == "less_than" else effect


def _back(x: float, log: bool) -> float:
    """A log ratio back on the ratio's own scale."""
    return math.exp(x) if log else x


def look_up(operand: Operand, join: Join) -> tuple[Series, str]:
    """(trials, why there are none) of an operand; conditions joined trial by trial, a trial that lacks one of them is missing."""
    found = [join.find(operand.protocol, operand.metric, operand.at, want) for want in operand.wants]
    missing = [f.why if _arm(w) in f.why else f"{_arm(w)}: {f.why}" for f, w in zip(found, operand.wants) if f.status != "measured"]
    if missing:
        return {}, join.run.not_run[operand.protocol] if join.nothing_of(operand.protocol) else _few(missing)
    return OVER[operand.over]([f.trials for f in found]), ""


def _few(missing: Sequence[str], named: int = 3) -> str:
    """What is missing, each once; of a whole curve the first few and how many more."""
    each = list(dict.fromkeys(missing))
    return _joined(each[:named] + ([f"{len(each) - named} more missing"] if len(each) > named else []))


def _arm(want: Mapping[str, Any]) -> str:
    return str(want.get("arm", "operand"))


def _declared(part: Part, join: Join, found: list[Series]) -> list[int]:
    """Declared number of trials of each operand; paired ones share the smallest."""
    n = [join.run.n.get(o.protocol, max(s, default=-1) + 1) for o, s in zip(part.operands, found)]
    return [min(n)] * len(n) if part.paired else [min(m for m, q in zip(n, part.operands) if q.side == o.side) for o in part.operands]


def _common(found: list[Series], sides: list[int], paired: bool) -> list[list[int]]:
    """Trials that count for each operand: those all have when paired, else those all of its side have."""
    return [sorted(set.intersection(*(set(s) for s, other in zip(found, sides) if paired or other == side))) for side in sides]


def _failures(operand: Operand, trials: Series) -> str:
    named = [f"trial {t} of {_arm(operand.wants[0])} {v.failed}" for t, v in sorted(trials.items()) if v.failed]
    return ", ".join(named)


def _sample(part: Part, good: list[Series]) -> tuple[st.Sample | None, str]:
    """The part's per-trial effects, on the log scale for a ratio; None with the reason where there is nothing to test."""
    if not all(good):
        return None, "no trial that counts"
    log = part.kind == "ratio"
    sides = [_side(part, good, side, log) for side in (0, 1)]
    if any(s is None for s in sides):
        return None, "a ratio needs values above 0"
    (left, res_left), (right, res_right) = sides
    if part.paired or not len(right):
        return st.paired(left - right if len(right) else left, max(res_left, res_right)), ""
    return st.welch(left, right, (res_left, res_right)), ""


def _side(part: Part, good: list[Series], side: int, log: bool) -> tuple[np.ndarray, float] | None:
    """Per-trial values (n,) of one side, and its resolution (relative on the log scale); None where a logarithm does not exist."""
    used = [(o.sign * (-1 if side else 1), s) for o, s in zip(part.operands, good) if o.side == side]
    if not used:
        return np.empty(0), 0.0
    values = sum(sign * np.array([v.value for _, v in sorted(s.items())]) for sign, s in used)
    resolution = max(v.resolution for _, s in used for v in s.values())
    if not log:
        return values, resolution
    return (np.log(values), resolution / float(values.mean())) if (values > 0).all() else None


def _verdict(part: Part, sample: st.Sample, bound: float, alpha: float, alpha_contra: float, good: list[Series]) -> tuple[str, str]:
    """(verdict, why) by the numbers alone, with trials too few and censoring taken into account."""
    if sample.n < st.MIN_TRIALS:
        return INCONCLUSIVE, f"{sample.n} trial{'s' if sample.n > 1 else ''}; at least {st.MIN_TRIALS} are needed"
    against = _censoring(part, good)
    if against is False:
        return INCONCLUSIVE, "early stops beyond the end of training (censored) work for the claim; longer training would decide it"
    if st.holds(sample, part.bound_kind, bound, alpha):
        return REPLICATED, "censored early stops work against the claim, which holds all the same" if against else ""
    if against:
        return INCONCLUSIVE, "early stops beyond the end of training (censored) hide part of the effect; longer training would decide it"
    if st.contradicted(sample, part.bound_kind, bound, alpha_contra):
        return NOT_REPLICATED, ""
    return INCONCLUSIVE, _what_decides(sample, part, bound, alpha)


def _censoring(part: Part, good: list[Series]) -> bool | None:
    """None: nothing censored; True: it works against the claim (the true effect supports it more); False: for it, or both ways.

    A censored value is a lower bound, and so is a mean over draws with a censored one. It hides some of a claimed excess where
    it stands with a plus sign, and feigns one where it stands with a minus sign; an equivalence it can feign either way.
    """
    signs = {o.sign for o, s in zip(part.operands, good) if any(v.censored for v in s.values())}
    if not signs:
        return None
    return signs == {{"greater_than": 1, "less_than": -1}.get(part.bound_kind)}


def _what_decides(sample: st.Sample, part: Part, bound: float, alpha: float) -> str:
    distances = st.margins(float(sample.mean), part.bound_kind, bound)
    if min(distances) <= 0:
        return "the effect points the other way"
    n = st.n_for_power(sample, part.bound_kind, bound, alpha)
    return f"{n} trials would give 80 % power at the effect seen" if n else "more than 10000 trials would be needed at the effect seen"


# ---- the dense gate ---------------------------------------------------------------------------------------------
def gate_results(join: Join) -> list[Gated]:
    """Each protocol's dense nets against their bands; tested only where rows are comparable."""
    return [_gated(protocol, gate, join) for protocol in sorted(join.run.gates) for gate in join.run.gates[protocol]]


def gate_problem(gates: Sequence[Gated], protocol: str, want: Mapping[str, Any]) -> str:
    """Why a wanted thing of a protocol may not count: the missed bands that speak of it; or empty."""
    return _joined(g.why for g in gates if g.passed is False and g.protocol == protocol and g.gate.speaks_of(want))


def _gated(protocol: str, gate: Gate, join: Join) -> Gated:
    not_comparable = join.run.comparable.get(protocol, "not declared comparable")
    if not_comparable:
        return Gated(protocol, gate, None, f"not tested: {not_comparable}")
    of = "".join(f" of {v}" for v in gate.condition.values())
    means = [_mean(s) for s in _dense(protocol, gate, join)]
    if not means:
        return Gated(protocol, gate, False, f"dense gate: the dense net{of} was not measured")
    # several dense nets (variants): the one farthest from the band speaks
    mean = max(means, key=lambda m: max(gate.low - m, m - gate.high))
    passed = gate.low <= mean <= gate.high
    why = "" if passed else f"dense gate missed{of}: {gate.metric} {mean:.4g}, not in {gate.low:g} … {gate.high:g}"
    return Gated(protocol, gate, passed, why, mean)


def _dense(protocol: str, gate: Gate, join: Join) -> list[Series]:
    """Trials of the dense net that the band speaks of; where only variants of it were run, of each of them."""
    plain = join.find(protocol, gate.metric, gate.at, {"arm": "dense", "level": 0, **gate.condition})
    variants = [c for c in join.conditions(protocol, gate.metric, gate.at) if c.get("arm") == "dense" and gate.speaks_of(c)]
    found = [plain] if plain.trials else [join.find(protocol, gate.metric, gate.at, c) for c in variants]
    return [f.trials for f in found if any(not v.failed for v in f.trials.values())]


def _mean(trials: Series) -> float:
    good: list[TrialValue] = [v for v in trials.values() if not v.failed]
    return math.fsum(v.value for v in good) / len(good)


def _gate_problem(part: Part, gates: Sequence[Gated]) -> str:
    """All bands that speak of the part's operands: a part over several variants needs every one of them."""
    return _joined(gate_problem(gates, o.protocol, want) for o in part.operands for want in o.wants)
