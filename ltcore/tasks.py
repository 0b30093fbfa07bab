"""What can be learned: by task, how a stack is trained and what is read of it.

A task's ``train`` has the signature of :func:`ltcore.training.loop.train`; ``values`` turns one copy's metrics into the numbers of its record.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltcore.errors import UsageError
from ltcore.jobs import Value
from ltcore.recipe import Recipe, in_range
from ltcore.rl import a2c
from ltcore.training import language, loop, translation
from ltcore.training.loop import Trained


def _examples(recipe: Recipe, n_train: int) -> int:
    return n_train // recipe.batch_size


def _anything(recipe: Recipe, data: Any, n_train: int) -> None:
    pass


@dataclass(frozen=True)
class Trainer:
    """How one task is trained, and its record's values from what one copy leaves and the parameters of its stage.

    Args:
        epoch_it: (recipe, examples to train on) -> iterations of an epoch.
        check: (recipe, facts of the data, examples to train on) raises UsageError where they don't go together.
        own_validation: whether the data bring a validation part, of which ``data.val`` says how much is read; else it is split off.
    """

    train: Callable[..., list[Trained]]
    values: Callable[[Trained, Mapping[str, Any]], list[Value]]
    epoch_it: Callable[[Recipe, int], int] = _examples
    check: Callable[[Recipe, Any, int], None] = _anything
    own_validation: bool = False


def classified(trained: Trained, params: Mapping[str, Any]) -> list[Value]:
    """Losses and accuracies by reading point, and the iteration of the minimum of validation loss."""
    values, facts = [], trained.facts
    for at, named in trained.metrics.items():
        for metric, value in named.items():
            n = facts[f"n_{metric.partition('_')[0]}"]
            values.append(Value(metric, value if math.isfinite(value) else math.inf, at, 100 / n if metric.endswith("_pct") else 0.0))
    if "early-stop" in trained.metrics:
        values.append(Value("early_stop_it", facts["early_stop_it"], None, params["evaluate"]["every_it"], facts["censored"]))
    return values


def played(trained: Trained, params: Mapping[str, Any]) -> list[Value]:
    """Mean return of the last episodes of training; what a test example is elsewhere, one episode is here: its share of the mean."""
    value, n = trained.metrics["end"]["episode_return"], max(trained.facts["return_window"], 1)
    known = math.isfinite(value)
    return [Value("episode_return", value if known else -math.inf, "end", abs(value) / n if known else 0.0)]


def _in_environment(recipe: Recipe, data: Any, n_train: int) -> None:
    a2c.settings(recipe.task.options, recipe.batch_size)
    if not data.played:
        raise UsageError(f"task a2c needs an environment, such as cartpole-v0; {data.name} is a data set")
    if recipe.data.val or recipe.data.labels != "true" or recipe.data.augment != "none" or recipe.control == "shuffled-labels":
        raise UsageError("task a2c knows no validation examples, nor labels that could be shuffled, nor augmentation")


def _divided(recipe: Recipe, data: Any, n_train: int) -> None:
    if data.played:
        raise UsageError(f"{data.name} is an environment: nothing to classify, name task a2c")
    if tuple(data.input_shape) == ():
        raise UsageError(f"{data.name} is a corpus: nothing to classify, name a task such as language-model")
    if recipe.batch_size > n_train:
        raise UsageError(f"a batch of {recipe.batch_size} is larger than the {n_train} training examples of {data.name}")


# ---- language ------------------------------------------------------------------------------------------------
def read_language(trained: Trained, params: Mapping[str, Any]) -> list[Value]:
    """Numbers of a language task, with no unit that they could be counted in."""
    found = [Value(metric, value, at) for at, named in trained.metrics.items() for metric, value in named.items()]
    if "early-stop" in trained.metrics:
        found.append(Value("early_stop_it", trained.facts["early_stop_it"], None, params["evaluate"]["every_it"], trained.facts["censored"]))
    return found


RANGES: Mapping[str, Mapping[str, Any]] = {  # of options; other numbers are from 0 up
    "bptt": {"least": 1, "whole": True}, "beam": {"least": 1, "whole": True}, "label_smoothing": {"most": 1},
    "average": {"whole": True}, "average_every_it": {"least": 1, "whole": True},
}  # fmt: skip


def _options(recipe: Recipe, known: Sequence[str]) -> None:
    for option, value in recipe.task.options.items():
        if option not in known:
            raise UsageError(f"task {recipe.task.name} has no option {option!r}; it takes {', '.join(known)}")
        in_range(f"task.options.{option}", value, **RANGES.get(option, {}))


def _of_text(recipe: Recipe, data: Any) -> None:
    if tuple(data.input_shape) != ():
        shape = tuple(data.input_shape)
        raise UsageError(f"task {recipe.task.name} needs a corpus, such as wikitext2 or multi30k; {data.name} has examples of shape {shape}")
    if recipe.data.labels != "true" or recipe.data.augment != "none" or recipe.control == "shuffled-labels":
        raise UsageError(f"task {recipe.task.name} knows neither labels that could be shuffled nor augmentation")


def _bptt(recipe: Recipe) -> int:
    return recipe.task.options.get("bptt", language.BPTT)


def _windows(recipe: Recipe, n_train: int) -> int:
    return language.epoch_it(n_train, recipe.batch_size, _bptt(recipe))


def _windowed(recipe: Recipe, data: Any, n_train: int) -> None:
    _options(recipe, ("bptt",))
    _of_text(recipe, data)
    if _windows(recipe, n_train) < 1:
        raise UsageError(f"{n_train} tokens of {data.name} in {recipe.batch_size} rows leave no window of {_bptt(recipe)}")


def _no_epoch(recipe: Recipe, n_train: int) -> int:
    raise UsageError(f"lengths of task {recipe.task.name} are iterations, such as 50000it: an epoch's number of them depends on the sentences")


def _paired(recipe: Recipe, data: Any, n_train: int) -> None:
    _options(recipe, tuple(translation.OPTIONS))
    _of_text(recipe, data)


TASKS: dict[str, Trainer] = {
    "classify": Trainer(loop.train, classified, check=_divided), "a2c": Trainer(a2c.train, played, check=_in_environment),
    "language-model": Trainer(loop.train, read_language, _windows, _windowed, own_validation=True),
    "translate": Trainer(loop.train, read_language, _no_epoch, _paired, own_validation=True),
}  # fmt: skip
