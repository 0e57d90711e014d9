"""How long a partition's state takes to come back from Kafka, by tenants, and what it weighs.

    python -m benchmarks.restore --release out/demo/release

The state is that of a core which scored the sample, for as many tenants as the sample has, and
for more of them the same rows under other names. It lies in one partition, in transactions of 2,000 rows, and is
restored by what `score` restores with. Beside it what one would do without a state: score the same events again, from
the events' topic, at the rate that the core has on them here.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.workload import litellm, normalised
from deploy.kafka.local import LocalKafka
from models.embedder import StaticEmbedder
from stream.config import Settings
from stream.core import Core
from stream.inputs import InputBatch
from stream.record import StateChange
from stream.release import Release
from stream.runtime.metrics import Metrics
from stream.runtime.release_store import load_release
from stream.runtime.restore import Restorer, ends_of
from stream.sources.kafka import RangeReader
from stream.state.partition import CURSOR_KEY
from stream.state.rows import sealed

TENANTS = (10, 1_000, 100_000)
_ROWS_AT_ONCE = 2_000
_OF_TENANT = ("tenant", "volume", "drift", "learned", "pending", "quarantine")
Row = tuple[bytes, bytes]


def written(release: Release) -> tuple[list[Row], int, float]:
    """Live rows of a core that scored all of the sample in one partition, its events, and how many a second."""
    core = Core(Settings(), release, StaticEmbedder.load(device="cpu"))
    events = [replace(event, partition=0, offset=number) for number, event in enumerate(normalised(litellm()))]
    rows: dict[bytes, bytes] = {}
    begun = time.perf_counter()
    for at in range(0, len(events), 2_000):
        for change in core.step(InputBatch(events[at : at + 2_000])).changes:
            rows.pop(change.key, None)
            if change.value is not None:
                rows[change.key] = change.value
    return list(rows.items()), len(events), len(events) / (time.perf_counter() - begun)


def of_tenants(rows: list[Row], tenants: int) -> Iterator[Row]:
    """The rows of so many tenants: the core's own, then copies of them under other names; the cursor last."""
    by_tenant: dict[str, list[tuple[list[str], bytes]]] = {}
    for key, value in rows:
        kind, *ids = orjson.loads(key)
        if kind in _OF_TENANT:
            by_tenant.setdefault(ids[0], []).append(([kind, *ids], value))
    names = sorted(by_tenant)
    copies = ((name, f"{name}~{copy}" if copy else name) for copy in count() for name in names)
    for number, (name, copied) in enumerate(islice(copies, tenants)):
        for (kind, _, *ids), value in by_tenant[name]:
            if ids:
                ids = [f"{number:010d}{ids[0][-10:]}"]
            body = value[: value.rindex(b',"crc"')] + b"}"
            change = sealed(StateChange(0, orjson.dumps([kind, copied, *ids]), body))
            yield change.key, change.value or b""
    yield from (row for row in rows if row[0] == CURSOR_KEY)


def main() -> None:
    """Print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("out/demo/release"))
    parser.add_argument("--tenants", type=int, nargs="+", default=list(TENANTS))
    parser.add_argument("--out", type=Path, default=Path("out/bench/restore.json"))
    given = parser.parse_args()
    release = load_release(given.release, Settings())
    rows, events, rate = written(release)
    own = len({orjson.loads(key)[1] for key, _ in rows if key.startswith(b'["tenant"')})
    print(f"{own} tenants of {events} events by the core; more of them are copies. Scoring: {rate:,.0f} events/s\n")
    print("| tenants | rows | state, MB | bytes a tenant | restore, s | scoring again, s | ratio |")
    print("|---|---|---|---|---|---|---|")
    results = []
    with LocalKafka() as kafka:
        for tenants in given.tenants:
            result = measured(kafka.bootstrap_servers, release, rows, tenants, events / own / rate)
            results.append(result)
            print(
                f"| {tenants:,} | {result['rows']:,.0f} | {result['bytes'] / 1e6:,.1f} "
                f"| {result['bytes_per_tenant']:,.0f} | {result['restore_s']:,.2f} | {result['again_s']:,.1f} "
                f"| {result['again_s'] / result['restore_s']:,.1f} |",
                flush=True,
            )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(orjson.dumps({"events_per_s": rate, "restores": results}, option=orjson.OPT_INDENT_2))


def measured(servers: str, release: Release, rows: list[Row], tenants: int, again_s: float) -> dict[str, float]:
    """Figures of one restore; `again_s` is what scoring a tenant's events takes."""
    topic = f"restore{tenants}.state"
    admin = AdminClient({"bootstrap.servers": servers})
    for created in admin.create_topics([NewTopic(topic, 1, 1, config={"max.message.bytes": "8454144"})]).values():
        created.result(30)
    producer = Producer({"bootstrap.servers": servers, "transactional.id": topic, "linger.ms": 20})
    producer.init_transactions(30)
    produced = size = 0
    stored = of_tenants(rows, tenants)
    while batch := list(islice(stored, _ROWS_AT_ONCE)):
        producer.begin_transaction()
        for key, value in batch:
            producer.produce(topic, value, key, 0)
            size += len(key) + len(value)
        produced += len(batch)
        producer.commit_transaction(60)
    core = Core(Settings(), release, StaticEmbedder.load(device="cpu"))
    restorer = Restorer(
        core,
        RangeReader({"bootstrap.servers": servers}),
        lambda places: ends_of(admin, places),
        inputs="events",
        state=topic,
        exact=False,
        metrics=Metrics(),
    )
    begun = time.perf_counter()
    restorer.restore({0: None}, lambda: None)
    seconds = time.perf_counter() - begun
    if len(core.export_tenants()[0]) != tenants:
        sys.exit(f"{tenants} tenants were written, {len(core.export_tenants()[0])} came back")
    return {
        "tenants": tenants,
        "rows": produced,
        "bytes": size,
        "bytes_per_tenant": size / tenants,
        "restore_s": seconds,
        "again_s": again_s * tenants,
        "memory_max_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
