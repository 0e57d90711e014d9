"""Who is a test: a tenant's name alone decides it."""

import orjson
import pytest

from stream.state.open_findings import Anomaly, OpenFindings
from stream.steps.findings import FindingWriter
from tests.ocsf import assert_valid_finding

ANOMALY = Anomaly(
    entity=(0, "tidegate-canary", "s"),
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
