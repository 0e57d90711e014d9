"""The committing thread: in order, all that was before a failure and nothing behind it."""

from collections.abc import Iterator
from threading import Event, get_ident

import pytest

from stream.errors import FencedError
from stream.runtime.committer import HANGS_TURNS, Committer
from stream.runtime.delivery import Work
from stream.runtime.faults import Aborted
from stream.runtime.metrics import Metrics

SECONDS = 120.0


class Deliveries:
    """Keeps what it delivers; waits at each for `go`, and fails where told."""

    def __init__(self) -> None:
        self.go = Event()
        self.go.set()
        self.failing: dict[int, Exception] = {}
        self.delivered: list[int] = []
        self.settled: list[tuple[int, int]] = []
        self.begun = Event()
        self.overdue = False

    def open(self) -> None:
        pass

    def deliver(self, work: Work) -> None:
        self.begun.set()
        assert self.go.wait(SECONDS)
        number = work.offsets["t", 0]
        if number in self.failing:
            raise self.failing[number]
        self.delivered.append(number)

    def settle(self, work: Work) -> None:
        self.settled.append((work.offsets["t", 0], get_ident()))

    def close(self) -> None:
        pass


@pytest.fixture
def deliveries() -> Deliveries:
    return Deliveries()


@pytest.fixture
def committer(deliveries: Deliveries) -> Iterator[Committer]:
    made = Committer(deliveries, Metrics())
    yield made
    deliveries.go.set()
    made.close()


def work(number: int) -> Work:
    return Work({("t", 0): number}, lambda _: None, lambda _: None, lambda: None, 1, 1, 1)


def test_works_are_delivered_in_order_and_settled_on_the_submitting_thread(
    committer: Committer, deliveries: Deliveries
) -> None:
    for number in range(1, 20):
        committer.submit(work(number))
    assert committer.drain(SECONDS)
    assert deliveries.delivered == list(range(1, 20))
    assert deliveries.settled == [(number, get_ident()) for number in range(1, 20)]
    assert committer.committed == {("t", 0): 19}
    assert committer.idle


def test_a_submitter_waits_while_the_queue_is_full(committer: Committer, deliveries: Deliveries) -> None:
    deliveries.go.clear()
    committer.submit(work(1))
    committer.submit(work(2))
    assert deliveries.begun.wait(SECONDS)
    assert not committer.drain(0.05)
    assert committer.uncommitted() == {("t", 0)}
    deliveries.go.set()
    committer.submit(work(3))
    assert 1 in deliveries.delivered


def test_nothing_behind_a_failure_is_delivered(committer: Committer, deliveries: Deliveries) -> None:
    deliveries.go.clear()
    deliveries.failing[1] = Aborted("no")
    committer.submit(work(1))
    committer.submit(work(2))
    deliveries.go.set()
    with pytest.raises(Aborted, match="no"):
        committer.drain(SECONDS)
    committer.reset()
    assert deliveries.delivered == []
    assert committer.committed == {}
    committer.submit(work(1).__class__({("t", 0): 7}, lambda _: None, lambda _: None, lambda: None, 1, 1, 1))
    assert committer.drain(SECONDS)
    assert deliveries.delivered == [7]


def test_a_reset_lets_what_has_begun_end_and_drops_the_rest(committer: Committer, deliveries: Deliveries) -> None:
    deliveries.go.clear()
    committer.submit(work(1))
    committer.submit(work(2))
    assert deliveries.begun.wait(SECONDS)
    committer.reset(waiting=deliveries.go.set)
    assert deliveries.delivered == [1]
    assert committer.committed == {("t", 0): 1}
    assert committer.idle


def test_what_ends_the_process_passes_a_reset(committer: Committer, deliveries: Deliveries) -> None:
    deliveries.failing[1] = FencedError("fenced")
    committer.submit(work(1))
    with pytest.raises(FencedError):
        committer.reset()


@pytest.mark.parametrize("wait_by", ["submit", "reset"])
def test_a_call_that_outstays_its_time_out_ends_the_waiting(
    committer: Committer, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch, wait_by: str
) -> None:
    monkeypatch.setattr("stream.runtime.committer._TURN_SECONDS", 0.01)
    deliveries.go.clear()
    committer.submit(work(1))
    committer.submit(work(2))
    deliveries.overdue = True
    with pytest.raises(FencedError, match="the client hangs"):
        committer.submit(work(3)) if wait_by == "submit" else committer.reset()
    assert committer.hanging


def test_a_call_within_its_time_out_is_waited_for(
    committer: Committer, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.runtime.committer._TURN_SECONDS", 0.01)
    deliveries.go.clear()
    committer.submit(work(1))
    turns = 0

    def waiting() -> None:
        nonlocal turns
        turns += 1
        # Overdue now and then is not hanging.
        deliveries.overdue = turns % HANGS_TURNS != 0
        if turns > 2 * HANGS_TURNS:
            deliveries.go.set()

    committer.reset(waiting)
    assert deliveries.delivered == [1]
    assert not committer.hanging
