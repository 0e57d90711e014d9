"""Who a process is to the broker."""

from dataclasses import replace

from stream.config import KafkaSettings, Settings
from stream.runtime.clients import Membership, group_properties, transactional_properties


def test_a_static_member_has_a_transactional_id_that_fences_its_predecessor() -> None:
    member = Membership("tidegate.score", "score-0")
    assert group_properties(Settings(), {}, member)["group.instance.id"] == "score-0"
    properties = transactional_properties(Settings(), {}, member)
    assert properties == {"transactional.id": "tidegate.score.score-0", "transaction.timeout.ms": 10_000}


def test_a_dynamic_member_has_a_transactional_id_of_its_own() -> None:
    member = Membership("tidegate.score")
    assert "group.instance.id" not in group_properties(Settings(), {}, member)
    ids = {transactional_properties(Settings(), {}, member)["transactional.id"] for _ in range(2)}
    assert len(ids) == 2


def test_the_classic_protocol_is_cooperative_and_heartbeats_fit_the_session() -> None:
    settings = replace(Settings(), kafka=KafkaSettings(session_timeout_ms=6_000))
    properties = group_properties(settings, {}, Membership("g"))
    assert properties["partition.assignment.strategy"] == "cooperative-sticky"
    assert (properties["session.timeout.ms"], properties["heartbeat.interval.ms"]) == (6_000, 600)


def test_what_the_broker_sets_under_the_consumer_protocol_is_left_out() -> None:
    settings = replace(Settings(), kafka=KafkaSettings(group_protocol="consumer"))
    properties = group_properties(settings, {}, Membership("g"))
    assert set(properties) == {"group.id", "group.protocol"}
