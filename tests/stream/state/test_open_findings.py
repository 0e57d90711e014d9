"""What an open finding keeps, however much its session brings, and which others it names."""

import msgspec
import orjson
import pytest

from schemas.finding import Excerpt, SignalView
from stream.errors import StateError
from stream.state.open_findings import (
    EVENT_IDS_MAX,
    NAMES_MAX,
    RELATED_MAX,
    Anomaly,
    Entity,
    EntityType,
    OpenFinding,
    OpenFindings,
)
from stream.steps.findings import FindingWriter

QUIET_MS = 60_000
SOURCE = ("events", 0, 7)


def _anomaly(
    number: int,
    tools: tuple[str, ...] = (),
    event_time_ms: int | None = None,
    *,
    entity: Entity = (0, "team", "session", "s"),
    key_hash: str | None = "k",
) -> Anomaly:
    return Anomaly(
        entity=entity,
        event_id=f"{number:064x}",
        traceparent=None,
        event_time_ms=1_000 + number if event_time_ms is None else event_time_ms,
        core_time_ms=1_000 + number,
        p_combined=1e-3,
        title="t",
        signals=(SignalView(name="novelty", value=1.0, p=1e-3),),
        techniques=("AML.T0051.000",),
        evidence=(Excerpt(event_id=f"{number:064x}", role="user", text="x" * 10_000, message_index=0),),
        key_hash=key_hash,
        user="u",
        ip=None,
        model="m" * 5_000,
        tools=tools,
        session="s",
        turn=10 + number,
        suspicious_turn=3,
        suspicious_ms=700,
    )


def _record(findings: OpenFindings, anomaly: Anomaly) -> dict[str, object]:
    body: dict[str, object] = orjson.loads(FindingWriter(findings, "r", 8).flag(anomaly, SOURCE)[1].value)
    return body


def test_a_finding_stays_small_whatever_a_caller_sends() -> None:
    findings = OpenFindings(QUIET_MS)
    writer = FindingWriter(findings, "r", 8)
    for number in range(300):
        tools = tuple(f"{number}-{i}-" + "n" * 1_000 for i in range(100))
        record = writer.flag(_anomaly(number, tools), SOURCE)[1]
    assert len(record.value) < 64 * 1024
    [row] = findings.changes()
    assert len(row.value or b"") < 128 * 1024
    observed = [o for o in orjson.loads(record.value)["observables"] if o["name"] == "tool"]
    assert len(observed) == NAMES_MAX


def test_an_update_names_its_own_event_and_the_opening_one_after_any_number_of_events() -> None:
    findings = OpenFindings(QUIET_MS)
    for number in range(EVENT_IDS_MAX + 50):
        body = _record(findings, _anomaly(number))
    info = body["finding_info"]
    assert isinstance(info, dict)
    named = [event["uid"] for event in info["related_events"]]
    assert len(named) == EVENT_IDS_MAX
    assert (named[0], named[-1]) == (f"{0:064x}", f"{EVENT_IDS_MAX + 49:064x}")
    assert info["related_events_count"] == EVENT_IDS_MAX + 50


def test_a_late_event_moves_first_seen_and_never_when_the_finding_was_created() -> None:
    findings = OpenFindings(QUIET_MS)
    _record(findings, _anomaly(5))
    info = _record(findings, _anomaly(6, event_time_ms=10))["finding_info"]
    assert isinstance(info, dict)
    assert (info["created_time"], info["first_seen_time"]) == (1_005, 10)


def _session(name: str, partition: int = 0, tenant: str = "team") -> Entity:
    return partition, tenant, "session", name


def _restored(findings: OpenFindings, partition: int = 0) -> OpenFindings:
    back = OpenFindings(QUIET_MS)
    for change in findings.changes():
        assert change.value is not None
        kind, *ids = orjson.loads(change.key)
        assert kind == "finding"
        back.load(partition, ids, change.value)
    return back


def test_a_finding_tells_the_turn_that_opened_it_and_since_when_its_session_is_suspicious() -> None:
    findings = OpenFindings(QUIET_MS)
    for number in (1, 2):
        unmapped = _record(findings, _anomaly(number))["unmapped"]
        assert isinstance(unmapped, dict)
        told = [unmapped[name] for name in ("turn", "first_suspicious_turn", "first_suspicious_time")]
        # An update speaks of the event that opened the finding.
        assert told == [11, 3, 700]


def test_findings_of_one_key_name_each_other_while_they_are_open() -> None:
    findings = OpenFindings(QUIET_MS)
    first = findings.flag(_anomaly(1, entity=_session("a")))[0]
    assert first.related == []
    second = findings.flag(_anomaly(2, entity=_session("b")))[0]
    assert second.related == [first.uid]
    # It is told when it is written again, and no sooner.
    assert first.related == []
    assert findings.flag(_anomaly(3, entity=_session("a")))[0].related == [second.uid]
    assert findings.close(_session("a")).related == [second.uid]
    assert findings.flag(_anomaly(4, entity=_session("b")))[0].related == []


@pytest.mark.parametrize(
    ("entity", "key_hash"),
    [(_session("b"), "other"), (_session("b"), None), (_session("b", tenant="another"), "k"), (_session("b", 1), "k")],
)
def test_findings_of_other_keys_tenants_and_partitions_are_not_related(entity: Entity, key_hash: str | None) -> None:
    findings = OpenFindings(QUIET_MS)
    findings.flag(_anomaly(1, entity=_session("a"), key_hash="k" if key_hash else None))
    assert findings.flag(_anomaly(2, entity=entity, key_hash=key_hash))[0].related == []


def test_of_many_related_findings_the_latest_are_named() -> None:
    findings = OpenFindings(QUIET_MS)
    uids = [findings.flag(_anomaly(i, entity=_session(f"s{i}")))[0].uid for i in range(RELATED_MAX + 5)]
    assert findings.flag(_anomaly(900, entity=_session("last")))[0].related == uids[-RELATED_MAX:]
    # The latest itself is one of those that are looked at, and still there are as many others.
    assert findings.flag(_anomaly(901, entity=_session("last")))[0].related == uids[-RELATED_MAX:]


def test_related_findings_are_the_same_after_a_restart() -> None:
    live = OpenFindings(QUIET_MS)
    # Created in another order than they come in: event time may go back.
    for i, at_ms in enumerate((50, 10, 30)):
        live.flag(_anomaly(i, event_time_ms=at_ms, entity=_session(f"s{i}")))
    back = _restored(live)
    for findings in (live, back):
        findings.close(_session("s1"))
    told = [findings.flag(_anomaly(9, entity=_session("new")))[0] for findings in (live, back)]
    assert told[0] == told[1]
    assert len(told[0].related) == 2


def test_a_revoked_partition_s_findings_are_related_no_more() -> None:
    findings = OpenFindings(QUIET_MS)
    findings.flag(_anomaly(1, entity=_session("a")))
    findings.drop(0)
    assert findings.flag(_anomaly(2, entity=_session("b")))[0].related == []


@pytest.mark.parametrize("kind", ["session", "key", "tenant"])
def test_a_stored_finding_comes_back_as_what_it_is_about(kind: EntityType) -> None:
    entity: Entity = (0, "team", kind, "name")
    live = OpenFindings(QUIET_MS)
    flagged = live.flag(_anomaly(1, entity=entity))[0]
    back = _restored(live)
    assert entity in back
    assert back.due(0, 1_001 + QUIET_MS) == [(1_001 + QUIET_MS, entity)]
    closed = back.close(entity)
    assert (closed.uid, closed.revision) == (flagged.uid, 2)
    [gone] = back.changes()
    assert (orjson.loads(gone.key), gone.value) == (["finding", "team", kind, "name"], None)


def test_a_stored_finding_about_something_else_is_refused() -> None:
    live = OpenFindings(QUIET_MS)
    value = msgspec.json.encode(live.flag(_anomaly(1))[0])
    assert msgspec.json.decode(value, type=OpenFinding).v == 4
    with pytest.raises(StateError, match=r"'planet'.* in partition 3 must be about one of session, key, tenant"):
        live.load(3, ["team", "planet", "mars"], value)
    with pytest.raises(StateError, match=r"open finding \['team', 'session', 's'\] in partition 3 cannot be read"):
        live.load(3, ["team", "session", "s"], b"{")
