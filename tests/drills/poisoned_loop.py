"""A loop that is lied to: verdicts wrong at random, or by one analyst, and what audit and gate make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import msgspec
import orjson

from sample.records import ATTACKS, TRAIN
from schemas.corpus import CorpusSession
from schemas.corpus_records import to_native
from schemas.corpus_timeline import timeline
from stream.config import Settings
from stream.record import Record
from stream.training.gather import ingest_step, sessions_of

_AT_ONCE = 500


def records_of(sessions: Iterable[CorpusSession], settings: Settings) -> list[Record]:
    """Events of `sessions`, normalised and redacted as ingest does, in the order of time."""
    ingest = ingest_step(settings, "native")
    raw = [
        Record("corpus", 0, 0, timed.time_ms, None, orjson.dumps(to_native(timed.session, timed.call, timed.time_ms)))
        for timed in timeline(sorted(sessions, key=lambda session: session.start_ms or 0))
    ]
    events: list[Record] = []
    for low in range(0, len(raw), _AT_ONCE):
        part = raw[low : low + _AT_ONCE]
        for event in ingest.step(part).events:
            events.append(Record("corpus", event.partition, len(events), 0, event.key, event.value))
    times = [orjson.loads(record.value)["event_time_ms"] for record in events]
    return [Record(r.topic, r.partition, r.offset, t, r.key, r.value) for r, t in zip(events, times, strict=True)]


def placed(attacks: Sequence[CorpusSession], among: Sequence[CorpusSession], rng: Random) -> list[CorpusSession]:
    """Attacks, each at a tenant (its own where it has one), with a key and at a time that one of its sessions has."""
    own: dict[str, list[CorpusSession]] = {}
    for session in among:
        own.setdefault(session.tenant or "", []).append(session)
    out = []
    for attack in attacks:
        host = rng.choice(own.get(attack.tenant or "", list(among)))
        start = (host.start_ms or 0) + rng.randrange(60_000)
        out.append(
            msgspec.structs.replace(
                attack, tenant=host.tenant, key=host.key, tools=attack.tools or host.tools, start_ms=start, calls_ms=()
            )
        )
    return out
