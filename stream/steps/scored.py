"""A batch as it was scored: what is reported, explained and watched."""

from collections.abc import Sequence
from dataclasses import dataclass

from stream.batch import EventBatch
from stream.steps.content import Content
from stream.steps.score import ScoreInput, Scores
from stream.steps.sessions import NewContent, Suspicion
from stream.steps.timing import Timed
from stream.steps.volume import VolumeInput


@dataclass(frozen=True, slots=True)
class Scored:
    """Events of a batch, duplicates among them in `placed` alone, and all that was said of them."""

    placed: Timed
    live: EventBatch
    """The n events that are no duplicates: what all that follows counts."""
    given: ScoreInput
    calls: VolumeInput
    scores: Scores
    suspicion: Suspicion
    new: NewContent
    contents: Sequence[Content]
    """Of the new messages."""
    classes: Sequence[str]
    """Of known attacks, as the release in service names them, in the order of their columns."""
