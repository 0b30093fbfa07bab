"""The language half of Yu et al. 2020: a LSTM on WikiText-2, Transformers for English to German. Values only, joined by ``yu2020``."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ltcore.recipe import Data, Evaluate, Model, Optimizer, Pruning, Recipe, Task
from replications.schema import Arm, Experiment, Scaled

TRIALS, ROUNDS = 3, 20
PRUNED = Pruning(dict.fromkeys(("embedding", "recurrent", "output", "bias"), 0.2), scope="global")

LSTM = Recipe(
    model=Model("lstm", "module", {"embedding": 650, "hidden": 650, "layers": 2, "dropout": 0.5}), data=Data("wikitext2", val=217_646),
    optimizer=Optimizer("adam", lr=1e-3, eps=1e-3), batch_size=30, length="10ep", evaluate=Evaluate(1392, ("end",)), pruning=PRUNED,
    rewind="1ep", task=Task("language-model", {"bptt": 50}),
)  # fmt: skip

DENSE = Arm("dense", levels=(0,))


def _random(levels: tuple[int, ...]) -> Arm:
    return Arm("random-ticket", levels=levels)


def _unpermuted(levels: tuple[int, ...]) -> Arm:
    """Fresh weights under the ticket's own mask: the other reading of the paper's random tickets."""
    return Arm("reinit", "random-ticket", levels, named={"mask": "unpermuted"})


def _one_shot(levels: tuple[int, ...]) -> Arm:
    return Arm("one-shot-level", "one-shot", levels)


CLAIMED, SPARSE, MIDDLE = (1, 4, 7, 10, 13, 16, 20), (8, 10, 13), (2, 6, 10, 14, 20)  # levels that the three LSTM claims name
ALL = tuple(range(1, ROUNDS + 1))
LSTM_ARMS = (
    DENSE, Arm("ticket", levels=CLAIMED), _random((*CLAIMED, *SPARSE)), _one_shot(SPARSE), Arm("ticket", levels=MIDDLE), _unpermuted(CLAIMED),
    Arm("ticket", levels=ALL), _random(ALL), _one_shot(ALL), _unpermuted(ALL),
)  # fmt: skip
TINY_LSTM: Mapping[str, Any] = {
    "data.name": "topics", "data.options": {"vocabulary": 500, "tokens": 8000, "held_out": 2000}, "data.val": 0,
    "model.options": {"embedding": 16, "hidden": 16, "layers": 2, "dropout": 0.5}, "batch_size": 10, "task.options.bptt": 20, "length": "3ep",
    "evaluate.every_it": 100, "optimizer.lr": 0.01,
}  # fmt: skip
SMOKE_LSTM = (DENSE, Arm("ticket", levels=(1, 2)), _random((2,)), _one_shot((2,)), _unpermuted((2,)))

EXPERIMENTS = (
    Experiment("wikitext2-lstm", LSTM, {("paper", "wikitext2"): Scaled(TRIALS, ROUNDS, LSTM_ARMS), ("smoke", "topics"): Scaled(1, 2, SMOKE_LSTM, TINY_LSTM)}, base={"rewind": "1ep"}),
)
SETTINGS = ()
DEVIATIONS = ()
CONTROLS = ()
NOT_COVERED: Mapping[str, str] = {}
