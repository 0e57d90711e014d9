"""How like known attacks an event is, from the segments that came with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIKEST = (1.0, 0.5, 0.25, 0.125)
"""Weights of an event's segments that are likest to known attacks: one such sentence counts, several count more."""
RELIABLE_CHARS = np.float32(80)
"""A shorter segment, less than half of a full one, says too little to count in full."""
MANY_COST = 0.5
"""What each e-fold of segments takes from their log-odds: the likest of many is a little like an attack by chance."""
MANY_MAX = 64
"""More segments cost no more, or whoever pads an attack with anything would hide it."""
# To 1e-6, as libraries differ in the last bits of a logarithm.
_COSTS = (np.rint(MANY_COST * np.log(np.arange(1, MANY_MAX + 1)) * 2.0**20) / 2.0**20).astype(np.float32)


def likest(
    x: NDArray[np.float64],
    event: NDArray[np.int64],
    signal: NDArray[np.int64],
    odds: NDArray[np.float32],
    chars: NDArray[np.float32],
) -> None:
    """Set signals of events in `x` (n, kinds) to the weighted mean of their segments' (s,) largest values, at least 0.

    A segment's value is its log-odds of being an attack's, less what comes of there being many, and as much of it as
    its length bears. Segments that an event lacks count 0.

    Parameters
    ----------
    event, signal
        (s,) where in `x` a segment belongs.
    odds
        (s,) of its likeliest class.
    chars
        (s,) characters of it.
    """
    if len(event) == 0:
        return
    which, many = np.unique(event * x.shape[1] + signal, return_inverse=True, return_counts=True)[1:]
    value = np.maximum(odds - _COSTS[np.minimum(many, MANY_MAX) - 1][which], np.float32(0))
    value = value * np.minimum(chars / RELIABLE_CHARS, np.float32(1))
    order = np.lexsort((-value, signal, event))
    event, signal = event[order], signal[order]
    first = np.r_[True, (event[1:] != event[:-1]) | (signal[1:] != signal[:-1])]
    starts = np.flatnonzero(first)
    rank = np.arange(len(order)) - starts[np.cumsum(first) - 1]
    x[event[starts], signal[starts]] = 0
    few = np.flatnonzero(rank < len(LIKEST))
    weight = np.array(LIKEST) / sum(LIKEST)
    # Added one after another, each event's own from the strangest down: the same sum in any batch.
    np.add.at(x, (event[few], signal[few]), weight[rank[few]] * value[order][few])
