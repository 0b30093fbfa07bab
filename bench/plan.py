"""From a declared paper and the user's flags to a graph: which numbers will be measured, and which stages they need."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.flags import Flags
from bench.selection import select
from bench.store import MANIFEST, Store
from ltcore import arms as core_arms
from ltcore.data import Dataset
from ltcore.data import load as load_data
from ltcore.errors import DataMissingError, UsageError, UserError
from ltcore.imp import DataFacts, Source, Trial
from ltcore.library import Library, of_user
from ltcore.library import load as load_library
from ltcore.names import nearest
from ltcore.recipe import Recipe, changed
from ltcore.rl.worlds import Environment
from ltcore.stages import Stage, canonical, with_ancestors
from replications.schema import Arm, Experiment, Paper, Scaled


@dataclass(frozen=True)
class Point:
    """One stage whose values go into the tables, with the words by which they are joined."""

    label: str  # of the experiment, as in the manifest
    protocol: str
    condition: Mapping[str, Any]
    base: Mapping[str, Any]
    trial: int
    draw: int
    stage: Stage


@dataclass(frozen=True)
class Plan:
    """Everything a run is: points in order of importance, and what the manifest says of them."""

    paper: Paper
    flags: Flags
    sets: Mapping[str, Dataset]  # by fingerprint: what is trained on, in the order of the experiments
    points: tuple[Point, ...]
    about: Mapping[str, Any]  # {experiment: {protocol, condition, trials, levels, recipe, data}}
    notes: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = field(default=(), repr=False)  # parents first
    skipped: Mapping[str, str] = field(default_factory=dict)  # protocol -> why its data kept it from running

    @property
    def data_names(self) -> str:
        """Names of the data sets, for people."""
        return ", ".join(dict.fromkeys(d.name for d in self.sets.values()))


def make(paper: Paper, flags: Flags) -> Plan:
    """The graph of a run. Reads the data sets of its experiments (their fingerprints are in the hashes); trains nothing.

    Raises:
        UsageError: a name or value of the flags is wrong. UserError: data are missing or damaged.
    """
    library = load_library(flags.with_file)
    selection = select(paper, flags)
    sets = [_parse_set(text, paper) for text in flags.sets]
    points: list[Point] = []
    about: dict[str, Any] = {}
    sets_used: dict[str, Dataset] = {}
    notes, without = [*selection.notes], dict[str, list[str]]()
    for c in selection.chosen:
        experiment, scaled = c.experiment, c.scaled
        recipe = changed(changed(experiment.recipe, scaled.changes), _sets_for(experiment, sets))
        used = _used(recipe, sets_used, flags, library, c.data)
        sources, lacking = _sources(recipe, scaled, sets_used, flags, library, c.data)
        trials = [Trial(recipe, _facts(used), seed, library, {n: Source(r, _facts(d)) for n, (r, d) in sources.items()}) for seed in range(scaled.trials)]
        arms = (*(a for a in scaled.arms if a.options.get("source") not in lacking), *_user_arms(library, scaled))
        notes += [f"{experiment.label}: {scaled.note}"] * bool(scaled.note)
        for why in lacking.values():
            without.setdefault(why, []).append(experiment.label)
        points += [p for arm in arms for p in _points(experiment, arm, scaled, trials)]
        about[experiment.label] = {
            "protocol": experiment.protocol, "condition": dict(experiment.condition), "trials": scaled.trials, "levels": scaled.levels,
            "recipe": dataclasses.asdict(recipe), "data": _about_data(used, c.data, experiment.recipe.data.name),
            **({"note": scaled.note} if scaled.note else {}), **_about_sources(sources, lacking),
        }  # fmt: skip
    unused = [s for s in sets if not any(_sets_for(c.experiment, [s]) for c in selection.chosen)]
    if unused:
        raise UsageError(f"--set {unused[0][0]}.{unused[0][1]} changes nothing: {unused[0][0]} is not run here")
    notes += [f"{why}: no tickets from it in {', '.join(labels)}" for why, labels in without.items()]
    points = _once(points)
    by_fingerprint = {d.fingerprint: d for d in sets_used.values()}
    return Plan(paper, flags, by_fingerprint, tuple(points), about, (*dict.fromkeys(notes), *_unused(library, about)),
                tuple(with_ancestors(p.stage for p in points)), selection.skipped)


def _about_data(used: Dataset, found: Dataset, wanted: str) -> dict[str, Any]:
    """What the manifest says of an experiment's data: ``wanted`` by the paper, ``found`` for the scale, and what was trained on."""
    return {"name": used.name, "source": used.source, "fingerprint": used.fingerprint, "fallback_for": found.fallback_for,
            "note": found.note, "wanted": wanted, "found": found.name}


def _used(recipe: Recipe, sets: dict[str, Dataset], flags: Flags, library: Library, loaded: Dataset) -> Dataset:
    """The set that a recipe trains on; each is read once a plan."""
    key = canonical([recipe.data.name, recipe.data.options])
    if key not in sets:
        sets[key] = _dataset(recipe.data.name, recipe.data.options, flags, library, loaded)
    return sets[key]


def _facts(used: Dataset) -> DataFacts:
    return DataFacts(used.name, used.fingerprint, len(used.train), used.input_shape, used.classes, used.decoded, isinstance(used, Environment))


def _sources(recipe: Recipe, scaled: Scaled, sets: dict[str, Dataset], flags: Flags, library: Library,
             loaded: Dataset) -> tuple[dict[str, tuple[Recipe, Dataset]], dict[str, str]]:  # fmt: skip
    """Where transferred tickets come from: name -> recipe and data; and name -> why its data can't be had."""
    found, lacking = {}, {}
    for name, changes in scaled.sources.items():
        other = changed(recipe, changes)
        why = f"data {other.data.name} not found"
        try:
            data = _used(other, sets, flags, library, loaded)
        except DataMissingError:
            lacking[name] = why
            continue
        if data.name != other.data.name:  # something stands in for it
            lacking[name] = why
        else:
            found[name] = (other, data)
    return found, lacking


def _about_sources(found: Mapping[str, tuple[Recipe, Dataset]], lacking: Mapping[str, str]) -> dict[str, Any]:
    """What the manifest says of the sources; nothing where there are none."""
    told = {name: {"recipe": dataclasses.asdict(r), "data": _about_data(d, d, r.data.name)} for name, (r, d) in found.items()}
    return ({"sources": told} if told else {}) | ({"lacking": dict(lacking)} if lacking else {})


def _dataset(name: str, options: Mapping[str, Any], flags: Flags, library: Library, loaded: Dataset) -> Dataset:
    if name in library.datasets:
        from ltcore.data import from_user

        with of_user(f"data set {name!r} failed", library.file):
            return from_user(name, library.datasets[name](**options))
    if name == loaded.name and not options:
        return loaded
    return load_data(name, flags.data, **options)


def _points(experiment: Experiment, arm: Arm, scaled: Scaled, trials: list[Trial]) -> Iterable[Point]:
    """Draw by draw, level by level, trial by trial, so that what is done early is done for every trial."""
    build = core_arms.ARMS[arm.build] if isinstance(arm.build, str) else arm.build
    limit = None if arm.sizes else scaled.levels
    levels = [n for n in arm.levels or range(1, scaled.levels + 1) if limit is None or n <= limit]
    for draw in range(arm.draws):
        for level in levels:
            condition, base = _words(experiment, arm, level)
            for trial in trials:
                stage = _call(build, arm, trial, level, draw)
                yield Point(experiment.label, experiment.protocol, condition, base, trial.seed, draw, stage)


def _call(build: Callable[..., Stage], arm: Arm, trial: Trial, level: int, draw: int) -> Stage:
    with of_user(f"arm {arm.arm!r}, a function (trial, level, draw) -> Stage, can't be built", trial.library.file):
        stage = build(trial, level, draw, **arm.options)
    if not isinstance(stage, Stage):
        raise UserError(f"arm {arm.arm!r} gave a {type(stage).__name__}, not a Stage: end it with trial.train(...) or trial.measure(...)")
    return stage


def _words(experiment: Experiment, arm: Arm, level: int) -> tuple[dict[str, Any], dict[str, Any]]:
    condition: dict[str, Any] = {**experiment.condition, "arm": arm.arm, **arm.conditions}
    base = {**experiment.base}
    if arm.sizes:
        condition["weights_remaining_pct"] = arm.sizes[level]
    elif "channels_remaining_pct" in arm.options:
        pass  # drawn by one pruning to a share of the channels: no level
    elif level == 0:
        if arm.arm == "dense":
            condition.pop("rewind", None)  # a dense net is never rewound: one of it serves every rewind point
        base |= {"level": 0, "weights_remaining_pct": 100.0}
    else:
        (condition if arm.name_level else base)["level"] = level
    return condition, base


def _user_arms(library: Library, scaled: Scaled) -> list[Arm]:
    """A user's arms, at the levels where the random controls are drawn, and one arm for each of their criteria.

    A criterion has to go through every level on its way, so all are shown; a single level would make no curve. Experiments without
    iterative tickets have nothing to set them beside.
    """
    if not any(a.arm == "ticket" for a in scaled.arms):
        return []
    levels = next((a.levels for a in scaled.arms if a.arm == "reinit" and a.levels and len(a.levels) > 1), None)
    criteria = [Arm(_by_criterion(name), name) for table, name in library.user if table == "criteria"]
    found = [Arm(build, name, levels) for name, build in library.arms.items()] + criteria
    taken = {a.arm for a in scaled.arms} | set(core_arms.ARMS)
    for i, arm in enumerate(found):
        if arm.arm in taken | {other.arm for other in found[:i]}:
            raise UserError(f"the name {arm.arm!r} in {library.file} is taken: it would stand in the tables for two arms, choose another")
    return found


def _by_criterion(name: str) -> Callable[..., Stage]:
    """Iterative pruning with another criterion, everything else as in the recipe."""

    def build(trial: Trial, level: int, draw: int = 0) -> Stage:
        return trial.with_changes({"pruning.criterion": name}).ticket(level)

    return build


def _unused(library: Library, about: Mapping[str, Any]) -> Iterable[str]:
    """A user's model or data set that no recipe names: most likely a --set was forgotten."""
    for field_, table in (("model", "models"), ("data", "datasets")):
        used = {e["recipe"][field_]["name"] for e in about.values()}
        protocol = next(iter(about.values()))["protocol"]
        for name in (n for t, n in library.user if t == table and n not in used):
            yield f"{field_} {name!r} of {Path(library.file).name} is used by no recipe: add --set {protocol}.{field_}.name={name}"


def _once(points: list[Point]) -> list[Point]:
    """Arms that are declared twice (the important levels first, then all) give each point once."""
    seen: dict[Any, Point] = {}
    for p in points:
        seen.setdefault((p.label, repr(sorted(p.condition.items(), key=str)), p.trial, p.draw, p.stage.hash), p)
    return list(seen.values())


# ---- --set ---------------------------------------------------------------------------------------------------
def _parse_set(text: str, paper: Paper) -> tuple[str, str, str]:
    """``protocol.field=value`` as (protocol or variant, dotted field, value)."""
    left, equals, value = text.partition("=")
    names = sorted({n for e in paper.experiments for n in (e.protocol, e.id)}, key=len, reverse=True)  # longest first: ids may hold dots
    name = next((n for n in names if left.startswith(f"{n}.")), None)
    if not equals or "." not in left:
        raise UsageError(f"bad --set {text!r}: write protocol.field=value, such as {paper.experiments[0].protocol}.length=5000it")
    if name is None:
        raise UsageError(f"bad --set {text!r}: {paper.key} has no experiment {left.partition('.')[0]!r}{nearest(left.partition('.')[0], names)}")
    return name, left[len(name) + 1 :], value


def _sets_for(experiment: Experiment, sets: list[tuple[str, str, str]]) -> dict[str, str]:
    return {path: value for name, path, value in sets if name in (experiment.protocol, experiment.id)}


# ---- what is left to do --------------------------------------------------------------------------------------
def todo(plan: Plan, store: Store) -> dict[Stage, frozenset[str]]:
    """Stages that have to run, with the artefacts that others wait for; parents first.

    A stage whose record is there runs again only where an artefact that is needed was not kept.
    """
    wanted: dict[Stage, set[str]] = {}
    points = {p.stage for p in plan.points}
    run: list[Stage] = []
    for stage in reversed(plan.stages):
        needed = wanted.get(stage, set())
        if (stage in points and not store.has(stage.hash)) or any(not store.has(stage.hash, a) for a in needed):
            run.append(stage)
            for out in stage.inputs.values():
                wanted.setdefault(out.stage, set()).add(out.artefact)
    return {stage: frozenset(wanted.get(stage, ())) for stage in reversed(run)}


def iterations(stages: Iterable[Stage]) -> int:
    """Training iterations in these stages."""
    return sum(s.params["stop"] - s.params["start"] for s in stages if s.kind == "train")


def manifest(plan: Plan, store: Store) -> dict[str, Any]:
    """What is written down of a run: flags, experiments, and a line per point with its stage's hash."""
    return {
        "version": MANIFEST, "paper": plan.paper.key, "scale": plan.flags.scale, "looks": _looks(plan, store),
        "flags": dataclasses.asdict(plan.flags), "experiments": dict(plan.about), "skipped": dict(plan.skipped),
        "points": [{**{k: getattr(p, k) for k in ("label", "protocol", "condition", "base", "trial", "draw")}, "stage": p.stage.hash}
                   for p in plan.points],
    }  # fmt: skip


def _looks(plan: Plan, store: Store) -> int:
    """How often this run's numbers were looked at: once more for each smaller number of trials that the same flags were run with."""
    flags = dataclasses.asdict(plan.flags) | {"trials": None, "data": None}
    trials, smaller = _trials(plan.about), set()
    for path in store.manifests(f"{plan.paper.key}-{plan.flags.scale}-"):
        if path.stem == manifest_name(plan):  # about to be written anew
            continue
        try:
            other = store.read_manifest(path)
        except UserError:
            continue  # damaged, or written by another version: not a run whose numbers could have been looked at here
        if not any(store.has(p["stage"]) for p in other["points"]):
            continue  # nothing came of it, so nothing was looked at
        same = other["flags"] | {"trials": None, "data": None} == json.loads(canonical(flags))
        if same and _same_data(other["experiments"], plan.about) and _trials(other["experiments"]) < trials:
            smaller.add(_trials(other["experiments"]))
    return 1 + len(smaller)


def _same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the experiments that two runs share were run on data sets of one name."""
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[label]["data"]["name"] == other[label]["data"]["name"] for label in shared)


def _trials(about: Mapping[str, Any]) -> int:
    return max(e["trials"] for e in about.values())


def manifest_name(plan: Plan) -> str:
    return f"{plan.paper.key}-{plan.flags.scale}-{plan.flags.key()}"
