"""How many records to take together so that what comes of them fits into one transaction."""

from __future__ import annotations

from stream.runtime.faults import Aborted

TRANSACTION_RECORDS_MAX = 10_000
"""Records of a transaction stay below it."""
TRANSACTION_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of keys and values in a transaction stay below it."""
INPUT_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of input taken together; what comes of an event is mostly smaller than the event."""


class TooLarge(Aborted):
    """What came of several inputs does not fit into one transaction: take fewer."""


class BatchPlan:
    """The number of records to take next, learned from what the last ones became.

    A transaction is the outcome of whole inputs, and a core that has stepped cannot step back. So the plan aims at half
    of what is allowed; where an outcome is too large all the same, the caller drops the state, restores it and takes
    half as many records. Only the outcome of a single input may be larger. Results do not depend on it.

    >>> plan = BatchPlan(2000)
    >>> plan.check(inputs=2000, records=4000, size=16_000_000)
    Traceback (most recent call last):
    stream.runtime.plan.TooLarge: 2000 inputs became 4000 records and 16000000 bytes
    >>> plan.records
    1000
    >>> plan.check(inputs=1, records=30_000, size=50_000_000)
    """

    def __init__(self, records_max: int) -> None:
        self._records_max = records_max
        self.records = records_max
        """To take next."""

    def check(self, inputs: int, records: int, size: int) -> None:
        """Take note of an outcome of `records` records and `size` bytes.

        Raises
        ------
        TooLarge
            When it must not be written as one transaction.
        """
        used = max(records / TRANSACTION_RECORDS_MAX, size / TRANSACTION_BYTES_MAX)
        if used >= 1.0 and inputs > 1:
            self.records = max(1, min(self.records, inputs) // 2)
            raise TooLarge(f"{inputs} inputs became {records} records and {size} bytes")
        if used > 0.5 and inputs:
            self.records = max(1, int(min(self.records, inputs) * 0.5 / used))
        elif inputs >= self.records and used < 0.33:
            self.records = min(self._records_max, self.records + self.records // 2 + 1)
