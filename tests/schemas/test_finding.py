"""Findings are OCSF Detection Findings, explained, bounded, and free of what steers a terminal."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import orjson
import pytest

from schemas.atlas import TECHNIQUES
from schemas.finding import (
    EXCERPT_MAX,
    RELATED_MAX,
    Excerpt,
    FindingView,
    SignalView,
    build_finding,
    encode_finding,
    finding_uid,
    revision_uid,
)
from schemas.ocsf import Finding
from tests.ocsf import assert_valid_finding, finding_errors

EVENT = "ab" * 32

VIEW = FindingView(
    tenant="team-42",
    entity_type="session",
    entity="sess-7f2c",
    uid=finding_uid("team-42", "session", "sess-7f2c", EVENT),
    revision=1,
    activity=1,
    time_ms=1795304824372,
    created_ms=1795303924372,
    first_seen_ms=1795303924372,
    last_seen_ms=1795304824372,
    count=1,
    severity_id=4,
    confidence_score=87,
    title="Instructions in a tool result",
    desc="A tool result of search_crm speaks like a user.",
    release="r-2026-11-21",
    score=9.25,
    p_combined=0.0004,
    event_ids=(EVENT,),
    session="sess-7f2c",
    signals=(
        SignalView(
            name="novelty",
            value=0.8123456789,
            p=0.0004,
            baseline=0.31,
            baseline_count=1344,
            baseline_pattern="median of the tenant's sessions",
            pattern="segment 3 of message 5",
            observation_type="Distribution Analysis",
        ),
        SignalView(name="sequence", value=1.5),
    ),
    techniques=("AML.T0051.001", "AML.T0086"),
    excerpts=(Excerpt(event_id=EVENT, role="tool", text="ignore previous", message_index=5, tool="search_crm"),),
    key_hash="88dc28d0",
    user="u-1007",
    ip="203.0.113.24",
    tools=("search_crm",),
    models=("gpt-4o",),
)


@pytest.mark.parametrize("activity", [1, 2, 3])
def test_every_revision_validates_against_ocsf(activity: int) -> None:
    finding = build_finding(replace(VIEW, activity=activity, revision=activity))  # type: ignore[arg-type]
    assert_valid_finding(finding)
    assert finding["type_uid"] == 200400 + activity
    assert finding["activity_name"] == ["Create", "Update", "Close"][activity - 1]


def test_the_barest_finding_validates_too() -> None:
    bare = replace(
        VIEW,
        signals=(),
        techniques=(),
        excerpts=(),
        key_hash=None,
        user=None,
        ip=None,
        tools=(),
        models=(),
        session=None,
    )
    assert_valid_finding(build_finding(replace(bare, p_combined=None, event_ids=())))


@pytest.mark.parametrize("uid", sorted(TECHNIQUES))
def test_every_technique_validates_and_brings_its_owasp_labels_with_the_year(uid: str) -> None:
    finding = build_finding(replace(VIEW, techniques=(uid,)))
    assert_valid_finding(finding)
    assert set(finding["metadata"].get("labels", [])) == {f"owasp:{label}" for label in TECHNIQUES[uid].owasp}
    assert all(label.endswith(":2025") for label in TECHNIQUES[uid].owasp)


def test_a_sub_technique_names_its_parent() -> None:
    attack = build_finding(VIEW)["finding_info"]["attacks"][0]
    assert (attack["technique"]["uid"], attack["sub_technique"]["uid"]) == ("AML.T0051", "AML.T0051.001")


def test_uids_are_hashes_of_json_arrays() -> None:
    text = '["team-42","session","sess-7f2c","' + EVENT + '"]'
    assert VIEW.uid == hashlib.sha256(text.encode()).hexdigest()[:32]
    assert revision_uid(VIEW.uid, 2) == hashlib.sha256(f'["{VIEW.uid}",2]'.encode()).hexdigest()
    finding = build_finding(replace(VIEW, revision=2, activity=2))
    assert finding["finding_info"]["uid"] == VIEW.uid
    assert finding["metadata"]["uid"] == revision_uid(VIEW.uid, 2)
    assert finding["metadata"]["sequence"] == 2


def test_nothing_but_the_views_times_is_in_a_finding() -> None:
    def times(value: object, name: str = "") -> set[int]:
        if isinstance(value, dict):
            return set().union(*(times(item, key) for key, item in value.items()), set())
        if isinstance(value, list):
            return set().union(*(times(item, name) for item in value), set())
        return {value} if name == "time" or (name.endswith("_time") and isinstance(value, int)) else set()  # type: ignore[arg-type]

    assert times(build_finding(VIEW)) == {VIEW.time_ms, VIEW.first_seen_ms, VIEW.last_seen_ms}


def test_the_same_view_gives_the_same_bytes_with_sorted_keys() -> None:
    written = encode_finding(VIEW)
    assert written == encode_finding(replace(VIEW)) == orjson.dumps(json.loads(written), option=orjson.OPT_SORT_KEYS)


def test_observation_values_are_strings_and_baselines_stand_beside_them() -> None:
    analysis = build_finding(VIEW)["anomaly_analyses"][0]
    assert analysis["anomalies"][0]["observations"] == [{"value": "0.812346"}]
    assert analysis["anomalies"][0]["observed_pattern"] == "p=0.0004; segment 3 of message 5"
    assert analysis["baselines"][0]["observations"] == [{"value": "0.31", "count": 1344}]


def test_an_excerpt_is_marked_untrusted_cut_and_stripped() -> None:
    nasty = "\x1b[31mred\x1b[0m \u202eevil\u2066 \x00\x07\r\nnext" + "x" * 10_000
    data = build_finding(replace(VIEW, excerpts=(replace(VIEW.excerpts[0], text=nasty),)))["evidences"][0]["data"]
    assert data["untrusted"] is True
    assert data["excerpt"].startswith("red evil  nextxxx")
    assert len(data["excerpt"]) == EXCERPT_MAX


def test_no_string_of_a_finding_holds_a_control_or_bidirectional_character() -> None:
    bad = "a\x1b]0;title\x07\u202eb\nc"
    view = replace(
        VIEW,
        entity=bad,
        session=bad,
        title=bad,
        desc=bad,
        user=bad,
        tools=(bad,),
        models=(bad,),
        excerpts=(Excerpt(event_id=EVENT, role="tool", text=bad, message_index=0, tool=bad),),
    )
    text = json.dumps(build_finding(view), ensure_ascii=False)
    assert text.isprintable()
    assert_valid_finding(build_finding(view))


def test_related_events_are_bounded_keep_the_opening_one_and_count_all() -> None:
    ids = tuple(f"{i:064x}" for i in range(500))
    info = build_finding(replace(VIEW, event_ids=ids, count=500))["finding_info"]
    listed = [event["uid"] for event in info["related_events"]]
    assert listed == [ids[0], *ids[-(RELATED_MAX - 1) :]]
    assert info["related_events_count"] == 500


def test_an_address_that_is_none_is_no_ip_observable() -> None:
    finding = build_finding(replace(VIEW, ip="unknown"))
    assert not [item for item in finding["observables"] if item["type_id"] == 2]
    assert_valid_finding(finding)


def test_infinite_signals_stay_json() -> None:
    view = replace(VIEW, score=float("inf"), signals=(SignalView(name="novelty", value=float("nan")),))
    finding = json.loads(encode_finding(view))
    assert finding["unmapped"]["score"] == 1.7976931348623157e308
    assert_valid_finding(finding)


def test_a_test_finding_says_so() -> None:
    finding = build_finding(replace(VIEW, is_test=True))
    assert finding["unmapped"]["test"] is True
    assert "test" in finding["metadata"]["labels"]


def test_a_finding_decodes_into_its_structure() -> None:
    assert msgspec.json.decode(encode_finding(VIEW), type=Finding).metadata.tenant_uid == "team-42"


def test_the_validator_refuses_what_ocsf_does_not_know() -> None:
    assert finding_errors({**build_finding(VIEW), "surprise": 1})
    assert finding_errors({**build_finding(VIEW), "type_uid": 200403})


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "schemas/examples/findings.v1").glob("*.json")))
def test_every_example_finding_validates_against_ocsf(path: Path) -> None:
    assert_valid_finding(orjson.loads(path.read_bytes()))
