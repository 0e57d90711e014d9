"""A state topic of many rewrites on a real broker: compacted, and restored as what it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from deploy.kafka.local import LocalKafka
from stream.config import TopicsSettings
from stream.core import Core
from stream.errors import StateError
from stream.runtime.metrics import Metrics
from stream.runtime.restore import Restorer, ends_of
from stream.runtime.topics import wanted
from stream.sources.kafka import RangeReader
from tests.doubles import WordEmbedder
from tests.kafka.harness import STATE, Cluster
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, Said, cut, run, stream

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

RECORDS = stream(seed=11, n=240, partitions=1)
AT = 200
_SECONDS = 240


def core() -> Core:
    return Core(SETTINGS, release(), WordEmbedder())


@pytest.fixture(scope="module")
def eager() -> Iterator[str]:
    """A broker that compacts all the time."""
    with LocalKafka({"log.cleaner.backoff.ms": "100"}) as broker:
        yield broker.bootstrap_servers


def transactions(cluster: Cluster, said: Said) -> None:
    """The rows as a scorer writes them, a transaction a step."""
    producer = Producer({"bootstrap.servers": cluster.servers, "transactional.id": f"{cluster.prefix}state"})
    producer.init_transactions(120)
    producer.begin_transaction()
    for key, value in said.rows[0]:
        producer.produce(cluster.prefix + STATE, value, key, 0)
        if key == b'["cursor"]':
            producer.commit_transaction(120)
            producer.begin_transaction()
    producer.commit_transaction(120)


def restorer(cluster: Cluster, live: Core) -> Restorer:
    reader = RangeReader({"bootstrap.servers": cluster.servers})
    state = cluster.prefix + STATE
    return Restorer(
        live, reader, lambda places: ends_of(cluster.admin, places), inputs="events", state=state, exact=False,
        metrics=Metrics(),
    )  # fmt: skip


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not done():
        assert time.monotonic() < deadline, "the broker did not compact"
        time.sleep(0.3)


def test_compacted_topic_is_short_and_restores_the_same_state(eager: str) -> None:
    cluster = Cluster(eager, "compacted.")
    kept = {key: value for key, value in wanted_config().items() if not key.endswith(".ms")}
    rolled = {"segment.ms": "500", "delete.retention.ms": "0", "max.compaction.lag.ms": "1000"}
    cluster.create(STATE, partitions=1, **{**kept, **rolled})
    live = core()
    said = run(live, cut(RECORDS[:AT], 4))
    transactions(cluster, said)
    written = len(said.rows[0])
    latest = dict(said.rows[0])

    def compacted() -> bool:
        # A segment is closed by what is written behind it.
        once = Said(rows={0: [(b'["cursor"]', latest[b'["cursor"]'])]})
        transactions(cluster, once)
        return len(cluster.read(STATE)) < written / 3

    until(compacted)
    back = core()
    assert restorer(cluster, back).restore({0: None}, lambda: None) == {0: live.cursor(0).next_offset}  # type: ignore[union-attr]
    assert run(back, cut(RECORDS[AT:], 7)).results() == run(live, cut(RECORDS[AT:], 7)).results()


def wanted_config() -> dict[str, str]:
    settings = TopicsSettings()
    return {t.name: dict(t.config) for t in wanted(settings, {})}[settings.state]


def test_damaged_row_is_refused_with_its_place_on_the_topic(eager: str) -> None:
    cluster = Cluster(eager, "damaged.")
    cluster.create(STATE, partitions=1)
    said = run(core(), cut(RECORDS[:20], 20))
    key = next(key for key, value in said.rows[0] if value is not None and key.startswith(b'["learned"'))
    rows = said.rows[0]
    rows[:] = [(name, value.replace(b"A", b"B", 1) if value and name == key else value) for name, value in rows]
    transactions(cluster, said)
    at = next(message.offset() for message in cluster.read(STATE) if message.key() == key)
    with pytest.raises(StateError) as refused:
        restorer(cluster, core()).restore({0: None}, lambda: None)
    assert refused.value.exit_code == 5
    told = str(refused.value)
    assert told.startswith(f"damaged.{STATE}[0]@{at}: state row {key.decode()} in partition 0 must have the checksum")
    assert "docs/runbook.md" in told
