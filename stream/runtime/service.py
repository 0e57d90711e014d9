"""The loop that every service runs: poll, step, commit; restore, rebalance, recover, stop."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Timer
from types import FrameType
from typing import Protocol

import orjson

from stream.errors import EnvironmentFault, FencedError, RetriableError, StateError, TidegateError
from stream.runtime.committer import Committer
from stream.runtime.delivery import Work
from stream.runtime.faults import Aborted, backoffs
from stream.runtime.group import GroupSource, Polled
from stream.runtime.http import StatusServer
from stream.runtime.memory import give_back
from stream.runtime.metrics import Metrics
from stream.runtime.plan import INPUT_BYTES_MAX, BatchPlan, TooLarge
from stream.sources.kafka import Place

_LOG = logging.getLogger(__name__)
_HOUSEKEEPING_SECONDS = 1.0
_MEMORY_SECONDS = 30.0
_TICK_SECONDS = 0.2
_SERVE_SECONDS = 0.5
_HANGING_SECONDS = 5.0
_WATCH_SECONDS = 2.5
_LAST_RESORT_SECONDS = 0.5
"""Of the shutdown deadline, kept for ending the process whatever hangs."""


class Pipeline(Protocol):
    """What ingest and score do with a batch."""

    def load(self) -> None:
        """Do what takes time at start; the group is joined meanwhile."""

    @property
    def release(self) -> str:
        """What the READY line names; empty where there is none."""

    def restore(self, committed: Mapping[Place, int | None], waiting: Callable[[], None]) -> Mapping[Place, int]:
        """Bring back the state of partitions; where to start each.

        Parameters
        ----------
        waiting
            Called at every turn of it. A rebalance within it may `drop` what is being restored; it raises then, and at
            the service's end, to break off.
        """

    def drop(self, places: Iterable[Place]) -> None:
        """Forget partitions."""

    def step(self, polled: Polled, offsets: Mapping[Place, int]) -> Work:
        """What is to be written for a batch."""

    def due(self) -> Work | None:
        """What is to be written before the next batch whatever that brings, None when nothing is left to do."""

    def tick(self, place: Place) -> Work | None:
        """What is to be written because time has passed in an idle partition, None when nothing is due."""


class Watch(Protocol):
    """What `BrokerWatch` tells."""

    @property
    def known(self) -> bool:
        """Whether the broker has told which topics it has."""

    def start(self) -> None:
        """Begin to ask."""

    def check(self) -> None:
        """Raise what ends the service."""

    def away(self) -> str | None:
        """Since when no broker answers, None while one does."""

    def close(self) -> None:
        """Ask no more."""


class Stopped(Exception):
    """Whoever waits is told that the service ends."""


class GivenUp(Exception):
    """Whoever reads the state of partitions is told that one of them is not this member's any more."""


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the command line says about one run."""

    wait_ms: int
    records_max: int
    deadline_ms: int
    http_listen: str
    until_end: bool = False
    lost_records_max: int = 0


class Service:
    """Runs a pipeline over a consumer group's partitions until it is told to stop, or has reached the end.

    Parameters
    ----------
    connect
        Makes the source, given this service as its listener.
    ends
        Ends of all partitions of the input as a `read_uncommitted` handle sees them now; asked once, for `until_end`.
    watch
        Knows whether the broker is there and the topics are those of the start.

    Raises
    ------
    TidegateError
        From `run`, with the exit code that it asks for.
    """

    def __init__(
        self,
        options: ServiceOptions,
        pipeline: Pipeline,
        connect: Callable[[Service], GroupSource],
        committer: Committer,
        ends: Callable[[], Mapping[Place, int]],
        watch: Watch,
        metrics: Metrics,
        stopping: Event,
    ) -> None:
        self._options = options
        self._pipeline = pipeline
        self._connect = connect
        self._committer = committer
        self._list_ends = ends
        self._watch = watch
        self._metrics = metrics
        self._stopping = stopping
        self._plan = BatchPlan(options.records_max)
        self._next: dict[Place, int | None] = {}
        self._known: dict[Place, int] = {}
        self._at_end: dict[Place, int] = {}
        self._behind: dict[Place, int | None] = {}
        self._stepping: set[Place] = set()
        self._gone: set[Place] = set()
        """Partitions that do not hold the offset that comes next."""
        self._until: Mapping[Place, int] | None = None
        self._unready: str | None = "starting"
        self._announced = self._failed = self._done = False
        self._housekeeping_at = self._memory_at = self._tick_at = self._others_at = self._serve_at = 0.0
        self._waits = backoffs()
        self._source: GroupSource

    # -- life --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve."""
        # Where one hangs, its threads can be looked at without a debugger: docs/runbook.md.
        faulthandler.register(signal.SIGUSR1, sys.__stderr__ or sys.stderr)
        with ExitStack() as closing:
            for number in (signal.SIGTERM, signal.SIGINT):
                closing.callback(signal.signal, number, signal.signal(number, self._stop))
            # Asked from here, since the loop may be waiting for a broker that is away.
            http = StatusServer(self._options.http_listen, self._metrics.registry, self._unready_now)
            closing.callback(http.close)
            self._metrics.ready.set_function(lambda: float(self._unready_now() is None))
            self._url = http.url
            closing.callback(self._watch.close)
            self._watch.start()
            closing.callback(self._committer.close)
            self._source = self._connect(self)
            closing.callback(self._source.close)
            self._serve()

    def _serve(self) -> None:
        try:
            opened = self._committer.open()
            self._pipeline.load()
            self._committer.wait_for(opened)
            while not self._stopping.is_set() and not self._done:
                self._turn()
            self._finish()
        except Stopped:
            self._finish()
        except Aborted as error:
            # Only while starting or finishing: what was not committed is done again by the next start.
            _LOG.warning("stopped: %s", error)
        except TidegateError:
            # Closing the source revokes its partitions, and what failed once must not be waited for again.
            self._failed = True
            # Whoever still tries for a broker that is away, on the committer's thread, gives up.
            self._stopping.set()
            if self._committer.hanging:
                # The interpreter waits for its threads, and this one never ends.
                self._end_by(_HANGING_SECONDS, FencedError.exit_code)
            raise

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: finish what is under way, and end the process by the deadline whatever hangs."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        # Nothing is lost by it: what is not committed is aborted, and done again by the next start.
        self._end_by(self._options.deadline_ms / 1000 - _LAST_RESORT_SECONDS, 0)

    @staticmethod
    def _end_by(seconds: float, code: int) -> None:
        guard = Timer(max(seconds, 0.05), os._exit, (code,))
        guard.daemon = True
        guard.start()

    def _finish(self) -> None:
        self._unready = "stopping"
        try:
            self._committer.drain(self._options.deadline_ms / 1000)
        except Aborted as error:
            _LOG.warning("the last batch was not committed and will be done again: %s", error)

    def _announce(self) -> None:
        if self._announced or not self._source.joined:
            return
        self._announced = True
        self._unready = self._why_unready()
        line = {
            "http": self._url,
            "pid": os.getpid(),
            "partitions": sorted({partition for _, partition in self._source.assigned}),
            "release": self._pipeline.release,
        }
        sys.stdout.write(f"READY {orjson.dumps(line).decode()}\n")
        sys.stdout.flush()

    # -- a turn ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        try:
            self._watch.check()
            if self._committer.settle():
                self._waits = backoffs()
            if self._gone:
                self._look_again()
            if self._options.until_end and self._until is None:
                self._until = self._list_ends()
            if self._source.held:
                self._restore()
            while (work := self._pipeline.due()) is not None:
                self._submit(work)
            self._announce()
            began = time.perf_counter()
            polled = self._source.poll(self._plan.records, INPUT_BYTES_MAX, self._options.wait_ms / 1000)
            self._gone |= polled.gone
            if polled.records or polled.ends:
                self._metrics.stage_seconds.labels("poll").observe(time.perf_counter() - began)
                self._take(polled)
            elif self._committer.idle:
                self._tick()
            self._done = self._complete()
        except TooLarge as error:
            _LOG.info("%s; restoring to take fewer", error)
            self._recover()
        except Aborted as error:
            _LOG.warning("%s; restoring", error)
            self._recover()
            self._stopping.wait(next(self._waits))
        except GivenUp:
            _LOG.info("partitions were given up while state was read; restoring those that are left")
        except RetriableError as error:
            _LOG.warning("%s; trying again", error)
            self._stopping.wait(next(self._waits))
        self._keep_house()

    def _take(self, polled: Polled) -> None:
        self._at_end.update(polled.ends)
        offsets = {place: to for place, to in polled.next_offsets().items() if self._next.get(place) != to}
        if not offsets:
            return
        for record in polled.records:
            self._at_end.pop((record.topic, record.partition), None)
        self._at_end.update(polled.ends)
        self._stepping = set(offsets)
        began = time.perf_counter()
        work = self._pipeline.step(polled, offsets)
        self._metrics.stage_seconds.labels("step").observe(time.perf_counter() - began)
        self._submit(work)

    def _submit(self, work: Work) -> None:
        self._stepping = set(work.offsets)
        self._plan.check(work.inputs, work.records, work.size)
        self._committer.submit(work)
        self._next.update(work.offsets)
        self._stepping = set()

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._tick_at:
            return
        self._tick_at = now + _TICK_SECONDS
        for place in sorted(self._at_end):
            self._stepping = {place}
            work = self._pipeline.tick(place)
            self._stepping = set()
            if work is not None:
                self._submit(work)

    def _keep_house(self) -> None:
        self._known.update(self._committer.committed)
        self._behind = {place: end for place, end in self._behind.items() if self._is_behind(place, end)}
        self._unready = self._why_unready()
        now = time.monotonic()
        if now < self._housekeeping_at:
            return
        self._housekeeping_at = now + _HOUSEKEEPING_SECONDS
        for place in self._source.assigned:
            high = self._source.high(place)
            done = self._known.get(place)
            if high is not None and done is not None:
                self._metrics.lag.labels(place[0], str(place[1])).set(max(0, high - done))
        if now >= self._memory_at:
            self._memory_at = now + _MEMORY_SECONDS
            give_back()

    def _is_behind(self, place: Place, end: int | None) -> bool:
        """Whether a partition is not yet committed up to the end that it had when it was assigned."""
        if end is None:
            end = self._behind[place] = self._source.high(place)
        nearest = min(sys.maxsize if end is None else end, self._at_end.get(place, sys.maxsize))
        return self._known.get(place, -1) < nearest

    def _unready_now(self) -> str | None:
        return self._watch.away() or self._unready

    def _why_unready(self) -> str | None:
        if not self._source.joined:
            return self._source.waiting or "waiting for partitions"
        if self._source.held:
            return f"restoring {len(self._source.held)} partitions"
        if self._behind:
            return f"catching up in {len(self._behind)} partitions"
        return None

    # -- partitions --------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        self._unready = self._why_unready()
        began = time.perf_counter()
        held = self._source.held

        def waiting() -> None:
            self._wait()
            # A rebalance forgets what is given up, in the middle of its being read: what follows would lack it.
            if not held.items() <= self._source.held.items():
                raise GivenUp

        if not self._watch.known:
            raise RetriableError("the broker has not told which topics it has")
        # A producer that was given up may have left offsets pending, which nobody reads before a new one ends it.
        self._committer.wait_for(self._committer.open(), waiting)
        committed = self._source.committed(held, self._stopping.wait)
        waiting()
        try:
            starts = self._kept(self._pipeline.restore(committed, waiting), committed)
        except StateError as error:
            # A member that the group has expelled does not know it yet: the next owner may have committed meanwhile.
            if self._source.committed(held, self._stopping.wait) == committed:
                # A topic that was created again has lost its offsets: the watch, asking once a second, says it better.
                self._stopping.wait(_WATCH_SECONDS)
                self._watch.check()
                raise
            raise RetriableError(f"offsets moved while state was read ({error})") from error
        started = self._source.start(starts, held)
        self._pipeline.drop(set(starts) - started)
        for place in started:
            offset = committed[place]
            self._next[place] = offset
            self._behind[place] = None
            if offset is not None:
                self._known[place] = offset
        _LOG.info("restored %d partitions in %.2f s", len(started), time.perf_counter() - began)

    def _kept(self, starts: Mapping[Place, int], committed: Mapping[Place, int | None]) -> dict[Place, int]:
        """`starts`, moved up to the first offset that is still there, where that much may be lost."""
        kept, lost = dict(starts), {}
        for place, start in starts.items():
            low, end = self._source.bounds(place)
            if start > end:
                raise StateError(
                    f"{place[0]}[{place[1]}]: the group has committed offset {start}, but the partition ends at offset "
                    f"{end}: records were lost on the broker, or the topic is another one. "
                    "See docs/runbook.md, 'Input that is gone'."
                )
            kept[place] = max(start, low)
            if start < low and committed[place] is not None:
                lost[place] = low - start
        if not lost:
            return kept
        said = ", ".join(f"{topic}[{p}] {count} from offset {starts[topic, p]}" for (topic, p), count in lost.items())
        if (most := max(lost.values())) > self._options.lost_records_max:
            raise EnvironmentFault(
                f"retention removed records before they were read, {sum(lost.values())} offsets in all: {said}. "
                "Lengthen retention.ms, or add scorers. To go on without them start once with "
                f"TIDEGATE_KAFKA__LOST_RECORDS_MAX={most}: docs/runbook.md, 'Input that is gone'."
            )
        _LOG.error("going on without records that retention removed before they were read: %s", said)
        for (topic, _), count in lost.items():
            self._metrics.lost_records.labels(topic).inc(count)
        return kept

    def _wait(self) -> None:
        self._watch.check()
        if self._stopping.is_set():
            raise Stopped
        now = time.monotonic()
        if now > self._serve_at:
            self._serve_at = now + _SERVE_SECONDS
            self._source.serve()

    def _recover(self) -> None:
        """Bring everything that may be ahead of what is committed back to it."""
        ahead = self._committer.uncommitted() | self._stepping
        self._stepping = set()
        self._committer.reset()
        self._source.hold(ahead)
        self._forget(ahead)

    def _look_again(self) -> None:
        """Commit what was read before the offset that is not there; a restore then tells what to do about the rest."""
        if not self._committer.drain(self._options.deadline_ms / 1000):
            raise Aborted("what was under way did not commit in time")
        gone, self._gone = self._gone & self._source.assigned, set()
        if gone:
            _LOG.warning("the next offset is not there: %s; looking what is", _named(gone))
            self._source.hold(gone)
            self._forget(gone)

    def _forget(self, places: Iterable[Place]) -> None:
        gone = set(places)
        self._pipeline.drop(gone)
        for place in gone:
            self._next.pop(place, None)
            self._at_end.pop(place, None)
            self._behind.pop(place, None)

    def revoked(self, places: Sequence[Place]) -> None:
        """Commit what is under way, then forget the partitions."""
        if self._failed:
            return
        _LOG.info("revoked: %s", _named(places))
        try:
            if not self._committer.drain(self._options.deadline_ms / 1000):
                raise Aborted("what was under way did not commit in time")
        except Aborted as error:
            _LOG.warning("%s; the partitions' next owner does it again", error)
            self._recover()
        self._forget(places)

    def lost(self, places: Sequence[Place]) -> None:
        """Somebody else has the partitions: forget what is not committed."""
        _LOG.warning("lost: %s", _named(places))
        self._recover()
        self._forget(places)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _complete(self) -> bool:
        """True when every partition is committed up to the end that it had at start, whoever did it."""
        if self._until is None or not self._source.joined or self._source.held:
            return False
        self._known.update(self._committer.committed)
        left = {place for place, end in self._until.items() if self._known.get(place, -1) < end}
        if not left:
            return True
        now = time.monotonic()
        if left & self._source.assigned or now < self._others_at:
            return False
        self._others_at = now + _HOUSEKEEPING_SECONDS
        for place, offset in self._source.committed(left, self._stopping.wait).items():
            if offset is not None:
                self._known[place] = offset
        return False


def _named(places: Iterable[Place]) -> str:
    return ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(places)) or "nothing"
