"""The controls topic, as a scorer reads it: in order, each release either loaded or refused before what follows it."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.control import Control, ReleaseSwitch
from schemas.undecodable import UNDECODABLE
from stream.errors import RetriableError, StateError
from stream.inputs import IGNORED
from stream.kafka_faults import check_consumer_error
from stream.record import Record
from stream.runtime.release.loader import BackgroundLoader, Loaded, Reason, Refused
from stream.sources.kafka import (
    CONSUMER_DEFAULTS,
    CONSUMER_PROPERTIES,
    Place,
    RangeReader,
    record_of,
)

_LOG = logging.getLogger(__name__)
_CONTROL = msgspec.json.Decoder(Control)
_POLL_RECORDS = 1_000
_TURN_SECONDS = 0.05
CONTROL_BYTES_MAX = 64 * 1024
"""Of one control: it is written to the journal once for each partition, in one transaction."""


@dataclass(frozen=True, slots=True)
class Known:
    """One control as it lies on the topic."""

    offset: int
    value: Mapping[str, Any]
    """The record; of one that cannot be read what is known of it, with `refused` and why."""
    size: int
    switch: ReleaseSwitch | None = None
    """Of kind `release`: what it asks for."""


def read_control(record: Record) -> Known:
    """A record of the topic; whatever it holds, it has a place in the order.

    What the journal could not write is refused here: it would stop every scorer, each time it is read again.

    >>> read_control(Record("c", 0, 7, 0, None, b"{}")).value["refused"]
    'no control: Object missing required field `kind`'
    """
    raw = record.value or b""
    try:
        if len(raw) > CONTROL_BYTES_MAX:
            raise msgspec.ValidationError(f"it must have at most {CONTROL_BYTES_MAX} bytes; it has {len(raw)}")
        control = _CONTROL.decode(raw)
        value = msgspec.to_builtins(control)
        # As deep as in a journal's entry.
        orjson.dumps({"value": value}, option=orjson.OPT_SORT_KEYS)
    except (*UNDECODABLE, orjson.JSONEncodeError) as error:
        return Known(record.offset, _refused({"kind": "unreadable"}, f"no control: {error}"), 100)
    if control.kind != "release":
        return Known(record.offset, value, len(raw))
    try:
        switch = msgspec.convert(control.value, ReleaseSwitch)
    except msgspec.ValidationError as error:
        return Known(record.offset, _refused(value, f"no release switch: {error}"), len(raw))
    return Known(record.offset, value, len(raw), switch)


def _refused(value: Mapping[str, Any], why: str) -> dict[str, Any]:
    """As it is journalled: the core lets it take no effect, in a replay neither."""
    return {**value, "refused": why, IGNORED: True}


class ControlLog:
    """Controls from some offset on, kept in memory; what is new comes without waiting.

    Parameters
    ----------
    properties
        librdkafka's, with bootstrap servers.
    reader
        Reads what lies behind.
    """

    def __init__(self, properties: Mapping[str, object], topic: str, reader: RangeReader) -> None:
        self._properties = properties
        self._reader = reader
        self._consumer: Consumer | None = None
        self.place: Place = (topic, 0)
        self._known: list[Known] = []
        self._first = 0
        self.end = 0
        """All before this offset are known."""

    def begin(self, first: int, end: int, waiting: Callable[[], None]) -> None:
        """Read from offset `first` up to `end`, and from there on whatever comes.

        Parameters
        ----------
        waiting
            As in `RangeReader.read`.
        """
        self._known = list(self._range(first, end, waiting))
        self._first, self.end = first, end
        self.close()
        self._consumer = Consumer(
            {**CONSUMER_DEFAULTS, **self._properties, **CONSUMER_PROPERTIES, "group.id": "tidegate.range-reader"}
        )
        self._consumer.assign([TopicPartition(*self.place, end)])

    def reach_back(self, first: int, waiting: Callable[[], None]) -> None:
        """Know those from offset `first` on too."""
        if first < self._first:
            self._known = [*self._range(first, self._first, waiting), *self._known]
            self._first = first

    def find(self, release: str, before: int, waiting: Callable[[], None]) -> ReleaseSwitch | None:
        """What last asked for `release` before an offset."""
        found = None
        for known in self._range(0, before, waiting):
            if known.switch is not None and known.switch.release == release:
                found = known.switch
        return found

    def poll(self, wait_seconds: float = 0.0) -> list[Known]:
        """What has come since."""
        if self._consumer is None:
            return []
        came = []
        for message in self._consumer.consume(_POLL_RECORDS, wait_seconds):
            error, offset = message.error(), int(message.offset() or 0)
            if error is None:
                came.append(read_control(record_of(message)))
                self.end = max(self.end, offset + 1)
            elif error.code() == KafkaError._PARTITION_EOF:
                self.end = max(self.end, offset)
            else:
                check_consumer_error(error)
        self._known += came
        return came

    def between(self, first: int, end: int) -> list[Known]:
        """Those from offset `first` up to, not with, `end`."""
        start, stop = (bisect_left(self._known, offset, key=lambda known: known.offset) for offset in (first, end))
        return self._known[start:stop]

    def forget(self, before: int) -> None:
        """Keep none before this offset in memory."""
        if before > self._first:
            self._known = self.between(before, self.end)
            self._first = before

    def _range(self, first: int, end: int, waiting: Callable[[], None]) -> Iterator[Known]:
        # What is no longer there was deleted by somebody: retention is for ever.
        start = max(first, self._reader.low(self.place)) if first < end else end
        for records in self._reader.read(self.place, start, end, waiting=waiting):
            yield from map(read_control, records)

    def close(self) -> None:
        """Let go of the connection."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


class ControlQueue:
    """Decides of every release that a control asks for, and so how far the others may take effect.

    The last release that was asked for counts: one behind which another has been loaded is passed over, so that a
    rollback does not wait for what it takes back.

    Parameters
    ----------
    ends
        Places -> their ends as a `read_uncommitted` handle sees them.
    follows
        False for a shadow: it keeps the release that it was started with.
    refused
        Told of each refusal, once.
    """

    def __init__(
        self,
        log: ControlLog,
        ends: Callable[[list[Place]], Mapping[Place, int]],
        *,
        follows: bool,
        refused: Callable[[Reason, str], None],
    ) -> None:
        self._log = log
        self._ends = ends
        self._follows = follows
        self._refused = refused
        self._loader: BackgroundLoader
        self._ids: tuple[str, str, str]
        self._undecided: list[Known] = []
        self._verdicts: dict[int, str | None] = {}
        """Offset of a release's control -> why it is not followed, None when it is."""
        self._loaded: dict[int, Loaded] = {}
        """Offset -> what it asked for, until it is taken."""
        self.begun = False

    @property
    def decided(self) -> int:
        """All controls before this offset may take effect."""
        return self._undecided[0].offset if self._undecided else self._log.end

    def begin(
        self,
        first: int,
        served: str,
        since: int | None,
        loader: BackgroundLoader,
        ids: tuple[str, str, str],
        waiting: Callable[[], None],
    ) -> None:
        """Know all controls from offset `first` up to the topic's end as it is now.

        Parameters
        ----------
        served
            Name of the release in service.
        since
            The offset behind that of the control since which it is; releases asked for later are loaded, earlier ones
            were dealt with. None: it was named after all that lie there.
        ids
            Of the release in service.
        """
        self._loader, self._ids = loader, ids
        end = self._ends([self._log.place])[self._log.place]
        if since is not None and since > end:
            raise StateError(
                f"{self._log.place[0]} ends at offset {end}, but controls up to offset {since} have taken effect: it "
                "was made anew, or belongs to another cluster. Bring it back, or start a scorer with its own "
                "--group-id and --output-prefix."
            )
        self._log.begin(first, end, waiting)
        self._undecided.clear()
        before = end if since is None else since
        followed: int | None = None
        for known in self._log.between(first, before):
            if known.switch is not None:
                self._verdicts[known.offset] = f"it was asked for before {served} was put in service"
                if since is not None and known.switch.release == served:
                    followed = known.offset
        if followed is not None:
            self._verdicts[followed] = None
        self._note(self._log.between(before, end))
        self.begun = True

    def reach(self, first: int, end: int, waiting: Callable[[], None]) -> None:
        """Know those from offset `first` on, and have decided of all before `end`: others have."""
        self._log.reach_back(first, waiting)
        if self.decided >= end:
            return
        place = self._log.place
        if (topic_end := self._ends([place])[place]) < end:
            raise RetriableError(f"{place[0]} ends at offset {topic_end}, but others have seen {end}")
        while self.turn(_TURN_SECONDS) < end:
            waiting()

    def turn(self, wait_seconds: float = 0.0) -> int:
        """Take note of what has come; `decided` then."""
        self._note(self._log.poll(wait_seconds))
        # From the last on: one that is good makes those before it needless.
        for known in reversed([each for each in self._undecided if each.offset not in self._verdicts]):
            answer = self._asked(known)
            if answer is None:
                break
            if isinstance(answer, Refused):
                self._verdicts[known.offset] = str(answer)
                self._refused(answer.reason, f"release {known.switch.release if known.switch else '?'}: {answer}")
                continue
            self._verdicts[known.offset] = None
            self._loaded[known.offset] = answer
            for earlier in self._undecided:
                if earlier.offset < known.offset:
                    self._verdicts.setdefault(earlier.offset, f"{answer.name}, asked for later, was there first")
        while self._undecided and self._undecided[0].offset in self._verdicts:
            del self._undecided[0]
        return self.decided

    def _asked(self, known: Known) -> Loaded | Refused | None:
        switch = known.switch
        assert switch is not None
        ids = (switch.space_id, switch.feature_schema, switch.state_schema)
        if ids != self._ids:
            return Refused(
                "incompatible",
                f"its ids must be {', '.join(self._ids)}, those of the release in service; they are {', '.join(ids)}. "
                "Start a second scorer with its own --group-id and --output-prefix, and let it take over.",
            )
        return self._loader.ask(switch)

    def _note(self, came: list[Known]) -> None:
        for known in came:
            if known.switch is None:
                if "refused" in known.value:
                    self._refused("unreadable", f"{self._log.place[0]}[0]@{known.offset}: {known.value['refused']}")
            elif not self._follows:
                self._verdicts[known.offset] = "a shadow keeps the release that it was started with"
            else:
                self._undecided.append(known)

    def effects(self, first: int, served: str) -> Iterator[tuple[Known, Mapping[str, Any], str | None]]:
        """Controls from offset `first` on that may take effect, in order.

        Each as it was read, as it is to be journalled, and with the release that it puts in service, if it does.
        """
        for known in self._log.between(first, self.decided):
            if known.switch is None:
                yield known, known.value, None
                continue
            refused = self._verdicts.get(known.offset, f"it was asked for before {served} was put in service")
            if refused is None:
                yield known, known.value, known.switch.release
            else:
                yield known, _refused(known.value, refused), None

    def take(self) -> Loaded | None:
        """The release that the last decided control put in service, once."""
        decided = [offset for offset in self._loaded if offset < self.decided]
        taken = self._loaded[max(decided)] if decided else None
        for offset in decided:
            del self._loaded[offset]
        return taken

    def find(self, release: str, before: int, waiting: Callable[[], None]) -> ReleaseSwitch | None:
        """What last asked for `release` before an offset."""
        return self._log.find(release, before, waiting)

    def forget(self, before: int) -> None:
        """No partition needs those before this offset any more."""
        self._log.forget(before)
