"""Dead letters: records that could not be read, passed on as they came, with Kafka Connect's error headers."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Literal, get_args

import msgspec
import orjson

Reason = Literal[
    "undecodable", "unknown_format", "schema", "oversized", "too_deep", "no_tenant", "signature", "unknown_analyst"
]
PayloadMode = Literal["raw", "reference"]

REASONS: tuple[str, ...] = get_args(Reason)
MESSAGE_MAX = 1_000
"""Characters of `__connect.errors.exception.message`."""

_HEADER_OVERHEAD = 32
_RECORD_OVERHEAD = 128
"""Bytes that Kafka adds at most to a header and to a record of one batch (lengths, offsets, timestamps, CRC)."""

RawHeaders = tuple[tuple[str, bytes | None], ...]


class DeadLetterReference(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a dead letter whose record is too large, or not wanted, on the dead letter topic."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: int
    topic: str
    partition: int
    offset: int


class DeadLetterLine(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter without its content: a line of a replay's `deadletters.jsonl`."""

    topic: str
    partition: int
    offset: int
    reason: Reason
    stage: str
    exception_class: str
    message: str
    sha256: str
    bytes: int


def headers(
    source: Sequence[tuple[str, bytes | None]],
    *,
    topic: str,
    partition: int,
    offset: int,
    reason: str,
    message: str,
    connector: str,
    step: str,
    stage: str,
    exception_class: str,
    event_id: str | None = None,
) -> RawHeaders:
    """Headers of a dead letter: those of its source unchanged, then what went wrong, where.

    A source that is an output of ours has `tg-` headers of its own; of two with one name the last one is the letter's.

    Parameters
    ----------
    connector, step
        Service, and qualified name of the class, that could not read the record.
    event_id
        Of the event in the record, where that much could be read.

    >>> dict(headers((), topic="t", partition=0, offset=7, reason="schema", message="…", connector="tidegate.ingest",
    ...              step="stream.steps.ingest.IngestStep", stage="VALUE_CONVERTER",
    ...              exception_class="stream.errors.DecodeError"))["tg-source"]
    b't/0/7'
    """
    added = {
        "__connect.errors.topic": topic,
        "__connect.errors.partition": str(partition),
        "__connect.errors.offset": str(offset),
        "__connect.errors.connector.name": connector,
        "__connect.errors.task.id": "0",
        "__connect.errors.stage": stage,
        "__connect.errors.class.name": step,
        "__connect.errors.exception.class.name": exception_class,
        "__connect.errors.exception.message": message[:MESSAGE_MAX],
        "tg-schema": "dead_letters.v1",
        "tg-reason": reason,
        "tg-source": f"{topic}/{partition}/{offset}",
    }
    if event_id is not None:
        added["tg-event-id"] = event_id
    return (*source, *((name, value.encode("utf-8", "replace")) for name, value in added.items()))


def payload(
    value: bytes | None,
    *,
    key: bytes | None,
    headers: RawHeaders,
    mode: PayloadMode,
    message_bytes_max: int,
    topic: str,
    partition: int,
    offset: int,
) -> bytes | None:
    """Value of a dead letter: the source's, or a reference to it when `mode` says so or it would not fit.

    Parameters
    ----------
    headers
        As they will be sent.
    message_bytes_max
        `max.message.bytes` of the dead letter topic.
    """
    if value is None:
        return None
    size = _RECORD_OVERHEAD + len(key or b"") + len(value)
    size += sum(_HEADER_OVERHEAD + len(name) + len(text or b"") for name, text in headers)
    if mode == "raw" and size <= message_bytes_max:
        return value
    return orjson.dumps(
        {
            "sha256": sha256(value).hexdigest(),
            "bytes": len(value),
            "topic": topic,
            "partition": partition,
            "offset": offset,
        },
        option=orjson.OPT_SORT_KEYS,
    )
