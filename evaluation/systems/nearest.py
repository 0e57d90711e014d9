"""How far a whole message lies from every message that its tenant has had."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from evaluation.features import ARRIVING, Features
from evaluation.systems.minilm_vectors import MiniLMVectors

_AT_ONCE = 512
Vectors = Callable[[Features, NDArray[np.int64]], NDArray[np.float32]]
"""Unit rows (r, d) of some of the distinct texts of events, 0 for a text without words."""


def static_vectors(features: Features, texts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Those that the features have."""
    return features.vectors[texts]


class Nearest:
    """Cosine distance of an event's new messages from the nearest learned one of their tenant, the largest of them.

    What users and tools say counts. A tenant that nothing was learned of is compared with all tenants' messages.

    Parameters
    ----------
    vectors
        Of messages.
    remembered
        Distinct messages of a tenant that are remembered: the latest.

    References
    ----------
    Ramaswamy et al. (2000): distance to the nearest neighbour as outlier score.
    """

    def __init__(self, vectors: Vectors = static_vectors, remembered: int = 5000) -> None:
        self._vectors = vectors
        self._remembered = remembered
        self._learned: dict[str, NDArray[np.float32]] = {}
        self._all = np.zeros((0, 0), np.float32)

    def forget(self) -> None:
        """Read messages anew, where `vectors` remembers those that it has read."""
        if isinstance(self._vectors, MiniLMVectors):
            self._vectors.forget()

    def fit(self, learn: Features, seed: int) -> None:
        """Remember distinct messages."""
        _, tenant, text = _arriving(learn)
        for name in np.unique(tenant).tolist():
            latest = list(dict.fromkeys(text[tenant == name][::-1].tolist()))[: self._remembered]
            self._learned[name] = self._vectors(learn, np.array(latest, np.int64))
        self._all = np.concatenate(list(self._learned.values())) if self._learned else self._all

    def score(self, events: Features) -> NDArray[np.float64]:
        """Distances (n,), 0 for an event without words."""
        event, tenant, text = _arriving(events)
        distance = np.zeros(len(events))
        for name in np.unique(tenant).tolist():
            mine = np.flatnonzero(tenant == name)
            distinct, which = np.unique(text[mine], return_inverse=True)
            far = _distance(self._vectors(events, distinct), self._learned.get(name, self._all))
            np.maximum.at(distance, event[mine], far[which])
        return distance


def _arriving(features: Features) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.int64]]:
    """Event, tenant and text (k,) of messages that users and tools bring."""
    mine = np.flatnonzero(np.isin(features.message_role, ARRIVING))
    event = features.message_event[mine]
    return event, features.tenant[event], features.message_text[mine]


def _distance(x: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of `x` (n, d) from the nearest of `known` (m, d): 1 where nothing is known, 0 where nothing is said."""
    out = np.ones(len(x))
    if len(known):
        for low in range(0, len(x), _AT_ONCE):
            out[low : low + _AT_ONCE] = 1 - (x[low : low + _AT_ONCE] @ known.T).max(axis=1)
    out[~x.any(axis=1)] = 0
    return out
