"""Outcomes into memory."""

from __future__ import annotations

from stream.record import DeadLetter, OutRecord
from stream.sinks.sink import Written


class MemorySink:
    """A `Sink` that keeps what it is given, as it comes."""

    def __init__(self) -> None:
        self.scores: list[OutRecord] = []
        self.findings: list[OutRecord] = []
        self.dead_letters: list[DeadLetter] = []

    def write(self, outcome: Written) -> None:
        """Take all of `outcome`."""
        self.scores += outcome.scores
        self.findings += outcome.findings
        self.dead_letters += outcome.dead_letters
