"""What an experiment declares: model, data, training and pruning, as frozen values with the field's words.

Defaults are DESIGN's choices for what papers leave silent; every field that can change a number is in the stage hashes.
"""
from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ltcore.errors import UsageError
from ltcore.names import nearest


def seen_shape(input_shape: Sequence[int], enlarge: int = 0) -> tuple[int, ...]:
    """Shape of what the first layer reads: of images, with the height and width to which the network itself enlarges them.

    Args:
        enlarge: the model's option of that name, or the module's attribute; 0 for networks that read images as they are.
    """
    return (*input_shape[:-2], enlarge, enlarge) if enlarge else tuple(input_shape)


@dataclass(frozen=True)
class Model:
    """A model family with its options; ``init`` names a scheme of ``ltcore.models.INITS`` (``module``: the module's own)."""

    name: str
    init: str = "glorot-normal"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """A data set; ``val`` examples are split off the training set, one random draw a trial."""

    name: str
    val: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: str = "true"  # "shuffled" is the negative control shuffled-labels
    augment: str = "none"  # "crop-flip", or "resized-crop-flip" for images in files: see ltcore.data.augment


@dataclass(frozen=True)
class Task:
    """What is learned: a name of ``ltcore.tasks.TASKS``, and what it leaves open (a discount, a length of windows); said in stages but for ``classify``."""

    name: str = "classify"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Optimizer:
    """``adam``, ``sgd`` or ``rmsprop``, and its learning rate: a linear warm-up from 0, then as ``schedule`` says.

    ``step`` multiplies the rate by ``factor`` at each iteration of ``drops_it``; ``inverse-sqrt`` by √(warmup_it / t) as well (Vaswani et al. 2017, Sec 5.3).
    """

    name: str
    lr: float
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_it: int = 0
    drops_it: tuple[int, ...] = ()
    factor: float = 0.1
    bn_l1: float = 0.0  # strength of the L1 term on every batch-norm scale; said in stages only where it is not 0
    alpha: float = 0.99  # smoothing of rmsprop's mean square; said only for it
    schedule: str = "step"  # said only where it is another

    def said(self) -> dict[str, Any]:
        """Its fields as stages say them: those that came later only where they are used."""
        unused = {"bn_l1": not self.bn_l1, "alpha": self.name != "rmsprop", "schedule": self.schedule == "step"}
        return {k: v for k, v in dataclasses.asdict(self).items() if not unused.get(k, False)}


@dataclass(frozen=True)
class Evaluate:
    """Validation every ``every_it`` iterations; other splits only at the points named: ``early-stop``, ``end``, ``30000it``."""

    every_it: int
    test: tuple[str, ...] = ("early-stop", "end")
    train: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruning:
    """A share ``rates[kind]`` of what remains goes each round; kinds of layer that are not named are never pruned.

    Args:
        scope: ``layerwise`` or ``global`` (all prunable layers ranked together; one rate then); ``global-keep-one`` for channels.
        counts: what the printed percentage is of: ``all-weights``, ``prunable`` or ``channels``.
    """

    rates: Mapping[str, float]
    criterion: str = "magnitude"
    scope: str = "layerwise"
    counts: str = "all-weights"


@dataclass(frozen=True)
class Recipe:
    """Everything that one trial of an experiment needs to know, apart from its seed."""

    model: Model
    data: Data
    optimizer: Optimizer
    batch_size: int
    length: str
    evaluate: Evaluate
    pruning: Pruning
    rewind: str = "0it"
    optimizer_state: str = "fresh"  # after a rewind; "kept" takes the state saved with the weights rewound to
    precision: str = "fp32"  # a class of ltcore.training.precision
    control: str = "none"  # the negative control: see ltcore.imp.CONTROLS
    task: Task = Task()


WORDS = {
    "optimizer.name": ("adam", "sgd", "rmsprop"), "optimizer.schedule": ("step", "inverse-sqrt"), "pruning.scope": ("layerwise", "global", "global-keep-one"),
    "pruning.counts": ("all-weights", "prunable", "channels"),
    "data.labels": ("true", "shuffled"), "data.augment": ("none", "crop-flip", "resized-crop-flip"), "optimizer_state": ("fresh", "kept"),
    "precision": ("fp32", "fp64", "tf32", "bf16", "bfp8"),
}  # fmt: skip
_POINT = re.compile(r"early-stop|end|\d+it")


def check(recipe: Recipe) -> None:
    """Values that have the right type but mean nothing.

    Raises:
        UsageError: an unknown word, a count or rate out of range, or a point in time that is none.
    """
    for path, known in WORDS.items():
        if (word := operator.attrgetter(path)(recipe)) not in known:
            raise UsageError(f"unknown {path} {word!r}{nearest(str(word), known)}")
    for path, least in (("batch_size", 1), ("evaluate.every_it", 1), ("data.val", 0)):
        if (number := operator.attrgetter(path)(recipe)) < least:
            raise UsageError(f"bad value for {path!r}: {number} is less than {least}")
    for kind, rate in recipe.pruning.rates.items():
        if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise UsageError(f"bad value for 'pruning.rates.{kind}': {rate!r} is not a share from 0 to 1")
    for point in (*recipe.evaluate.test, *recipe.evaluate.train):
        if not _POINT.fullmatch(str(point)):
            raise UsageError(f"bad point {point!r} in 'evaluate': write early-stop, end or iterations such as 30000it")


def in_range(path: str, value: Any, least: float = 0, most: float = math.inf, whole: bool = False) -> None:
    """Raises UsageError for an option's value that is no number from ``least`` to ``most``."""
    kinds = int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
        span = f"from {least:g} up" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise UsageError(f"bad value for {path!r}: {value!r} is not a {'whole ' * whole}number {span}")


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with dotted fields replaced, e.g. ``{"optimizer.lr": 0.1}``; text is turned into the field's own type.

    Another model or data set starts without options: those of the one before mean nothing to it.

    Raises:
        UsageError: no such field, or a value of the wrong type.
    """
    for path in sorted(changes, key=lambda path: path not in NAMES):  # names first, so that options given beside them stay
        if path in NAMES and changes[path] != operator.attrgetter(path)(recipe):
            recipe = _replace(recipe, NAMES[path].split("."), {}, path)
        recipe = _replace(recipe, path.split("."), changes[path], path)
    return recipe


NAMES = {"model.name": "model.options", "data.name": "data.options", "task.name": "task.options"}


def _replace(value: Any, path: list[str], new: Any, whole: str) -> Any:
    head, *rest = path
    names = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else list(value)
    open_mapping = isinstance(value, Mapping)
    if head not in names and not (open_mapping and not rest):
        raise UsageError(f"no field {head!r} in {whole!r}{nearest(head, names)}")
    old = value.get(head) if open_mapping else getattr(value, head)
    inner = _replace(old, rest, new, whole) if rest else _coerced(old, new, whole)
    return {**value, head: inner} if open_mapping else dataclasses.replace(value, **{head: inner})


def _coerced(old: Any, new: Any, path: str) -> Any:
    """``new`` in the type of ``old``; text is read as YAML reads it (numbers, lists)."""
    if isinstance(new, str) and not isinstance(old, str):
        import yaml

        try:
            new = yaml.safe_load(new)
        except yaml.YAMLError:
            raise UsageError(f"bad value for {path!r}: {new!r}") from None
    if isinstance(old, tuple) and isinstance(new, (list, tuple)):
        return tuple(new)
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, float) and isinstance(new, str):
        return _number(new, path)
    if old is not None and (type(new) is not type(old)):
        raise UsageError(f"bad value for {path!r}: {new!r} is not {'a whole number' if isinstance(old, int) else f'of type {type(old).__name__}'}")
    return new


def _number(text: str, path: str) -> float:
    try:
        return float(text)  # YAML reads 1e-3 as text
    except ValueError:
        raise UsageError(f"bad value for {path!r}: {text!r} is not a number") from None
