"""Detectors of PyOD, on rows of all tenants."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest

from evaluation.features import Features
from evaluation.systems.dense import Dense

_DIRECTIONS = 4
"""More of them find less: to these detectors every column says as much as any other."""


class _OfPyod(Protocol):
    def fit(self, rows: NDArray[np.float32]) -> object: ...

    def decision_function(self, rows: NDArray[np.float32]) -> NDArray[np.float64]: ...


class _Outliers(ABC):
    def __init__(self) -> None:
        self._dense: Dense | None = None
        self._model: _OfPyod | None = None

    def fit(self, learn: Features, seed: int) -> None:
        """Fit it on all of them."""
        self._dense = Dense(learn, _DIRECTIONS, seed)
        self._model = self._made(len(learn), seed)
        self._model.fit(self._dense(learn))

    def score(self, events: Features) -> NDArray[np.float64]:
        """Scores (n,)."""
        if self._model is None or self._dense is None:
            raise ValueError("a detector must be fitted before it scores. A bug.")
        return np.asarray(self._model.decision_function(self._dense(events)), np.float64)

    @abstractmethod
    def _made(self, events: int, seed: int) -> _OfPyod:
        """One that has learned nothing yet."""


class IsolationForest(_Outliers):
    """How few random cuts set an event apart.

    References
    ----------
    Liu, Ting and Zhou (2008), Isolation forest.
    """

    def _made(self, events: int, seed: int) -> _OfPyod:
        made: _OfPyod = IForest(n_estimators=100, max_samples=min(256, events), random_state=seed)
        return made


class Ecod(_Outliers):
    """How far out an event lies in the empirical distribution of each column.

    PyOD counts what is judged among what was learned: scores depend, a little, on what is judged beside.

    References
    ----------
    Li et al. (2022), ECOD: unsupervised outlier detection using empirical cumulative distribution functions.
    """

    def _made(self, events: int, seed: int) -> _OfPyod:
        made: _OfPyod = ECOD()
        return made
