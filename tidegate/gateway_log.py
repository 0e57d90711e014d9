"""Call records of a gateway, produced to Kafka from inside it: buffered within a bound, counted, never waited for.

Light enough for a gateway's own process: the standard library, confluent-kafka and orjson.
"""

from __future__ import annotations

import atexit
import difflib
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.config import KafkaSettings, Settings
from stream.errors import UsageError
from stream.runtime.kafka_client import client_config, explain_kafka_error
from stream.runtime.logs import Repeats
from stream.runtime.settings import read_settings
from tidegate.record_json import encode, encode_within

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_PREFIX = "TIDEGATE_LITELLM__"
_LOGGER = logging.getLogger("tidegate.gateway_log")
_LIBRDKAFKA = logging.getLogger("tidegate.gateway_log.librdkafka")
_POLL_SECONDS = 0.2
_REPORT_SECONDS = 30.0
_ODD_MAX = 16
"""Records waiting to be cut or cleaned; they hold their call's content whole."""

DELIVERED = "delivered"
BUFFER_FULL = "buffer_full"
TOO_LARGE = "too_large"
UNDELIVERED = "undelivered"
NO_PAYLOAD = "no_payload"
RESULTS = (DELIVERED, BUFFER_FULL, TOO_LARGE, UNDELIVERED, NO_PAYLOAD)
"""How a record may end; all but the first are drops."""


@dataclass(frozen=True, slots=True)
class GatewayLogSettings:
    """Where the records go and what they may take; each from `TIDEGATE_LITELLM__<NAME>`."""

    topic: str = "litellm.logs"
    """Topic of the records, the source topic of `tidegate ingest`."""
    record_bytes_max: int = 1_000_000
    """Largest record; a larger one is cut. Below the topic's `max.message.bytes`, 1,048,588 by default."""
    buffer_bytes_max: int = 64 * 1024 * 1024
    """Bytes of records that wait for Kafka; what comes after is dropped."""
    buffer_records_max: int = 100_000
    """Records that wait for Kafka; what comes after is dropped."""
    linger_ms: int = 50
    """Longest wait for other records to share a request with."""
    delivery_timeout_ms: int = 300_000
    """Longest time a record waits for Kafka."""
    flush_deadline_ms: int = 5_000
    """Longest time the gateway's exit waits for records to be delivered."""
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    """As for every part of Tidegate: `KAFKA_BOOTSTRAP_SERVERS`, `TIDEGATE_KAFKA__…`."""

    def __post_init__(self) -> None:
        if not self.topic or not all(c.isascii() and (c.isalnum() or c in "._-") for c in self.topic):
            raise _refused("topic", "a name of letters, digits, '.', '_' and '-'", self.topic)
        least = {"record_bytes_max": 4_096, "buffer_bytes_max": 1_048_576, "buffer_records_max": 1, "linger_ms": 0}
        least |= {"delivery_timeout_ms": 1_000, "flush_deadline_ms": 0}
        for name, at_least in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value < 2**31:
                raise _refused(name, f"a whole number of at least {at_least:,} and less than 2**31", value)
        if self.linger_ms >= self.delivery_timeout_ms:
            raise _refused("linger_ms", f"below delivery_timeout_ms ({self.delivery_timeout_ms})", self.linger_ms)


def read_log_settings(environment: Mapping[str, str]) -> GatewayLogSettings:
    """The settings of a gateway's environment; of a `tidegate.toml` in its working directory, `[kafka]` counts too.

    Raises
    ------
    UsageError
        For a variable that does not exist, a value against its rule, a secret's file that cannot be read.
    """
    kafka = {
        name: text
        for name, text in environment.items()
        if name == "KAFKA_BOOTSTRAP_SERVERS" or name.startswith("TIDEGATE_KAFKA__")
    }
    values: dict[str, Any] = {"kafka": read_settings({}, kafka).kafka}
    known = {f"{_PREFIX}{item.name}".upper(): item for item in fields(GatewayLogSettings) if item.name != "kafka"}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(_PREFIX):
            continue
        item = known.get(variable)
        if item is None:
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}."
            raise UsageError(f"there is no {variable}; {hint}")
        values[item.name] = text if item.type == "str" else _whole(text)
    return GatewayLogSettings(**values)


def _whole(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _refused(name: str, rule: str, value: object) -> UsageError:
    return UsageError(
        f"{_PREFIX}{name.upper()} must be {rule}; got {value!r}. Correct it in the gateway's environment."
    )


class GatewayLog:
    """A producer that takes a record in microseconds, whatever Kafka does, and says how each of them ended.

    `log` never waits and never raises. A thread of its own hears from Kafka, cuts what is too large, and tells of drops
    on the log every 30 s at most. At the interpreter's exit what is buffered is flushed, within the deadline.
    A forked child starts anew with an empty buffer.

    Raises
    ------
    UsageError
        When `kafka.properties` holds what librdkafka does not take. That Kafka is away is no error.

    Attributes
    ----------
    counts
        Result -> records, since the process began.
    truncated
        Records that were cut to fit.
    """

    def __init__(self, settings: GatewayLogSettings) -> None:
        self._settings = settings
        self._shared = Settings(kafka=settings.kafka)
        self.counts = dict.fromkeys(RESULTS, 0)
        self.truncated = 0
        self._lock = threading.Lock()
        self._odd: queue.Queue[tuple[bytes, Mapping[str, Any]]] = queue.Queue(_ODD_MAX)
        self._deadline: float | None = None
        self._told = 0
        self._abandoned: list[Producer] = []
        self._producer: Producer | None = None
        if not any(isinstance(one, Repeats) for one in _LIBRDKAFKA.filters):
            _LIBRDKAFKA.addFilter(Repeats())
        self._metrics = gateway_metrics()
        try:
            self._start()
        except KafkaException as error:
            raise explain_kafka_error(error, self._shared) from error
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self.close)

    def log(self, key: bytes, record: Mapping[str, Any]) -> None:
        """Take one record; records with the same `key` keep their order."""
        value = encode(record)
        if value is not None and len(value) <= self._settings.record_bytes_max:
            self._produce(key, value)
        else:
            try:
                self._odd.put_nowait((key, record))
            except queue.Full:
                self.count(BUFFER_FULL)
        if self._deadline is not None:
            # After the flush at exit, from another library's own last words: no call waits any more.
            self._finish()

    def count(self, result: str, records: int = 1) -> None:
        """Note how `records` ended."""
        with self._lock:
            self.counts[result] += records
        if self._metrics:
            self._metrics.records.labels(result).inc(records)

    @property
    def buffered(self) -> int:
        """Records that wait for Kafka, and at most for moments the client's own news, which librdkafka counts too."""
        return self._odd.qsize() + (len(self._producer) if self._producer is not None else 0)

    def close(self) -> None:
        """Flush within the deadline, and count what is left as undelivered; a later record is flushed at once."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self._settings.flush_deadline_ms / 1000
        self._finish()

    def _finish(self) -> None:
        self._cut_odd()
        # The thread may have one in its hands, which would come behind the purge and never be counted.
        until = time.monotonic() + _POLL_SECONDS
        while self._odd.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.001)
        producer = self._producer
        if producer is None or self._deadline is None:
            return
        if producer.flush(max(0.0, self._deadline - time.monotonic())):
            producer.purge()
            producer.flush(_POLL_SECONDS)
            self._tell()

    def _produce(self, key: bytes, value: bytes) -> None:
        try:
            producer = self._producer or self._start()
            producer.produce(self._settings.topic, value, key)
        except BufferError:
            self.count(BUFFER_FULL)
        except KafkaException as error:
            self.count(_result_of(error.args[0]))

    def _start(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = producer = Producer(self._properties())
                threading.Thread(target=self._serve, args=(producer,), name="tidegate-gateway-log", daemon=True).start()
            return self._producer

    def _properties(self) -> dict[str, Any]:
        ours = self._settings
        return {
            "compression.type": "lz4",
            **client_config(self._shared, "litellm"),
            "logger": _LIBRDKAFKA,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": ours.linger_ms,
            "message.timeout.ms": ours.delivery_timeout_ms,
            "message.max.bytes": max(1_000_000, ours.record_bytes_max + 65_536),
            "queue.buffering.max.messages": ours.buffer_records_max,
            "queue.buffering.max.kbytes": ours.buffer_bytes_max // 1024,
            "on_delivery": self._ended,
            "error_cb": self._heard,
        }

    def _serve(self, producer: Producer) -> None:
        """Hear from Kafka until `producer` is replaced and empty, or the last flush has had its time."""
        next_report = 0.0
        while self._producer is producer or len(producer):
            if self._deadline is not None and time.monotonic() > self._deadline and not len(producer):
                # A process that lives on after the close has no client that tries to connect for ever.
                self._producer = None
                return
            producer.poll(_POLL_SECONDS)
            self._cut_odd()
            if self._metrics:
                self._metrics.buffered.set(self.buffered)
            if time.monotonic() > next_report and self._tell():
                next_report = time.monotonic() + _REPORT_SECONDS

    def _cut_odd(self) -> None:
        while True:
            try:
                key, record = self._odd.get_nowait()
            except queue.Empty:
                return
            try:
                self._cut(key, record)
            finally:
                self._odd.task_done()

    def _cut(self, key: bytes, record: Mapping[str, Any]) -> None:
        made = encode_within(record, self._settings.record_bytes_max)
        if made is None:
            self.count(TOO_LARGE)
            return
        value, cut = made
        self.truncated += cut
        if cut and self._metrics:
            self._metrics.truncated.inc()
        self._produce(key, value)

    def _ended(self, error: KafkaError | None, _: Message) -> None:
        self.count(DELIVERED if error is None else _result_of(error))

    def _heard(self, error: KafkaError) -> None:
        if error.fatal():
            # An idempotent producer that has lost its sequence: the next record starts a new one.
            _LOGGER.error("the producer cannot go on, and is replaced: %s", error.str())
            self._producer = None

    def _tell(self) -> bool:
        """A line about drops since the last one, if there are any."""
        with self._lock:
            drops = {result: count for result, count in self.counts.items() if count and result != DELIVERED}
            total, told = sum(drops.values()), self._told
            self._told = total
        if total == told:
            return False
        detail = ", ".join(f"{result} {count}" for result, count in drops.items())
        _LOGGER.warning(
            "%d records of calls were dropped, in all: %s (%d delivered, %d waiting for %s at %s)",
            *(total - told, detail, self.counts[DELIVERED], self.buffered),
            *(self._settings.topic, self._settings.kafka.bootstrap_servers),
        )
        return True

    def _forked(self) -> None:
        # librdkafka's threads stayed with the parent; destroying its handle here would wait for them for ever.
        if self._producer is not None:
            self._abandoned.append(self._producer)
        self._producer = None
        self._lock = threading.Lock()
        self._odd = queue.Queue(_ODD_MAX)


def _result_of(error: KafkaError) -> str:
    return TOO_LARGE if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else UNDELIVERED


class GatewayMetrics:
    """What a Prometheus client in the gateway's process exports.

    Parameters
    ----------
    registry
        None: that of the process.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge

        registry = registry or REGISTRY
        self.records = Counter(
            "tidegate_litellm_records_total",
            f"Records of calls by how they ended: {', '.join(RESULTS)}; all but the first are drops.",
            ["result"],
            registry=registry,
        )
        self.truncated = Counter(
            "tidegate_litellm_truncated_total", "Records of calls that were cut to fit.", registry=registry
        )
        self.buffered = Gauge(
            "tidegate_litellm_buffered_records",
            "Records that wait for Kafka.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        for result in RESULTS:
            self.records.labels(result)


@functools.cache
def gateway_metrics() -> GatewayMetrics | None:
    """The process's metrics; None where there is no prometheus_client."""
    try:
        return GatewayMetrics()
    except ImportError:
        return None
