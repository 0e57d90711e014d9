"""Captured traffic as if it happened now: the feeder of docker-compose.yml and of `make stack`."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import orjson
from confluent_kafka import Producer

from sample.records import LIVE, records
from stream.runtime.kafka_client import client_config
from stream.runtime.settings import read_settings

_TIMES = ("startTime", "endTime", "completionStartTime")
_REPORT_EVERY = 100
_FLUSH_S = 30.0

Captured = tuple[tuple[str, str], int, dict[str, Any]]
"""Session (tenant, name), time in ms, LiteLLM record."""


def captured() -> list[Captured]:
    """The live part of the sample, in the order of time."""
    return [((str(t.tenant), t.gateway_session), ms, record) for ms, record, t in records(LIVE, "litellm")]


def as_of_now(traffic: Sequence[Captured], start_ms: int, seconds: float, run: str) -> Iterator[tuple[float, bytes]]:
    """`traffic` spread evenly over `seconds`: when to send each record, in seconds from the start, and the record.

    Within a session times keep their distances, and its last call starts when it is sent; so nothing lies ahead of the
    clock. Sessions and calls get names of this `run`, or a second one would be taken for duplicates of the first.
    """
    due = [seconds * (i + 1) / len(traffic) for i in range(len(traffic))]
    last = {session: i for i, (session, _, _) in enumerate(traffic)}
    for i, (session, _, record) in enumerate(traffic):
        end = last[session]
        shift_ms = start_ms + round(1000 * due[end]) - traffic[end][1]
        moved = {name: record[name] + shift_ms / 1000 for name in _TIMES}
        names = {name: f"{record[name]}-{run}" for name in ("session_id", "trace_id") if record[name]}
        call = str(uuid5(NAMESPACE_OID, f"{run} {record['litellm_call_id']}"))
        yield due[i], orjson.dumps(record | moved | names | {"litellm_call_id": call})


def send(topic: str, seconds: float, rounds: int, stop: threading.Event) -> Iterator[int]:
    """Send the capture `rounds` times (0: until told to stop); says now and then how many records are sent.

    Raises
    ------
    TimeoutError
        When the broker does not take them.
    """
    # The same settings as the services'.
    producer = Producer({"enable.idempotence": True, **client_config(read_settings({}, os.environ), "feeder")})
    traffic, sent = captured(), 0
    for number in itertools.count() if rounds == 0 else range(rounds):
        start, start_ms = time.monotonic(), time.time_ns() // 1_000_000
        for due, value in as_of_now(traffic, start_ms, seconds, f"{start_ms:x}.{number}"):
            if stop.wait(max(0.0, start + due - time.monotonic())):
                break
            producer.produce(topic, value, partition=0)
            producer.poll(0)
            sent += 1
            if sent % _REPORT_EVERY == 0:
                yield sent
        if stop.is_set():
            break
    if left := producer.flush(_FLUSH_S):
        raise TimeoutError(f"{left} records could not be sent to {topic} in {_FLUSH_S:.0f} s")
    yield sent


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.stack.feed", description=__doc__)
    parser.add_argument("--topic", required=True, help="topic that ingest reads LiteLLM's records from")
    parser.add_argument("--seconds", type=float, default=300.0, help="over which one round is spread (default: 300)")
    parser.add_argument("--rounds", type=int, default=1, help="0: until stopped (default: 1)")
    given = parser.parse_args(arguments)
    stop = threading.Event()

    def stopped(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    for sent in send(given.topic, given.seconds, given.rounds, stop):
        print(f"sent {sent}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
