"""What was already said of an event: its score, and the finding that names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from stream.errors import UsageError
from stream.sinks.file import FINDINGS, SCORES
from stream.sources.lines import read_lines

if TYPE_CHECKING:
    from stream.runtime.topic_reader import TopicReader

_LINE_BYTES_MAX = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Said:
    """Records about the event."""

    score: dict[str, Any] | None = None
    finding: dict[str, Any] | None = None
    """The last revision of the finding that names it."""
    own: dict[str, Any] | None = None
    """The revision that speaks for this very event: a later one may tell of a stranger one."""


def said_in_folder(folder: Path, event_id: str) -> Said:
    """What a replay's `--out` says of the event.

    Raises
    ------
    UsageError
        When the folder is none.
    """
    if not (folder / SCORES).is_file() or not (folder / FINDINGS).is_file():
        raise UsageError(f"--replayed {folder} must be a folder that 'tidegate replay --out' wrote; it lacks {SCORES}.")
    return _said(event_id, read_lines(folder / SCORES, _LINE_BYTES_MAX), read_lines(folder / FINDINGS, _LINE_BYTES_MAX))


def said_on_topics(reader: TopicReader, scores: str, findings: str, event_id: str) -> Said:
    """What committed records of the topics say of the event; a topic that is not there says nothing."""
    return _said(event_id, _values(reader, scores), _values(reader, findings))


def _values(reader: TopicReader, topic: str) -> Iterator[bytes]:
    if topic not in reader:
        return
    for partition, bound in reader.bounds(topic).items():
        for records in reader.read(topic, partition, bound.start, bound.end):
            yield from (record.value for record in records if record.value is not None)


def _said(event_id: str, scores: Iterable[bytes], findings: Iterable[bytes]) -> Said:
    needle = event_id.encode()
    # Most lines are about other events, and are not read further than that.
    score = next((found for found in map(orjson.loads, _with(needle, scores)) if _is_score(found, event_id)), None)
    finding = own = None
    for record in map(orjson.loads, _with(needle, findings)):
        named = [each["uid"] for each in record["finding_info"]["related_events"]]
        if event_id not in named:
            continue
        if finding is None or _revision(record) >= _revision(finding):
            finding = record
        if named[-1] == event_id and score is not None and record["unmapped"].get("signals") == score["signals"]:
            own = record
    return Said(score, finding, own)


def _with(needle: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    return (line for line in lines if needle in line)


def _is_score(found: dict[str, Any], event_id: str) -> bool:
    return found.get("event_id") == event_id and found.get("decision") != "duplicate"


def _revision(finding: dict[str, Any]) -> tuple[int, int]:
    """An event that repeats an id may open a second finding; the later one counts."""
    return int(finding["finding_info"]["created_time"]), int(finding["metadata"]["sequence"])
