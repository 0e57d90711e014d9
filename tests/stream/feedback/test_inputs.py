"""What the join keeps of records, and what is none."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from stream.errors import DecodeError
from stream.feedback.inputs import decode_input, encode_input, evidence_seen, finding_seen, verdict_of
from tests.drills.feedback_traffic import compact, other_score, score
from tests.stream.feedback.inputs import evidence, finding, verdict

EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples"


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
    ("value", "reason", "said"),
    [
        (None, "undecodable", "it is no JSON"),
        (b"\xff", "undecodable", "it is no JSON"),
        (b'"text"', "schema", "must be a verdict"),
        (b'{"finding_uid":"x","verdict_id":2,"analyst":"a","time":1}', "schema", r"\$.finding_uid"),
        (b'{"finding_uid":"%s","verdict_id":11,"analyst":"a","time":1}' % (b"0" * 32), "schema", r"\$.verdict_id"),
    ],
)
def test_what_is_no_verdict_is_told_with_the_rule(value: bytes | None, reason: str, said: str) -> None:
    with pytest.raises(DecodeError, match=said) as error:
        verdict_of(value)
    assert error.value.reason == reason
