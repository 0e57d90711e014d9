"""Where records come from."""

from __future__ import annotations

from typing import Protocol

from stream.record import Record


class Source(Protocol):
    """Records in the order of their offsets, within each partition."""

    def poll(self, max_records: int) -> list[Record]:
        """At most `max_records` that follow; fewer, even none, when no more are there."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether a poll has found the end: none will bring records again."""
        ...
