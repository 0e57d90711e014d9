"""Tidegate, made wrong on purpose: state is written by a producer of its own, outside the transaction.

A process killed in between has learned from events that nobody has committed. A restore that trusts what it reads goes
on from there, and scores them again with what they taught. The drill's checker must see it.
"""

import sys
from dataclasses import replace
from typing import Any

from stream.runtime import restore
from stream.runtime.delivery import ExactlyOnce, Work
from stream.sinks.kafka import KafkaWriter
from tests.drills.broken.trusting import trust
from tests.drills.broken.window import window
from tidegate import cli

_deliver = ExactlyOnce.deliver
_writers: dict[int, KafkaWriter] = {}


def _state_first(self: ExactlyOnce, work: Work) -> None:
    if id(self) not in _writers:
        single = {key: value for key, value in self._properties.items() if not key.startswith("transaction")}
        _writers[id(self)] = KafkaWriter(single, 30.0)
    writer = _writers[id(self)]
    work.state(writer)
    writer.producer.flush(30.0)
    if work.inputs:
        window()
    _deliver(self, replace(work, state=_nothing))


def _nothing(writer: Any) -> None:
    pass


if __name__ == "__main__":
    ExactlyOnce.deliver = _state_first  # type: ignore[method-assign]
    trust(restore.Restorer)
    sys.exit(cli.main())
