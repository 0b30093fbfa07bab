"""Model families. ``MODELS`` is the whole registry; ``--with my.py`` adds to a copy of it."""
from ltcore.models.build import INITS, draw_state, layer_kinds, layer_sizes, own_state, skeleton, split_state
from ltcore.models.layers import Dropout
from ltcore.models.lenet import LeNet

MODELS = {"lenet": LeNet}

__all__ = ["INITS", "MODELS", "Dropout", "LeNet", "draw_state", "layer_kinds", "layer_sizes", "own_state", "skeleton", "split_state"]
