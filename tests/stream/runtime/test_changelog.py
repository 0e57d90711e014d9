"""State and journal as records."""

from __future__ import annotations

from typing import cast

from stream.core import Core
from stream.inputs import Applied, InputBatch
from stream.record import JournalEntry, StateChange
from stream.runtime.changelog import Changelog, JournalTopic
from stream.sinks.kafka import HeaderList, KafkaWriter
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, TOPIC


class Kept:
    """A writer that keeps the headers of what it is given."""

    def __init__(self) -> None:
        self.headers: list[HeaderList | None] = []

    def produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: HeaderList | None = None
    ) -> None:
        self.headers.append(headers)


def test_journal_records_name_schema_release_and_the_event_before_which_they_took_effect() -> None:
    kept, core = Kept(), Core(SETTINGS, release(), WordEmbedder())
    control = Applied(2, "start", {"release": "r1", "config_hash": "c"})
    core.step(InputBatch([], next_offsets={2: 40}, topic=TOPIC))
    outcome = core.step(InputBatch([], [control], {2: 41}, TOPIC))
    JournalTopic("journal", "r1", TOPIC).write(cast(KafkaWriter, kept), outcome.journal)
    (headers,) = kept.headers
    assert dict(headers or ()) == {
        "tg-schema": b"journal.v1",
        "tg-release": b"r1",
        "tg-source": f"{TOPIC}/2/40".encode(),
    }


def test_the_headers_of_one_entry_are_not_the_next_ones() -> None:
    kept = Kept()
    entries = [JournalEntry(0, b'{"before_offset":%d}' % offset) for offset in (7, 9)]
    JournalTopic("journal", events="events").write(cast(KafkaWriter, kept), entries)
    assert [dict(headers or ())["tg-source"] for headers in kept.headers] == [b"events/0/7", b"events/0/9"]


def test_state_rows_have_no_headers() -> None:
    kept = Kept()
    Changelog("state").write(cast(KafkaWriter, kept), [StateChange(0, b"k", b"v"), StateChange(0, b"k", None)])
    assert kept.headers == [None, None]
