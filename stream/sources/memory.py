"""Records from memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from stream.record import Record


class MemorySource:
    """A `Source` of the records given.

    >>> source = MemorySource([Record("t", 0, 7, 0, None, b"{}")])
    >>> [record.offset for record in source.poll(5)], source.exhausted
    ([7], True)
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = iter(records)
        self._exhausted = False

    def poll(self, max_records: int) -> list[Record]:
        """At most `max_records` that follow."""
        polled = list(islice(self._records, max_records))
        self._exhausted = len(polled) < max_records
        return polled

    @property
    def exhausted(self) -> bool:
        """Whether a poll has found the end."""
        return self._exhausted
