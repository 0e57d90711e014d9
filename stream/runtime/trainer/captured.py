"""What a job read of its topics, kept in its directory: retention and compaction go on while it works."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from schemas.label import Label
from schemas.manifest import InputRange
from schemas.undecodable import UNDECODABLE
from stream.errors import StateError
from stream.record import Record
from stream.runtime.topic_reader import TopicReader
from stream.runtime.trainer.plan import Plan
from stream.training.capture import Place
from stream.training.labels import latest_labels

_LOG = logging.getLogger(__name__)
EVENTS, FOUND, LABELS = "events.records", "found.msgpack", "labels.json"
_LENGTH = struct.Struct(">I")


class _Scored(msgspec.Struct, frozen=True):
    """What of a score says that something was found."""

    partition: int
    offset: int
    decision: str
    learned: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What was read."""

    events: list[Record]
    found: list[Place]
    """Events that were found, or held back from learning."""
    labels: list[Label]
    """The latest of each key within the planned range."""


def keep(folder: Path, plan: Plan, reader: TopicReader) -> None:
    """Read the planned ranges into `folder`.

    Raises
    ------
    EnvironmentFault
        When a topic is missing, or no broker answers.
    """
    with (folder / EVENTS).open("wb") as stream:
        for record in _records(reader, plan.events):
            packed = msgspec.msgpack.encode(
                (record.partition, record.offset, record.timestamp_ms, record.key, record.value)
            )
            stream.write(_LENGTH.pack(len(packed)) + packed)
    found = sorted(_found(reader, plan.scores))
    (folder / FOUND).write_bytes(msgspec.msgpack.encode(found))
    labels, unreadable = latest_labels(_records(reader, plan.labels))
    if unreadable:
        _LOG.warning("%d records of the labels topic are no labels, and are passed over", unreadable)
    (folder / LABELS).write_bytes(msgspec.json.encode(labels))


def kept(folder: Path, topic: str) -> Kept:
    """What `keep` read; `topic` is that of the events.

    Raises
    ------
    StateError
        When it is damaged.
    """
    try:
        raw = (folder / EVENTS).read_bytes()
        return Kept(
            list(_unpacked(raw, topic)),
            msgspec.msgpack.decode((folder / FOUND).read_bytes(), type=list[tuple[int, int]]),
            msgspec.json.decode((folder / LABELS).read_bytes(), type=list[Label]),
        )
    except (OSError, struct.error, *UNDECODABLE) as error:
        raise StateError(
            f"{folder} must hold what the job read; {error}. Remove the job's directory and ask again."
        ) from error


def _unpacked(raw: bytes, topic: str) -> Iterator[Record]:
    decoder = msgspec.msgpack.Decoder(tuple[int, int, int, bytes | None, bytes | None])
    at = 0
    while at < len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        partition, offset, timestamp_ms, key, value = decoder.decode(
            raw[at + _LENGTH.size : at + _LENGTH.size + length]
        )
        yield Record(topic, partition, offset, timestamp_ms, key, value)
        at += _LENGTH.size + length


def _records(reader: TopicReader, ranges: Sequence[InputRange]) -> Iterator[Record]:
    for each in ranges:
        for batch in reader.read(each.topic, each.partition, each.from_offset, each.to_offset):
            yield from batch


def _found(reader: TopicReader, ranges: Sequence[InputRange]) -> Iterator[Place]:
    decoder = msgspec.json.Decoder(_Scored)
    for record in _records(reader, ranges):
        try:
            score = decoder.decode(record.value or b"")
        except UNDECODABLE as error:
            _LOG.warning("%s is no score, and is passed over: %s", record.position, error)
            continue
        if score.decision in ("finding", "over_budget") or score.learned == "quarantined":
            yield score.partition, score.offset
