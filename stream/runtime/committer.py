"""Commits in one thread of its own, so that polling, scoring and committing overlap."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from stream.errors import FencedError
from stream.runtime.delivery import Delivery, Work
from stream.runtime.faults import Aborted
from stream.runtime.metrics import Metrics
from stream.sources.kafka import Place

HANGS_TURNS = 20
"""Turns of a second past a call's time-out; not seconds on a clock, since a process that was frozen must get them once
it is awake. A scorer was seen to stand still when the broker died that coordinated its group and its transactions."""
_TURN_SECONDS = 1.0


class Committer:
    """A queue of works before one delivering thread.

    The first work that fails stops the line: those behind it are dropped, and `Aborted` is raised at the next call on
    this side, until `reset`.

    Parameters
    ----------
    depth
        Works that may be under way or waiting; a submitter waits for room. It bounds memory and keeps what a failure
        costs small.
    """

    def __init__(self, delivery: Delivery, metrics: Metrics, depth: int = 2) -> None:
        self._delivery = delivery
        self._metrics = metrics
        self._depth = depth
        self._broken = False
        self._dropping = False
        self._overdue_turns = 0
        self._checked_at = 0.0
        self._queue: deque[tuple[Future[None], Work]] = deque()
        self._thread = ThreadPoolExecutor(1, "committer")
        self.committed: dict[Place, int] = {}
        """Place -> offset committed by this process, as far as `settle` has seen."""

    def open(self) -> Future[None]:
        """Make the delivery ready, on its thread; for nothing if it is."""
        return self._thread.submit(self._delivery.open)

    @property
    def idle(self) -> bool:
        """True when nothing is under way."""
        return not self._queue

    def uncommitted(self) -> set[Place]:
        """Partitions whose state may be ahead of what is committed."""
        return {place for _, work in self._queue for place in work.offsets}

    @property
    def hanging(self) -> bool:
        """Whether the delivering thread is in a call that its time-out has not ended: nobody can end it any more."""
        return self._overdue_turns >= HANGS_TURNS

    def submit(self, work: Work) -> None:
        """Queue a work, waiting for room.

        Raises
        ------
        Aborted
            When an earlier one was not committed; this one is dropped with it.
        FencedError
            When a transaction does not end, or as the delivery says.
        """
        began = time.perf_counter()
        while len(self._queue) >= self._depth:
            self._take()
        self._metrics.stage_seconds.labels("queue").observe(time.perf_counter() - began)
        self._queue.append((self._thread.submit(self._deliver, work), work))

    def settle(self) -> bool:
        """Take note of works that are done, without waiting; True if there were any. Raises as `submit` does."""
        waiting = len(self._queue)
        while self._queue and self._queue[0][0].done():
            self._take()
        if self._queue:
            self._check()
        return len(self._queue) < waiting

    def wait_for(self, opened: Future[None], waiting: Callable[[], None] = lambda: None) -> None:
        """Wait for what `open` has begun.

        Parameters
        ----------
        waiting
            Called several times a second meanwhile; may raise to break off.

        Raises
        ------
        Aborted, EnvironmentFault, FencedError
            As the delivery says, or when it hangs.
        """
        while not wait([opened], _TURN_SECONDS / 4).done:
            self._check()
            waiting()
        opened.result()

    def drain(self, seconds: float) -> bool:
        """Wait until all works are committed; False when that takes longer. Raises as `submit` does."""
        wait([future for future, _ in self._queue], seconds)
        self.settle()
        return not self._queue

    def reset(self, waiting: Callable[[], None] = lambda: None) -> None:
        """Drop what has not begun, wait for what has, and be ready again.

        Parameters
        ----------
        waiting
            Called once a second meanwhile.

        Raises
        ------
        FencedError, EnvironmentFault
            When what was under way ended so.
        """
        # Not `_broken`, which a delivery that succeeds meanwhile would clear.
        self._dropping = True
        while self._queue:
            future, _ = self._queue[0]
            if not wait([future], _TURN_SECONDS).done:
                self._check()
                waiting()
                continue
            try:
                self._take()
            except Aborted:
                self._queue.popleft()
        self._broken = self._dropping = False

    def _take(self) -> None:
        future, work = self._queue[0]
        while not wait([future], _TURN_SECONDS).done:
            self._check()
        future.result()
        self._delivery.settle(work)
        self._queue.popleft()
        self.committed.update(work.offsets)

    def _check(self) -> None:
        """Count a turn of waiting, once a second; raise after too many."""
        now = time.monotonic()
        if now < self._checked_at + _TURN_SECONDS:
            return
        self._checked_at = now
        self._overdue_turns = self._overdue_turns + 1 if self._delivery.overdue else 0
        if self.hanging:
            raise FencedError(
                "a transaction has not ended long after kafka.transaction_timeout_ms: the client hangs. "
                "Start this process again: nothing of the transaction counts, and it is done again."
            )

    def _deliver(self, work: Work) -> None:
        if self._broken or self._dropping:
            raise Aborted("an earlier batch was not committed")
        # Set first: whatever ends the delivery early, the works behind it must not be written.
        self._broken = True
        began = time.perf_counter()
        self._delivery.deliver(work)
        self._metrics.stage_seconds.labels("commit").observe(time.perf_counter() - began)
        self._broken = False

    def close(self) -> None:
        """Give up the thread and the delivery, without waiting for a call that hangs."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._delivery.close()
