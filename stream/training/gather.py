"""Files of captured traffic -> normalised events to train on."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import msgspec
import orjson

from schemas.corpus import CorpusSession, decode_session, is_session
from schemas.corpus_records import to_native
from schemas.corpus_timeline import UNDATED_INTERVAL_MS, UNDATED_START_MS, call_times, timeline
from stream.config import Settings
from stream.errors import UsageError
from stream.record import Record
from stream.sources.file import FileFormat, FileSource
from stream.sources.lines import read_lines
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from stream.training.events import Gathered

_AT_ONCE = 500
_BENIGN = "benign"


@dataclass(slots=True)
class Tally:
    """What became of the input's sessions and records."""

    labelled: bool = True
    """Whether all of it came with labels."""
    left_out: int = 0
    """Labelled sessions that are not benign."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Records that could not be read, by reason."""


def gather_files(paths: Sequence[Path], format: FileFormat, settings: Settings, tally: Tally) -> Iterator[Gathered]:
    """Events of `paths`, redacted and routed as ingest does; `tally` is complete once they have been read.

    Of the corpus layout sessions of label benign are taken, and no others; those that bear no times start one after
    another, over all files.

    Parameters
    ----------
    format
        "auto" looks at the first line of each file.

    Raises
    ------
    UsageError
        When a file is not there or cannot be read.
    """
    # It says what is wrong with a path before anything is read.
    FileSource(paths)
    corpora = [path for path in paths if format == "corpus" or (format == "auto" and _holds_sessions(path))]
    others = [path for path in paths if path not in corpora]
    tally.labelled = not others
    if corpora:
        yield from _of_corpora(corpora, settings, tally)
    if others:
        source = FileSource(others, format)
        ingest = ingest_step(settings, format)
        while not source.exhausted:
            for record in source.poll(_AT_ONCE):
                yield from _ingested(ingest, record, tally)


def _of_corpora(paths: Sequence[Path], settings: Settings, tally: Tally) -> Iterator[Gathered]:
    ingest = ingest_step(settings, "native")
    sessions = list(chain.from_iterable(sessions_of(path, tally) for path in paths))
    benign = [session for session in sessions if session.label == _BENIGN]
    tally.left_out += len(sessions) - len(benign)
    for offset, timed in enumerate(timeline(_in_order(benign))):
        native = orjson.dumps(to_native(timed.session, timed.call, timed.time_ms))
        record = Record("corpus", 0, offset, timed.time_ms, None, native)
        yield from _ingested(ingest, record, tally, timed.session.task)


def sessions_of(path: Path, tally: Tally | None = None) -> Iterator[CorpusSession]:
    """Sessions of a corpus file; lines that are none are counted.

    Raises
    ------
    UsageError
        When it cannot be read.
    """
    for line in _lines(path):
        try:
            yield decode_session(line)
        except ValueError:
            if tally is not None:
                tally.dead_letters["undecodable"] += 1


def _in_order(sessions: Sequence[CorpusSession]) -> list[CorpusSession]:
    """Sessions by their start, given to those that have none."""
    dated = []
    for number, session in enumerate(sessions):
        start_ms = session.start_ms
        if start_ms is None:
            start_ms = session.calls_ms[0] if session.calls_ms else UNDATED_START_MS + number * UNDATED_INTERVAL_MS
        dated.append(msgspec.structs.replace(session, start_ms=start_ms))
    return sorted(dated, key=_first_call_ms)


def _first_call_ms(session: CorpusSession) -> int:
    return next(iter(call_times(session, 0)), 0)


def _ingested(ingest: IngestStep, record: Record, tally: Tally, task: str | None = None) -> Iterator[Gathered]:
    outcome = ingest.step([record])
    tally.dead_letters.update(letter.reason for letter in outcome.dead_letters)
    for event in outcome.events:
        on_topic = Record(record.topic, event.partition, record.offset, record.timestamp_ms, event.key, event.value)
        yield Gathered(on_topic, task)


def ingest_step(settings: Settings, format: FileFormat) -> IngestStep:
    """What ingest does to a record, with these settings."""
    ingest = settings.ingest
    return IngestStep(
        Router(settings.topics.partitions, settings.routing.shards),
        format=format,
        policy=settings.redaction.policy,
        depth_max=ingest.depth_max,
        bytes_max=ingest.bytes_max,
        tenant_field=ingest.tenant_field,
        tenant_default=ingest.tenant_default,
    )


def _holds_sessions(path: Path) -> bool:
    return is_session(next(_lines(path), b""))


def _lines(path: Path) -> Iterator[bytes]:
    """Lines that are not blank."""
    try:
        for line in read_lines(path):
            if line.strip():
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"input {path} cannot be read: {error}") from error
