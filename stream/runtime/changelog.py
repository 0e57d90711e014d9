"""The scorer's state and journal as records of their topics."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from stream.record import JournalEntry, StateChange
from stream.sinks.kafka import HeaderList, KafkaWriter


class Changelog:
    """The state topic.

    Rows carry no headers: their keys say what they are, and a header costs more than the rest of a small row.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def write(self, writer: KafkaWriter, changes: Sequence[StateChange]) -> None:
        """Produce changed rows in their order; a row without value is a tombstone."""
        for change in changes:
            writer.produce(self.topic, change.partition, change.key, change.value)


class JournalTopic:
    """The journal topic.

    Parameters
    ----------
    release
        For `tg-release`; None leaves the header out.
    events
        Topic of the inputs, for `tg-source`: the place before which an entry took effect. None leaves it out.
    """

    def __init__(self, topic: str, release: str | None = None, events: str | None = None) -> None:
        self.topic = topic
        self._events = events
        self._constant: HeaderList = [("tg-schema", b"journal.v1")]
        if release is not None:
            self._constant.append(("tg-release", release.encode()))

    def write(self, writer: KafkaWriter, entries: Sequence[JournalEntry]) -> None:
        """Produce what took effect, each entry to its partition."""
        for entry in entries:
            headers = self._constant
            if self._events is not None:
                offset = orjson.loads(entry.value)["before_offset"]
                headers = [*headers, ("tg-source", f"{self._events}/{entry.partition}/{offset}".encode())]
            writer.produce(self.topic, entry.partition, None, entry.value, headers)


def journalled_ids(value: bytes) -> tuple[str, tuple[str, str, str]] | None:
    """Release and its three ids of a journal record that says which one is in service, else None.

    >>> journalled_ids(b'{"value":{"release":"r1","space_id":"s","feature_schema":"f","state_schema":"1"}}')
    ('r1', ('s', 'f', '1'))
    >>> journalled_ids(b'{"value":{"kind":"release","value":{"release":"r2","space_id":"s","feature_schema":"f",'
    ...                b'"state_schema":"1"}}}')
    ('r2', ('s', 'f', '1'))
    >>> journalled_ids(b'{"value":{"core_time_ms":7}}')
    """
    said = orjson.loads(value)["value"]
    if said.get("kind") == "release" and "value" in said:
        # A control as it lay on its topic, where one that was refused stays what it was.
        said = {} if "refused" in said else said["value"]
    if "state_schema" not in said:
        return None
    return str(said["release"]), (str(said["space_id"]), str(said["feature_schema"]), str(said["state_schema"]))
