"""How a replication is declared: values only, no loops. A module holds one :class:`Paper`; the rest of the program reads it."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ltcore.errors import UsageError
from ltcore.names import nearest
from ltcore.recipe import Recipe

SCALES = ("smoke", "quick", "paper")


@dataclass(frozen=True)
class Arm:
    """A named path through the graph, at some levels.

    Args:
        build: name in ``ltcore.arms.ARMS``, or a function of the same form.
        name: ``condition.arm`` in the tables; the name of ``build`` unless given.
        levels: numbers of prunings; None is 1 … the experiment's levels.
        draws: reinitialisations or random masks a trial.
        options: keyword arguments of ``build``, which are also conditions of what is measured.
        sizes: for arms without a level: level -> percent of weights, by which rows are joined.
        name_level: whether the level has to be named by whoever wants the numbers; False where the paper's file fixes one and names none.
        named: the conditions of what is measured where they are not ``options`` in the paper's words.
    """

    build: str | Callable[..., Any]
    name: str = ""
    levels: tuple[int, ...] | None = None
    draws: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[int, float] | None = None
    name_level: bool = True
    named: Mapping[str, Any] | None = None

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What tells this arm from others of its name."""
        return self.options if self.named is None else self.named

    @property
    def arm(self) -> str:
        return self.name or (self.build if isinstance(self.build, str) else self.build.__name__)


@dataclass(frozen=True)
class Scaled:
    """An experiment at one scale on one data set: what differs from the paper's protocol.

    Args:
        changes: dotted field of the recipe -> value, e.g. ``{"length": "8000it"}``.
        default: is it run when no experiment is named?
        sources: where the tickets of arm ``transfer`` come from: name -> what its recipe has other than this one (fields, changes applied).
            An arm whose source lacks its data is left out, and said to be.
        note: what must be said of a miniature: it stands in the tables and keeps rows from being compared number by number.
    """

    trials: int
    levels: int
    arms: tuple[Arm, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)
    default: bool = True
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Band:
    """The range in which dense networks of a protocol are known to lie, from elsewhere, where the paper prints none itself."""

    metric: str
    at: str
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Experiment:
    """One protocol of the paper's file, or one variant of it.

    Args:
        protocol: id in the paper's file. variant: id of a variant or sweep there, or empty.
        recipe: the paper's own settings.
        scaled: (scale, data set) -> how it is run; ``paper`` scale is declared here too.
        condition: what a row must name to mean this experiment (``{"network": "LeNet-900-300"}``).
        base: what also holds and may be named (``{"optimizer": "Adam"}``).
        gate: id of the published row whose spread is the dense network's band; what the row's condition names beside arm, size and
            reading point is the part of the protocol that the band speaks of (``{"variant": "vgg19-lr0.1"}``). Or a band from elsewhere.
        why_not_quick: why it has no ``quick`` scale ("needs a GPU"), said wherever it is missed; or empty.
    """

    protocol: str
    recipe: Recipe
    scaled: Mapping[tuple[str, str], Scaled]
    variant: str = ""
    condition: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    gate: str | Band = ""
    why_not_quick: str = ""

    @property
    def id(self) -> str:
        return self.variant or self.protocol

    @property
    def label(self) -> str:
        """The id with what sets this experiment apart from others of the same id: its name in a manifest."""
        return " ".join([self.id, *(f"{k}={v}" for k, v in self.condition.items())])


@dataclass(frozen=True)
class Deviation:
    """Where we differ from the paper, or decide what it leaves open, and why."""

    what: str
    paper: str
    ours: str
    why: str


@dataclass(frozen=True)
class Setting:
    """One line of the protocol card: the paper's value, the official code's, ours."""

    name: str
    paper: str
    code: str
    ours: str
    why: str = ""


@dataclass(frozen=True)
class Control:
    """A negative control: which claims must not replicate when ``control`` breaks the mechanism, and where they do replicate.

    Args:
        claims: claim ids. control: name in ``ltcore.imp.CONTROLS``.
        scaled: how ``experiment`` is run on ``data`` for the pair, positive and control alike; without arms, all experiments of that id
            run those that they have at scale ``quick``, with these trials, levels and changes.
        only: condition -> values to which the claims' tests are narrowed, where they speak of networks that the pair does not run;
            of several experiments of the id that one is run whose condition it names.
    """

    claims: tuple[str, ...]
    control: str
    data: str
    experiment: str
    scaled: Scaled
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """A replication: the key of its data file, its experiments, and what ought to be said about them."""

    key: str
    experiments: tuple[Experiment, ...]
    settings: tuple[Setting, ...] = ()
    deviations: tuple[Deviation, ...] = ()
    controls: tuple[Control, ...] = ()
    not_covered: Mapping[str, str] = field(default_factory=dict)  # protocol -> why no experiment here runs it

    def select(self, names: tuple[str, ...], scale: str) -> tuple[Experiment, ...]:
        """Experiments by protocol or variant id; without names those that the scale runs by default, on some data set at least.

        Raises:
            UsageError: a name that is neither, or that this scale does not run.
        """
        if not names:
            return tuple(e for e in self.experiments if any(s.default for (at, _), s in e.scaled.items() if at == scale))
        known = [*dict.fromkeys(x for e in self.experiments for x in (e.protocol, e.id)), *self.not_covered]
        for name in names:
            if name not in known:
                raise UsageError(f"unknown experiment {name!r} of {self.key}{nearest(name, known)}")
            if not any(at == scale for e in self.named(name) for at, _ in e.scaled):
                raise UsageError(f"experiment {name!r} is not run at scale {scale}: {self.why_not(name, scale)}")
        return tuple(e for e in self.experiments if {e.id, e.protocol} & set(names) and any(at == scale for at, _ in e.scaled))

    def named(self, name: str) -> tuple[Experiment, ...]:
        """Experiments that a protocol or variant id means."""
        return tuple(e for e in self.experiments if name in (e.id, e.protocol))

    def why_not(self, name: str, scale: str) -> str:
        """Why nothing of a protocol or variant is run at a scale at which none of it is declared."""
        said = [self.not_covered.get(name, ""), *(e.why_not_quick for e in self.named(name) if scale == "quick")]
        return next(filter(None, said), "not declared")
