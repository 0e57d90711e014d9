"""What the demo's closing table counts."""

from schemas.corpus_records import Truth
from tidegate.demo.tally import Row, Tally, rows


def _truth(session: str, label: str, family: str | None) -> Truth:
    return Truth(
        event_id="00" * 32,
        call_id="c",
        tenant="t",
        session=session,
        gateway_session=session,
        call_index=0,
        label=label,
        attack_family=family,
        task=None,
        source="tau",
        payload=(),
        payload_new=False,
    )


def test_sessions_are_counted_by_family_and_by_source() -> None:
    truths = {
        ("t", "a"): _truth("a", "attack", "jailbreak"),
        ("t", "b"): _truth("b", "attack", "jailbreak"),
        ("t", "c"): _truth("c", "benign", None),
    }
    attacks, benign = rows(truths, {("t", "a")})
    assert attacks == [Row("jailbreak", 2, 1)]
    assert benign == [Row("tau", 1, 0)]


def test_a_finding_of_the_same_session_at_another_tenant_does_not_count() -> None:
    attacks, _ = rows({("t", "a"): _truth("a", "attack", "jailbreak")}, {("other", "a")})
    assert attacks == [Row("jailbreak", 1, 0)]


def test_updates_are_not_counted_as_findings() -> None:
    tally = Tally()
    for activity in (1, 2, 3):
        tally.finding({"activity_id": activity, "metadata": {"tenant_uid": "t"}, "unmapped": {"entity": "s"}})
    assert tally.created == 1
    assert tally.sessions == {("t", "s")}
