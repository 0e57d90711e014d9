"""What is odd about events is counted, whatever becomes of them."""

from __future__ import annotations

import pytest

from stream.core import Core
from stream.inputs import FLAGS, InputBatch
from stream.record import Record
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, START_MS, TOPIC, event, record, text


def of(*records: Record) -> dict[str, int]:
    counts = Core(SETTINGS, release(), WordEmbedder()).step(InputBatch(records, topic=TOPIC)).counts
    return {flag: counts[flag] for flag in FLAGS if counts[flag]}


HELLO = [text("user", "hello")]
PLAIN = event(1, START_MS + 60_000, HELLO)
LATE = event(2, START_MS + 60_000 - SETTINGS.core.lateness_ms - 1, HELLO)
AHEAD = event(3, START_MS + 60_000 + 10 * SETTINGS.core.future_ms, HELLO)


@pytest.mark.parametrize(
    ("second", "counts"),
    [
        (record(1, event(4, START_MS + 60_000, HELLO)), {}),
        (record(1, LATE), {"late": 1}),
        (record(1, AHEAD, ingest_ms=START_MS + 60_000), {"clamped": 1}),
        (record(1, event(5, START_MS + 60_000, [])), {"no_content": 1}),
        (record(1, event(6, START_MS + 60_000, [], [text("assistant", "yes")])), {}),
        (record(1, event(7, START_MS + 60_000, HELLO) | {"event_id": PLAIN["event_id"]}), {"conflicting_ids": 1}),
    ],
    ids=["nothing", "late", "clamped", "no content", "output only", "conflicting ids"],
)
def test_what_is_odd_is_counted(second: Record, counts: dict[str, int]) -> None:
    assert of(record(0, PLAIN), second) == counts
