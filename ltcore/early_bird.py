"""Arms of channel pruning: a dense run cut at the epochs where tickets are drawn, tickets that become smaller networks, and their costs.

Each is ``(trial, level, draw, plan=…, **options) -> Stage``; a paper's module binds ``plan``. Levels play no
part: a ticket is drawn by one pruning to ``channels_remaining_pct``.

References: You et al. 2020, early-bird tickets; Liu et al. 2017, network slimming (a ticket drawn after the last epoch).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.channels import KIND
from ltcore.drawing import EPSILON
from ltcore.epochs import Schedule
from ltcore.errors import UsageError
from ltcore.imp import Trial
from ltcore.stages import Output, Stage


# ---- the dense run -------------------------------------------------------------------------------------------
def segments(trial: Trial, plan: Schedule) -> list[Stage]:
    """The dense run, cut at ``plan.cuts``: the same steps as in one piece. Scales are noted after every epoch."""
    state, optimizer, runs, start = trial.init(), None, [], 0
    for epoch in sorted({*plan.cuts, plan.epochs}):
        run = trial.train(state, start=start, stop=plan.it(trial, epoch), optimizer=optimizer, track={"every_it": plan.it(trial, 1)})
        runs.append(run)
        state, optimizer, start = run.out("state"), run.out("optimizer"), plan.it(trial, epoch)
    return runs


def dense(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule) -> Stage:
    """The network that is never pruned."""
    return segments(trial, plan)[-1]


def after(trial: Trial, epoch: int, plan: Schedule) -> Output:
    """W after an epoch of the dense run.

    Raises:
        UsageError: the schedule has no cut there.
    """
    stop = plan.it(trial, epoch)
    found = next((run for run in segments(trial, plan) if run.params["stop"] == stop), None)
    if found is None:
        raise UsageError(
            f"no ticket can be drawn after epoch {epoch}: the dense run is cut after {', '.join(map(str, plan.cuts))} and {plan.epochs}"
        )
    return found.out("state")


# ---- tickets -------------------------------------------------------------------------------------------------
def drawn(trial: Trial, state: Output, channels_remaining_pct: float) -> Output:
    """The mask of channels at these weights: the lowest scales of the whole network go, each layer's best stays."""
    scores = trial.score(state, trial.init(), None, "channels", criterion="bn-scale")
    return trial.prune(scores, None, {KIND: rate(channels_remaining_pct)}, "global-keep-one")


def rate(channels_remaining_pct: float) -> float:
    return round(1 - channels_remaining_pct / 100, 6)


def at_epoch(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float, epoch_drawn: int) -> Stage:
    """A ticket drawn after a named epoch, its trained weights kept, retrained for a full schedule."""
    state = after(trial, epoch_drawn, plan)
    mask = drawn(trial, state, channels_remaining_pct)
    return trial.train(trial.compact(state, mask), start=0, channels=mask)


def slimmed(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float) -> Stage:
    """Network slimming: drawn at the end of training, then trained for a full schedule again."""
    return at_epoch(trial, plan=plan, channels_remaining_pct=channels_remaining_pct, epoch_drawn=plan.epochs)


PRECISIONS = {"fp32": "fp32", "8bit": "bfp8"}  # the paper's words -> precision classes
AVERAGED_FROM = 140 / 160  # of the schedule: 8-bit retraining averages its weights after every later epoch (--swa_start 140)


def _at(trial: Trial, precision: str, phase: str) -> Trial:
    """The trial at a precision in the paper's words; its own where that says fp32."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r} of {phase}: {' or '.join(PRECISIONS)}")
    return trial if precision == "fp32" else trial.with_changes({"precision": PRECISIONS[precision]})


def search(trial: Trial, plan: Schedule, channels_remaining_pct: float, rule: str = "queue", precision: str = "fp32") -> Stage:
    """Dense training that ends where the rule draws; at 8 bit in block floating point."""
    trial = _at(trial, precision, "a search")
    track = {"every_it": plan.it(trial, 1), "rate": rate(channels_remaining_pct), "rule": rule, "epsilon": EPSILON}
    return trial.train(trial.init(), start=0, track=track)


_search = search  # by a name that an argument does not hide


def train(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float, init: str = "inherit",
          search: str = "fp32", retrain: str = "fp32") -> Stage:  # fmt: skip
    """EB Train: the ticket that the paper's rule draws goes on to the end of the schedule; with ``fresh`` weights it starts a full one.

    ``search`` and ``retrain`` are the precisions of the two phases. Retraining in 8 bits leaves the average of its last epochs' weights.
    """
    found = _search(trial, plan, channels_remaining_pct, precision=search)
    mask = drawn(trial, found.out("state"), channels_remaining_pct)
    average = {} if retrain == "fp32" else {"average": averaged(trial, plan)}
    going_on = _at(trial, retrain, "a retraining")
    if init == "fresh":
        return going_on.train(trial.init("early-bird-fresh", channels=mask), start=0, channels=mask, **average)
    if init != "inherit":
        raise UsageError(f"unknown init {init!r} of a drawn ticket: inherit or fresh")
    return going_on.train(trial.compact(found.out("state"), mask), start=0, channels=mask, clock=found.out("search"), **average)


def averaged(trial: Trial, plan: Schedule) -> dict[str, int]:
    """When SWALP takes weights: after every epoch beyond the 140th of 160."""
    return {"from_it": plan.it(trial, round(AVERAGED_FROM * plan.epochs)), "every_it": plan.it(trial, 1)}


# ---- single weights, for comparison --------------------------------------------------------------------------
def _weights(channels_remaining_pct: float) -> Mapping[str, float]:
    return dict.fromkeys(("conv", "output"), rate(channels_remaining_pct))


def one_shot(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float) -> Stage:
    """A lottery ticket of single weights: the same share of them goes after the dense run, the others go back to their first values."""
    run = segments(trial, plan)[-1]
    mask = trial.prune(
        trial.score(run.out("state"), trial.init(), None, "one-shot", criterion="magnitude"),
        None,
        _weights(channels_remaining_pct),
        "global",
    )
    return trial.train(trial.init(), mask, start=0)


def snip(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float) -> Stage:
    """SNIP's mask of single weights before any training (Lee et al. 2019)."""
    mask = trial.prune(
        trial.score(trial.init(), trial.init(), None, "snip", criterion="snip"), None, _weights(channels_remaining_pct), "global"
    )
    return trial.train(trial.init(), mask, start=0)


# ---- measures ------------------------------------------------------------------------------------------------
def distances(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float) -> Stage:
    """Mask distances between epochs of the dense run."""
    return trial.measure("mask-distances", _noted(trial, plan), rate=rate(channels_remaining_pct), **_shuffled(trial))


def detected(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float, rule: str = "queue") -> Stage:
    """When a rule would draw along the dense run."""
    params = {"rate": rate(channels_remaining_pct), "rule": rule, "epsilon": EPSILON, "epochs": plan.epochs}
    return trial.measure("draw", _noted(trial, plan), **params, **_shuffled(trial))


def _noted(trial: Trial, plan: Schedule) -> dict[str, Output]:
    return {f"{i:03d}": run.out("search") for i, run in enumerate(segments(trial, plan))}


def _shuffled(trial: Trial) -> dict[str, Any]:
    """The control shuffled-mask: every epoch's mask is permuted within its layers before any distance is taken."""
    return {"shuffled": [trial.seed, "control"]} if trial.recipe.control == "shuffled-mask" else {}


def train_cost(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float, init: str = "inherit",
               search: str = "fp32", retrain: str = "fp32") -> Stage:  # fmt: skip
    """FLOPs and sizes of EB Train, and when its ticket was drawn; an operation of 8 bits counts like any other, in either phase."""
    found = _search(trial, plan, channels_remaining_pct, precision=search)
    inputs = {"channels": drawn(trial, found.out("state"), channels_remaining_pct), "clock": found.out("search")}
    return trial.cost(inputs, goes_on=init == "inherit", search_it=0, epochs=plan.epochs)


def at_epoch_cost(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float, epoch_drawn: int) -> Stage:
    """FLOPs and sizes of a ticket drawn after a named epoch."""
    mask = drawn(trial, after(trial, epoch_drawn, plan), channels_remaining_pct)
    return trial.cost({"channels": mask}, goes_on=False, search_it=plan.it(trial, epoch_drawn), epochs=plan.epochs)


def slimmed_cost(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float) -> Stage:
    """FLOPs and sizes of network slimming."""
    return at_epoch_cost(trial, plan=plan, channels_remaining_pct=channels_remaining_pct, epoch_drawn=plan.epochs)


def dense_cost(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, **sizes: float) -> Stage:
    """FLOPs of one dense training: single weights that are removed save nothing in this count."""
    return trial.cost({}, goes_on=False, search_it=0, epochs=plan.epochs)


def two_dense_cost(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, **sizes: float) -> Stage:
    """FLOPs of a dense training after another: a lottery ticket's."""
    return trial.cost({}, goes_on=False, search_it=plan.it(trial, plan.epochs), epochs=plan.epochs)


# ---- top-5 accuracy ------------------------------------------------------------------------------------------
def train_top5(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float) -> Stage:
    """Of EB Train."""
    return _top5(trial, train(trial, plan=plan, channels_remaining_pct=channels_remaining_pct))


def slimmed_top5(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule, channels_remaining_pct: float) -> Stage:
    """Of network slimming."""
    return _top5(trial, slimmed(trial, plan=plan, channels_remaining_pct=channels_remaining_pct))


def dense_top5(trial: Trial, level: int = 0, draw: int = 0, *, plan: Schedule) -> Stage:
    """Of the network that is never pruned."""
    return _top5(trial, dense(trial, plan=plan))


def _top5(trial: Trial, run: Stage) -> Stage:
    smaller = {"channels": run.inputs["channels"]} if "channels" in run.inputs else {}
    return trial.measure("top-5", {"state": run.out("state"), **smaller}, **trial.on_data())
