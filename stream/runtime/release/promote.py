"""Which release is served: a control that says so, and the journal that tells when every partition does."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.control import WHY_MAX, Control, ReleaseSwitch
from schemas.manifest import Manifest
from stream.config import Settings
from stream.errors import CheckFailed, StateError
from stream.kafka_faults import check_consumer_error
from stream.runtime.clients import now_ms
from stream.runtime.kafka_client import client_config, explain_kafka_error
from stream.runtime.release.history import Refused, Served, read_entry
from stream.runtime.release.registry import manifest_sha256, uri_of
from stream.runtime.release.words import ranges
from stream.runtime.release_store import read_manifest
from stream.runtime.single_record import deliver
from stream.runtime.topic_reader import TopicReader, Window
from stream.sources.kafka import CONSUMER_DEFAULTS, CONSUMER_PROPERTIES, record_of

_TURN_SECONDS = 0.1
_CLOCKS_APART_MS = 600_000
"""By so much a scorer's clock may be behind that of whoever wrote the control."""


@dataclass(frozen=True, slots=True)
class Switched:
    """When a partition took a release up."""

    before_offset: int
    """Of the events: the first that it scores."""
    seconds: float
    """Until it was seen to, from when waiting began."""


def promote(
    settings: Settings, manifest: Manifest, path: Path, *, who: str, why: str, topics: Container[str] | None = None
) -> int:
    """Ask every partition of the scorer to serve the release at `path` from its next batch on.

    Parameters
    ----------
    topics
        As in `deliver`.

    Returns
    -------
    int
        The control's offset on the controls topic, as the journal's entries will name it.

    Raises
    ------
    StateError
        When `path` holds no release that may be served, or another one than `manifest`.
    EnvironmentFault
        When the broker does not take the control.
    """
    if read_manifest(path, settings) != manifest:
        raise StateError(
            f"release {path}: it must be {manifest.name}, as it was read before; it was written anew in the meantime. "
            "Name it again."
        )
    switch = ReleaseSwitch(
        release=manifest.name,
        space_id=manifest.space_id,
        feature_schema=manifest.feature_schema,
        state_schema=manifest.state_schema,
        manifest_sha256=manifest_sha256(path),
        uri=uri_of(path),
        why=why[:WHY_MAX],
    )
    return send_control(settings, "release", "release", msgspec.to_builtins(switch), issuer=who, topics=topics)


def send_control(
    settings: Settings,
    role: str,
    kind: str,
    value: Mapping[str, object],
    *,
    issuer: str,
    tenant: str | None = None,
    topics: Container[str] | None = None,
) -> int:
    """Write a control, and wait until it is there; its offset.

    Raises
    ------
    EnvironmentFault
        When the broker does not take it.
    """
    control = msgspec.convert(
        {"kind": kind, "value": value, "time_ms": now_ms(), "issuer": issuer, "tenant": tenant}, Control
    )
    body = orjson.dumps(msgspec.to_builtins(control))
    key = tenant.encode() if tenant is not None else None
    return deliver(settings, role, settings.topics.controls, body, key=key, schema="controls.v1", topics=topics)


def journal_ends(reader: TopicReader, settings: Settings) -> dict[int, int]:
    """Partition -> end of its journal now: what a control causes that is written later lies behind it."""
    return {partition: bounds.end for partition, bounds in reader.bounds(settings.topics.journal).items()}


def await_switch(
    settings: Settings,
    release: str,
    control_offset: int,
    timeout: float,
    *,
    starts: Mapping[int, int] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[int, Switched]:
    """Wait until every partition has taken up the release that a control asks for.

    Parameters
    ----------
    control_offset
        As `promote` returned it.
    timeout
        Seconds to wait.
    starts
        Partition -> where in the journal to begin, as `journal_ends` told before the control was written; without it
        a few minutes before that are read too.
    stopping
        Whether to give up before the time, as if it were over.

    Returns
    -------
    dict
        Partition -> when.

    Raises
    ------
    CheckFailed
        When a partition refuses the release, once all have answered, or some are missing after `timeout`.
    EnvironmentFault
        When there is no such journal, or no broker answers.
    """
    began = time.monotonic()
    since_ms = 0
    if starts is None:
        starts, since_ms = _recent(settings, control_offset)
    done: dict[int, Switched] = {}
    refused: dict[int, str] = {}
    with closing(_tail(settings, starts)) as consumer:
        while missing := sorted(starts.keys() - done.keys() - refused.keys()):
            waited = time.monotonic() - began
            if waited >= timeout or stopping():
                late = _missing(settings, release, missing, len(starts), waited)
                raise CheckFailed(f"{_refused(settings, release, refused, done)} {late}" if refused else late)
            for message in consumer.consume(500, min(_TURN_SECONDS, timeout - waited)):
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        check_consumer_error(error)
                    continue
                entry = read_entry(record_of(message))
                if isinstance(entry, Refused) and entry.control_offset == control_offset:
                    refused.setdefault(entry.partition, entry.why)
                if isinstance(entry, Served) and _answers(entry, release, control_offset, since_ms):
                    done.setdefault(entry.partition, Switched(entry.before_offset, time.monotonic() - began))
    if refused:
        raise CheckFailed(_refused(settings, release, refused, done))
    return dict(sorted(done.items()))


def _answers(entry: Served, release: str, control_offset: int, since_ms: int) -> bool:
    if entry.control_offset is not None:
        return entry.control_offset == control_offset
    # A partition that begins with this release, or is started anew with it, has no need of the control.
    return entry.release == release and entry.time_ms >= since_ms


def _refused(settings: Settings, release: str, refused: Mapping[int, str], done: Collection[int]) -> str:
    reasons = "; ".join(
        f"{settings.topics.events}[{ranges([p for p in sorted(refused) if refused[p] == why])}]: {why.rstrip('.')}"
        for why in dict.fromkeys(refused.values())
    )
    others = f" Partitions {ranges(sorted(done))} serve it: see to the others, or roll these back." if done else ""
    return f"release {release} is refused, and the one before goes on, in {reasons}.{others}"


def _missing(settings: Settings, release: str, missing: list[int], partitions: int, seconds: float) -> str:
    return (
        f"release {release}: {len(missing)} of {partitions} partitions ({ranges(missing)}) have not taken it up after "
        f"{seconds:.0f} s, by {settings.topics.journal}. Their scorer is away, or has another --output-prefix. "
        "The control stands, and takes effect when it comes: see 'tidegate release list'."
    )


def _recent(settings: Settings, control_offset: int) -> tuple[dict[int, int], int]:
    """Where in the journal to look for a control's effects, and when it was written."""
    reader = TopicReader(settings, "release")
    try:
        since_ms = now_ms()
        for records in reader.read(settings.topics.controls, 0, control_offset, control_offset + 1):
            since_ms = records[0].timestamp_ms
        bounds = reader.bounds(settings.topics.journal, Window(from_time_ms=since_ms - _CLOCKS_APART_MS))
        return {partition: bound.start for partition, bound in bounds.items()}, since_ms
    finally:
        reader.close()


def _tail(settings: Settings, starts: Mapping[int, int]) -> Consumer:
    properties = {
        **CONSUMER_DEFAULTS,
        "fetch.wait.max.ms": 10,
        **client_config(settings, "release"),
        **CONSUMER_PROPERTIES,
        # A consumer cannot be made without one; nothing is ever committed to it.
        "group.id": "tidegate.range-reader",
    }
    try:
        consumer = Consumer(properties)
        consumer.assign([TopicPartition(settings.topics.journal, p, start) for p, start in sorted(starts.items())])
    except KafkaException as error:
        raise explain_kafka_error(error, settings) from error
    return consumer
