"""One workload for every stage: all of the sample's traffic once, so that no cache knows it beforehand."""

from dataclasses import replace
from itertools import chain

import orjson

from sample.records import LIVE, TRAIN, records
from stream.record import Record
from stream.steps.ingest import IngestStep
from stream.steps.route import Router

RAW_TOPIC = "litellm.raw"
EVENTS_TOPIC = "genai.gateway.events.v1"
PARTITIONS = 8


def litellm() -> list[Record]:
    """LiteLLM records as Kafka would bring them, one partition, ingest time in the capture's order."""
    captured = chain(records(TRAIN, "litellm"), records(LIVE, "litellm"))
    return [
        Record(RAW_TOPIC, 0, number, 1_800_000_000_000 + number, None, orjson.dumps(record))
        for number, (_, record, _) in enumerate(captured)
    ]


def ingest_step(format: str = "litellm") -> IngestStep:
    """As `ingest` has it by default."""
    return IngestStep(Router(PARTITIONS), format=format)


def normalised(records: list[Record], format: str = "litellm") -> list[Record]:
    """The events of `records`, as `score` would read them."""
    events = ingest_step(format).step(records).events
    offsets = [0] * PARTITIONS
    out = []
    for event, record in zip(events, records, strict=True):
        out.append(replace(record, topic=EVENTS_TOPIC, partition=event.partition, offset=offsets[event.partition]))
        out[-1] = replace(out[-1], key=event.key, value=event.value)
        offsets[event.partition] += 1
    return out
