"""`tidegate verdict`: an analyst's word on a finding, written to the verdicts topic."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec
import orjson
from confluent_kafka import KafkaException

from schemas.safe_text import safe_text
from schemas.verdict import BYTES_MAX, HARMLESS, VERDICTS, Verdict, signed_bytes
from stream.config import Settings
from stream.errors import CheckFailed, DecodeError, EnvironmentFault, UsageError
from stream.feedback.inputs import FindingSeen, finding_seen
from stream.record import Record
from stream.runtime.broker import Broker
from stream.runtime.clients import now_ms
from stream.runtime.kafka_client import CONNECT_SECONDS, client_config, explain_kafka_error
from stream.runtime.signing import sign
from stream.runtime.topic_reader import TopicReader
from stream.sinks.kafka import KafkaWriter
from stream.steps.route import partition_of_key

_CHUNK = 2_000
"""Offsets that are read at once, the latest first: who judges a finding mostly judges a late one."""
_NAME_CHARS = 60
_TITLE_CHARS = 200


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Find the finding, write the verdict, and say where it went.

    Raises
    ------
    UsageError
        When the verdict is none, or its key cannot be read.
    CheckFailed
        When there is no such finding.
    EnvironmentFault
        When the broker or a topic is not as it must be.
    """
    verdict = _verdict(arguments, now_ms())
    topics = settings.topics
    Broker(settings, "verdict").require([topics.findings, topics.verdicts], topics.partitions)
    reader = TopicReader(settings, "verdict")
    try:
        finding = find(reader, topics.findings, verdict.finding_uid)
    finally:
        reader.close()
    if finding is None:
        raise CheckFailed(
            f"finding {verdict.finding_uid} is not on {topics.findings}. FINDING_UID is finding_info.uid of any of a "
            "finding's records, 32 hex digits, and not metadata.uid; findings older than the topic's retention.ms are "
            "gone, and --topic-prefix must be that of the scorer that found it."
        )
    value = _signed(msgspec.structs.replace(verdict, tenant=finding.tenant), settings.feedback.signing_key_file)
    key = verdict.finding_uid.encode()
    partition = partition_of_key(key, topics.partitions)
    _produce(settings, topics.verdicts, partition, key, value)
    print(
        f"{VERDICTS[verdict.verdict_id]} of {safe_text(verdict.analyst, _NAME_CHARS)} on finding {verdict.finding_uid} "
        f"of {safe_text(finding.tenant, _NAME_CHARS)} ({safe_text(finding.title, _TITLE_CHARS)}): "
        f"{topics.verdicts}[{partition}]"
    )
    return 0


def find(reader: TopicReader, topic: str, uid: str) -> FindingSeen | None:
    """The latest revision of a finding, None when the topic has none; reads its partition from the end."""
    key = uid.encode()
    partition = partition_of_key(key, reader.partitions(topic))
    bound = reader.bounds(topic)[partition]
    end = bound.end
    while end > bound.start:
        start = max(bound.start, end - _CHUNK)
        found: FindingSeen | None = None
        for record in _records(reader, topic, partition, start, end):
            if record.key == key:
                try:
                    found = finding_seen(record.value, record.timestamp_ms)
                except DecodeError as error:
                    raise EnvironmentFault(
                        f"{record.position}: {error}. Name the topics of a scorer with --topic-prefix."
                    ) from error
        if found is not None:
            return found
        end = start
    return None


def _records(reader: TopicReader, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
    for batch in reader.read(topic, partition, start, end):
        yield from batch


def _verdict(arguments: argparse.Namespace, time_ms: int) -> Verdict:
    plain = {
        "finding_uid": arguments.finding_uid,
        "verdict_id": arguments.verdict_id,
        "analyst": arguments.analyst,
        "time": time_ms,
        "notes": arguments.note,
        "scope": arguments.scope,
        "adopt": arguments.adopt,
        "exception_days": arguments.except_days,
    }
    try:
        verdict = msgspec.convert(plain, Verdict)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"a verdict must be as schemas/json/verdicts.v1.schema.json says; got: {error}. FINDING_UID is "
            "finding_info.uid, 32 hex digits; --verdict-id is one of "
            f"{', '.join(f'{number} {name}' for number, name in VERDICTS.items())}."
        ) from error
    for flag, given in (("--adopt", verdict.adopt), ("--except-days", verdict.exception_days is not None)):
        if given and verdict.verdict_id not in HARMLESS:
            raise UsageError(
                f"{flag} needs a verdict that says harmless, 1 False Positive or 5 Benign; got --verdict-id "
                f"{verdict.verdict_id} ({VERDICTS[verdict.verdict_id]}). Leave it out, or correct --verdict-id."
            )
    return verdict


def _signed(verdict: Verdict, key_file: str) -> bytes:
    # Without what is not set: a signature covers what is there, and a later version may add fields.
    plain = {name: value for name, value in msgspec.to_builtins(verdict).items() if value is not None}
    if key_file:
        signature = sign(signed_bytes(plain), Path(key_file), "feedback.signing_key_file")
        plain["signature"] = msgspec.to_builtins(signature)
    value = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    if len(value) > BYTES_MAX:
        raise UsageError(f"a verdict must be at most {BYTES_MAX} bytes of JSON; got {len(value)}. Shorten --note.")
    return value


def _produce(settings: Settings, topic: str, partition: int, key: bytes, value: bytes) -> None:
    try:
        writer = KafkaWriter(client_config(settings, "verdict"), CONNECT_SECONDS)
        writer.produce(topic, partition, key, value, [("tg-schema", b"verdicts.v1")])
        left = writer.producer.flush(CONNECT_SECONDS)
    except KafkaException as error:
        raise explain_kafka_error(error, settings) from error
    if left or writer.failures:
        reason = writer.failures[0][2].str() if writer.failures else "no answer"
        raise EnvironmentFault(
            f"{topic}[{partition}]: the verdict was not written: {reason}. Check the broker, and that this principal "
            "may write there: 'tidegate topics acls --only verdict'."
        )
