"""What verdicts do at once."""

from __future__ import annotations

import msgspec
import pytest

from schemas.control import VerdictEffect
from stream.feedback.effects import effect_of, must_send
from stream.feedback.inputs import Input, verdict_seen
from tests.stream.feedback.inputs import finding, verdict
from tests.stream.feedback.test_join import row_of

DAY_MS = 86_400_000


def effect(*values: Input) -> VerdictEffect:
    found = effect_of(row_of(*values), risk_hours=24.0)
    assert found is not None
    return found


def test_one_analyst_who_says_attack_keeps_content_out_and_raises_the_risk() -> None:
    found = effect(finding(), verdict("ada", 2, 1), verdict("bob", 5, 9, adopt=True, exception_days=3))
    assert (found.effect, found.risk_ms, found.adopt, found.rule) == ("keep_out", DAY_MS, False, None)
    assert found.verdicts == {"ada": 2, "bob": 5}


def test_a_harmless_verdict_admits_and_may_adopt() -> None:
    found = effect(finding(), verdict("ada", 1), verdict("bob", 5, 2, adopt=True, scope="tenant"))
    assert (found.effect, found.risk_ms, found.adopt, found.scope) == ("admit", 0, True, "tenant")


def test_other_verdicts_do_nothing_and_nothing_is_sent_for_them() -> None:
    found = effect(finding(), verdict("ada", 10))
    assert found.effect == "none"
    assert not must_send(found, None)
    assert must_send(found, effect(finding(), verdict("ada", 2)))
    assert not must_send(found, found)


@pytest.mark.parametrize(
    ("scope", "session", "key_hash"),
    [
        ("event", "session-1", None),
        ("session", "session-1", None),
        ("entity", None, "key-1"),
        ("tenant", None, None),
    ],
)
def test_an_exception_reaches_as_far_as_the_verdict_says(scope: str, session: str | None, key_hash: str | None) -> None:
    found = effect(finding(), verdict("ada", 5, 1_000, scope=scope, exception_days=2))
    rule = found.rule
    assert rule is not None
    assert (rule.session, rule.key_hash, rule.tenant) == (session, key_hash, "t1")
    assert (rule.action, rule.signal, rule.who) == ("exception", "novelty", "ada")
    assert (rule.from_ms, rule.until_ms) == (1_000, 1_000 + 2 * DAY_MS)
    assert rule.finding_uid == found.finding_uid


def test_an_exception_of_a_verdict_dated_ahead_ends_as_if_it_had_been_given_when_it_came() -> None:
    ahead = verdict("ada", 5, 10**15, exception_days=366).verdict
    rule = effect(finding(), verdict_seen(ahead, "unverified", 1_000)).rule
    assert rule is not None
    assert (rule.from_ms, rule.until_ms) == (1_000, 1_000 + 366 * DAY_MS)


def test_an_exceptions_end_stays_an_integer_of_json() -> None:
    rule = effect(finding(), verdict("ada", 5, 2**53 - 1, exception_days=366)).rule
    assert rule is not None
    assert rule.until_ms == 2**53 - 1


def test_an_exception_never_grows_beyond_its_verdict() -> None:
    bare = msgspec.structs.replace(finding(), session=None, key_hash=None)
    assert effect(bare, verdict("ada", 5, exception_days=1)).rule is None
    without_key = msgspec.structs.replace(finding(), key_hash=None)
    rule = effect(without_key, verdict("ada", 5, scope="entity", exception_days=1)).rule
    assert rule is not None
    assert rule.session == "session-1"
    of_tenant = effect(finding(entity_type="tenant", signal="drift"), verdict("ada", 5, exception_days=1)).rule
    assert of_tenant is not None
    assert (of_tenant.session, of_tenant.key_hash, of_tenant.signal) == (None, None, "drift")


def test_a_harmless_verdict_that_is_taken_back_ends_its_exception() -> None:
    before = effect(finding(), verdict("ada", 5, 1, exception_days=2))
    after = effect(finding(), verdict("ada", 5, 1, exception_days=2), verdict("ada", 10, 2))
    assert before.rule is not None
    assert (after.effect, after.rule) == ("none", None)
    assert must_send(after, before)


def test_nothing_is_done_for_a_canary_or_without_a_finding() -> None:
    assert effect_of(row_of(finding(test=True), verdict("ada", 2)), risk_hours=1.0) is None
    assert effect_of(row_of(verdict("ada", 2)), risk_hours=1.0) is None
