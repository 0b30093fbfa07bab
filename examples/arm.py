"""An arm of your own: is it the places of the ticket's mask that count, or only how many weights each layer keeps?

    python -m bench replicate frankle2019 --scale smoke --experiment lenet-mnist --with examples/arm.py

``shuffled-places`` then stands in every table and plot beside ``ticket``, ``reinit`` and ``random-mask``.
"""
from ltcore.imp import Trial
from ltcore.stages import Stage


def shuffled_places(trial: Trial, level: int, draw: int = 0) -> Stage:
    """The ticket's mask after ``level`` prunings permuted within each layer, on the ticket's own initial weights.

    Nothing is computed here: a trial's methods (init, train, score, prune, transform, measure; ticket, mask, rewound) give stages of a
    graph. What other arms have trained already, here the tickets that the mask comes from, is not trained again.
    """
    mask = trial.shuffled(trial.mask(level), "shuffled-places", level, draw)
    return trial.train(trial.rewound(), mask)


ARMS = {"shuffled-places": shuffled_places}
