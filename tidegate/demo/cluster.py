"""The broker of a demo: one of its own, or the user's, left as it was found."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.kafka.local import LocalKafka

_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the demo's topics are, and what its groups are called."""

    bootstrap_servers: str
    prefix: str
    ours: bool
    """Whether the broker was started for this demo."""

    def group(self, service: str) -> str:
        """Name of a service's consumer group."""
        return f"{self.prefix}tidegate.{service}"


@contextmanager
def cluster(data: Path) -> Iterator[Cluster]:
    """A broker for as long as the demo runs.

    `KAFKA_BOOTSTRAP_SERVERS` names one that runs already: there, topics and groups get a fresh prefix and are deleted
    at the end. Otherwise a single-node Apache Kafka is started on loopback, with its data under `data`.
    """
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    if not given:
        with LocalKafka(data_dir=data) as kafka:
            yield Cluster(kafka.bootstrap_servers, "", ours=True)
        return
    found = Cluster(given, f"tidegate-demo-{uuid.uuid4().hex[:8]}.", ours=False)
    try:
        yield found
    finally:
        _delete(found)


def _delete(found: Cluster) -> None:
    admin = AdminClient({"bootstrap.servers": found.bootstrap_servers})
    topics = [name for name in admin.list_topics(timeout=_TIMEOUT_S).topics if name.startswith(found.prefix)]
    groups = [found.group("ingest"), found.group("score")]
    futures = [*admin.delete_consumer_groups(groups, request_timeout=_TIMEOUT_S).values()]
    futures += admin.delete_topics(topics, request_timeout=_TIMEOUT_S).values() if topics else []
    for future in futures:
        try:
            future.result()
        except KafkaException as error:
            print(f"left behind on {found.bootstrap_servers}: {error.args[0].str()}")
