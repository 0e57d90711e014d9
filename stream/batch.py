"""A micro-batch of events as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.event_head import EventHead

DIGEST_BYTES = 16
"""Of one message's content, BLAKE2b-128: long enough that nobody finds two messages with one digest."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events (n) of one or more partitions, in offset order within each.

    Numbers are arrays, NaN where a gateway said nothing; text stays in the heads and is split and embedded only when it
    is new.
    """

    partition: NDArray[np.int64]
    offset: NDArray[np.int64]
    ingest_time_ms: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    prompt_tokens: NDArray[np.float64]
    completion_tokens: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    duration_ms: NDArray[np.float64]
    failed: NDArray[np.bool_]
    clamped: NDArray[np.bool_]
    """The event time lay too far ahead of the ingest time, and was moved back."""
    heads: list[EventHead]
    digests: list[bytes]
    """Of all request and then response messages of each event, joined."""
    keys: list[bytes | None]
    """Of the records, which the scores take over."""
    traceparent: list[bytes | None]
    topic: str

    def __len__(self) -> int:
        return len(self.heads)

    def take(self, index: NDArray[np.int64]) -> "EventBatch":
        """Some of the events, in the order of `index`."""
        at = index.tolist()
        return EventBatch(
            self.partition[index],
            self.offset[index],
            self.ingest_time_ms[index],
            self.event_time_ms[index],
            self.prompt_tokens[index],
            self.completion_tokens[index],
            self.cost_usd[index],
            self.duration_ms[index],
            self.failed[index],
            self.clamped[index],
            [self.heads[i] for i in at],
            [self.digests[i] for i in at],
            [self.keys[i] for i in at],
            [self.traceparent[i] for i in at],
            self.topic,
        )
