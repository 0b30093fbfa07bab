"""Negative controls: the same pipeline with its mechanism broken must not replicate a claim that the whole pipeline does.

``python -m bench.controls`` runs those of every paper and prints the table of ``docs/controls.md``. A control counts only beside a
positive run that comes out ``replicated`` at the same n, data and budget; it must not come out so itself, and in one part of the claim
its effect must lie below the positive's with one-sided 95 % confidence.
"""
from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bench import claims, execute, verdicts
from bench import measurements as measuring
from bench import plan as planning
from bench import statistics as st
from bench.flags import Flags
from bench.joins import Join
from bench.measurement import Measurement
from bench.store import Store, default_root
from bench.verbs import workers
from ltcore.errors import UserError
from replications import papers, registry
from replications.schema import Control, Experiment, Paper, Scaled

if TYPE_CHECKING:
    from replications.papers import PaperData
    from replications.papers_schema import Claim, Test


AT_CHANCE = "stayed at chance"  # why a trial does not count, as training says it


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One claim under one control: verdicts of the pair, and the part in which the control falls furthest below the positive.

    ``below`` is the smallest p of "the control's effect is not below the positive's" over the parts.
    """

    claim: str
    control: str
    n: int
    positive: str
    broken: str
    part: str
    positive_effect: float | None
    broken_effect: float | None
    below: float | None

    @property
    def holds(self) -> bool:
        return self.positive == "replicated" and self.broken != "replicated" and self.below is not None and self.below < 0.05


def run(key: str, store: Store) -> list[Verdict]:
    """All controls of a paper; what the store has is not trained again."""
    paper, data = registry.load(key), papers.load(key)
    return [v for control in paper.controls for v in _pair(paper, data, control, store)]


def _pair(paper: Paper, data: PaperData, control: Control, store: Store) -> Iterable[Verdict]:
    whole, broken = (_join(paper, data, control, name, store) for name in ("none", control.control))
    protocol = next(e.protocol for e in paper.experiments if e.id == control.experiment)
    for claim_id in control.claims:
        claim = _on_protocol(claims.by_id(data, claim_id), protocol, control.only)
        sides = [verdicts.judge_claim(claim, data, join, ()) for join in (whole, broken)]
        yield _verdict(control, claim_id, sides, [_below(p, whole, broken) for p in claims.parts(claims.tree(claim))])


def _on_protocol(claim: Claim, protocol: str, only: Mapping[str, tuple[object, ...]] | None = None) -> Claim:
    """The claim's tests on one protocol: a control runs on one network, and that its miniature is not the paper's scale holds for both sides."""
    own = [t.model_copy(update={"protocol": protocol}) for t in claim.tests if protocol in _listed(t, claim) and not _crosses(t, claim)]
    own = [n for t in own if (n := _narrowed(t, claim, only or {}))]
    if not own:
        raise UserError(f"control of {claim.id}: none of its tests is on {protocol} alone; name another experiment")
    return claim.model_copy(update={"needs_paper_scale": False, "tests": own})


def _narrowed(test: Test, claim: Claim, only: Mapping[str, tuple[object, ...]]) -> Test | None:
    """The test with those of its choices (``for_each``, ``for_any``) that the pair runs; None where what is left, in its common conditions,
    in an operand or in a mean, speaks of something else."""
    each, some = (_choices(c, only) for c in (test.for_each, test.for_any))
    if not all((*each.values(), *some.values())):
        return None
    own = test.model_copy(update={"for_each": each or None, "for_any": some or None})
    wants = (w for p in claims.parts(claims.tree(claim.model_copy(update={"tests": [own]}))) for o in p.operands for w in o.wants)
    return own if all(value in only.get(key, (value,)) for want in wants for key, value in want.items()) else None


def _choices(given: Mapping[str, list[object]] | None, only: Mapping[str, tuple[object, ...]]) -> dict[str, list[object]]:
    return {key: [v for v in values if v in only.get(key, values)] for key, values in (given or {}).items()}


def _listed(test: Test, claim: Claim) -> list[str]:
    return claims.names(claim.model_copy(update={"tests": [test]}))


def _crosses(test: Test, claim: Claim) -> bool:
    """Whether one part of a test needs several protocols."""
    return any(len({o.protocol for o in part.operands}) > 1 for part in claims.parts(claims.tree(claim.model_copy(update={"tests": [test]}))))


def _join(paper: Paper, data: PaperData, control: Control, name: str, store: Store) -> Join:
    """The control's experiment with ``control`` set to ``name``, run as far as the store lacks it."""
    mine = tuple(dataclasses.replace(e, scaled={("smoke", control.data): s}) for e, s in _run_by(paper, control, name))
    alone = dataclasses.replace(paper, experiments=mine)
    plan = planning.make(alone, Flags("smoke", (control.experiment,)))  # smoke: on data that a dependency makes
    outcome = execute.execute(plan, store, execute.Options(workers=workers("cpu")))
    if outcome.failures:
        raise UserError(f"control {name}: {next(iter(outcome.failures.values()))}")
    manifest = planning.manifest(plan, store)
    found = measuring.read(manifest, store, data)
    counted = found if name == "none" else [_at_chance_too(m) for m in found]
    return Join(data, counted, measuring.run_info(manifest, store, alone, data))


def _at_chance_too(m: Measurement) -> Measurement:
    """Of a broken pipeline a network at chance counts: a control that held only because such trials are left out would say nothing."""
    return dataclasses.replace(m, failed="") if m.failed == AT_CHANCE else m


def _run_by(paper: Paper, control: Control, name: str) -> Iterable[tuple[Experiment, Scaled]]:
    """The experiments of the pair: the one that has the control's id; where the control names no arms, all that scale quick runs on its data,
    with their own arms and sources."""
    broken = {**control.scaled.changes, "control": name}
    named = [e for e in paper.experiments if e.id == control.experiment and _meant(e, control)]
    if not named:
        told = f"no experiment {control.experiment} of {paper.key} has {_told(control.only)}"
        raise UserError(f"control {control.control}: {told}; mend the control's `only`")
    if control.scaled.arms:
        yield named[0], dataclasses.replace(control.scaled, changes=broken)
        return
    for e in named:
        if own := e.scaled.get(("quick", control.data)):
            yield e, dataclasses.replace(own, trials=control.scaled.trials, levels=control.scaled.levels, changes={**own.changes, **broken})


def _told(only: Mapping[str, tuple[object, ...]]) -> str:
    return " and ".join(f"{key} {' or '.join(map(str, values))}" for key, values in only.items()) or "such an id"


def _meant(experiment: Experiment, control: Control) -> bool:
    return all(experiment.condition.get(key, values[0]) in values for key, values in control.only.items())


def _below(part: claims.Part, whole: Join, broken: Join) -> float | None:
    """One-sided p of "the control's effect is not below the positive's", paired by trial."""
    a, b = (verdicts.trial_effects(part, join) for join in (whole, broken))
    return None if a is None or b is None or len(a) != len(b) else st.p_value(st.paired(a - b), "greater_than", 0.0)


def _verdict(control: Control, claim: str, sides: list[Mapping[str, Any]], below: list[float | None]) -> Verdict:
    whole, broken = sides
    known = [(p, i) for i, p in enumerate(below) if p is not None]
    p, i = min(known) if known else (None, 0)
    a, b = whole["parts"][i], broken["parts"][i]
    return Verdict(claim, control.control, whole["n"], whole["verdict"], broken["verdict"], a["test"], a["effect"], b["effect"], p)


def render(found: Iterable[Verdict]) -> str:
    """The verdicts as a Markdown table."""
    from tabulate import tabulate

    rows = [(v.claim, v.control, v.n, v.positive, v.broken, v.part, _text(v.positive_effect), _text(v.broken_effect), _text(v.below),
             "yes" if v.holds else "NO") for v in found]  # fmt: skip
    heads = ["claim", "control", "n", "whole pipeline", "control's verdict", "part in which it falls furthest", "effect", "control's effect", "p", "control holds"]
    return tabulate(rows, headers=heads, tablefmt="github", disable_numparse=True)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def main() -> None:
    store = Store(sys.argv[1] if len(sys.argv) > 1 else default_root())
    for key in registry.MODULES:
        print(render(run(key, store)))


if __name__ == "__main__":
    main()
