"""Tidegate, that freezes itself (SIGSTOP) within a transaction: everything is with the broker but its end.

`DRILL_STOP_AT` is `offsets` (before they are sent) or `commit` (after it); `DRILL_STOP_WORK` says in which of the
process's transactions, from 1.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

from stream.runtime.delivery import ExactlyOnce, Work
from stream.sinks.kafka import KafkaWriter
from tidegate import cli

_deliver, _call = ExactlyOnce.deliver, ExactlyOnce._call
_works: list[Work] = []


def _freeze(writer: KafkaWriter) -> None:
    writer.producer.flush(120.0)
    os.kill(os.getpid(), signal.SIGSTOP)


def _counted(self: ExactlyOnce, work: Work) -> None:
    _works.append(work)

    def state(writer: KafkaWriter) -> None:
        work.state(writer)
        _freeze(writer)

    before_offsets = os.environ["DRILL_STOP_AT"] == "offsets" and len(_works) == int(os.environ["DRILL_STOP_WORK"])
    _deliver(self, replace(work, state=state) if before_offsets else work)


def _frozen_call(self: ExactlyOnce, call: Callable[[float], None], until: float) -> None:
    committing = getattr(call, "__name__", "") == "commit_transaction"
    if committing and os.environ["DRILL_STOP_AT"] == "commit" and len(_works) == int(os.environ["DRILL_STOP_WORK"]):
        assert self._writer is not None
        _freeze(self._writer)
    _call(self, call, until)


if __name__ == "__main__":
    ExactlyOnce.deliver = _counted  # type: ignore[method-assign]
    ExactlyOnce._call = _frozen_call  # type: ignore[method-assign]
    sys.exit(cli.main())
