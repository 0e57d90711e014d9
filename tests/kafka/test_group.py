"""A group's member on a real broker: what is started is delivered from there on, all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from stream.runtime.group import GroupSource
from stream.sources.kafka import Place
from tests.kafka.harness import EVENTS, Cluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]
SECONDS = 180.0


class Listener:
    """Remembers what was taken."""

    def __init__(self) -> None:
        self.taken: list[Place] = []

    def revoked(self, places: Sequence[Place]) -> None:
        self.taken += places

    def lost(self, places: Sequence[Place]) -> None:
        self.taken += places


@pytest.fixture
def cluster(kafka: str, topic_prefix: str) -> Cluster:
    made = Cluster(kafka, topic_prefix)
    made.create(EVENTS)
    for first in range(0, 6_000, 500):
        made.events(range(first, first + 500))
    return made


@pytest.fixture
def member(cluster: Cluster) -> Iterator[GroupSource]:
    with closing(joining(cluster, Listener())) as source:
        yield source


def joining(cluster: Cluster, listener: Listener) -> GroupSource:
    """A member whose fetches are many, and long where there is nothing to fetch."""
    properties = {
        "bootstrap.servers": cluster.servers,
        "group.id": cluster.group,
        "partition.assignment.strategy": "cooperative-sticky",
        # A member that stands still for a while must not lose what it was given.
        "session.timeout.ms": 120_000,
        "heartbeat.interval.ms": 200,
        "fetch.wait.max.ms": 1_000,
        "max.partition.fetch.bytes": 10_000,
    }
    return GroupSource(properties, [cluster.prefix + EVENTS], listener)


def until(done: Callable[[], bool], *members: GroupSource) -> None:
    """Let the group's rebalances happen."""
    give_up = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < give_up
        for source in members:
            source.poll(1, 1, 0.05)


def delivered(source: GroupSource, place: Place) -> list[int]:
    """Offsets of a partition's records up to its end."""
    offsets: list[int] = []
    give_up = time.monotonic() + SECONDS
    while True:
        assert time.monotonic() < give_up
        polled = source.poll(100, 1_000_000, 0.05)
        offsets += [record.offset for record in polled.records if (record.topic, record.partition) == place]
        if place in polled.ends:
            return offsets


def test_a_partition_that_is_held_and_started_again_at_once_delivers_all_of_it(
    cluster: Cluster, member: GroupSource
) -> None:
    until(lambda: len(member.held) == 2, member)
    ends = {(cluster.prefix + EVENTS, partition): end for partition, end in cluster.ends().items()}
    here = min(ends)
    assert member.start(ends, member.held) == set(ends)
    assert delivered(member, here) == []
    member.hold([here])
    assert member.start({here: 0}, member.held) == {here}
    assert delivered(member, here) == list(range(ends[here]))


def test_a_partition_that_comes_from_another_member_is_delivered_from_where_it_is_started(
    cluster: Cluster, member: GroupSource
) -> None:
    until(lambda: len(member.held) == 2, member)
    ends = {(cluster.prefix + EVENTS, partition): end for partition, end in cluster.ends().items()}
    with closing(joining(cluster, Listener())) as other:
        # What is taken here was never started.
        until(lambda: len(member.held) == len(other.held) == 1, member, other)
        (kept,), (given,) = member.held, other.held
        member.start({kept: ends[kept]}, member.held)
        assert delivered(member, kept) == []
        assert other.start({given: 7}, other.held) == {given}
        assert delivered(other, given) == list(range(7, ends[given]))
    until(lambda: given in member.held, member)
    assert member.start({given: 5}, member.held) == {given}
    assert delivered(member, given) == list(range(5, ends[given]))
