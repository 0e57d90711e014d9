"""Where outcomes go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stream.record import DeadLetter, OutRecord


class Written(Protocol):
    """The part of an outcome that others than the scorer read; `stream.inputs.Outcome` is one."""

    @property
    def scores(self) -> Sequence[OutRecord]:
        """One for each event."""
        ...

    @property
    def findings(self) -> Sequence[OutRecord]:
        """Creates, Updates and Closes."""
        ...

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """What could not be read."""
        ...


class Sink(Protocol):
    """Takes outcomes, in the order of the inputs within each partition."""

    def write(self, outcome: Written) -> None:
        """Take all of `outcome`."""
        ...
