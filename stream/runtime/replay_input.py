"""What `replay` and `explain` read: files or a range of a topic, with the journal and the state they start from."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.control import ReleaseSwitch
from stream.config import Settings
from stream.errors import EnvironmentFault, StateError, UsageError
from stream.inputs import effect_of
from stream.journal import JournalPlan, Start, read_entries
from stream.replay import Normaliser, Replay, Steps
from stream.runtime.state_files import ExportedState
from stream.sinks.sink import Sink
from stream.sources.file import FileSource
from stream.sources.lines import read_lines
from stream.sources.source import Source
from stream.state.rows import RowError

if TYPE_CHECKING:
    from models.embedder import StaticEmbedder
    from schemas.journal import Journal
    from stream.release import Release
    from stream.runtime.topic_reader import Bounds, TopicReader, Window

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Input:
    """What is replayed."""

    sources: Callable[[bool], list[Source]]
    """All of it: as one source, or, where the order of time counts, one for each part that has its own."""
    entries: list[Journal]
    starts: Mapping[int, Start]
    topic: str
    ingest: Normaliser | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a replay needs but its sink."""

    settings: Settings
    release: Release
    embedder: StaticEmbedder
    input: Input
    plan: JournalPlan
    state: ExportedState | None
    others: Mapping[str, Release]
    """By name: what scored parts of the input that `release` did not."""

    def replay(self, core: Callable[[Settings], Steps], sink: Sink) -> Replay:
        """A replay that stands where the state does; `core` makes one that serves `release`."""
        replay = Replay(
            core,
            self.plan,
            sink,
            topic=self.input.topic,
            ingest=self.input.ingest,
            records_max=self.settings.batch.records_max,
            release_of=self.others.__getitem__,
        )
        if self.state is not None:
            for partition, cursor in self.state.cursors.items():
                try:
                    replay.restore(partition, self.state.rows(partition), cursor.next_offset)
                except RowError as error:
                    raise StateError(f"{self.state.place_of(partition, error.key)}: {error}") from error
        return replay


def prepare(
    settings: Settings, arguments: argparse.Namespace, stack: ExitStack, until: tuple[int, int] | None = None
) -> Prepared:
    """Read release, state and journal, and open the input.

    Parameters
    ----------
    arguments
        Of a command that takes an input, `--journal`, `--from-state` and `--release`.
    stack
        Closes what is opened.
    until
        Of a topic only this partition, up to and with this offset.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    # Imported here: not all that a command does needs models and numpy.
    from stream.runtime.embedders import load_embedder, looking_again
    from stream.runtime.release_store import load_release

    state = ExportedState(arguments.from_state) if arguments.from_state is not None else None
    embedder = load_embedder(settings.embedder)
    release = load_release(_directory(arguments.release, settings), settings, embedder.space_id)
    journal = arguments.journal or ("none" if arguments.topic is None else "topic")
    if state is not None and journal == "none":
        _check_state(state, release, settings)
    if arguments.topic is None:
        given = _files(settings, arguments, journal, state)
    else:
        given = _topic(settings, arguments, journal, state, stack, until)
    served = {partition: cursor.release for partition, cursor in state.cursors.items()} if state is not None else {}
    plan = JournalPlan.of(settings, given.entries, release.name, given.starts, served)
    uris = _uris(given.entries)
    others = {
        name: _load_other(name, uris.get(name), settings, release) for name in plan.releases if name != release.name
    }
    # After all that can be wrong with the input: the weights take seconds.
    release = looking_again(release, settings, embedder.vocabulary)
    others = {name: looking_again(other, settings, embedder.vocabulary) for name, other in others.items()}
    return Prepared(settings, release, embedder, given, plan, state, others)


def _directory(named: str, settings: Settings) -> Path:
    """Where a release is, by its name or its directory."""
    from stream.runtime.release.registry import Registry

    try:
        return Registry(settings).path_of(named)
    except UsageError:
        # Who reads it says what is wrong with it.
        return Path(named)


def _uris(entries: Iterable[Journal]) -> dict[str, str]:
    """Where controls said that releases are."""
    uris = {}
    for entry in entries:
        effect = effect_of(entry.value) if entry.kind == "control" else None
        if isinstance(effect, ReleaseSwitch) and effect.uri is not None:
            uris[effect.release] = effect.uri
    return uris


def _load_other(name: str, uri: str | None, settings: Settings, given: Release) -> Release:
    """A release that the journal names beside the given one."""
    from stream.runtime.release.registry import Registry
    from stream.runtime.release_store import load_release

    remedy = (
        f"Put it into release.directory ({settings.release.directory}), replay only what {given.name!r} scored "
        "(--to-offset, --from-state), or replay without the journal: --journal none."
    )
    try:
        found = load_release(Registry(settings).find(name, uri), settings, given.space_id)
    except UsageError as error:
        raise StateError(f"the journal says that release {name!r} scored a part of this: {error} {remedy}") from error
    if found.name != name:
        raise StateError(
            f"the journal says that release {name!r} scored a part of this; what is there under that name is "
            f"{found.name!r}. {remedy}"
        )
    return found


def _files(settings: Settings, arguments: argparse.Namespace, journal: str, state: ExportedState | None) -> Input:
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
    return Input(lambda apart: [source], entries, {}, settings.topics.events, ingest)


def _topic(
    settings: Settings,
    arguments: argparse.Namespace,
    journal: str,
    state: ExportedState | None,
    stack: ExitStack,
    until: tuple[int, int] | None,
) -> Input:
    from stream.runtime.topic_reader import TopicReader, Window

    window = Window(arguments.from_offset, arguments.to_offset, arguments.from_time, arguments.to_time)
    if state is not None and (window.from_offset, window.from_time_ms) != (None, None):
        raise UsageError("--from-state says where to start; leave out --from-offset and --from-time.")
    reader = TopicReader(settings, "replay")
    stack.callback(reader.close)
    topic = arguments.topic
    # Before the journal: what is journalled behind these ends is beyond the range.
    bounds = _bounds(reader, topic, window, state)
    if until is not None:
        bounds = {p: _cut(bound, until[1] + 1) for p, bound in bounds.items() if p == until[0]}
    entries: list[Journal] = []
    if journal == "topic":
        entries = _entries_of_topic(reader, beside(topic, settings, settings.topics.journal))
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

    return Input(sources, within, starts, topic)


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


def _cut(bound: Bounds, end: int) -> Bounds:
    from stream.runtime.topic_reader import Bounds

    return Bounds(bound.start, max(bound.start, min(bound.end, end)), bound.first, bound.last)


def _check_partitions(state: ExportedState, partitions: int, of: str) -> None:
    held = len(state.manifest.partitions)
    if held != partitions:
        raise StateError(
            f"the state must have as many partitions as {of}, {partitions}; it has {held}. "
            "Give --from-state the state that followed these events."
        )


def _check_state(state: ExportedState, release: Release, settings: Settings) -> None:
    """Whether the release can go on from the state, where no journal tells of others."""
    for partition, cursor in sorted(state.cursors.items()):
        if cursor.release != release.name:
            raise StateError(
                f"the state of partition {partition} is that of release {cursor.release!r}; got {release.name!r}. "
                f"Give --release the directory of {cursor.release!r}, or replay from the beginning."
            )
        if cursor.config_hash not in ("", settings.config_hash):
            _LOG.warning(
                "the state of partition %d was made with another configuration, which only the journal knows", partition
            )


# -- the journal -------------------------------------------------------------------------------------------------------


def beside(topic: str, settings: Settings, output: str) -> str:
    """An output's topic: by the settings where they name a prefix, else by the prefix of the events topic."""
    topics = settings.topics
    events = topics.events.removeprefix(topics.prefix)
    if not topics.output_prefix and topic.endswith(events):
        return topic.removesuffix(events) + output.removeprefix(topics.prefix)
    return output


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
