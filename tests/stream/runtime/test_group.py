"""What a group's member asks of its client: no offset but those that it was told."""

from collections.abc import Callable, Sequence
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from stream.errors import FencedError, StateError
from stream.runtime import group
from stream.runtime.group import GroupSource
from stream.sources.kafka import Place

HERE: Place = ("t", 0)
THERE: Place = ("t", 1)


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Client:
    """A consumer that notes what it is asked for, and whose group calls back when told."""

    def __init__(self, properties: dict[str, object]) -> None:
        self.asked: list[tuple[str, list[tuple[int, int]]]] = []
        self.coming: list[Any] = []
        self.closed = 0
        self.offsets: list[TopicPartition] = []
        self.answers_after = 0.0
        self.given: list[float] = []
        self.clock = Clock()

    def consume(self, records_max: int, seconds: float) -> list[Any]:
        coming, self.coming = self.coming, []
        return coming

    def consumer_group_metadata(self) -> bytes:
        return b"generation"

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.given.append(timeout)
        self._answer(timeout)
        return self.offsets

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        self.given.append(timeout)
        self._answer(timeout)
        return 0, 9

    def _answer(self, timeout: float) -> None:
        self.clock.sleep(min(timeout, self.answers_after))
        if timeout < self.answers_after:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def close(self) -> None:
        self.closed += 1

    def subscribe(self, topics: list[str], **callbacks: Callable[..., None]) -> None:
        self._callbacks = callbacks

    def call(self, name: str, *places: Place) -> None:
        self._callbacks[name](self, [TopicPartition(*place) for place in places])

    def seek(self, part: TopicPartition) -> None:
        self.asked.append(("seek", [(part.partition, part.offset)]))

    def incremental_assign(self, parts: list[TopicPartition]) -> None:
        self.asked.append(("assign", [(part.partition, part.offset) for part in parts]))

    def incremental_unassign(self, parts: list[TopicPartition]) -> None:
        self.asked.append(("unassign", [(part.partition, part.offset) for part in parts]))


class Deaf:
    """Does nothing about a rebalance."""

    def revoked(self, places: Sequence[Place]) -> None:
        pass

    lost = revoked


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client({})
    monkeypatch.setattr(group, "Consumer", lambda properties: made)
    return made


@pytest.fixture
def source(client: Client) -> GroupSource:
    return GroupSource({}, ["t"], Deaf())


def test_nothing_is_fetched_before_an_offset_is_named(client: Client, source: GroupSource) -> None:
    client.call("on_assign", HERE, THERE)
    assert client.asked == [("assign", [])]
    assert source.start({HERE: 7}, source.held) == {HERE}
    assert client.asked[1:] == [("assign", [(0, 7)])]
    assert set(source.held) == {THERE}


def test_a_partition_that_is_held_again_is_sought_where_it_is_started(client: Client, source: GroupSource) -> None:
    client.call("on_assign", HERE)
    source.start({HERE: 7}, source.held)
    source.hold([HERE])
    assert source.start({HERE: 3}, source.held) == {HERE}
    assert client.asked[2:] == [("seek", [(0, 3)])]


@pytest.mark.parametrize("callback", ["on_revoke", "on_lost"])
def test_only_what_is_fetched_is_given_back_to_the_client(client: Client, source: GroupSource, callback: str) -> None:
    client.call("on_assign", HERE, THERE)
    source.start({HERE: 7}, source.held)
    client.call(callback, HERE, THERE)
    assert [(what, [number for number, _ in parts]) for what, parts in client.asked[2:]] == [("unassign", [0])]
    assert source.assigned == set()
    assert source.joined is (callback == "on_revoke")
    client.call("on_assign", HERE)
    source.start({HERE: 9}, source.held)
    assert client.asked[-1] == ("assign", [(0, 9)])


def test_a_partition_that_went_and_came_back_is_not_started_with_an_old_offset(
    client: Client, source: GroupSource
) -> None:
    client.call("on_assign", HERE)
    held = source.held
    client.call("on_revoke", HERE)
    client.call("on_assign", HERE)
    assert source.start({HERE: 7}, held) == set()
    assert set(source.held) == {HERE}


def told(error: KafkaError, offset: int = 0) -> Any:
    """An error as a consumer delivers it."""
    return SimpleNamespace(error=lambda: error, topic=lambda: "t", partition=lambda: 0, offset=lambda: offset)


def test_a_partition_whose_next_offset_is_not_there_is_held_and_assigned_anew(
    client: Client, source: GroupSource
) -> None:
    client.call("on_assign", HERE, THERE)
    source.start({HERE: 7, THERE: 7}, source.held)
    client.coming = [told(KafkaError(KafkaError._AUTO_OFFSET_RESET), 7)]
    assert source.poll(10, 1_000, 0.0).gone == {HERE}
    assert set(source.held) == {HERE}
    assert source.start({HERE: 9}, source.held) == {HERE}
    # After an error librdkafka takes no seek.
    assert [what for what, _ in client.asked[-2:]] == ["unassign", "assign"]


UNRELEASED = KafkaError(KafkaError._FATAL, KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a sleep moves."""
    now = SimpleNamespace(seconds=0.0)

    def sleep(seconds: float) -> None:
        now.seconds += seconds

    monkeypatch.setattr(group, "time", SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep))
    monkeypatch.setattr(group, "backoffs", lambda first, most: repeat(most))
    return now


def test_a_member_whose_former_process_has_a_session_yet_asks_again_with_a_new_client(
    clock: SimpleNamespace, client: Client, source: GroupSource
) -> None:
    for tries in range(1, 4):
        client.coming = [told(UNRELEASED)]
        source.poll(10, 1_000, 0.05)
        assert client.closed == tries
        assert source.waiting is not None
        before = clock.seconds
        while client.closed == tries and clock.seconds < before + 4.9:
            source.poll(10, 1_000, 0.05)
            source.serve()
        clock.seconds += 1.0
    source.poll(10, 1_000, 0.05)
    client.call("on_assign", HERE)
    assert (source.waiting, source.joined) == (None, True)


def test_a_member_that_is_never_let_in_is_exit_6_in_the_end(
    clock: SimpleNamespace, client: Client, source: GroupSource
) -> None:
    def wait() -> None:
        while clock.seconds < 200:
            client.coming = [told(UNRELEASED)]
            source.poll(10, 1_000, 1.0)

    with pytest.raises(FencedError, match=r"for 90 s: .*group\.consumer\.session\.timeout\.ms"):
        wait()
    assert clock.seconds > 90


def test_a_member_that_was_in_and_is_fenced_is_exit_6(client: Client, source: GroupSource) -> None:
    client.call("on_assign", HERE)
    for error in (KafkaError(KafkaError.FENCED_INSTANCE_ID), UNRELEASED):
        client.coming = [told(error)]
        with pytest.raises(FencedError):
            source.poll(10, 1_000, 0.0)


def test_an_offset_belongs_to_the_topic_that_it_was_committed_for(client: Client) -> None:
    ids: dict[str, str] = {}
    source = GroupSource({}, ["t"], Deaf(), ids=ids)
    assert [part.metadata for part in source.positions({HERE: 7})] in ([""], [None])
    ids["t"] = "first"
    client.offsets = source.positions({HERE: 7})
    assert source.committed([HERE], lambda _: False) == {HERE: 7}
    ids["t"] = "second"
    with pytest.raises(StateError, match=r"topic t was deleted and created again: its id must be first.*it is second"):
        source.committed([HERE], lambda _: False)
    # Of a build that knew no ids, or set by hand.
    client.offsets = [TopicPartition("t", 0, 7, "by hand")]
    assert source.committed([HERE], lambda _: False) == {HERE: 7}


def test_a_broker_that_answers_late_is_given_more_time_until_it_answers_at_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(group, "time", clock)
    client.clock = clock
    source = GroupSource({}, ["t"], Deaf())
    client.offsets = source.positions({HERE: 7})
    client.answers_after = 3.0
    assert source.committed([HERE], lambda _: False) == {HERE: 7}
    # Else a restore would begin again: it asks for both, and a time-out ends it.
    assert source.bounds(HERE) == (0, 9)
    client.answers_after = 0.5
    assert source.committed([HERE], lambda _: False) == {HERE: 7}
    assert source.bounds(HERE) == (0, 9)
    assert client.given == [1.0, 2.0, 4.0, 4.0, 4.0, 1.0]


def test_a_static_member_that_is_fenced_by_its_own_return_joins_anew(client: Client) -> None:
    taken: list[Place] = []
    deaf = Deaf()
    deaf.lost = taken.extend  # type: ignore[method-assign,assignment]
    source = GroupSource({}, ["t"], deaf, was_away=lambda: True)
    client.call("on_assign", HERE, THERE)
    source.start({HERE: 7}, source.held)
    client.coming = [
        told(KafkaError(KafkaError._PARTITION_EOF), 9),
        told(KafkaError(KafkaError._FATAL, KafkaError(KafkaError.FENCED_INSTANCE_ID).str())),
    ]
    assert source.poll(10, 1_000, 0.0).next_offsets() == {}
    assert (client.closed, taken, source.joined, source.assigned) == (1, [HERE, THERE], False, set())
    source.poll(10, 1_000, 0.0)
    client.call("on_assign", HERE)
    assert source.start({HERE: 9}, source.held) == {HERE}
    assert client.asked[-1] == ("assign", [(0, 9)])
