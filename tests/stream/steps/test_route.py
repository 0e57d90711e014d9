"""Partitions agree with Kafka's Java client."""

import hashlib

import pytest

from stream.steps.route import Router, event_key, murmur2, partition_of, partition_of_key, shard_of

# org.apache.kafka.common.utils.UtilsTest.testMurmur2
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "expected"), JAVA.items())
def test_murmur2_is_java_kafkas(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected


def test_a_negative_hash_still_gives_a_partition_in_range() -> None:
    assert murmur2(b"21") < 0
    assert partition_of_key(b"21", 8) == (-973932308 & 0x7FFFFFFF) % 8


def test_a_tenants_key_is_a_json_array_so_that_no_tenant_name_can_forge_another() -> None:
    assert event_key('a","b', None) == b'["a\\",\\"b"]'
    assert event_key("münchen", None) == '["münchen"]'.encode()
    assert event_key("t", 0) == b'["t",0]'


def test_partition_of_a_tenant_is_that_of_its_key() -> None:
    assert partition_of("team-42", None, 8) == partition_of_key(b'["team-42"]', 8)
    assert partition_of("team-42", 2, 8) == partition_of_key(b'["team-42",2]', 8)


def test_tenants_spread_over_all_partitions() -> None:
    hit = {partition_of(hashlib.sha256(str(i).encode()).hexdigest(), None, 8) for i in range(200)}
    assert hit == set(range(8))


def test_a_split_tenants_sessions_stay_whole_and_spread() -> None:
    router = Router(16, {"big": 4, "small": 1})
    placed = {session: router.route("big", session) for session in map(str, range(100))}
    assert {key for key, _ in placed.values()} == {event_key("big", shard) for shard in range(4)}
    assert all(router.route("big", session) == at for session, at in placed.items())
    assert placed["7"] == (event_key("big", shard_of("7", 4)), partition_of("big", shard_of("7", 4), 16))


def test_an_unsplit_tenant_has_one_key_for_all_its_sessions() -> None:
    router = Router(16, {"big": 4, "small": 1})
    assert router.route("small", "a") == router.route("small", "b") == (b'["small"]', partition_of("small", None, 16))
