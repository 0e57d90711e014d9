"""Tidegate, made wrong on purpose: a restore reads up to the last stable offset, which an open transaction holds back.

Where a frozen scorer left a transaction open, what its successor has committed since lies behind it, and a restore that
ends there has none of it. The drill's checker must see it.
"""

import sys
from collections.abc import Sequence

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from stream.errors import RetriableError
from stream.runtime import broker, restore
from stream.sources.kafka import Place
from tests.drills.broken.trusting import trust
from tidegate import cli


def _stable_ends(admin: AdminClient, places: Sequence[Place], seconds: float = 10.0) -> dict[Place, int]:
    if not places or not places[0][0].endswith("state.v1"):
        return restore.ends_of(admin, places, seconds)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(*place): latest for place in places}
    ends = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=seconds)
    found = {(part.topic, part.partition): int(future.result().offset) for part, future in ends.items()}
    if min(found.values()) < 0:
        raise RetriableError("no leader")
    return found


if __name__ == "__main__":
    broker.ends_of = _stable_ends  # type: ignore[attr-defined]
    trust(restore.Restorer)
    sys.exit(cli.main())
