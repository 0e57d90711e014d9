"""What follows learns each event after it has scored it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.features import FeatureReader, Features
from evaluation.systems.following import Following
from evaluation.systems.half_space_trees import HalfSpaceTrees
from evaluation.systems.system import Follows
from stream.steps.content import USER
from tests.doubles import WordEmbedder
from tests.evaluation.systems.test_calibrated import Memory, saying


class Remembering(Memory):
    """Scores 0 what it has learned, and learns what it has scored."""

    def follow(self, events: Features) -> Iterator[float]:
        for chars in events.chars[:, USER].tolist():
            yield 0.0 if chars in self.known else float(chars)
            self.known.add(chars)


def made() -> Following:
    system = Following("memory", Remembering, FeatureReader(WordEmbedder()), 0.1)
    system.fit(saying(list(range(1, 20))), 0)
    return system


def test_what_was_scored_is_known_the_next_time() -> None:
    events = saying([30, 30, 119, 1])
    assert made().judge(events).score.tolist() == [30, 30, 119, 0]
    followed = made().follow(events)
    assert followed.score.tolist() == [30, 0, 119, 0]
    # Of nineteen held-out sessions none is so long, and all are at least as strange as what is known.
    assert followed.p.tolist() == [1 / 20, 1, 1 / 20, 1]


def test_each_event_has_a_time_and_together_they_are_what_it_took() -> None:
    followed = made().follow(saying([30, 119, 1]))
    assert len(followed.alone_ms) == 3
    assert min(followed.alone_ms) > 0
    assert sum(followed.alone_ms) == pytest.approx(1000 * followed.seconds, rel=0.01)


def test_trees_follow_as_they_score_and_then_learn() -> None:
    """The first event is scored by what was fitted; the trees of river learn their window as it fills."""
    events = saying([40, 900, 41, 900, 42] * 30)
    frozen, follows = (Following("trees", HalfSpaceTrees, FeatureReader(WordEmbedder()), 0.1) for _ in range(2))
    for system in (frozen, follows):
        system.fit(saying(list(range(20, 60)) * 2), 0)
    assert isinstance(follows, Follows)
    judged, followed = frozen.judge(events).score, follows.follow(events).score
    assert judged[0] == followed[0]
    new: NDArray[np.bool_] = np.arange(len(judged)) >= 100
    # Lengths of 900 are strange to trees that stay, and usual to those that have met dozens.
    assert followed[new].max() < judged[new].max()


def test_a_detector_that_does_not_learn_cannot_follow() -> None:
    system = Following("memory", Memory, FeatureReader(WordEmbedder()), 0.1)
    with pytest.raises(TypeError, match="needs a fitted detector that learns"):
        system.follow(saying([1]))
