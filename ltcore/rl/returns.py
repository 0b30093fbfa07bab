"""Advantages from rewards and values, as a pure function of arrays."""
from __future__ import annotations

import numpy as np


def advantages(reward: np.ndarray, value: np.ndarray, following: np.ndarray, terminated: np.ndarray, cut: np.ndarray,
               discount: float, gae: float) -> np.ndarray:  # fmt: skip
    """Generalised advantages (Schulman et al. 2016) of T steps; with ``gae`` 1 they are returns of up to T steps less the value.

    All arrays are (T, …).

    Args:
        reward: of each step. value: of the state in which it was taken. following: value of the state that it led to; of a step that was cut by a
            time limit, of the state seen last, not of the first of the next episode.
        terminated: nothing follows. cut: what follows in the arrays belongs to another episode (terminated steps included).
        discount: γ. gae: λ.
    """
    one_step = reward + discount * np.where(terminated, 0.0, following) - value
    weight = discount * gae * ~cut
    out, later = np.empty_like(one_step), np.zeros_like(one_step[0])
    for t in range(len(reward) - 1, -1, -1):
        out[t] = later = one_step[t] + weight[t] * later
    return out
