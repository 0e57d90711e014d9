"""Fit `models.delegation` on written requests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.delegation import Delegation
from models.ngrams import NGrams
from models.training.linear import PASSES, fit_logistic, matrix, quantised
from models.windowed import check, windows
from models.wordpiece import TokenBags

COST = 10.0
"""The regression's C, for weights of mean 1."""


def fit_delegation(
    bags: TokenBags,
    delegating: NDArray[np.bool_],
    weight: NDArray[np.float64],
    ngrams: NGrams,
    *,
    seed: int,
    passes: int = PASSES,
) -> dict[str, NDArray[Any]]:
    """Arrays of a `Delegation`.

    Parameters
    ----------
    bags, delegating
        Segments (s) of requests, and whether each hands over.
    weight
        (s,) what each counts, in any unit; each of its windows counts as much.

    Raises
    ------
    ValueError
        Where all segments are of one kind.
    """
    if delegating.all() or not delegating.any():
        raise ValueError(
            f"a delegation model needs requests that hand over and others; got {int(delegating.sum())} of "
            f"{len(delegating)} segments that do."
        )
    parts, first = windows(bags)
    of = np.repeat(np.arange(len(delegating)), np.diff(first))
    x = matrix(ngrams.features(parts))
    weights, constant = fit_logistic(x, delegating[of], weight[of], cost=COST, seed=seed, passes=passes)
    codes, units = quantised(weights)
    arrays: dict[str, NDArray[Any]] = {"weights": codes, "scales": units, "constant": np.array(constant)}
    check(arrays, Delegation.name)
    return arrays
