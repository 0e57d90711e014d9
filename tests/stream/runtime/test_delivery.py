"""One transaction a work, over a producer in memory: what becomes of one that is fenced."""

from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.errors import FencedError
from stream.runtime import delivery
from stream.runtime.delivery import ExactlyOnce, Work
from stream.runtime.faults import Aborted
from stream.runtime.group import GroupSource
from stream.runtime.metrics import Metrics

FENCED = KafkaError(KafkaError._FENCED, "fenced by a newer instance", fatal=True)
EXPELLED = KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "unknown member", txn_requires_abort=True)
PLACE = ("t", 0)


class Producer:
    """Fails the calls that it is told to, once it is one of the first."""

    def __init__(self, failing: dict[str, KafkaError]) -> None:
        self._failing = failing

    def __getattr__(self, call: str) -> object:
        def called(*_: object, **__: object) -> None:
            if call in self._failing:
                raise KafkaException(self._failing[call])

        return called


class Writers:
    """Makes writers; the first one's producer fails the given calls."""

    def __init__(self, failing: dict[str, KafkaError]) -> None:
        self._producers: Iterator[Producer] = iter([Producer(failing), Producer({})])
        self.made = 0

    def __call__(self, *_: object) -> object:
        self.made += 1
        return SimpleNamespace(producer=next(self._producers), failures=[], forget=lambda: None, discard=lambda: None)


def delivering(
    monkeypatch: pytest.MonkeyPatch, *, static: bool, failing: dict[str, KafkaError], away: bool = False
) -> tuple[ExactlyOnce, Work, Writers, list[int]]:
    """A delivery that is open, a work, what makes its writers, and what that work has committed."""
    writers = Writers(failing)
    monkeypatch.setattr(delivery, "KafkaWriter", writers)
    source = cast(GroupSource, SimpleNamespace(static=static, metadata=b"generation", positions=list))
    made = ExactlyOnce({}, lambda: source, 5.0, Metrics(), Event(), was_away=lambda: away)
    made.open()
    committed: list[int] = []
    work = Work({PLACE: 7}, lambda _: None, lambda _: None, lambda: committed.append(7), 1, 1, 1)
    return made, work, writers, committed


FENCINGS = [
    {"send_offsets_to_transaction": FENCED},
    {"commit_transaction": FENCED},
    {"send_offsets_to_transaction": EXPELLED, "abort_transaction": FENCED},
]


@pytest.mark.parametrize(("static", "away"), [(False, False), (True, True)], ids=["its own id", "after an outage"])
@pytest.mark.parametrize("failing", FENCINGS, ids="-".join)
def test_a_producer_that_nobody_else_can_have_fenced_is_replaced_when_the_broker_ended_its_transaction(
    failing: dict[str, KafkaError], static: bool, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, work, writers, committed = delivering(monkeypatch, static=static, failing=failing, away=away)
    with pytest.raises(Aborted):
        made.deliver(work)
    assert committed == []
    made.deliver(work)
    assert committed == [7]
    assert writers.made == 2


@pytest.mark.parametrize("failing", FENCINGS, ids="-".join)
def test_a_producer_that_another_process_of_its_instance_may_have_fenced_ends_the_service(
    failing: dict[str, KafkaError], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, work, _, committed = delivering(monkeypatch, static=True, failing=failing)
    with pytest.raises(FencedError, match="--instance-id"):
        made.deliver(work)
    assert committed == []


def test_an_aborted_transaction_leaves_the_producer_ready_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = {"send_offsets_to_transaction": EXPELLED}
    made, work, writers, committed = delivering(monkeypatch, static=False, failing=failing)
    with pytest.raises(Aborted, match="unknown member"):
        made.deliver(work)
    failing.clear()
    made.deliver(work)
    assert committed == [7]
    assert writers.made == 1
