"""The loop of every service, over a source and a pipeline in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from typing import cast

import pytest

from stream.errors import EnvironmentFault, FencedError, RetriableError, StateError
from stream.record import Record
from stream.runtime.committer import Committer
from stream.runtime.delivery import Work
from stream.runtime.faults import Aborted
from stream.runtime.group import GroupSource, Polled
from stream.runtime.metrics import Metrics
from stream.runtime.plan import TRANSACTION_BYTES_MAX
from stream.runtime.service import Service, ServiceOptions
from stream.sources.kafka import Place

HERE: Place = ("t", 0)


class Source:
    """One partition with the given offsets; its end lies at `end`, behind markers."""

    def __init__(self, offsets: Sequence[int], end: int) -> None:
        self._offsets = offsets
        self._end = end
        self._at = -1
        self._told = False
        self.group: dict[Place, int | None] = {HERE: None}
        self.held = {HERE: 0}
        self.joined = True
        self.waiting: str | None = None
        self.low = 0
        self.removing: tuple[int, int] | None = None
        """Once the first offset is reached, the partition begins at the second."""
        self.starts: list[int] = []
        self.rebalances: deque[int | None] = deque()
        """For each `serve`, the offset with which the partition comes back, given up within it; None when it stays."""
        self.closed = False
        self.listener: Service

    @property
    def assigned(self) -> set[Place]:
        return {HERE}

    def hold(self, places: Iterable[Place]) -> None:
        self.held.update(dict.fromkeys(places, len(self.starts)))

    def start(self, starts: Mapping[Place, int], held: Mapping[Place, int]) -> set[Place]:
        assert held == self.held
        self.held.clear()
        self._at, self._told = starts[HERE], False
        self.starts.append(starts[HERE])
        return {HERE}

    def committed(self, places: Iterable[Place], pause: Callable[[float], bool]) -> dict[Place, int | None]:
        return dict(self.group)

    def poll(self, records_max: int, bytes_max: int, wait_seconds: float) -> Polled:
        if self.removing is not None and self._at >= self.removing[0]:
            self.low, self.removing = self.removing[1], None
            self.hold([HERE])
            return Polled([], gone={HERE})
        offsets = [offset for offset in self._offsets if offset >= self._at][:records_max]
        if offsets:
            self._at = offsets[-1] + 1
            return Polled([Record("t", 0, offset, 0, None, b"x") for offset in offsets], {}, len(offsets))
        told, self._told = self._told, True
        return Polled([], {} if told else {HERE: self._end})

    def high(self, place: Place) -> int:
        return self._end

    def serve(self) -> None:
        offset = self.rebalances.popleft() if self.rebalances else None
        if offset is not None:
            self.listener.revoked([HERE])
            self.group[HERE] = offset
            self.held = {HERE: self.held[HERE] + 1}

    def bounds(self, place: Place) -> tuple[int, int]:
        return self.low, self._end

    def close(self) -> None:
        self.closed = True


class Calm:
    """A broker that is there, with the topics of the start."""

    known = True

    def start(self) -> None:
        pass

    check = close = start

    def away(self) -> str | None:
        return None


class Counting:
    """Writes the offsets it is given; state is how many they were."""

    release = "r"

    def __init__(self, source: Source, bytes_per_record: int = 1) -> None:
        self._source = source
        self._bytes = bytes_per_record
        self.state = 0
        self.kept = 0
        self.written: list[int] = []
        self.refused: deque[Exception] = deque()
        self.restores = 0

    def load(self) -> None:
        pass

    def restore(self, committed: Mapping[Place, int | None], waiting: Callable[[], None]) -> Mapping[Place, int]:
        self.restores += 1
        if self.refused:
            raise self.refused.popleft()
        self.state = self.kept
        waiting()
        if self.state != self.kept:
            raise StateError("holds no state")
        return {place: offset or 0 for place, offset in committed.items()}

    def drop(self, places: Iterable[Place]) -> None:
        if set(places):
            self.state = -(10**9)

    def step(self, polled: Polled, offsets: Mapping[Place, int]) -> Work:
        self.state += len(polled.records)
        state, seen = self.state, [record.offset for record in polled.records]

        def committed() -> None:
            self.written += seen
            self.kept = state
            self._source.group.update(offsets)

        size = self._bytes * len(seen)
        return Work(offsets, lambda _: None, lambda _: None, committed, len(seen), len(seen), size)

    def due(self) -> Work | None:
        return None

    def tick(self, place: Place) -> Work | None:
        return None


class Deliveries:
    """Commits, except where told otherwise."""

    overdue = False

    def __init__(self, *failures: Exception | None) -> None:
        self._failures = deque(failures)

    def open(self) -> None:
        pass

    def deliver(self, work: Work) -> None:
        failure = self._failures.popleft() if self._failures else None
        if failure is not None:
            raise failure
        work.committed()

    def settle(self, work: Work) -> None:
        pass

    def close(self) -> None:
        pass


def served(
    source: Source, pipeline: Counting, deliveries: Deliveries, records_max: int = 7, lost_records_max: int = 0
) -> Service:
    """A service that has run until the end."""
    metrics = Metrics()
    options = ServiceOptions(1, records_max, 10_000, "127.0.0.1:0", until_end=True, lost_records_max=lost_records_max)
    committer = Committer(deliveries, metrics)

    def connect(service: Service) -> GroupSource:
        source.listener = service
        return cast(GroupSource, source)

    service = Service(options, pipeline, connect, committer, lambda: {HERE: source._end}, Calm(), metrics, Event())
    service.run()
    return service


def test_it_commits_every_record_once_and_then_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    source = Source([*range(10), *range(15, 40)], end=45)
    pipeline = Counting(source)
    served(source, pipeline, Deliveries())
    assert pipeline.written == [*range(10), *range(15, 40)]
    assert source.group == {HERE: 45}
    assert source.closed
    out = capsys.readouterr().out
    assert out.startswith('READY {"http":"http://127.0.0.1:')
    assert '"partitions":[0],"release":"r"}' in out


def test_an_aborted_batch_is_done_again_from_restored_state() -> None:
    source = Source(range(50), end=50)
    pipeline = Counting(source)
    served(source, pipeline, Deliveries(None, None, Aborted("aborted"), None, Aborted("again")))
    assert pipeline.written == list(range(50))
    assert pipeline.kept == 50
    assert pipeline.restores == 3
    assert source.starts[:2] == [0, 14]


def test_a_restore_that_the_broker_cannot_serve_yet_is_tried_again() -> None:
    source = Source(range(5), end=5)
    pipeline = Counting(source)
    pipeline.refused.extend([RetriableError("away"), RetriableError("still away")])
    served(source, pipeline, Deliveries())
    assert pipeline.written == list(range(5))
    assert pipeline.restores == 3


@pytest.mark.parametrize("while_it_runs", [False, True])
def test_records_that_retention_removed_end_the_service_unless_so_many_may_be_lost(while_it_runs: bool) -> None:
    def source() -> Source:
        made = Source(range(50), end=50)
        made.group[HERE] = 7
        if while_it_runs:
            made.removing = (7, 20)
        else:
            made.low = 20
        return made

    for most in (0, 12):
        pipeline = Counting(source())
        with pytest.raises(EnvironmentFault, match=r"13 offsets in all: t\[0\] 13 from offset 7.*LOST_RECORDS_MAX=13:"):
            served(pipeline._source, pipeline, Deliveries(), lost_records_max=most)
        assert pipeline.written == []
    pipeline = Counting(source())
    served(pipeline._source, pipeline, Deliveries(), lost_records_max=13)
    assert pipeline.written == list(range(20, 50))


def test_what_was_read_before_the_offset_that_is_not_there_is_committed() -> None:
    source = Source(range(50), end=50)
    source.removing = (21, 30)
    pipeline = Counting(source)
    with pytest.raises(EnvironmentFault, match="9 offsets in all"):
        served(source, pipeline, Deliveries())
    assert pipeline.written == list(range(21))


def test_records_that_nobody_was_to_read_are_no_loss() -> None:
    source = Source(range(20, 50), end=50)
    source.low = 20
    pipeline = Counting(source)
    served(source, pipeline, Deliveries())
    assert source.starts == [20]


def test_an_offset_behind_the_end_is_exit_5() -> None:
    source = Source(range(5), end=5)
    source.group[HERE] = 6
    with pytest.raises(
        StateError, match=r"t\[0\]: the group has committed offset 6, but the partition ends at offset 5"
    ):
        served(source, Counting(source), Deliveries())


def test_state_that_differs_ends_the_service_unless_offsets_moved_while_it_was_read() -> None:
    source = Source(range(5), end=5)
    pipeline = Counting(source)
    pipeline.refused.append(StateError("differs"))
    with pytest.raises(StateError):
        served(source, pipeline, Deliveries())
    source = Source(range(5), end=5)
    pipeline = Counting(source)
    source.group[HERE] = 0

    def moved(places: Iterable[Place], pause: Callable[[float], bool]) -> dict[Place, int | None]:
        asked.append(1)
        return {HERE: min(len(asked) - 1, 1)}

    asked: list[int] = []
    source.committed = moved  # type: ignore[method-assign]
    pipeline.refused.append(StateError("differs"))
    served(source, pipeline, Deliveries())
    assert pipeline.restores == 2
    assert pipeline.written == list(range(1, 5))


@pytest.mark.parametrize(
    ("rebalances", "start"),
    [([2], 2), ([None, 0], 0), ([None, 2], 2)],
    ids=["before the first row", "its owner has committed nothing", "its owner has committed"],
)
def test_a_partition_given_up_while_its_state_is_read_is_restored_anew(
    rebalances: list[int | None], start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.runtime.service._SERVE_SECONDS", 0.0)
    source = Source(range(5), end=5)
    source.group[HERE] = 0
    source.rebalances.extend(rebalances)
    pipeline = Counting(source)
    served(source, pipeline, Deliveries())
    assert source.starts == [start]
    assert pipeline.written == list(range(start, 5))


def test_an_outcome_that_is_too_large_is_done_again_in_smaller_parts() -> None:
    source = Source(range(20), end=20)
    pipeline = Counting(source, bytes_per_record=TRANSACTION_BYTES_MAX // 3)
    served(source, pipeline, Deliveries(), records_max=16)
    assert pipeline.written == list(range(20))
    assert pipeline.restores >= 3


def test_a_fenced_producer_ends_the_service_and_closes_everything() -> None:
    source = Source(range(20), end=20)
    with pytest.raises(FencedError):
        served(source, Counting(source), Deliveries(None, FencedError("fenced")))
    assert source.closed


def test_revoked_partitions_are_given_up_with_nothing_pending() -> None:
    source = Source(range(20), end=20)
    pipeline = Counting(source)
    service = served(source, pipeline, Deliveries())
    service.revoked([HERE])
    assert pipeline.state < 0
    service.lost([HERE])
    assert pipeline.written == list(range(20))
