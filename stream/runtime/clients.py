"""Properties of the clients that delivery rests on, and the way a service's parts are put together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from confluent_kafka import KafkaException

from stream.config import Settings
from stream.runtime.broker_watch import BrokerWatch
from stream.runtime.committer import Committer
from stream.runtime.delivery import AtLeastOnce, Delivery, ExactlyOnce
from stream.runtime.group import GroupSource
from stream.runtime.kafka_client import explain_kafka_error
from stream.runtime.metrics import Metrics
from stream.runtime.service import Pipeline, Service, ServiceOptions
from stream.sources.kafka import Place


@dataclass(frozen=True, slots=True)
class Membership:
    """Who a process is to the broker."""

    group_id: str
    instance_id: str | None = None
    """Static membership: the same partitions after a restart, and the transactional id that fences a predecessor."""

    @property
    def transactional_id(self) -> str:
        """`<group>.<instance>`, or one that nobody had before."""
        return f"{self.group_id}.{self.instance_id or secrets.token_hex(16)}"


def now_ms() -> int:
    """The clock."""
    return time.time_ns() // 1_000_000


def group_properties(settings: Settings, common: Mapping[str, object], member: Membership) -> dict[str, object]:
    """Properties of the group's member.

    Parameters
    ----------
    common
        Of every client: bootstrap servers, TLS, SASL, logging.
    """
    kafka = settings.kafka
    properties: dict[str, object] = {**common, "group.id": member.group_id, "group.protocol": kafka.group_protocol}
    if member.instance_id is not None:
        properties["group.instance.id"] = member.instance_id
    if kafka.group_protocol == "classic":
        # With `consumer` the broker sets these, and librdkafka refuses them.
        properties["session.timeout.ms"] = kafka.session_timeout_ms
        # A member learns of a rebalance by its next heartbeat: two of them pass before a partition has moved.
        properties["heartbeat.interval.ms"] = max(200, min(1_500, kafka.session_timeout_ms // 10))
        properties["partition.assignment.strategy"] = "cooperative-sticky"
    return properties


def transactional_properties(settings: Settings, common: Mapping[str, object], member: Membership) -> dict[str, object]:
    """Properties of the transactional producer."""
    return {
        **common,
        "transactional.id": member.transactional_id,
        "transaction.timeout.ms": settings.kafka.transaction_timeout_ms,
    }


def service(
    settings: Settings,
    common: Mapping[str, object],
    ends: Callable[[Sequence[Place]], Mapping[Place, int]],
    member: Membership,
    inputs: Mapping[str, int],
    pipeline: Callable[[Metrics], Pipeline],
    *,
    exactly_once: bool = True,
    until_end: bool = False,
    stopping: Event | None = None,
) -> Service:
    """A service that reads `inputs` (topic -> partitions) through `pipeline`."""
    metrics = Metrics()
    stopping = stopping if stopping is not None else Event()
    seconds = settings.kafka.transaction_timeout_ms / 1000
    connected: list[GroupSource] = []
    watch = BrokerWatch(common, list(inputs), metrics, seconds)
    heard = watch.heard("producer")

    def connect(listener: Service) -> GroupSource:
        properties = group_properties(settings, common, member)
        try:
            connected.append(
                GroupSource(
                    properties,
                    list(inputs),
                    listener,
                    heard=watch.heard("consumer"),
                    was_away=watch.lately,
                    ids=watch.ids,
                )
            )
        except KafkaException as error:
            raise explain_kafka_error(error, settings) from error
        return connected[0]

    delivery: Delivery
    if exactly_once:
        producer = {**transactional_properties(settings, common, member), "error_cb": heard}
        delivery = ExactlyOnce(
            producer, lambda: connected[0], seconds, metrics, stopping, heard, watch.check, watch.lately
        )
    else:
        delivery = AtLeastOnce({**common, "error_cb": heard}, lambda: connected[0], seconds, metrics)
    places: Sequence[Place] = [(topic, p) for topic, count in inputs.items() for p in range(count)]
    options = ServiceOptions(
        wait_ms=settings.batch.wait_ms,
        records_max=settings.batch.records_max,
        deadline_ms=settings.shutdown.deadline_ms,
        http_listen=settings.http.listen,
        until_end=until_end,
        lost_records_max=settings.kafka.lost_records_max,
    )
    return Service(
        options,
        pipeline(metrics),
        connect,
        Committer(delivery, metrics),
        lambda: ends(places),
        watch,
        metrics,
        stopping,
    )
