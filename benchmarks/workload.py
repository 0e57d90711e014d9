"""One seeded workload for every stage: the sample's live traffic, again and again under other names."""

from dataclasses import replace
from itertools import islice

from stream.record import Record
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from tests.drills.traffic import raw_records

RAW_TOPIC = "litellm.raw"
EVENTS_TOPIC = "genai.gateway.events.v1"
PARTITIONS = 8


def litellm(events: int) -> list[Record]:
    """LiteLLM records as Kafka would bring them, one partition, ingest time in the capture's order."""
    return [
        Record(RAW_TOPIC, 0, number, 1_800_000_000_000 + number, None, value)
        for number, value in enumerate(islice(raw_records(events), events))
    ]


def ingest_step() -> IngestStep:
    """As `ingest` has it by default."""
    return IngestStep(Router(PARTITIONS), format="litellm")


def normalised(records: list[Record]) -> list[Record]:
    """The events of `records`, as `score` would read them."""
    events = ingest_step().step(records).events
    offsets = [0] * PARTITIONS
    out = []
    for event, record in zip(events, records, strict=True):
        out.append(replace(record, topic=EVENTS_TOPIC, partition=event.partition, offset=offsets[event.partition]))
        out[-1] = replace(out[-1], key=event.key, value=event.value)
        offsets[event.partition] += 1
    return out
