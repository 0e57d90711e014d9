"""Tidegate, made wrong on purpose: offsets are committed before, and outside of, the transaction that they belong to.

A process killed in between has skipped what it never wrote. The drill's checker must see it.
"""

import sys
from dataclasses import replace

from stream.runtime.delivery import ExactlyOnce, Work
from tests.drills.broken.window import window
from tidegate import cli

_deliver = ExactlyOnce.deliver


def _offsets_first(self: ExactlyOnce, work: Work) -> None:
    self._source().commit(work.offsets)
    if work.inputs:
        window()
    _deliver(self, replace(work, offsets={}))


if __name__ == "__main__":
    ExactlyOnce.deliver = _offsets_first  # type: ignore[method-assign]
    sys.exit(cli.main())
