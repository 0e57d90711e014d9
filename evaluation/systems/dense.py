"""Events as rows of few numbers, for detectors that know no text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from evaluation.features import Features

_PRIOR = 20.0
"""Events of a tenant's own that weigh as much as all tenants together."""
_DEVIATION_MIN = 0.1
"""Of that of all tenants: a column that never changes at one of them is no division by nothing."""


_FAR = 20.0
"""Deviations beyond which nothing is stranger."""


class Dense:
    """Columns and directions of an event, in deviations from what is usual at its tenant.

    Columns are those of `Features.numeric`, directions those along which mean embeddings vary most. What is strange at
    one tenant is ordinary at another, and such a detector has no other way to know. A tenant that nothing was learned
    of is compared with all.

    Parameters
    ----------
    learn
        What means, deviations and directions are of.
    directions
        At most so many; 0 for columns alone.
    seed
        Of the randomised decomposition.
    """

    def __init__(self, learn: Features, directions: int, seed: int) -> None:
        embedding = learn.embedding if directions else learn.vectors[:0]
        directions = min(directions, *embedding.shape)
        self._pca = None
        if directions:
            self._pca = PCA(directions, svd_solver="randomized", random_state=seed).fit(embedding)
        rows = self._raw(learn)
        names, of_event, counts = np.unique(learn.tenant, return_inverse=True, return_counts=True)
        self._place = {str(name): place for place, name in enumerate(names)}
        mean, square = rows.mean(axis=0), (rows**2).mean(axis=0)
        sums, squares = np.zeros((2, len(names), rows.shape[1]))
        np.add.at(sums, of_event, rows)
        np.add.at(squares, of_event, rows**2)
        least = _DEVIATION_MIN * np.sqrt(np.maximum(square - mean**2, 1e-6))
        # The last row is that of tenants that nothing is known of.
        weight = np.r_[counts, 0][:, None] + _PRIOR
        self._mean = (np.vstack([sums, np.zeros_like(mean)]) + _PRIOR * mean) / weight
        variance = (np.vstack([squares, np.zeros_like(mean)]) + _PRIOR * square) / weight - self._mean**2
        self._deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), least)

    def __call__(self, events: Features) -> NDArray[np.float32]:
        """Rows (n, columns + directions)."""
        place = np.array([self._place.get(str(name), -1) for name in events.tenant], np.int64)
        rows = (self._raw(events) - self._mean[place]) / self._deviation[place]
        clipped: NDArray[np.float32] = np.clip(rows, -_FAR, _FAR).astype(np.float32)
        return clipped

    def _raw(self, events: Features) -> NDArray[np.float64]:
        if self._pca is None:
            return events.numeric.astype(np.float64)
        return np.column_stack([events.numeric, self._pca.transform(events.embedding)]).astype(np.float64)
