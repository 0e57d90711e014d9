"""`tidegate replay`: captured traffic, or a range of the events topic, through the core that scores live."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stream.config import Settings
from stream.errors import CheckFailed, EnvironmentFault, StateError, UsageError
from stream.journal import JournalPlan, Start, read_entries
from stream.replay import Normaliser, Replay, Told
from stream.runtime import found
from stream.runtime.pacing import PacedSource, factor_of
from stream.runtime.replay_compare import compare
from stream.runtime.state_files import ExportedState
from stream.sinks.file import FINDINGS, FileSink
from stream.sources.file import FileSource
from stream.sources.lines import read_lines
from stream.sources.source import Source

if TYPE_CHECKING:
    from schemas.journal import Journal
    from stream.release import Release
    from stream.runtime.topic_reader import Bounds, TopicReader, Window

_LOG = logging.getLogger(__name__)
_PROGRESS_SECONDS = 2.0


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Replay, or compare two replays.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    if arguments.action == "compare":
        return _compare(arguments.a, arguments.b)
    with ExitStack() as stack:
        return _replay(settings, arguments, stack)


def _compare(a: Path, b: Path) -> int:
    differences = compare(a, b)
    different = [each for each in differences if each.differs]
    for each in different:
        print("\n".join(each.told()))
    if different:
        return CheckFailed.exit_code
    print("equal: " + ", ".join(f"{each.file} ({each.lines_a} lines)" for each in differences))
    return 0


# -- replay ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Input:
    """What is replayed."""

    sources: Callable[[bool], list[Source]]
    """All of it: as one source, or, where the order of time counts, one for each part that has its own."""
    entries: list[Journal]
    starts: Mapping[int, Start]
    topic: str
    ingest: Normaliser | None = None


def _replay(settings: Settings, arguments: argparse.Namespace, stack: ExitStack) -> int:
    # Imported here: `compare` needs neither models nor numpy, and only a report needs pictures.
    if arguments.report:
        from stream.runtime.report.page import write_report
    from stream.core import Core
    from stream.runtime.embedders import load_embedder
    from stream.runtime.release_store import load_release

    state = ExportedState(arguments.from_state) if arguments.from_state is not None else None
    embedder = load_embedder(settings.embedder)
    release = load_release(arguments.release, settings, embedder.space_id)
    journal = arguments.journal or ("none" if arguments.topic is None else "topic")
    if state is not None:
        _check_state(state, release, settings, journalled=journal != "none")
    if arguments.topic is None:
        given = _files(settings, arguments, journal, state)
    else:
        given = _topic(settings, arguments, journal, state, stack)
    plan = JournalPlan.of(settings, given.entries, release.name, given.starts)
    sink = stack.enter_context(_sink(arguments.out))

    session_fpr = settings.decision.session_fpr

    def core(of: Settings) -> Core:
        # The journal may know another operating point than today's.
        nonlocal session_fpr
        session_fpr = of.decision.session_fpr
        return Core(of, release, embedder)

    replay = Replay(
        core,
        plan,
        sink,
        topic=given.topic,
        ingest=given.ingest,
        records_max=settings.batch.records_max,
    )
    for partition, cursor in state.cursors.items() if state is not None else ():
        assert state is not None
        replay.restore(partition, state.rows(partition), cursor.next_offset)
    factor = factor_of(arguments.pace)
    sources = given.sources(factor is not None)
    source = sources[0] if factor is None else PacedSource(sources, factor)
    try:
        told = replay.run(source, _Progress())
        said = sink.close({**told.summary(), "release": release.name})
        reported = write_report(arguments.out, session_fpr) if arguments.report else []
    except OSError as error:
        raise EnvironmentFault(f"--out {arguments.out}: {error.strerror}. Make room there, or name another.") from error
    _LOG.info(
        "%d records: %d events scored, %d findings opened, %d dead letters; written to %s",
        told.records, told.events, said["findings_opened"], told.dead_letters, arguments.out,
    )  # fmt: skip
    if arguments.report:
        print("\n".join(found.told(arguments.out / FINDINGS)))
        print(f"Report: {arguments.out / reported[0]}, and {len(reported) - 1} pictures beside it.")
    return 0


def _sink(out: Path) -> FileSink:
    try:
        return FileSink(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}. Name another folder.") from error


def _files(settings: Settings, arguments: argparse.Namespace, journal: str, state: ExportedState | None) -> _Input:
    from stream.steps.ingest import IngestStep
    from stream.steps.route import Router

    limits = settings.ingest
    ingest = IngestStep(
        Router(settings.topics.partitions, settings.routing.shards),
        # The source has turned a corpus into native records.
        format="native" if arguments.format == "corpus" else arguments.format,
        policy=settings.redaction.policy,
        depth_max=limits.depth_max,
        bytes_max=limits.bytes_max,
        tenant_field=limits.tenant_field,
        tenant_default=limits.tenant_default,
    )
    if state is not None:
        _check_partitions(state, settings.topics.partitions, "topics.partitions")
    source = FileSource(arguments.input, arguments.format)
    entries = [] if journal == "none" else _entries_of_file(Path(journal))
    return _Input(lambda apart: [source], entries, {}, settings.topics.events, ingest)


def _topic(
    settings: Settings, arguments: argparse.Namespace, journal: str, state: ExportedState | None, stack: ExitStack
) -> _Input:
    from stream.runtime.topic_reader import TopicReader, Window

    window = Window(arguments.from_offset, arguments.to_offset, arguments.from_time, arguments.to_time)
    if state is not None and (window.from_offset, window.from_time_ms) != (None, None):
        raise UsageError("--from-state says where to start; leave out --from-offset and --from-time.")
    reader = TopicReader(settings, "replay")
    stack.callback(reader.close)
    topic = arguments.topic
    # Before the journal: what is journalled behind these ends is beyond the range.
    bounds = _bounds(reader, topic, window, state)
    entries: list[Journal] = []
    if journal == "topic":
        entries = _entries_of_topic(reader, _journal_beside(topic, settings))
    elif journal != "none":
        entries = _entries_of_file(Path(journal))
    # What lies before the first record behind the range belongs to it only where there is no such record.
    ends = {p: bound.end - (bound.end < bound.last) for p, bound in bounds.items()}
    within = [entry for entry in entries if entry.before_offset <= ends.get(entry.partition, -1)]
    starts = {p: (bound.start, 0) for p, bound in bounds.items() if bound.start > bound.first}
    for partition, cursor in state.cursors.items() if state is not None else ():
        starts[partition] = cursor.next_offset, cursor.journal_seq

    def sources(apart: bool) -> list[Source]:
        opened = reader.partition_sources(topic, bounds) if apart else [reader.source(topic, bounds)]
        for source in opened:
            stack.callback(source.close)
        return list(opened)

    return _Input(sources, within, starts, topic)


def _bounds(reader: TopicReader, topic: str, window: Window, state: ExportedState | None) -> dict[int, Bounds]:
    """What of each partition is replayed."""
    from stream.runtime.topic_reader import Bounds

    bounds = reader.bounds(topic, window)
    if state is None:
        return bounds
    _check_partitions(state, len(bounds), topic)
    for partition, cursor in state.cursors.items():
        bound = bounds[partition]
        if cursor.next_offset < bound.first:
            raise StateError(
                f"the state of partition {partition} stands at offset {cursor.next_offset}, but {topic}[{partition}] "
                f"begins at {bound.first}: what lies between is gone. Export a newer one with 'tidegate state export'."
            )
        end = max(bound.end, cursor.next_offset)
        bounds[partition] = Bounds(cursor.next_offset, end, bound.first, bound.last)
    return bounds


def _check_partitions(state: ExportedState, partitions: int, of: str) -> None:
    held = len(state.manifest.partitions)
    if held != partitions:
        raise StateError(
            f"the state must have as many partitions as {of}, {partitions}; it has {held}. "
            "Give --from-state the state that followed these events."
        )


def _check_state(state: ExportedState, release: Release, settings: Settings, *, journalled: bool) -> None:
    """Whether the release can go on from the state."""
    for partition, cursor in sorted(state.cursors.items()):
        if cursor.release != release.name:
            raise StateError(
                f"the state of partition {partition} is that of release {cursor.release!r}; got {release.name!r}. "
                f"Give --release the directory of {cursor.release!r}, or replay from the beginning."
            )
        if not journalled and cursor.config_hash not in ("", settings.config_hash):
            _LOG.warning(
                "the state of partition %d was made with another configuration, which only the journal knows", partition
            )


# -- the journal -------------------------------------------------------------------------------------------------------


def _journal_beside(topic: str, settings: Settings) -> str:
    """The journal's topic: by its settings where they name a prefix, else by the prefix of the events topic."""
    topics = settings.topics
    events = topics.events.removeprefix(topics.prefix)
    if not topics.output_prefix and topic.endswith(events):
        return topic.removesuffix(events) + topics.journal.removeprefix(topics.prefix)
    return topics.journal


def _entries_of_topic(reader: TopicReader, topic: str) -> list[Journal]:
    if topic not in reader:
        raise EnvironmentFault(
            f"journal topic {topic} does not exist. Name its prefix with --output-prefix or --topic-prefix, give a file"
            " of its entries, or replay without it: --journal none."
        )

    def values() -> Iterator[tuple[str, bytes]]:
        for partition, bound in reader.bounds(topic).items():
            for records in reader.read(topic, partition, bound.start, bound.end):
                for record in records:
                    if record.value is not None:
                        yield record.position, record.value

    return read_entries(values())


def _entries_of_file(path: Path) -> list[Journal]:
    if not path.is_file():
        raise UsageError(f"--journal {path} must be a file of JSON lines, 'topic' or 'none'; found no such file.")
    lines = enumerate(read_lines(path), 1)
    return read_entries((f"{path}, line {number}", line) for number, line in lines if line.strip())


class _Progress:
    """Says now and then how far a replay has come."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def __call__(self, told: Told) -> None:
        now = time.monotonic()
        if now - self._said < _PROGRESS_SECONDS:
            return
        self._said = now
        rate = told.records / (now - self._began)
        _LOG.info("%d records replayed, %.0f a second, %d findings", told.records, rate, told.findings)
