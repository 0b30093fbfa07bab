"""A pruning criterion of your own: keep the weights that training made grow, whatever their size.

    python -m bench replicate frankle2019 --scale smoke --experiment lenet-mnist --with examples/criterion.py

``movement`` then stands in every table and plot as an arm beside ``ticket``: the same iterative pruning and rewinding, other scores.
"""
from torch import Tensor

from ltcore.criteria import Scored


def movement(s: Scored) -> dict[str, Tensor]:
    """|w_end| − |w_0|, the weights that shrink go first ("magnitude increase", Zhou et al. 2019, section 3).

    ``s`` holds the prunable weights by name: ``weights`` at the end of training, ``start``, ``mask`` (what is kept so far) and a
    ``generator``. Give one number a weight; the lowest are pruned, those that are gone already do not count.
    """
    return {name: w.abs() - s.start[name].abs() for name, w in s.weights.items()}


CRITERIA = {"movement": movement}
