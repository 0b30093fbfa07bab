"""Which experiments a run has, and on which data: each on the set that its own recipe names, or on what stands in for it at the scale."""
from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.flags import Flags
from ltcore.data import Dataset
from ltcore.data import load as load_data
from ltcore.errors import DataMissingError, PackageMissingError, UsageError, UserError
from replications.schema import Experiment, Paper, Scaled


@dataclass(frozen=True)
class Chosen:
    """An experiment that runs: how, and on the data by which the scale was looked up (a scale's changes may name another set)."""

    experiment: Experiment
    scaled: Scaled
    data: Dataset


@dataclass(frozen=True)
class _Without:
    """An experiment that can't run on the data at hand: what to raise where it was asked for, and what to say where it wasn't."""

    experiment: Experiment
    error: UserError
    why: str


@dataclass(frozen=True)
class Selection:
    """What runs; ``skipped`` has for each protocol of which nothing runs for want of data the reason why."""

    chosen: tuple[Chosen, ...]
    skipped: Mapping[str, str]
    notes: tuple[str, ...]


def select(paper: Paper, flags: Flags) -> Selection:
    """The experiments of a run. A data set is read once, and only where an experiment that might run needs it.

    Raises:
        UsageError: a name is wrong, or means nothing that this scale runs on the data that are there.
        UserError: data are missing or damaged, and were asked for by an experiment's name or nothing can run without them.
    """
    load = functools.cache(lambda name: load_data(name, flags.data))
    looked = [_look_up(e, flags.scale, load) for e in paper.select(flags.experiments, flags.scale)]
    chosen = tuple(_with_flags(c, flags) for c in looked if isinstance(c, Chosen) and (flags.experiments or c.scaled.default))
    without = [w for w in looked if isinstance(w, _Without)]
    for name in flags.experiments or ("",):
        _check(name, chosen, without, f"{paper.key} runs nothing at scale {flags.scale} on the data that are there: name an experiment")
    running = {c.experiment.protocol for c in chosen}
    skipped = {w.experiment.protocol: w.why for w in without if w.experiment.protocol not in running}
    notes = [*(c.data.note for c in chosen), *_skipped_notes(without)]
    return Selection(chosen, skipped, tuple(dict.fromkeys(filter(None, notes))))


def _look_up(experiment: Experiment, scale: str, load: Callable[[str], Dataset]) -> Chosen | _Without:
    """Data that are damaged, and packages that are missing, stop the experiments that need them and no other."""
    try:
        return _looked_up(experiment, scale, load)
    except UsageError:
        raise
    except UserError as error:
        return _Without(experiment, error, str(error))


def _looked_up(experiment: Experiment, scale: str, load: Callable[[str], Dataset]) -> Chosen | _Without:
    wanted = experiment.recipe.data.name
    if scale == "smoke":  # smoke runs on data that a dependency makes, whatever else is there
        name = next(d for s, d in experiment.scaled if s == "smoke")
        return Chosen(experiment, experiment.scaled["smoke", name], load(name))
    lacking = f"data {wanted} not found"
    try:
        data = load(wanted)
    except PackageMissingError:
        raise
    except DataMissingError as error:
        return _Without(experiment, error, lacking)
    if scale == "paper" and data.fallback_for:
        text = (f"scale paper needs the paper's own data: {wanted} was not found and can't be downloaded; "
                "set LTCORE_DATA or use --scale quick")
        return _Without(experiment, UserError(text), lacking)
    if (scale, data.name) not in experiment.scaled:
        why = lacking if data.fallback_for else f"not run at scale {scale} on {data.name}"
        return _Without(experiment, UsageError(f"experiment {experiment.id!r} is not run at scale {scale} on {data.name}: {why}"), why)
    return Chosen(experiment, experiment.scaled[scale, data.name], data)


def _with_flags(c: Chosen, flags: Flags) -> Chosen:
    levels = c.scaled.levels if flags.levels is None else flags.levels
    return dataclasses.replace(c, scaled=dataclasses.replace(c.scaled, trials=flags.trials or c.scaled.trials, levels=levels))


def _check(name: str, chosen: Iterable[Chosen], without: Iterable[_Without], nothing: str) -> None:
    """Raises where nothing that a name means can run; the empty name means everything."""
    def means(e: Experiment) -> bool:
        return name in ("", e.id, e.protocol)

    if not any(means(c.experiment) for c in chosen):
        raise next((w.error for w in without if means(w.experiment)), UsageError(nothing))


def _skipped_notes(without: Iterable[_Without]) -> Iterable[str]:
    """One note a reason, with the protocols that it stops."""
    stopped: dict[str, list[str]] = {}
    for w in without:
        stopped.setdefault(w.why, []).append(w.experiment.protocol)
    return [f"{why}: {', '.join(dict.fromkeys(protocols))} skipped" for why, protocols in stopped.items()]
