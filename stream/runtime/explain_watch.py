"""One event watched while the core scores it: everything that its score was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.config import Settings
from stream.core import Core
from stream.inputs import Outcome
from stream.release import Release
from stream.sinks.sink import Written
from stream.state.open_findings import Anomaly
from stream.state.schema import FEATURES
from stream.steps.content import ROLES, Content, Embeds
from stream.steps.explain import anomaly
from stream.steps.score import HEARD, ScoreInput, Scores
from stream.steps.sessions import NewContent
from stream.steps.timing import Timed


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that the event brought new into its session."""

    role: str
    message_index: int
    text: str
    measures: dict[str, float]
    """How strange it is, by measure, higher is stranger; empty for roles that nothing judges."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What became of the event, and why."""

    score: dict[str, Any]
    """Its score record."""
    explained: Anomaly
    """As a finding would tell it, whether it is one or not."""
    turn: int | None
    """Number of the event in its session, from 1; None when the session has ended since."""
    segments: list[Segment]
    features: list[tuple[str, float]]
    """What the sequence model sees of the event, and the share of its error; the least expected first."""
    session_fpr: float
    grace_sessions: int
    """The configuration that decided."""


class Seen(Exception):
    """The event has been scored: nothing after it matters."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched.score["event_id"])
        self.watched = watched


class WatchingCore(Core):
    """A core that raises `Seen` once the event has been scored.

    The event's numbers are those of any other core: it is only looked at, after everything has been decided.

    Parameters
    ----------
    event_id
        Of the event.
    """

    def __init__(self, settings: Settings, release: Release, embedder: Embeds, event_id: str) -> None:
        super().__init__(settings, release, embedder)
        self._event_id = event_id
        self._given = settings

    def _report(
        self,
        placed: Timed,
        given: ScoreInput,
        scores: Scores,
        new: NewContent,
        contents: Sequence[Content],
        outcome: Outcome,
    ) -> None:
        super()._report(placed, given, scores, new, contents, outcome)
        batch = placed.batch
        for at, event in enumerate(placed.live.tolist()):
            if batch.heads[event].event_id != self._event_id:
                continue
            core_time_ms = int(placed.core_time_ms[event])
            watched = Watched(
                score=orjson.loads(outcome.scores[event].value),
                explained=anomaly(batch, event, at, core_time_ms, given, scores, new, contents),
                turn=self._turn(placed, at),
                segments=_segments(at, given, scores, new, contents),
                features=_features(scores.feature_error[at]),
                session_fpr=self._given.decision.session_fpr,
                grace_sessions=self._given.learning.grace_sessions,
            )
            raise Seen(watched)

    def _turn(self, placed: Timed, at: int) -> int | None:
        batch, live = placed.batch, placed.live.tolist()
        names = [(int(batch.partition[i]), batch.heads[i].tenant, batch.heads[i].session) for i in live[at:]]
        row = int(self._state.sessions.find(names[:1])[0])
        turn = int(self._state.sessions["events"][row]) - names[1:].count(names[0]) if row >= 0 else 0
        return turn if turn > 0 else None


def _segments(
    at: int, given: ScoreInput, scores: Scores, new: NewContent, contents: Sequence[Content]
) -> list[Segment]:
    """The event's new segments in the order of its messages."""
    index = np.flatnonzero(given.segment_event == at).tolist()
    mine = np.flatnonzero((new.event == at) & new.unseen).tolist()
    texts = [(text, int(new.message[i])) for i in mine for text in contents[i].texts]
    return [
        Segment(
            role=ROLES[int(given.segment_role[i])],
            message_index=message,
            text=text,
            measures={"distance": float(scores.distance[i])} if int(given.segment_role[i]) in HEARD else {},
        )
        for i, (text, message) in zip(index, texts, strict=True)
    ]


def _features(error: NDArray[np.float32]) -> list[tuple[str, float]]:
    """Features with their share of the error."""
    total = float(error.sum())
    order = np.argsort(-error, kind="stable").tolist()
    return [(FEATURES[i], float(error[i]) / total) for i in order if error[i] > 0]


class Unwritten:
    """A `Sink` that keeps nothing but where the event was a duplicate.

    Parameters
    ----------
    event_id
        Of the event.
    """

    def __init__(self, event_id: str) -> None:
        self._event_id = event_id
        self.repeated: str | None = None

    def write(self, outcome: Written) -> None:
        """Look through the scores."""
        for record in outcome.scores:
            if record.event_id == self._event_id:
                topic, partition, offset = record.source
                self.repeated = f"{topic}[{partition}]@{offset}"
