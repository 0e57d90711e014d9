"""`tidegate canary`: a made-up attack sent through the stream again and again, and whether it is found.

A detector that finds nothing may be blind as well as lucky. The canary writes to the topic that gateways write to,
reads the findings as a SIEM does, and so sees everything between them: ingest, score, release, broker, permissions.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from threading import Event
from types import FrameType
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.corpus import CorpusSession
from stream.config import Settings
from stream.errors import CheckFailed, EnvironmentFault, RetriableError, UsageError
from stream.kafka_faults import check_consumer_error
from stream.runtime.broker import Broker
from stream.runtime.canary_traffic import CanaryTraffic, attack_event, litellm_records, session_name
from stream.runtime.clients import now_ms
from stream.runtime.http import StatusServer
from stream.runtime.kafka_client import CONNECT_SECONDS, client_config, explain_kafka_error
from stream.runtime.metrics import CanaryMetrics
from stream.sinks.kafka import KafkaWriter
from stream.sources.kafka import CONSUMER_DEFAULTS, CONSUMER_PROPERTIES, Place
from stream.steps.route import partition_of_key

_LOG = logging.getLogger(__name__)
_TURN_SECONDS = 0.2
_FLUSH_SECONDS = 5.0
_END = KafkaError._PARTITION_EOF
_WARM_UP_MORE = 5
"""Benign sessions sent at start beyond `learning.grace_sessions`, after which a tenant's own past decides too."""
_BENIGN_SESSIONS = 3
"""Sent before each attack: a tenant of attacks alone would have attacks for its normal."""
_AWAITED_SECONDS = 3_600.0
"""A finding later than this is no sign of life any more."""


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Send attacks until told to stop; one with `--once`.

    Raises
    ------
    CheckFailed
        With `--once`, when the attack has no finding in time.
    TidegateError
        With the exit code that says what is wrong.
    """
    if not settings.findings.test_tenant:
        raise UsageError(
            "findings.test_tenant must name the canary's tenant; got ''. Set it as score has it: "
            "TIDEGATE_FINDINGS__TEST_TENANT."
        )
    stopping, metrics = Event(), CanaryMetrics()
    with ExitStack() as closing:
        for number, once in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            handler = once if arguments.once else _stopper(stopping)
            closing.callback(signal.signal, number, signal.signal(number, handler))
        canary = Canary(settings, arguments.source_topic, metrics, stopping, timeout_s=arguments.timeout)
        closing.callback(canary.close)
        if arguments.once:
            print(canary.once())
            return 0
        http = StatusServer(settings.http.listen, metrics.registry, lambda: None)
        closing.callback(http.close)
        line = {"http": http.url, "pid": os.getpid(), "partitions": [], "release": ""}
        sys.stdout.write(f"READY {orjson.dumps(line).decode()}\n")
        sys.stdout.flush()
        canary.serve(arguments.interval)
    return 0


@dataclass(frozen=True, slots=True)
class Found:
    """A finding that names a canary's attack."""

    session: str
    uid: str
    severity: str
    signals: dict[str, float]
    """p-values."""
    seconds: float
    """From sending to seeing."""
    marked: bool
    """As a test, which a scorer of another `findings.test_tenant` does not do."""

    def __str__(self) -> str:
        signals = ", ".join(f"{name} p={p:.2g}" for name, p in self.signals.items())
        return f"found in {self.seconds:.2f} s: finding {self.uid}, {self.severity}, {signals}"


@dataclass(slots=True)
class _Awaited:
    event_id: str
    sent: float
    missed: bool = False


class Canary:
    """Sends conversations, and recognises the findings about them.

    Parameters
    ----------
    source
        Topic that gateways write to, read by an ingest that takes LiteLLM's records.
    timeout_s
        After which an attack without a finding counts as missed.
    clock
        Monotonic seconds.

    Raises
    ------
    EnvironmentFault
        When the broker or a topic is not as it must be.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        metrics: CanaryMetrics,
        stopping: Event,
        *,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        broker = Broker(settings, "canary")
        topics, common = settings.topics, client_config(settings, "canary")
        broker.require([topics.findings], topics.partitions)
        self._settings, self._source, self._metrics, self._stopping = settings, source, metrics, stopping
        self._timeout_s, self._clock = timeout_s, clock
        self._traffic = CanaryTraffic(settings.findings.test_tenant, Random(secrets.randbits(64)))
        self._key = settings.findings.test_tenant.encode()
        # In order, for the tenant's first sessions have to be scored first.
        self._partition = partition_of_key(self._key, broker.partitions(source))
        self._awaited: dict[str, _Awaited] = {}
        self._heard = clock()
        metrics.age_seconds.set_function(lambda: clock() - self._heard)
        for result in ("found", "missed"):
            metrics.attacks.labels(result)
        try:
            self._writer = KafkaWriter(common, _FLUSH_SECONDS)
            # A consumer cannot be made without a group; nothing is ever committed to it.
            own = {**CONSUMER_DEFAULTS, **common, **CONSUMER_PROPERTIES, "group.id": "tidegate.range-reader"}
            self._consumer = Consumer(own)
            places = [(topics.findings, number) for number in range(topics.partitions)]
            # From where the topic ends now, open transactions included: what is older is about nobody awaited.
            self._consumer.assign([TopicPartition(*place, end) for place, end in _ends(broker, places).items()])
        except KafkaException as error:
            raise explain_kafka_error(error, settings) from error

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()
        self._writer.producer.flush(0)

    def warm_up(self) -> None:
        """Let the canary's tenant be known: benign sessions, dated one after another up to now."""
        count = self._settings.learning.grace_sessions + _WARM_UP_MORE
        end_ms = now_ms()
        for number in range(count):
            self._send(self._traffic.benign(), end_ms - 2_000 * (count - number))
        self._flush()

    def once(self) -> Found:
        """Warm up, send one attack and wait for its finding.

        Raises
        ------
        CheckFailed
            When there is none in time.
        """
        try:
            self.warm_up()
            name, until = self._attack(), self._clock() + self._timeout_s
            while self._clock() < until:
                for found in self._listen():
                    if found.session == name:
                        return found
        except RetriableError as error:
            raise CheckFailed(f"{error}. See docs/runbook.md, TidegateCanaryNotFound.") from error
        raise CheckFailed(
            f"canary {name}: no finding on {self._settings.topics.findings} in {self._timeout_s:g} s. "
            "See docs/runbook.md, TidegateCanaryNotFound."
        )

    def serve(self, interval_s: float) -> None:
        """An attack every `interval_s` until told to stop; broker's troubles are waited out."""
        warm, due = False, self._clock()
        while not self._stopping.is_set():
            try:
                if not warm:
                    self.warm_up()
                    warm = True
                if self._clock() >= due:
                    due = self._clock() + interval_s
                    self._attack()
                for found in self._listen():
                    _LOG.info("canary %s: %s", found.session, found)
                    if not found.marked:
                        _LOG.warning("finding %s is not marked as a test: set findings.test_tenant of score", found.uid)
                self._give_up()
            except RetriableError as error:
                _LOG.warning("%s; trying again", error)
                self._stopping.wait(_TURN_SECONDS)

    def _attack(self) -> str:
        """Send an attack after some benign sessions; the session's name."""
        end_ms = now_ms()
        for number in range(_BENIGN_SESSIONS):
            self._send(self._traffic.benign(), end_ms - 2_000 * (_BENIGN_SESSIONS - number))
        session = self._traffic.attack()
        name = session_name(session)
        self._awaited[name] = _Awaited(attack_event(session), self._clock())
        self._send(session, end_ms)
        self._flush()
        return name

    def _send(self, session: CorpusSession, end_ms: int) -> None:
        for record in litellm_records(session, end_ms, self._settings.ingest.tenant_field):
            try:
                self._writer.produce(self._source, self._partition, self._key, orjson.dumps(record))
            except KafkaException as error:
                raise RetriableError(f"the canary cannot be sent: {error.args[0].str()}") from error

    def _flush(self) -> None:
        left = self._writer.producer.flush(_FLUSH_SECONDS)
        failures = [error.str() for _, _, error in self._writer.failures]
        self._writer.forget()
        if left or failures:
            raise RetriableError(f"{self._source}: the canary was not sent: {failures[0] if failures else 'no answer'}")

    def _listen(self) -> list[Found]:
        """Findings about attacks that are awaited, as they are seen."""
        found = [self._recognise(message) for message in self._consumer.consume(500, _TURN_SECONDS)]
        return [each for each in found if each is not None]

    def _recognise(self, message: Message) -> Found | None:
        error, value = message.error(), message.value()
        if error is not None:
            if error.code() != _END:
                check_consumer_error(error)
            return None
        record: dict[str, Any] = orjson.loads(value or b"{}")
        name = record.get("unmapped", {}).get("entity", "")
        awaited = self._awaited.get(name)
        events = [event["uid"] for event in record.get("finding_info", {}).get("related_events", ())]
        if awaited is None or awaited.event_id not in events:
            return None
        del self._awaited[name]
        now = self._clock()
        self._heard = now
        self._metrics.latency_seconds.observe(now - awaited.sent)
        if not awaited.missed:
            self._metrics.attacks.labels("found").inc()
        said = record["unmapped"]
        return Found(
            name, record["finding_info"]["uid"], record["severity"], said.get("p", {}), now - awaited.sent,
            marked=bool(said.get("test")),
        )  # fmt: skip

    def _give_up(self) -> None:
        now = self._clock()
        for name, awaited in list(self._awaited.items()):
            if not awaited.missed and now - awaited.sent > self._timeout_s:
                awaited.missed = True
                self._metrics.attacks.labels("missed").inc()
                _LOG.warning("canary %s: no finding in %g s", name, self._timeout_s)
            if now - awaited.sent > _AWAITED_SECONDS:
                del self._awaited[name]


def _ends(broker: Broker, places: Sequence[Place]) -> Mapping[Place, int]:
    """Ends of topics that may have been created a moment ago, and not be led by anyone yet."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return broker.ends(places)
        except RetriableError as error:
            if time.monotonic() > deadline:
                raise EnvironmentFault(f"{error} for {CONNECT_SECONDS:g} s. Check the cluster's controller.") from error
            Event().wait(_TURN_SECONDS)


def _stopper(stopping: Event) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    return stop
