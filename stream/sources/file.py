"""Records from files of captured traffic: gateway logs, native records or labelled conversations, a line each."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from schemas.corpus import CorpusSession, decode_session, is_session
from schemas.corpus_records import to_native
from schemas.corpus_timeline import timeline
from schemas.undecodable import UNDECODABLE
from stream.errors import UsageError
from stream.record import Record
from stream.sources.lines import read_lines

FileFormat = Literal["auto", "litellm", "otel", "kong", "native", "corpus"]

_MS_MAX = 2**53


class FileSource:
    """A `Source` of the lines of files, one after another, all in partition 0; ingest gives each its own.

    The offset is the line's number over all files, from 0, as it would be on a topic that the files were loaded onto.
    The timestamp is the event's start. Blank lines are counted and left out. A line of the corpus layout becomes the
    native records of its session's calls, merged over the file in the order of time, and the offset counts these; one
    that cannot be read is passed on as it is, for ingest to refuse.

    Parameters
    ----------
    paths
        Files, `.jsonl` or `.jsonl.gz`.
    format
        "auto" looks at the first line of each file.

    Raises
    ------
    UsageError
        From the start when a file is not there; from `poll` when one cannot be read, or a corpus is not sorted by time.
    """

    def __init__(self, paths: Sequence[Path], format: FileFormat = "auto") -> None:
        for path in paths:
            if not path.is_file():
                raise UsageError(f"input {path} must be a file of JSON lines, packed by gzip or not; found none.")
        self._format = format
        self._records = self._read(paths)
        self._exhausted = False

    def poll(self, max_records: int) -> list[Record]:
        """At most `max_records` that follow."""
        polled = list(islice(self._records, max_records))
        self._exhausted = len(polled) < max_records
        return polled

    @property
    def exhausted(self) -> bool:
        """Whether a poll has found the end."""
        return self._exhausted

    def _read(self, paths: Sequence[Path]) -> Iterator[Record]:
        offset = 0
        time_ms = 0
        for path in paths:
            values = _of_corpus(path) if self._is_corpus(path) else _of_lines(path)
            try:
                for value_ms, value in values:
                    time_ms = time_ms if value_ms is None else value_ms
                    if value:
                        yield Record(path.name, 0, offset, time_ms, None, value)
                    offset += 1
            except (OSError, EOFError, zlib.error, _UnsortedError) as error:
                raise UsageError(f"input {path} cannot be read beyond record {offset}: {error}") from error

    def _is_corpus(self, path: Path) -> bool:
        if self._format != "auto":
            return self._format == "corpus"
        try:
            first = next((line for line in read_lines(path) if line.strip()), b"")
        except (OSError, EOFError, zlib.error):
            return False  # The reading proper says what is wrong, and where.
        return is_session(first)


class _UnsortedError(Exception):
    """A corpus whose sessions go back in time."""


class _Times(msgspec.Struct):
    """When a gateway says that its call started."""

    startTime: Any = None  # noqa: N815
    endTime: Any = None  # noqa: N815
    event_time_ms: Any = None
    started_at: Any = None


_TIMES: msgspec.json.Decoder[_Times | list[_Times]] = msgspec.json.Decoder(_Times | list[_Times])
_SPANS = (b'"resourceSpans"', b'"resource_spans"')
_SPAN_START = re.compile(rb'"start(?:TimeUnixNano|_time_unix_nano)"\s*:\s*"?([0-9]{1,19})\b')


def _of_lines(path: Path) -> Iterator[tuple[int | None, bytes]]:
    """Event time, None when the line tells none, and line."""
    for line in read_lines(path):
        text = line.strip()
        yield (_event_time_ms(text) if text else None), text


def _event_time_ms(line: bytes) -> int | None:
    """Start of the call in a record, the last one of many, in ms since the epoch.

    >>> _event_time_ms(b'{"startTime": 1.5}'), _event_time_ms(b'{"event_time_ms": 7}'), _event_time_ms(b"[")
    (1500, 7, None)
    >>> _event_time_ms(b'[{"started_at": 9}, {"started_at": 8}]')
    9
    >>> _event_time_ms(b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "5000000"}]}]}]}')
    5
    """
    if any(mark in line for mark in _SPANS) and (starts := _SPAN_START.findall(line)):
        return max(map(int, starts)) // 1_000_000
    try:
        read = _TIMES.decode(line)
    except UNDECODABLE:
        return None
    found = [
        time_ms for times in (read if isinstance(read, list) else [read]) if (time_ms := _start_ms(times)) is not None
    ]
    return max(found, default=None)


def _start_ms(times: _Times) -> int | None:
    for value, in_ms in (
        (times.event_time_ms, 1),
        (times.startTime, 1000),
        (times.endTime, 1000),
        (times.started_at, 1),
    ):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value * in_ms < _MS_MAX:
            return round(value * in_ms)
    return None


def _of_corpus(path: Path) -> Iterator[tuple[int | None, bytes]]:
    """Start and native record of each call, and lines that are no sessions as they come."""
    unreadable: list[bytes] = []

    def sessions() -> Iterator[CorpusSession]:
        for line in read_lines(path):
            if line.strip():
                try:
                    yield decode_session(line)
                except ValueError:
                    unreadable.append(line)

    calls = timeline(sessions())
    while True:
        try:
            timed = next(calls, None)
        except ValueError as error:
            raise _UnsortedError(str(error)) from error
        for line in unreadable:
            yield None, line
        unreadable.clear()
        if timed is None:
            return
        yield timed.time_ms, orjson.dumps(to_native(timed.session, timed.call, timed.time_ms))
