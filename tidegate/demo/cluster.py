"""The broker of a demo: one of its own, or the user's, left as it was found."""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.kafka.local import LocalKafka
from deploy.kafka.secured import ADMIN, SecuredKafka, write_passwords
from tidegate.demo.process import CommandError

USERS = ("gateway", "ingest", "score", "feedback", "trainer", "explain")
"""Commands that have a principal of their own, `tidegate-<command>`, as `topics acls` names them by default; `gateway`
writes the source, `explain` may read scores and findings."""
_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the demo's topics are, what its groups are called, and how a client of it connects."""

    bootstrap_servers: str
    prefix: str
    ours: bool
    """Whether the broker was started for this demo."""
    broker: SecuredKafka | None = None
    """Where it asks who is there."""
    passwords: Mapping[str, Path] = field(default_factory=dict)
    """User -> file of the password."""

    def group(self, service: str) -> str:
        """Name of a service's consumer group."""
        return f"{self.prefix}tidegate.{service}"

    def properties(self, command: str) -> dict[str, str]:
        """librdkafka's, of a client that does what `command` does."""
        return self.broker.client(f"tidegate-{command}") if self.broker else {}

    def variables(self, command: str) -> dict[str, str]:
        """The environment of a command: who it is, and the file of its password; `admin` may do everything."""
        if self.broker is None:
            return {}
        user = ADMIN if command == ADMIN else f"tidegate-{command}"
        said = {name.upper().replace(".", "_"): value for name, value in self.broker.open_client(user).items()}
        said["SASL_PASSWORD_FILE"] = str(self.passwords[user])
        return {f"TIDEGATE_KAFKA__PROPERTIES__{name}": value for name, value in said.items()}


@contextmanager
def cluster(data: Path, *, secure: bool = False) -> Iterator[Cluster]:
    """A broker for as long as the demo runs.

    `KAFKA_BOOTSTRAP_SERVERS` names one that runs already: there, topics and groups get a fresh prefix and are deleted
    at the end. Otherwise a single-node Apache Kafka is started on loopback, with its data under `data`; `secure` gives
    it TLS, SCRAM and an authorizer.

    Raises
    ------
    CommandError
        When somebody's own broker is to be secured.
    """
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")
    if secure:
        if given:
            raise CommandError("--secure starts a broker of its own: unset KAFKA_BOOTSTRAP_SERVERS, or leave it out")
        with SecuredKafka([f"tidegate-{command}" for command in USERS], data_dir=data) as kafka:
            folder = data / "passwords"
            try:
                passwords = write_passwords(kafka, folder)
                yield Cluster(kafka.bootstrap_servers, "", ours=True, broker=kafka, passwords=passwords)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return
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
