"""One event watched while the core scores it: everything that its score was made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.config import Settings
from stream.inputs import Outcome
from stream.runtime.explain_past import Normal, Past
from stream.sinks.sink import Written
from stream.state.open_findings import Anomaly
from stream.state.schema import FEATURES
from stream.steps.content import ROLES
from stream.steps.explain import anomaly
from stream.steps.score import HEARD
from stream.steps.scored import Scored


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text that the event brought new into its session."""

    role: str
    message_index: int
    text: str
    measures: dict[str, float]
    """How strange it is, by measure, higher is stranger; empty for roles that nothing judges."""
    normal: Normal | None = None
    """The nearest that the tenant has said before, as far as that was replayed."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What became of the event, and why."""

    score: dict[str, Any]
    """Its score record."""
    explained: Anomaly
    """As a finding would tell it, whether it is one or not."""
    turn: int
    """Number of the event in its session, from 1."""
    segments: list[Segment]
    features: list[tuple[str, float]]
    """What the sequence model sees of the event, and the share of its error; the least expected first."""
    session_fpr: float
    grace_sessions: int
    """The configuration that decided."""
    newcomer: bool
    """Whether it took more, since the tenant is young and the release was not trained on it."""


class Seen(Exception):
    """The event has been scored: nothing after it matters."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched.score["event_id"])
        self.watched = watched


class Watcher:
    """Raises `Seen` once the event has been scored; a core's `watch`.

    Parameters
    ----------
    event_id
        Of the event.
    settings
        By which the core decides.
    """

    def __init__(self, event_id: str, settings: Settings) -> None:
        self._event_id = event_id
        self._settings = settings
        self._past = Past()

    def __call__(self, scored: Scored, outcome: Outcome) -> None:
        """Look for the event in a batch."""
        for at, event in enumerate(scored.placed.live.tolist()):
            if scored.placed.batch.heads[event].event_id != self._event_id:
                continue
            self._past.hear(scored, until=at)
            watched = Watched(
                score=orjson.loads(outcome.scores[event].value),
                explained=anomaly(scored, event, at),
                turn=int(scored.suspicion.turn[at]),
                segments=_segments(at, scored, self._past),
                features=_features(scored.scores.feature_error[at]),
                session_fpr=self._settings.decision.session_fpr,
                grace_sessions=self._settings.learning.grace_sessions,
                newcomer=bool(scored.scores.newcomer[at]),
            )
            raise Seen(watched)
        self._past.hear(scored)


def _segments(at: int, scored: Scored, past: Past) -> list[Segment]:
    """The event's new segments in the order of its messages."""
    given, new = scored.given, scored.new
    head = scored.live.heads[at]
    index = np.flatnonzero(given.segment_event == at).tolist()
    mine = np.flatnonzero((new.event == at) & new.unseen).tolist()
    texts = [(text, int(new.message[i])) for i in mine for text in scored.contents[i].texts]
    return [
        Segment(
            ROLES[int(given.segment_role[i])],
            message,
            text,
            _measures(i, scored),
            past.nearest(head.tenant, head.session, int(given.segment_role[i]), given.segment_vector[i]),
        )
        for i, (text, message) in zip(index, texts, strict=True)
    ]


def _measures(segment: int, scored: Scored) -> dict[str, float]:
    if int(scored.given.segment_role[segment]) not in HEARD:
        return {}
    judged = zip(("role log-odds", *scored.classes), scored.given.segment_judged[segment].tolist(), strict=True)
    return {"distance": float(scored.scores.distance[segment])} | {
        name: value for name, value in judged if value == value
    }


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
