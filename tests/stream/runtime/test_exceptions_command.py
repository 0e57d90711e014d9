"""Rules as the controls tell of them: which stand, which ended, and who ended them."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from schemas.control import Control, ControlKind, Rule, RuleChange, VerdictEffect
from stream.errors import UsageError
from stream.record import Record
from stream.runtime.exceptions_command import Listed, _lines, rule_of, rules
from tidegate.commands import parse

DAY_MS = 86_400_000
UID = "ab" * 16


def rule(name: str = "x-1", until_ms: int = DAY_MS, **given: Any) -> Rule:
    return Rule(
        **{
            "rule_id": name,
            "action": "suppression",
            "tenant": "team-42",
            "who": "ada",
            "why": "load test",
            "from_ms": 0,
            "until_ms": until_ms,
            **given,
        }
    )


def effect(of: Rule | None, **given: Any) -> VerdictEffect:
    return VerdictEffect(
        **{
            "finding_uid": UID,
            "tenant": "team-42",
            "entity_type": "session",
            "entity": "s",
            "session": "s",
            "key_hash": None,
            "scope": "session",
            "effect": "admit",
            "rule": of,
            **given,
        }
    )


def on_topic(*values: RuleChange | VerdictEffect | bytes) -> list[Record]:
    """Controls as they lie on the topic, each a second after the one before it."""
    records = []
    for offset, value in enumerate(values):
        body = value
        if not isinstance(body, bytes):
            kind: ControlKind = "exception" if isinstance(value, RuleChange) else "verdict"
            control = Control(
                kind=kind, value=msgspec.to_builtins(value), time_ms=1_000 * offset, issuer=f"issuer-{offset}"
            )  # fmt: skip
            body = orjson.dumps(msgspec.to_builtins(control))
        records.append(Record("controls", 0, offset, 0, None, body))
    return records


def flags(*given: str) -> Any:
    return parse(["exceptions", "add", "--tenant", "team-42", "--who", "ada", "--why", "known", "--days", "2", *given])


def test_a_rule_stands_until_its_time() -> None:
    (found,) = rules(on_topic(RuleChange(rule=rule())))
    assert found == Listed(rule(), "exception", 0)
    assert [found.state(at_ms) for at_ms in (0, DAY_MS - 1, DAY_MS)] == ["in force", "in force", "ended"]


def test_a_removed_rule_tells_who_removed_it() -> None:
    (found,) = rules(on_topic(RuleChange(rule=rule()), RuleChange(remove="x-1"), RuleChange(remove="x-1")))
    assert (found.state(5_000), found.ended_ms, found.ended_by) == ("removed", 1_000, "issuer-1")


def test_what_is_removed_after_its_time_had_ended_by_itself() -> None:
    (found,) = rules(on_topic(RuleChange(rule=rule(until_ms=500)), RuleChange(remove="x-1")))
    assert found.state(5_000) == "ended"


def test_a_rule_of_the_same_id_replaces_an_earlier_one() -> None:
    first, second = rules(on_topic(RuleChange(rule=rule()), RuleChange(rule=rule(until_ms=9 * DAY_MS))))
    assert (first.state(5_000), second.state(5_000)) == ("removed", "in force")


def test_a_verdicts_rule_ends_with_a_later_verdict_without_it() -> None:
    (found,) = rules(on_topic(effect(rule("v-1")), effect(None, effect="keep_out")))
    assert (found.by, found.rule.finding_uid) == ("verdict", UID)
    assert (found.state(5_000), found.ended_by) == ("removed", "issuer-1")


def test_a_repeated_verdict_begins_nothing_anew() -> None:
    found = rules(on_topic(effect(rule("v-1")), RuleChange(remove="v-1"), effect(rule("v-1"))))
    assert [each.state(5_000) for each in found] == ["removed"]


def test_verdicts_on_other_findings_and_rules_of_people_stay() -> None:
    other = effect(rule("v-2"), finding_uid="cd" * 16)
    found = rules(on_topic(RuleChange(rule=rule(finding_uid=UID)), effect(rule("v-1")), other, effect(None)))
    assert [(each.rule.rule_id, each.state(5_000)) for each in found] == [
        ("x-1", "in force"), ("v-1", "removed"), ("v-2", "in force"),
    ]  # fmt: skip


def test_what_no_scorer_would_take_is_passed_over() -> None:
    bad = b'{"kind":"exception","value":{"rule":{"rule_id":7}},"time_ms":1,"issuer":"x"}'
    assert rules(on_topic(bad, b'"rule"', b"\xff", b"{}", RuleChange(rule=rule())))[0].offset == 4


def test_equal_flags_at_an_equal_time_give_an_equal_id_and_others_another() -> None:
    first = rule_of(flags("--action", "suppression"), 1_000)
    assert (first.from_ms, first.until_ms) == (1_000, 1_000 + 2 * DAY_MS)
    assert first.rule_id == rule_of(flags("--action", "suppression"), 1_000).rule_id
    assert first.rule_id.startswith("x-")
    others = [rule_of(flags("--action", "suppression"), 1_001), rule_of(flags("--action", "exception"), 1_000)]
    assert len({first.rule_id, *(each.rule_id for each in others)}) == 3


def test_a_snooze_is_of_somebody() -> None:
    with pytest.raises(UsageError, match="snooze silences the finding of one entity: it needs --session or --key"):
        rule_of(flags("--action", "snooze"), 0)
    assert rule_of(flags("--action", "snooze", "--key", "88dc"), 0).key_hash == "88dc"
    for days in ("366.1", "1e300"):
        with pytest.raises(UsageError, match="--days must be above 0 and at most 366; got"):
            rule_of(flags("--action", "suppression", "--days", days), 0)
    assert rule_of(flags("--action", "suppression", "--days", "366"), 0).until_ms == 366 * DAY_MS
    assert rule_of(flags("--action", "snooze", "--session", "s-1"), 0).session == "s-1"


def test_a_signal_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--signal must be one of novelty, tool_novelty, .*, drift; got 'novelity'"):
        rule_of(flags("--action", "exception", "--signal", "novelity"), 0)
    with pytest.raises(UsageError, match="--session must not be empty; leave it out, or say which session"):
        rule_of(flags("--action", "exception", "--session", " "), 0)


def test_list_says_who_why_and_until_when() -> None:
    listed = [
        Listed(rule(key_hash="88dc", signal="novelty", who="ada\x1b[31m"), "exception", 0),
        Listed(rule("v-1", finding_uid=UID), "verdict", 1, 3_600_000, "bob"),
    ]
    heads, first, second, *notes = _lines(listed, {"team-7": "a drill"}, 1_000, 2)
    assert heads.split() == ["rule", "action", "of", "who", "why", "from", "until", "state"]
    for part in (
        "x-1", "suppression", "tenant team-42, key 88dc, signal novelty", "ada ", "load test", "1970-01-01T00:00:00Z",
        "1970-01-02T00:00:00Z", "in force",
    ):  # fmt: skip
        assert part in first
    assert second.endswith("removed 1970-01-01T01:00:00Z by bob")
    assert f"load test (finding {UID})" in second
    text = "\n".join(notes)
    assert "2 more ended or were removed: --all shows them." in text
    assert "By decision.exceptions of these settings" in text
    assert "team-7  a drill" in text
    assert "\x1b" not in first
    assert next(iter(_lines([], {}, 0, 0))) == "No exception, suppression or snooze is in force."
