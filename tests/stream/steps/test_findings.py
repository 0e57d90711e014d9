"""What a finding says, besides its anomaly: who is a test, what it is about, and what came before."""

from dataclasses import replace

import orjson
import pytest

from stream.state.open_findings import Anomaly, OpenFindings
from stream.steps.findings import FindingWriter
from tests.ocsf import assert_valid_finding

ANOMALY = Anomaly(
    entity=(0, "tidegate-canary", "session", "s"),
    event_id=f"{7:064x}",
    traceparent=None,
    event_time_ms=1_000,
    core_time_ms=1_000,
    p_combined=1e-3,
    title="t",
    signals=(),
    techniques=("AML.T0051.001",),
    evidence=(),
    key_hash=None,
    user=None,
    ip=None,
    model=None,
    tools=(),
)


@pytest.mark.parametrize(("test_tenant", "marked"), [("tidegate-canary", True), ("another", False), ("", False)])
def test_findings_of_the_test_tenant_are_marked_from_the_first_record_to_the_last(
    test_tenant: str, marked: bool
) -> None:
    writer = FindingWriter(OpenFindings(60_000), "r", 8, test_tenant)
    records = [writer.flag(ANOMALY, ("events", 0, 7))[1], writer.close(ANOMALY.entity, 61_000, ("events", 0, 8))]
    for body in (orjson.loads(record.value) for record in records):
        assert body["unmapped"].get("test", False) is marked
        assert ("test" in body["metadata"].get("labels", ())) is marked
        assert_valid_finding(body)


def test_a_finding_tells_its_turn_what_came_before_it_and_what_else_is_open_of_its_key() -> None:
    writer = FindingWriter(OpenFindings(60_000), "r", 8)
    session = replace(ANOMALY, entity=(0, "team", "session", "s"), session="s", key_hash="k")
    opening = replace(session, turn=7, suspicious_turn=4, suspicious_ms=900)
    uid, first = writer.flag(opening, ("events", 0, 7))
    beside = replace(opening, entity=(0, "team", "session", "t"), session="t", event_id=f"{8:064x}", turn=1)
    _, second = writer.flag(beside, ("events", 0, 8))
    for record, turn, related in ((first, 7, None), (second, 1, [uid])):
        body = orjson.loads(record.value)
        assert_valid_finding(body)
        said = body["unmapped"]
        assert (said["turn"], said["first_suspicious_turn"], said["first_suspicious_time"]) == (turn, 4, 900)
        assert said.get("related_findings") == related


def test_a_finding_about_no_session_names_no_turn() -> None:
    writer = FindingWriter(OpenFindings(60_000), "r", 8)
    _, record = writer.flag(replace(ANOMALY, entity=(0, "team", "tenant", "team")), ("events", 0, 7))
    body = orjson.loads(record.value)
    assert_valid_finding(body)
    assert not {"turn", "first_suspicious_turn", "first_suspicious_time", "related_findings"} & body["unmapped"].keys()
    assert "of the tenant: what is normal for it has moved" in body["finding_info"]["desc"]
