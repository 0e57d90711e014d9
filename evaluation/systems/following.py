"""A calibrated detector that learns every event it has scored, as it would in service."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from evaluation.events import Events
from evaluation.features import Features
from evaluation.systems.calibrated import Calibrated, Detector, with_reading_ms
from evaluation.systems.system import Judged


@runtime_checkable
class Learner(Detector, Protocol):
    """A detector that goes on learning."""

    def follow(self, events: Features) -> Iterator[float]:
        """The score of each event in turn, which is then learned."""


class Following(Calibrated):
    """`Calibrated`, of a `Learner`; its p-values stay those of what it was fitted on."""

    def follow(self, events: Events) -> Judged:
        """Score each event in turn, and learn it."""
        detector = self._detector
        if not isinstance(detector, Learner):
            raise TypeError(f"a system that follows needs a fitted detector that learns; got {detector}. A bug.")
        features = self._read(events)
        scores: list[float] = []
        at: list[float] = [time.perf_counter()]
        for score in detector.follow(features):
            scores.append(score)
            at.append(time.perf_counter())
        took = with_reading_ms(np.diff(at).tolist(), features)
        return self._judged(events, np.array(scores), features.seconds + at[-1] - at[0], took)
