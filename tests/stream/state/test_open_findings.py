"""What an open finding keeps, however much its session brings."""

import orjson

from schemas.finding import Excerpt, SignalView
from stream.state.open_findings import EVENT_IDS_MAX, NAMES_MAX, Anomaly, OpenFindings
from stream.steps.findings import FindingWriter

QUIET_MS = 60_000
SOURCE = ("events", 0, 7)


def _anomaly(number: int, tools: tuple[str, ...] = (), event_time_ms: int | None = None) -> Anomaly:
    return Anomaly(
        entity=(0, "team", "s"),
        event_id=f"{number:064x}",
        traceparent=None,
        event_time_ms=1_000 + number if event_time_ms is None else event_time_ms,
        core_time_ms=1_000 + number,
        p_combined=1e-3,
        title="t",
        signals=(SignalView(name="novelty", value=1.0, p=1e-3),),
        techniques=("AML.T0051.000",),
        evidence=(Excerpt(event_id=f"{number:064x}", role="user", text="x" * 10_000, message_index=0),),
        key_hash="k",
        user="u",
        ip=None,
        model="m" * 5_000,
        tools=tools,
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
