"""The learning loop's topics on a real broker, and releases in a directory, as its commands find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer

from schemas.manifest import Manifest
from stream.config import KafkaSettings, ReleaseSettings, Settings, TopicsSettings
from stream.runtime.release.registry import Registry
from tests.kafka.harness import EVENTS, FINDINGS, JOURNAL, PARTITIONS, PATIENCE_S, SCORES, STATE, Cluster
from tests.stream.runtime.release.made import key_file, make, signing

CONTROLS = "genai.anomaly.controls.v1"
RELEASES = "genai.model.releases.v1"
VERDICTS = "genai.feedback.verdicts.v1"
LABELS = "genai.feedback.labels.v1"


class Loop:
    """Topics under a prefix of their own, a directory of releases, and a key that vouches for them."""

    def __init__(self, servers: str, prefix: str, directory: Path) -> None:
        self.cluster = Cluster(servers, prefix)
        self.cluster.create(EVENTS, SCORES, FINDINGS, STATE, JOURNAL, VERDICTS, LABELS)
        self.cluster.create(CONTROLS, partitions=1)
        self.cluster.create(RELEASES, partitions=1, cleanup_policy="compact")
        self.directory = directory
        self.key, public = key_file(directory)
        self.settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=servers),
            topics=TopicsSettings(prefix=prefix, partitions=PARTITIONS),
            release=ReleaseSettings(directory=str(directory / "releases"), trusted_keys=(public,)),
        )
        self.registry = Registry(self.settings)
        self.flags = ["--bootstrap-servers", servers, "--topic-prefix", prefix]
        self._producer = Producer({"bootstrap.servers": servers, "transactional.id": f"{prefix}loop"})
        self._producer.init_transactions(PATIENCE_S)

    def make(self, seed: int = 1, **given: Any) -> tuple[Manifest, Path]:
        """A signed release in the directory."""
        out = self.directory / f"made-{seed}"
        manifest = make(out, signing(self.settings, self.key), seed=seed, **given)
        return manifest, self.registry.add(out)

    def journal(self, partition: int, kind: str, value: Mapping[str, Any], control_offset: int | None = None) -> None:
        """An entry as a scorer commits it."""
        entry = {
            "partition": partition,
            "before_offset": 7,
            "seq": 0,
            "kind": kind,
            "control_offset": control_offset,
            "value": value,
        }
        self.write(JOURNAL, partition, None, entry)

    def write(self, name: str, partition: int, key: bytes | None, value: Mapping[str, Any], **headers: str) -> None:
        """A record in a transaction of its own."""
        self._producer.begin_transaction()
        self._producer.produce(
            self.settings.topics.named(name), orjson.dumps(value), key, partition, headers=dict(headers) or None
        )
        self._producer.commit_transaction(PATIENCE_S)

    def serve(self, manifest: Manifest, partitions: int = PARTITIONS) -> None:
        """Let partitions begin with a release, as a scorer's first start journals it."""
        for partition in range(partitions):
            self.journal(partition, "start", {"config": {}, "config_hash": "", **ids(manifest)})

    def follow(self, control_offset: int, *partitions: int, refused: str | None = None) -> None:
        """Let partitions apply a control that lies on the topic."""
        control = self.controls()[control_offset]
        said = control if refused is None else {**control, "refused": refused}
        for partition in partitions:
            self.journal(partition, "control", said, control_offset)

    def controls(self) -> list[dict[str, Any]]:
        """All that lie on the controls topic."""
        return self.cluster.values(CONTROLS)


def ids(manifest: Manifest) -> dict[str, str]:
    """Name and ids, as a journal has them."""
    return {
        "release": manifest.name,
        "space_id": manifest.space_id,
        "feature_schema": manifest.feature_schema,
        "state_schema": manifest.state_schema,
    }
