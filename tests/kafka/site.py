"""One broker that can be killed, frozen and cut off, with an authorizer and passwords at its far listener."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from deploy.kafka.cluster import LocalCluster
from deploy.processes import free_ports
from tests.drills.chaos.detour import Detour
from tests.kafka.harness import CONTROLS, EVENTS, FINDINGS, JOURNAL, PATIENCE_S, SCORES, STATE, Cluster

USER = "scorer"
_PROPERTIES = {
    "default.replication.factor": "1", "min.insync.replicas": "1", "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1", "share.coordinator.state.topic.min.isr": "1",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,FAR:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "SCRAM-SHA-256",
    "listener.name.far.scram-sha-256.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "group.consumer.min.session.timeout.ms": "3000", "group.consumer.session.timeout.ms": "45000",
    "group.consumer.min.heartbeat.interval.ms": "500", "group.consumer.heartbeat.interval.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "200",
}  # fmt: skip
ACLS = {
    "read the events": (ResourceType.TOPIC, EVENTS, AclOperation.READ),
    "write the scores": (ResourceType.TOPIC, SCORES, AclOperation.WRITE),
    "use the transactional id": (ResourceType.TRANSACTIONAL_ID, "group", AclOperation.WRITE),
    "be in the group": (ResourceType.GROUP, "group", AclOperation.READ),
}
"""What may be withdrawn, by what can then not be done; names without prefix."""
_OTHERS = [
    *((ResourceType.TOPIC, name, AclOperation.WRITE) for name in (FINDINGS, STATE, JOURNAL, f"{EVENTS}.dlq")),
    *((ResourceType.TOPIC, name, AclOperation.READ) for name in (STATE, JOURNAL, CONTROLS)),
    (ResourceType.TOPIC, f"{EVENTS}.dlq", AclOperation.DESCRIBE_CONFIGS),
]


class Site:
    """The broker, and the way to it.

    Attributes
    ----------
    near
        Plain, for an administrator.
    far
        With a password, by a way that can be cut.
    """

    def __init__(self, broker: LocalCluster, detour: Detour, far_port: int) -> None:
        self.broker = broker
        self.detour = detour
        self.near = broker.bootstrap_servers
        self.far = f"127.0.0.1:{far_port}"
        self._admin = AdminClient({"bootstrap.servers": self.near})

    def topics(self, prefix: str) -> Cluster:
        """A scorer's topics, made by the administrator."""
        made = Cluster(self.near, prefix)
        made.create()
        # As `topics create` makes it: a scorer that has to would need to create topics.
        made.create(f"{EVENTS}.dlq")
        return made

    def password(self, value: str) -> None:
        """Give the user this password."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        for done in self._admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(USER, info, value.encode())]
        ).values():
            done.result(PATIENCE_S)

    def flags(self, password: str) -> list[str]:
        """What a scorer is started with to come by the far listener."""
        properties = {
            "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": USER, "sasl.password": password,
        }  # fmt: skip
        pairs = [f"{name}={value}" for name, value in properties.items()]
        return ["--bootstrap-servers", self.far, *(flag for pair in pairs for flag in ("--property", pair))]

    def grant_all(self, prefix: str) -> None:
        """Let the user score these topics."""
        wanted = [self._binding(prefix, *acl) for acl in (*ACLS.values(), *_OTHERS)]
        wanted.append(self._binding("", ResourceType.GROUP, "tidegate.range-reader", AclOperation.DESCRIBE))
        for done in self._admin.create_acls(wanted).values():
            done.result(PATIENCE_S)

    def grant(self, prefix: str, what: str) -> None:
        """Give a permission back."""
        for done in self._admin.create_acls([self._binding(prefix, *ACLS[what])]).values():
            done.result(PATIENCE_S)

    def withdraw(self, prefix: str, what: str) -> None:
        """Take a permission away."""
        acl = self._binding(prefix, *ACLS[what])
        given = (acl.restype, acl.name, acl.resource_pattern_type, acl.principal, acl.host)
        wanted = AclBindingFilter(*given, acl.operation, acl.permission_type)
        for done in self._admin.delete_acls([wanted]).values():
            assert len(done.result(PATIENCE_S)) == 1

    @staticmethod
    def _binding(prefix: str, kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
        pattern = ResourcePatternType.LITERAL
        if kind is ResourceType.TRANSACTIONAL_ID:
            pattern = ResourcePatternType.PREFIXED
        return AclBinding(kind, prefix + name, pattern, f"User:{USER}", "*", operation, AclPermissionType.ALLOW)


@contextmanager
def site() -> Iterator[Site]:
    """The broker, for as long as the block lasts."""
    (far_port,) = free_ports(1)
    with Detour({1: far_port}) as detour, LocalCluster(1, [far_port], _PROPERTIES) as broker:
        detour.lead_to(broker.far_targets)
        yield Site(broker, detour, far_port)
