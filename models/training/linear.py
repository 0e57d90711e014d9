"""Logistic regression on hashed n-grams, and its weights as small whole numbers.

liblinear's dual coordinate descent (scikit-learn's) takes seconds for 100,000 segments, on one thread with a generator
of its own: the same input and seed give the same bytes.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.ngrams import BLOCK, COLUMNS, Features

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

CODE_MAX = 127
PASSES = 12
"""Passes over the data; AUROC does not change with more of them."""


def matrix(features: Features) -> csr_matrix:
    """The segments' features (s, COLUMNS), each one over the root of how many its segment has in its block."""
    # Training only: a slow import.
    from scipy.sparse import csr_matrix

    counts = features.counts().ravel()
    values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
    return csr_matrix((values, features.columns, features.offsets[::2]), shape=(len(features), COLUMNS))


def fit_logistic(
    x: csr_matrix,
    positive: NDArray[np.bool_],
    weight: NDArray[np.float64],
    *,
    cost: float,
    seed: int,
    passes: int = PASSES,
) -> tuple[NDArray[np.float64], float]:
    """Weights (COLUMNS,) and constant of the log-odds that a segment (s,) is `positive`.

    Parameters
    ----------
    x
        From `matrix`.
    weight
        (s,) of the segments, in any unit.
    cost
        C, the inverse of what a weight's square costs, for weights of mean 1.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="liblinear", dual=True, C=cost, tol=1e-3, max_iter=passes, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, positive, sample_weight=weight / weight.mean())
    return model.coef_[0], float(model.intercept_[0])


def even(positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights (s,) with which both sides count alike; log-odds above 0 then speak for `positive`.

    >>> even(np.array([True, False, False])).tolist()
    [1.0, 0.5, 0.5]
    """
    weights: NDArray[np.float64] = np.where(positive, 1 / max(positive.sum(), 1), 1 / max((~positive).sum(), 1))
    return weights


def platt(logits: NDArray[np.float64], positive: NDArray[np.bool_], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and constant that turn `logits` (s,) of held-out segments into log-odds of being `positive`.

    A slope that would not be above 0, as chance logits may have, is 0.
    """
    from sklearn.linear_model import LogisticRegression

    # Logits are scaled to about 1, as the liblinear way regularises; so little of it that it does not show.
    spread = float(np.abs(logits).max(initial=0)) or 1.0
    model = LogisticRegression(solver="liblinear", C=1e3, tol=1e-6, random_state=0)
    model.fit(logits[:, None] / spread, positive, sample_weight=weight / weight.mean())
    return max(0.0, float(model.coef_[0, 0]) / spread), float(model.intercept_[0])


def quantised(weights: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """The `weights` (COLUMNS,) as int8, and the unit (2,) of each block.

    >>> codes, units = quantised(np.repeat([-2.54, 0.01], BLOCK))
    >>> codes[[0, -1]].tolist(), units.round(6).tolist()
    ([-127, 127], [0.02, 7.9e-05])
    """
    blocks = weights.reshape(2, BLOCK)
    units: NDArray[np.float64] = np.abs(blocks).max(axis=1) / CODE_MAX
    codes = np.rint(blocks / np.where(units > 0, units, 1)[:, None]).astype(np.int8)
    return codes.ravel(), units
