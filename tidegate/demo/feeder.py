"""Captured traffic -> gateways' records on the raw topic, in the capture's order, much faster than it happened."""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from confluent_kafka import Producer

from sample.records import LIVE, mixed
from schemas.corpus_records import Truth

_FLUSH_S = 30.0


@dataclass(slots=True)
class Fed:
    """What has been sent so far."""

    events: int = 0
    time_ms: int = 0
    sessions: dict[tuple[str, str], Truth] = field(default_factory=dict)
    """(tenant, session as the gateway names it) -> what is known about it."""


def capture() -> list[tuple[int, bytes, Truth]]:
    """The live part of the sample: start in ms, record, and what is known about it."""
    return list(mixed(LIVE))


def feed(
    traffic: list[tuple[int, bytes, Truth]],
    bootstrap_servers: str,
    topic: str,
    seconds: float,
    stop: threading.Event,
    properties: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Fed]:
    """Send `traffic` evenly over `seconds`, and say after every few records how far it is."""
    ours = {"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "linger.ms": 5}
    producer = Producer({**properties, **ours})
    fed, start = Fed(), time.monotonic()
    for time_ms, value, truth in traffic:
        if stop.is_set():
            break
        producer.produce(topic, value, partition=0)
        fed.events += 1
        fed.time_ms = time_ms
        fed.sessions[(str(truth.tenant), truth.gateway_session)] = truth
        if fed.events % 10 == 0:
            producer.poll(0)
            stop.wait(max(0.0, start + seconds * fed.events / len(traffic) - time.monotonic()))
            yield fed
    left = producer.flush(_FLUSH_S)
    if left:
        raise TimeoutError(f"{left} records could not be sent to {topic} on {bootstrap_servers} in {_FLUSH_S:.0f} s")
    yield fed
