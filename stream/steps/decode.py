"""Records of the events topic -> columns, and dead letters for what is not an event."""

import re
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.event_head import EventHead
from stream.batch import DIGEST_BYTES, EventBatch
from stream.record import DeadLetter, Record

_DECODER = msgspec.json.Decoder(EventHead)
_HEX_CHARS = 64
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_IDENTIFIERS = ("tenant", "session", "key_hash", "user", "ip", "model_requested", "model_served")
_ID_CHARS = 1_024
"""Of an identifier; ingest writes half of it at most. Scores and findings repeat them and must fit their topics."""


def decode(records: Sequence[Record], future_ms: int) -> tuple[EventBatch, list[DeadLetter]]:
    """Events of `records` as columns, and what could not be read.

    Parameters
    ----------
    records
        In offset order within each partition.
    future_ms
        How far an event time may lie after its ingest time before it is clamped to it.
    """
    heads: list[EventHead] = []
    digests: list[bytes] = []
    kept: list[Record] = []
    dead: list[DeadLetter] = []
    for record in records:
        head = None
        try:
            head = _DECODER.decode(record.value or b"")
            digest = _checked_digests(head)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            dead.append(_dead_letter(record, error, head))
            continue
        heads.append(head)
        digests.append(digest)
        kept.append(record)
    n = len(heads)
    ingest = np.fromiter((r.timestamp_ms for r in kept), np.int64, n)
    event = np.fromiter((h.event_time_ms for h in heads), np.int64, n)
    batch = EventBatch(
        partition=np.fromiter((r.partition for r in kept), np.int64, n),
        offset=np.fromiter((r.offset for r in kept), np.int64, n),
        ingest_time_ms=ingest,
        event_time_ms=np.minimum(event, ingest + future_ms),
        prompt_tokens=_numbers([h.prompt_tokens for h in heads]),
        completion_tokens=_numbers([h.completion_tokens for h in heads]),
        cost_usd=_numbers([h.cost_usd for h in heads]),
        duration_ms=_numbers([h.duration_ms for h in heads]),
        clamped=event > ingest + future_ms,
        failed=np.fromiter((h.status == "failure" for h in heads), np.bool_, n),
        heads=heads,
        digests=digests,
        keys=[record.key for record in kept],
        traceparent=[r.traceparent for r in kept],
        topic=kept[0].topic if kept else "",
    )
    return batch, dead


def _checked_digests(head: EventHead) -> bytes:
    """Digests of request and response messages, 16 bytes each, one after another."""
    _check_sha256("event_id", head.event_id)
    _check_sha256("source.raw_sha256", head.source.raw_sha256)
    if not 0 <= head.event_time_ms < 1 << 53:
        raise ValueError(f"$.event_time_ms must be ms since 1970; got {head.event_time_ms}")
    _check_identifiers(head)
    texts = [message.digest for message in head.messages]
    texts += [message.digest for message in head.output]
    digests = bytes.fromhex("".join(texts))
    if len(digests) != DIGEST_BYTES * len(texts) or any(len(text) != 2 * DIGEST_BYTES for text in texts):
        raise ValueError(f"$.messages[].digest must be {2 * DIGEST_BYTES} hex characters each")
    return digests


def _check_identifiers(head: EventHead) -> None:
    for field in _IDENTIFIERS:
        text = getattr(head, field)
        if text is not None and len(text) > _ID_CHARS:
            raise ValueError(f"$.{field} must be at most {_ID_CHARS} characters; got {len(text)}")


def _check_sha256(field: str, text: str) -> None:
    # Python's own reading passes over blanks, and a digest cut short by one would spoil the rows that hold it.
    if len(text) != _HEX_CHARS or len(bytes.fromhex(text)) != _HEX_CHARS // 2:
        raise ValueError(f"$.{field} must be {_HEX_CHARS} hex characters; got {text[:80]!r}")


def _numbers(values: list[int | None] | list[float | None]) -> NDArray[np.float64]:
    """NaN for None; what no counter can be (negative, beyond 2^53) is as good as nothing."""
    column = np.array([np.nan if v is None else v for v in values], np.float64)
    return np.where((column >= 0) & (column < 2.0**53), column, np.nan)


def _dead_letter(record: Record, error: Exception, head: EventHead | None) -> DeadLetter:
    reason = "schema" if isinstance(error, msgspec.ValidationError | ValueError) else "undecodable"
    if isinstance(error, msgspec.DecodeError) and not isinstance(error, msgspec.ValidationError):
        reason = "undecodable"
    kind = type(error)
    return DeadLetter(
        record,
        reason,
        f"{record.position}: {error}. See schemas/examples/events.v1/.",
        "VALUE_CONVERTER",
        f"{kind.__module__}.{kind.__qualname__}",
        head.event_id if head is not None and _SHA256.fullmatch(head.event_id) else None,
    )
