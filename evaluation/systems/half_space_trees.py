"""Half-space trees of river, which learn event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from river.anomaly import HalfSpaceTrees as Trees

from evaluation.features import Features
from evaluation.systems.dense import Dense

_TREES, _LEVELS, _WINDOW = 25, 10, 1000
"""The paper's trees; its windows of 250 events are short beside tens of tenants."""
_SPAN = 4.0
"""Deviations to either side that a column is scaled between."""
_EVENTS_MAX = 20_000
"""The latest that are learned: trees keep the masses of their last window alone, what came long before is forgotten."""


class HalfSpaceTrees:
    """How little of its last window's mass lies where an event does, by random trees over the numeric columns.

    One forest for all tenants, each column in deviations from what is usual at the event's tenant.

    References
    ----------
    Tan, Ting and Liu (2011), Fast anomaly detection for streaming data.
    """

    def __init__(self) -> None:
        self._trees: Trees | None = None
        self._dense: Dense | None = None

    def fit(self, learn: Features, seed: int) -> None:
        """Learn the events one after another."""
        self._dense = Dense(learn, 0, seed)
        # A window that is never full would say nothing.
        window = max(min(_WINDOW, len(learn) // 2), 1)
        self._trees = Trees(n_trees=_TREES, height=_LEVELS, window_size=window, seed=seed)
        for row in _rows(self._dense(learn)[-_EVENTS_MAX:]):
            self._trees.learn_one(row)  # type: ignore[no-untyped-call]

    def follow(self, events: Features) -> Iterator[float]:
        """The score of each event in turn, in [0, 1], which is then learned."""
        if self._trees is None or self._dense is None:
            raise ValueError("a detector must be fitted before it scores. A bug.")
        score_one: Callable[[dict[int, float]], float] = self._trees.score_one
        for row in _rows(self._dense(events)):
            yield score_one(row)
            self._trees.learn_one(row)  # type: ignore[no-untyped-call]

    def score(self, events: Features) -> NDArray[np.float64]:
        """Scores (n,) in [0, 1]; nothing is learned."""
        if self._trees is None or self._dense is None:
            raise ValueError("a detector must be fitted before it scores. A bug.")
        score_one: Callable[[dict[int, float]], float] = self._trees.score_one
        return np.array([score_one(row) for row in _rows(self._dense(events))], np.float64)


def _rows(dense: NDArray[np.float32]) -> list[dict[int, float]]:
    """Columns in [0, 1], as river takes them."""
    return [dict(enumerate(row)) for row in np.clip((dense / _SPAN + 1) / 2, 0, 1).tolist()]
