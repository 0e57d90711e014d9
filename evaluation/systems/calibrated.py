"""A detector that knows scores alone, made a system: its operating point is measured on sessions held out from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evaluation.events import Events
from evaluation.features import FeatureReader, Features
from evaluation.systems.sessions import judged_by_strangest
from evaluation.systems.system import ALONE, Judged, evenly
from schemas.corpus import CorpusSession


class Detector(Protocol):
    """What a baseline is: one instance is fitted once."""

    def fit(self, learn: Features, seed: int) -> None:
        """Learn benign events, in the order of time."""

    def score(self, events: Features) -> NDArray[np.float64]:
        """Scores (n,) of events, higher is stranger."""


@runtime_checkable
class Forgets(Protocol):
    """A detector that knows again what it has read, and would take less for it the second time."""

    def forget(self) -> None:
        """Keep nothing but what was learned."""


class Calibrated:
    """A detector with p-values: of a session, the share of benign sessions whose strangest event is as strange.

    Each fold of what is learned, whole tasks, is scored by a detector that the other folds have taught. With m of these
    sessions a score has the conformal p-value (1 + those at or above it) / (m + 1), which is as good as its sessions
    are like those to come: fewer than 1 / nominal - 1 of them flag nothing.

    Parameters
    ----------
    name
        Of the system.
    make
        A detector that has learned nothing.
    read
        What it reads of events.
    nominal
        The operating point.
    learns
        Whether what it learned decides what it says. If not, it need not be fitted without what it is calibrated on.

    References
    ----------
    Vovk (2013), Cross-conformal predictors.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Detector],
        read: FeatureReader,
        nominal: float,
        *,
        learns: bool = True,
    ) -> None:
        self.name = name
        self._make = make
        self._read = read
        self._nominal = nominal
        self._learns = learns
        self._detector: Detector | None = None
        self._held_out = np.zeros(0)

    def fit(self, learn: Events, seed: int, attacks: Sequence[CorpusSession] = ()) -> None:
        """Learn everything, and calibrate on folds that were held out."""
        features = self._read(learn)
        self._detector = self._make()
        self._detector.fit(features, seed)
        if not self._learns:
            scores = self._detector.score(features)
        else:
            scores = np.full(len(features), np.nan)
            fold = features.fold[features.session]
            for number in np.unique(fold).tolist():
                part, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
                if len(rest):
                    detector = self._make()
                    detector.fit(features.take(rest), seed)
                    scores[part] = detector.score(features.take(part))
        highest = np.full(len(learn.sessions), np.nan)
        np.fmax.at(highest, features.session, scores)
        self._held_out = np.sort(highest[~np.isnan(highest)])

    def judge(self, events: Events) -> Judged:
        """Score what is to be judged."""
        if self._detector is None:
            raise ValueError("a system must be fitted before it judges. A bug.")
        features = self._read(events)
        begun = time.perf_counter()
        score = self._detector.score(features)
        seconds = features.seconds + time.perf_counter() - begun
        if isinstance(self._detector, Forgets):
            self._detector.forget()
        alone: list[float] = []
        for row in evenly(len(features), ALONE).tolist():
            one = features.take(np.array([row]))
            begun = time.perf_counter()
            self._detector.score(one)
            alone.append(time.perf_counter() - begun)
        return self._judged(events, score, seconds, with_reading_ms(alone, features))

    def _judged(self, events: Events, score: NDArray[np.float64], seconds: float, alone_ms: Sequence[float]) -> Judged:
        at_or_above = len(self._held_out) - np.searchsorted(self._held_out, score, "left")
        p = (1 + at_or_above) / (1 + len(self._held_out))
        return judged_by_strangest(events, score, p, self._nominal, [], seconds, alone_ms=alone_ms)


def with_reading_ms(seconds: Sequence[float], features: Features) -> list[float]:
    """What events took, each scored by itself in so many `seconds`, with the reading: the same share of it for each.

    Reading is what most of an event's time goes to; it is done once for all systems.
    """
    reading_ms = 1000 * features.seconds / max(len(features), 1)
    return [1000 * each + reading_ms for each in seconds]
