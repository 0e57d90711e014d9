"""The core on real traffic and with the real embedder: the same bytes however the stream is cut."""

from __future__ import annotations

from functools import cache
from random import Random

import orjson
import pytest

from models.embedder import StaticEmbedder
from sample.records import LIVE, records
from stream.config import LearningSettings, Settings
from stream.core import Core
from stream.record import Record
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from tests.stream.releases import release
from tests.stream.streams import Said, cut, run

EVENTS = 700
PARTITIONS = 3
SETTINGS = Settings(learning=LearningSettings(grace_sessions=3))


@cache
def embedder() -> StaticEmbedder:
    return StaticEmbedder.load(device="cpu")


def core() -> Core:
    return Core(SETTINGS, release(space_id=embedder().space_id, reading=True), embedder())


@pytest.fixture(scope="module")
def sample() -> list[Record]:
    """LiteLLM's records of the sample, as ingest hands them on."""
    captured = [
        Record("litellm", 0, number, time_ms, None, orjson.dumps(value))
        for (time_ms, value, _), number in zip(records(LIVE), range(EVENTS), strict=False)
    ]
    events = IngestStep(Router(PARTITIONS), format="litellm").step(captured).events
    return [
        Record("events", event.partition, offset, captured[offset].timestamp_ms, event.key, event.value)
        for event in events
        for offset in event.source[2:]
    ]


@pytest.fixture(scope="module")
def whole(sample: list[Record]) -> Said:
    return run(core(), cut(sample, len(sample)))


def test_the_sample_is_scored_whole(sample: list[Record], whole: Said) -> None:
    assert len(whole.scored()) == len(sample) == EVENTS
    assert set(whole.scores) == set(range(PARTITIONS))
    assert whole.found() and not whole.dead_letters


@pytest.mark.parametrize("size", [1, 7, 333])
def test_batches_of_any_size_give_the_same_bytes(sample: list[Record], whole: Said, size: int) -> None:
    assert run(core(), cut(sample, size)).results() == whole.results()


def test_restored_at_random_cuts_gives_the_same_bytes(sample: list[Record], whole: Said) -> None:
    random = Random(1)
    said = Said()
    for batch in cut(sample, (random.choice([3, 20, 90]) for _ in sample)):
        live = core()
        for partition, rows in said.rows.items():
            live.restore(partition, rows)
        run(live, [batch], said)
    assert said.results() == whole.results()


def test_each_content_is_embedded_once_however_often_it_is_sent(sample: list[Record]) -> None:
    live = core()
    misses = sum(live.step(batch).counts["embedding_cache_misses"] for batch in cut(sample, 200))
    events = [orjson.loads(record.value or b"") for record in sample]
    sent = [message["digest"] for event in events for message in [*event["messages"], *event.get("output", [])]]
    assert 0 < misses <= len(set(sent)) < len(sent) / 2
