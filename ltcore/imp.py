"""Iterative magnitude pruning as stages: train, score, prune, rewind. Every paper and every arm builds on :class:`Trial`.

Nothing is computed here: the methods return outputs and stages of a graph that is run later, each at most once.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from ltcore import clock, tasks
from ltcore.errors import UsageError
from ltcore.library import Library
from ltcore.models import INITS, layer_kinds, layer_sizes, skeleton
from ltcore.names import nearest
from ltcore.recipe import Recipe, changed, check
from ltcore.stages import REVISIONS, Output, Stage

CONTROLS = ("none", "fresh-rewind", "largest-pruned", "shuffled-mask", "shuffled-labels", "no-training")


@dataclass(frozen=True)
class DataFacts:
    """What the graph must know of a data set before anything is loaded for training."""

    name: str
    fingerprint: str
    n_train: int
    input_shape: tuple[int, ...]
    classes: int
    decoded: bool = False  # images in files, read batch by batch
    played: bool = False  # an environment


@dataclass(frozen=True)
class Source:
    """What gives a ticket that another trial trains: its recipe and its data."""

    recipe: Recipe
    data: DataFacts


@dataclass(frozen=True, eq=False)
class Trial:
    """One seed of one recipe.

    Raises:
        UsageError: an unknown control, model, criterion or other word, a number out of range, or a length that can't be read.
    """

    recipe: Recipe
    data: DataFacts
    seed: int
    library: Library = field(default_factory=Library)
    sources: Mapping[str, Source] = field(default_factory=dict)  # where transferred tickets come from, by name
    _memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check(self.recipe)
        if self.recipe.control not in CONTROLS:
            raise UsageError(f"unknown control {self.recipe.control!r}{nearest(self.recipe.control, CONTROLS)}")
        if self.recipe.task.name not in tasks.TASKS:
            raise UsageError(f"unknown task.name {self.recipe.task.name!r}{nearest(self.recipe.task.name, tasks.TASKS)}")
        if self.n_train < 1:
            raise UsageError(f"data.val takes {self.recipe.data.val} of the {self.data.n_train} training examples of {self.data.name} and leaves none")
        self._task.check(self.recipe, self.data, self.n_train)
        if self.recipe.data.augment != "none" and len(self.data.input_shape) != 3:
            raise UsageError(f"data.augment {self.recipe.data.augment!r} needs images, channels x height x width; {self.data.name} has examples of shape {self.data.input_shape}")
        if self.recipe.data.augment == "resized-crop-flip" and not self.data.decoded:
            raise UsageError(f"data.augment 'resized-crop-flip' needs images in files, such as imagenet's; {self.data.name} is held as tensors: use crop-flip")
        if self.recipe.model.init not in INITS:
            raise UsageError(f"unknown model.init {self.recipe.model.init!r}{nearest(self.recipe.model.init, INITS)}")
        self.library.model(self.recipe.model.name)
        self.library.criterion(self.recipe.pruning.criterion)

    # ---- time ------------------------------------------------------------------------------------------------
    @property
    def n_train(self) -> int:
        return self.data.n_train - (0 if self._task.own_validation else self.recipe.data.val)

    @property
    def length_it(self) -> int:
        return 0 if self.recipe.control == "no-training" else self._iterations(self.recipe.length)

    @property
    def rewind_it(self) -> int:
        return min(self._iterations(self.recipe.rewind), self.length_it)

    @property
    def _task(self) -> tasks.Trainer:
        return tasks.TASKS[self.recipe.task.name]

    def _iterations(self, length: str) -> int:
        """The length of an epoch is asked for only where one is named: not every task has one that is known before."""
        return clock.iterations(length, self._task.epoch_it(self.recipe, self.n_train) if "ep" in str(length) else 1)

    # ---- building blocks -------------------------------------------------------------------------------------
    def init(self, *use: str | int, channels: Output | None = None) -> Output:
        """Initial weights and buffers; ``use`` names the draw, the trial's own init where it is left out.

        With a mask of ``channels`` they are those of the physically smaller network.
        """
        inputs = {"channels": channels} if channels else {}
        return Stage("init", {**self.net(), "path": [self.seed, *(use or ("init",))]}, inputs).out("state")

    def train(self, state: Output, mask: Output | None = None, *, start: int | None = None, stop: int | None = None,
              optimizer: Output | None = None, order: tuple[str | int, ...] = (), regrow: Mapping[str, Any] | None = None,
              channels: Output | None = None, clock: Output | None = None, track: Mapping[str, Any] | None = None,
              average: Mapping[str, Any] | None = None) -> Stage:  # fmt: skip
        """Iterations [start, stop) of the recipe from ``state``; by default from the rewind step to the end.

        ``order`` names another data order (and augmentation) than the trial's own.

        Args:
            regrow: fields of :class:`ltcore.training.rigl.Regrow`, by which the mask moves.
            channels: mask of channels whose physically smaller network is trained; ``state`` is that network's.
            clock: the search whose draw says where this segment starts.
            track: fields of :class:`ltcore.drawing.Draw`, by which batch-norm scales are noted and a search may end.
            average: fields of :class:`ltcore.training.averaging.Average`: the segment leaves the mean of weights that it passes through.
        """
        roles = {"state": state, "mask": mask, "optimizer": optimizer, "channels": channels, "clock": clock}
        inputs = {role: out for role, out in roles.items() if out}
        span = {"start": self.rewind_it if start is None else start, "stop": self.length_it if stop is None else stop}
        average = average or self._average(**span)
        own = {name: dict(fields) for name, fields in (("regrow", regrow), ("track", track), ("average", average)) if fields}
        return Stage("train", {**self.net(), **self._training(order), **span, **own}, inputs)

    def _average(self, start: int, stop: int) -> dict[str, int]:
        """Averaged checkpoints, where the task's options have them: the last ``average`` of a run, ``average_every_it`` apart."""
        options = self.recipe.task.options
        count, every = options.get("average", 0), options.get("average_every_it", 1000)
        return {"from_it": max(stop - count * every, 0), "every_it": every} if count and start < stop == self.length_it else {}

    def score(self, weights: Output, start: Output, mask: Output | None, *use: str | int, criterion: str | None = None,
              **options: Any) -> Output:  # fmt: skip
        """One number a weight, by the recipe's criterion unless another is named; ``options`` are the criterion's own."""
        name = criterion or self._criterion()
        said = {"name": name, **self.library.source("criteria", name)} | ({"options": options} if options else {})
        params = {**self.net(), "criterion": said, "path": [self.seed, "score", *use]}
        if getattr(self.library.criterion(name), "needs_gradient", False):
            self._classifies(f"criterion {name!r} scores weights by a gradient")
            params |= {k: v for k, v in self._training(("score",)).items() if k in ("data", "batch_size", "streams")}
        return Stage("score", params, {"weights": weights, "start": start} | ({"mask": mask} if mask else {})).out("scores")

    def prune(self, scores: Output, mask: Output | None, rates: Mapping[str, float] | None = None, scope: str | None = None,
              whole: Sequence[str] = ()) -> Output:  # fmt: skip
        """A mask without the lowest scores; rates per kind of layer are the recipe's unless given; tensors in ``whole`` lose none."""
        pruning = self.recipe.pruning
        params = {**self.net(), "rates": dict(pruning.rates if rates is None else rates), "scope": scope or pruning.scope}
        params |= {"whole": list(whole)} if whole else {}
        return Stage("prune", params, {"scores": scores} | ({"mask": mask} if mask else {})).out("mask")

    def transform(self, op: str, artefact: str, inputs: Mapping[str, Output], *use: str | int, **params: Any) -> Output:
        """An artefact made from others without training: see ``ltcore.transforms``."""
        return Stage("transform", {"op": op, "path": [self.seed, op, *use], **params}, inputs).out(artefact)

    def measure(self, what: str, inputs: Mapping[str, Output], **params: Any) -> Stage:
        """Numbers from artefacts: see ``ltcore.measures``."""
        return Stage("measure", {"what": what, **params}, inputs)

    def on_data(self) -> dict[str, Any]:
        """What a measure on data must know: network, data set and streams."""
        self._classifies("the measure reads accuracies")
        return {**self.net(), **{k: v for k, v in self._training().items() if k in ("data", "streams")}}

    def _classifies(self, why: str) -> None:
        if self.recipe.task.name != "classify":
            raise UsageError(f"{why} on labelled examples, which task {self.recipe.task.name} has none of")

    def prunable(self) -> dict[str, tuple[int, float]]:
        """Of each tensor that the recipe prunes: its weights, and the share of what remains that goes each round."""
        return self._once(("prunable",), self._prunable)

    def _prunable(self) -> dict[str, tuple[int, float]]:
        module, rates = self._skeleton(), self.recipe.pruning.rates
        sizes = layer_sizes(module)
        return {n: (sizes[n], rates[kind]) for n, kind in layer_kinds(module).items() if kind in rates}

    def first_convolution(self) -> tuple[str, ...]:
        """The weight of the first layer where that is a convolution; else nothing."""
        first = self._once(("first-layer",), lambda: list(layer_kinds(self._skeleton()).items())[:1])
        return tuple(n for n, kind in first if kind == "conv")

    def _skeleton(self) -> nn.Module:
        return skeleton(self.library.model(self.recipe.model.name), self.recipe.model, self.data.input_shape, self.data.classes)

    # ---- channels: the physically smaller network ------------------------------------------------------------
    def compact(self, state: Output, channels: Output) -> Output:
        """The weights and buffers that stay, in the shapes of the smaller network."""
        return Stage("transform", {"op": "compact", **self.net()}, {"state": state, "channels": channels}).out("state")

    def cost(self, inputs: Mapping[str, Output], **params: Any) -> Stage:
        """FLOPs and sizes of a search and a retraining: see ``ltcore.measures``."""
        length = {"batch_size": self.recipe.batch_size, "length_it": self.length_it}
        return self.measure("training-cost", inputs, **self.net(), **length, **params)

    # ---- the loop --------------------------------------------------------------------------------------------
    def rewound(self) -> Output:
        """W_k: the weights that tickets start from. For k = 0 the initial weights, else the end of a first segment [0, k)."""
        return self._start().out("state") if self.rewind_it else self.init()

    def ticket(self, level: int) -> Stage:
        """The training run after ``level`` prunings; level 0 is the dense network."""
        return self._once(("ticket", level), lambda: self._ticket(level))

    def mask(self, level: int) -> Output | None:
        """The mask after ``level`` prunings; None is dense."""
        return self._once(("mask", level), lambda: self._mask(level)) if level else None

    def _ticket(self, level: int) -> Stage:
        return self.rewound_run(self._ticket_mask(level), self._rewind(level)) if level else self.rewound_run(None)

    def rewound_run(self, mask: Output | None, state: Output | None = None) -> Stage:
        """From W_k to the end; the dense network goes on with its own optimiser state, so that the cut at k does not change it."""
        kept = self.rewind_it and (mask is None or self.recipe.optimizer_state == "kept")
        return self.train(state or self.rewound(), mask, optimizer=self._start().out("optimizer") if kept else None)

    def _mask(self, level: int) -> Output:
        """Chains are long: the levels below are built first, so that the recursion stays flat."""
        for lower in range(1, level):
            self.mask(lower)
        before = self.ticket(level - 1) if self.recipe.control != "shuffled-mask" else self._unbroken(level - 1)
        scores = self.score(before.out("state"), before.inputs["state"], self.mask(level - 1), level)
        return self.prune(scores, self.mask(level - 1))

    def _start(self) -> Stage:
        return self.train(self.init(), start=0, stop=self.rewind_it)

    # ---- negative controls: the same pipeline with one mechanism broken ---------------------------------------
    def _rewind(self, level: int) -> Output:
        return self.init("fresh-rewind", level) if self.recipe.control == "fresh-rewind" else self.rewound()

    def _criterion(self) -> str:
        return "largest" if self.recipe.control == "largest-pruned" else self.recipe.pruning.criterion

    def _ticket_mask(self, level: int) -> Output:
        mask = self.mask(level)
        return self.shuffled(mask, "control", level) if self.recipe.control == "shuffled-mask" else mask

    def _unbroken(self, level: int) -> Stage:
        return self.rewound_run(self.mask(level))

    def shuffled(self, mask: Output, *use: str | int) -> Output:
        """The mask permuted within each layer."""
        return self.transform("shuffle", "mask", {"mask": mask}, *use)

    def with_changes(self, changes: Mapping[str, Any]) -> Trial:
        """The same trial with dotted fields of its recipe changed, e.g. ``{"pruning.criterion": "mine"}``."""
        key = ("changes", repr(sorted(changes.items())))
        return self._once(key, lambda: Trial(changed(self.recipe, changes), self.data, self.seed, self.library, self.sources))

    # ---- tickets from elsewhere ------------------------------------------------------------------------------
    def source(self, name: str) -> Trial:
        """The trial, of the same seed, of a named source; this very trial where recipe and data are its own."""
        if name not in self.sources:
            raise UsageError(f"no source {name!r} of tickets{nearest(name, self.sources)}")
        own = self.sources[name] == Source(self.recipe, self.data)
        return self if own else self._once(("source", name), lambda: Trial(self.sources[name].recipe, self.sources[name].data, self.seed, self.library))

    def received(self, state: Output, giver: Trial) -> Output:
        """Weights of another trial in this one's network: as they are where the networks are one, else with the output layer drawn anew
        where the numbers of classes differ (Morcos et al. 2019, Sec 3.3).

        Raises:
            UsageError: the output layer would be drawn anew but is pruned with the others.
        """
        if giver.net() == self.net():
            return state
        redraw = giver.data.classes != self.data.classes
        if redraw and "output" in giver.recipe.pruning.rates:
            raise UsageError(f"a ticket from {giver.data.name} can't move to {self.data.name}: its output layer is drawn anew for "
                             f"{self.data.classes} classes, so leave 'output' out of pruning.rates")  # fmt: skip
        inputs = {"state": state, "fresh": self.init()}
        return Stage("transform", {"op": "transfer", "redraw_output": redraw, **self.net()}, inputs).out("state")

    # ---- parameters of stages --------------------------------------------------------------------------------
    def net(self) -> dict[str, Any]:
        """Model and the shapes of its inputs and outputs, as stages say them."""
        model = asdict(self.recipe.model) | self.library.source("models", self.recipe.model.name)
        return {"model": model, "input_shape": list(self.data.input_shape), "classes": self.data.classes}

    def _training(self, order: tuple[str | int, ...] = ()) -> dict[str, Any]:
        recipe, labels = self.recipe, [self.seed, "labels"] if self._labels() == "shuffled" else None
        # Said only where it is used, so that recipes without it keep their stages.
        augment = {"augment": [self.seed, "augment", *order]} if recipe.data.augment != "none" else {}
        how = {"augment": recipe.data.augment} if recipe.data.augment not in ("none", "crop-flip") else {}
        revised = {name: REVISIONS[name] for name in (recipe.optimizer.name, recipe.model.name) if name in REVISIONS}
        task = {"task": asdict(recipe.task)} if recipe.task.name != "classify" else {}
        data = {"name": self.data.name, "fingerprint": self.data.fingerprint, "val": recipe.data.val, "options": dict(recipe.data.options)}
        return {
            "data": data | self.library.source("datasets", self.data.name),
            "optimizer": recipe.optimizer.said(),
            "batch_size": recipe.batch_size, "evaluate": asdict(recipe.evaluate),
            "precision": recipe.precision,
            "streams": {"split": [self.seed, "split"], "order": [self.seed, "order", *order], "labels": labels, **augment}, **how, **({"revisions": revised} if revised else {}), **task,
        }  # fmt: skip

    def _labels(self) -> str:
        return "shuffled" if self.recipe.control == "shuffled-labels" else self.recipe.data.labels

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]
