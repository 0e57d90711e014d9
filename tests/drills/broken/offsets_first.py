"""Tidegate, made wrong on purpose: offsets are committed before, and outside of, the transaction that they belong to.

A process killed in between has skipped what it never wrote. The drill's checker must see it.
"""

import sys
import time
from dataclasses import replace

from stream.runtime.delivery import ExactlyOnce, Work
from tidegate import cli

WINDOW_S = 0.6
"""Between the offsets and the outputs, so that a kill is likely to fall in it."""

_deliver = ExactlyOnce.deliver


def _offsets_first(self: ExactlyOnce, work: Work) -> None:
    self._source().commit(work.offsets)
    time.sleep(WINDOW_S)
    _deliver(self, replace(work, offsets={}))


if __name__ == "__main__":
    ExactlyOnce.deliver = _offsets_first  # type: ignore[method-assign]
    sys.exit(cli.main())
