"""Which partition a key belongs to: the one partitioner of every producer, equal to Kafka's Java client.

References
----------
org.apache.kafka.common.utils.Utils.murmur2 and toPositive (Apache Kafka), Appleby's MurmurHash2.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import orjson

_M = 0x5BD1E995
_SEED = 0x9747B28C
_U32 = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 of `data`, as Java returns it: a signed 32-bit integer.

    >>> murmur2(b"foobar")
    -790332482
    """
    length = len(data)
    h = _SEED ^ length
    body = length & ~3
    for i in range(0, body, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _U32
        k = (k ^ (k >> 24)) * _M & _U32
        h = (h * _M & _U32) ^ k
    tail = length & 3
    if tail:
        h = (h ^ int.from_bytes(data[body:], "little")) * _M & _U32
    h = (h ^ (h >> 13)) * _M & _U32
    h ^= h >> 15
    return h - (1 << 32) if h >> 31 else h


def partition_of_key(key: bytes, partitions: int) -> int:
    """Partition of `key` among `partitions`, as Java's default partitioner chooses it.

    >>> partition_of_key(b'["team-42"]', 8)
    1
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def event_key(tenant: str, shard: int | None) -> bytes:
    """Key of a tenant's events: `[tenant]`, or `[tenant, shard]` for a tenant split by `routing.shards`.

    >>> event_key("team-42", None), event_key("team-42", 3)
    (b'["team-42"]', b'["team-42",3]')
    """
    return orjson.dumps([tenant] if shard is None else [tenant, shard])


def partition_of(tenant: str, shard: int | None, partitions: int) -> int:
    """Partition of a tenant's events; `shard` is None unless the tenant is split.

    >>> partition_of("team-42", None, 8)
    1
    """
    return partition_of_key(event_key(tenant, shard), partitions)


def shard_of(session: str, shards: int) -> int:
    """Shard of a session in 0 … `shards` − 1: all calls of a session meet in one partition."""
    return partition_of_key(session.encode(), shards)


class Router:
    """Key and partition of an event, with the tenants seen before remembered.

    Parameters
    ----------
    partitions
        `topics.partitions`, pinned.
    shards
        `routing.shards`: tenant to number of shards; a number below 2 means unsplit.
    """

    def __init__(self, partitions: int, shards: Mapping[str, int] | None = None) -> None:
        self._partitions = partitions
        self._shards = {tenant: k for tenant, k in (shards or {}).items() if k > 1}
        self._placed = lru_cache(maxsize=65_536)(self._place)

    def route(self, tenant: str, session: str) -> tuple[bytes, int]:
        """Key and partition of an event of `tenant` and `session`."""
        shards = self._shards.get(tenant) if self._shards else None
        return self._placed(tenant, None if shards is None else shard_of(session, shards))

    def _place(self, tenant: str, shard: int | None) -> tuple[bytes, int]:
        key = event_key(tenant, shard)
        return key, partition_of_key(key, self._partitions)
