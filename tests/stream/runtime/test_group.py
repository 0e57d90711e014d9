"""What a group's member asks of its client: no offset but those that it was told."""

from collections.abc import Callable, Sequence

import pytest
from confluent_kafka import TopicPartition

from stream.runtime import group
from stream.runtime.group import GroupSource
from stream.sources.kafka import Place

HERE: Place = ("t", 0)
THERE: Place = ("t", 1)


class Client:
    """A consumer that notes what it is asked for, and whose group calls back when told."""

    def __init__(self, properties: dict[str, object]) -> None:
        self.asked: list[tuple[str, list[tuple[int, int]]]] = []

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
