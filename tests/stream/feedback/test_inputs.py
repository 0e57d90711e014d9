"""What the join keeps of records, and what is none."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from stream.errors import DecodeError
from stream.feedback.inputs import decode_input, encode_input, evidence_seen, finding_seen, verdict_of, verdict_seen
from tests.drills.feedback_traffic import compact, other_score, score
from tests.stream.feedback.inputs import evidence, finding, verdict

EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples"


def said(more: bytes = b'"adopt":false', time: bytes = b"1") -> bytes:
    return b'{"finding_uid":"%s","verdict_id":2,"analyst":"a","time":%s,%s}' % (b"0" * 32, time, more)


def test_an_example_of_a_finding_is_read_whole() -> None:
    seen = finding_seen((EXAMPLES / "findings.v1" / "session-update.json").read_bytes(), 5)
    assert (seen.uid, seen.tenant, seen.revision) == ("80c8d69533d93f11fa7f7c08cf2d14b6", "team-42", 2)
    assert (seen.entity_type, seen.entity, seen.session, seen.key_hash) == (
        "session",
        "sess-7f2c",
        "sess-7f2c",
        "88dc28d0",
    )
    assert seen.techniques == ["AML.T0051.001", "AML.T0086"]
    assert [len(seen.event_ids), seen.event_ids[0][:4]] == [3, "abab"]
    assert [(each.role, each.text, each.message_index) for each in seen.segments] == [("tool", "ignore previous", 5)]
    assert seen.p == {"novelty": 0.0004}
    assert not seen.test


def test_a_findings_key_is_its_entity_where_it_is_about_a_key() -> None:
    seen = finding_seen((EXAMPLES / "findings.v1" / "key-create.json").read_bytes(), 0)
    assert seen.entity_type == "key"
    assert seen.key_hash is not None


def test_every_example_of_a_score_and_a_verdict_is_read() -> None:
    for path in (EXAMPLES / "scores.v1").glob("*.json"):
        record = orjson.loads(path.read_bytes())
        seen = evidence_seen(compact(record), 0)
        assert (seen is None) == (record["finding_uid"] is None or record["decision"] == "duplicate")
    for path in (EXAMPLES / "verdicts.v1").glob("*.json"):
        said, plain = verdict_of(path.read_bytes())
        assert plain["analyst"] == said.analyst


def test_scores_of_no_finding_and_of_duplicates_say_nothing() -> None:
    assert evidence_seen(compact(other_score(1)[3]), 0) is None
    assert evidence_seen(compact({**score(1, 0)[3], "decision": "duplicate"}), 0) is None


def test_what_travels_between_agents_comes_out_as_it_went_in() -> None:
    for value in (finding(), evidence(), verdict("ada", 2, notes=["é"])):
        assert decode_input(encode_input(value)) == value


@pytest.mark.parametrize(
    ("value", "reason", "rule"),
    [
        (None, "undecodable", "it is no JSON"),
        (b"\xff", "undecodable", "it is no JSON"),
        (b'"text"', "schema", "must be a verdict"),
        (said(b'"more":1e999'), "undecodable", "it is no JSON"),
        (said(b'"more":"\\ud800"'), "undecodable", "it is no JSON"),
        (said(b'"more":' + b"[" * 2_000 + b"]" * 2_000), "too_deep", "nests deeper than can be read"),
        (said(b'"more":' + b"[" * 300 + b"]" * 300), "too_deep", "cannot be signed"),
        (said(b'"notes":' + b"[" * 2_000 + b"]" * 2_000), "schema", r"\$.notes"),
        (said(b'"more":"' + b"x" * 65_536 + b'"'), "oversized", "at most 65536 bytes; got 65"),
        (said(b'"status_id":18446744073709551616'), "schema", r"\$.status_id"),
        (said(b'"source_system":"' + b"x" * 257 + b'"'), "schema", r"\$.source_system"),
        (said(b'"tenant":"' + b"x" * 257 + b'"'), "schema", r"\$.tenant"),
        (said(b'"signature":{"key":"' + b"x" * 129 + b'","value":""}'), "schema", r"\$.signature.key"),
        (said(b'"signature":{"key":"","value":"' + b"x" * 129 + b'"}'), "schema", r"\$.signature.value"),
        (said(time=b"18446744073709551616"), "schema", r"\$.time"),
        (said(time=b"9007199254740992"), "schema", r"\$.time"),
        (b'{"finding_uid":"x","verdict_id":2,"analyst":"a","time":1}', "schema", r"\$.finding_uid"),
        (b'{"finding_uid":"%s","verdict_id":11,"analyst":"a","time":1}' % (b"0" * 32), "schema", r"\$.verdict_id"),
    ],
)
def test_what_is_no_verdict_is_told_with_the_rule(value: bytes | None, reason: str, rule: str) -> None:
    with pytest.raises(DecodeError, match=rule) as error:
        verdict_of(value)
    assert error.value.reason == reason


def test_a_field_that_is_not_known_here_changes_nothing() -> None:
    verdict_, plain = verdict_of(said(b'"more":[[1]]', time=b"9007199254740991"))
    assert (verdict_.time, plain["more"]) == (2**53 - 1, [[1]])


def test_a_verdict_dated_ahead_of_its_record_has_the_records_time() -> None:
    day_ms, at_ms = 86_400_000, 10**12
    for ahead_ms, expected in (
        (day_ms, at_ms),
        (300_001, at_ms),
        (300_000, at_ms + 300_000),
        (-day_ms, at_ms - day_ms),
    ):
        dated, _ = verdict_of(said(time=b"%d" % (at_ms + ahead_ms)))
        assert verdict_seen(dated, "unverified", at_ms).verdict.time == expected
