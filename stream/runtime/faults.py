"""What the shells do about faults: give a batch up, ask again, wait longer each time."""

from __future__ import annotations

import random
from collections.abc import Iterator

from confluent_kafka import KafkaError

from stream.errors import RetriableError
from stream.kafka_faults import exit_of, fault_of


class Aborted(Exception):
    """A batch was not committed, or nobody knows whether it was: its partitions' state must be restored."""


def retriable_or_exit(error: KafkaError, what: str) -> Exception:
    """What a question to the broker that failed with `error` is raised as: worth asking again, or not."""
    if fault_of(error).ends:
        return exit_of(error, what)
    return RetriableError(f"{what}: {error.str()} ({error.name()})")


def backoffs(first_seconds: float = 0.05, most_seconds: float = 5.0) -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling up to a bound, anywhere in the upper half of it.

    Jitter keeps a fleet that lost its broker from coming back in step.
    """
    most = first_seconds
    while True:
        yield random.uniform(most / 2, most)
        most = min(2 * most, most_seconds)
