"""Sessions are judged by the core itself, both releases in the same way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from schemas.label import LabelledEvent, label_key
from stream.config import DecisionSettings
from stream.record import Record
from stream.training.events import arrange
from stream.training.gather import Tally, gather_files
from stream.training.judged import Judged, Traffic, Truth, judge, truths
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.training.captures import SETTINGS, corpus, write_lines
from tests.stream.training.labels import label

EMBEDDER = WordEmbedder()
# Half of all sessions: a random release finds something in them.
AT_HALF = replace(SETTINGS, decision=DecisionSettings(session_fpr=0.5))


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    path = write_lines(tmp_path / "c.jsonl", corpus(36))
    return arrange(gather_files([path], "corpus", SETTINGS, Tally()), SETTINGS.core.future_ms).records


def test_held_out_sessions_come_first_and_each_session_once(records: list[Record]) -> None:
    judged = judge(Traffic(records[40:], records[:44], {}), release(), AT_HALF, EMBEDDER)
    names = list(zip(judged.tenant, judged.session, strict=True))
    assert len(names) == len(set(names)) == 36
    assert judged.held_out.tolist() == [True] * 16 + [False] * 20
    assert names[:16] == sorted(names[:16])
    assert judged.events.tolist() == [2] * 36


def test_a_session_is_flagged_where_its_least_p_is_at_the_operating_point(records: list[Record]) -> None:
    judged = judge(Traffic(records, [], {}), release(), AT_HALF, EMBEDDER)
    assert judged.session_fpr == 0.5
    assert 0 < judged.flagged.sum() < len(judged)
    assert (judged.least_p[judged.flagged] <= 0.5).all()
    assert ((judged.first_flagged >= 0) == judged.flagged).all()
    found = {"finding", "suppressed", "over_budget"}
    assert {name for name, hit in zip(judged.decision, judged.flagged, strict=True) if hit} <= found
    # What a tenant's grace excuses is no finding.
    excused = ~judged.flagged & (judged.least_p <= 0.5)
    assert {name for name, here in zip(judged.decision, excused, strict=True) if here} <= {"warmup"}


def test_history_is_judged_alike_in_whatever_order_and_however_often_it_is_told(records: list[Record]) -> None:
    once = judge(Traffic([], records, {}), release(), AT_HALF, EMBEDDER)
    told_again = [*records, *_as_other_sessions(records)]
    twice = judge(Traffic([], told_again, {}), release(), AT_HALF, EMBEDDER)
    # That a tenant calls more often is seen as it happens; nothing that was said is remembered.
    own = [at for at, name in enumerate(twice.session) if not name.startswith("other")]
    assert np.array_equal(twice.least_p[own], once.least_p)


def test_held_out_traffic_teaches_as_it_does_in_service(records: list[Record]) -> None:
    off = judge(Traffic([], records, {}), release(), AT_HALF, EMBEDDER)
    on = judge(Traffic(records, [], {}), release(), AT_HALF, EMBEDDER)
    assert on.session == off.session
    assert not np.array_equal(on.least_p, off.least_p)


def test_what_a_champion_has_heard_since_is_no_session_to_judge(records: list[Record]) -> None:
    fresh = judge(Traffic(records[40:], [], {}), release(), AT_HALF, EMBEDDER)
    heard = judge(Traffic(records[40:], [], {}), release(), AT_HALF, EMBEDDER, heard=records[:40])
    assert heard.session == fresh.session
    assert not np.array_equal(heard.least_p, fresh.least_p)


def test_truth_and_slices_are_those_of_the_session(records: list[Record]) -> None:
    truth = {("team-0", "s0"): Truth("attack", "AML.T0054", earlier=True), ("team-1", "s1"): Truth("benign")}
    judged = judge(Traffic(records[12:], records[:12], truth), release(), AT_HALF, EMBEDDER)
    at = {name: place for place, name in enumerate(judged.session)}
    attack, benign = at["s0"], at["s1"]
    assert (judged.label[attack], judged.label[benign]) == ("attack", "benign")
    assert judged.attack.sum() == judged.earlier.sum() == 1
    assert not judged.benign[[attack, benign]].any()
    assert {key: values[attack] for key, values in judged.slices.items()} == {
        "tenant": "team-0",
        "family": "AML.T0054",
        "language": "english",
        "length": "under 1,000 characters",
        "model": judged.slices["model"][benign],
    }
    assert judged.slices["family"][benign] == ""


def test_what_labels_say_of_sessions_leaves_out_what_is_not_kept_and_what_is_contradicted() -> None:
    labels = [
        label("a", "ada", attack=True, session="s0", time=5),
        label("a", "bo", attack=True, session="s0", time=20),
        label("h", "bo", attack=True, session="s6", time=1),
        label("b", "ada", attack=False, session="s1"),
        label("c", "ada", attack=True, session="s2"),
        label("d", "bo", attack=False, session="s2"),
        label("e", "cy", attack=False, session="s3"),
        label("f", "ada", attack=None, session="s4"),
        label("g", "ada", attack=True, session="s5", entity_type="tenant"),
    ]
    kept = {label_key(each.finding_uid, each.analyst) for each in labels if each.analyst != "cy"}
    assert truths(labels, kept, {labels[0].finding_uid}) == {
        ("team-0", "s0"): Truth("attack", "AML.T0051", earlier=True),
        ("team-0", "s1"): Truth("benign"),
        ("team-0", "s6"): Truth("attack", "AML.T0051"),
    }


def test_what_the_champion_knew_is_told_by_its_findings_and_by_no_clock() -> None:
    """Replayed traffic is years old, or dated ahead, and verdicts are of today."""
    labels = [label("known", "ada", attack=True, session="s0", time=2**52)]
    labels += [label("new", "ada", attack=True, session="s1", time=0)]
    kept = {label_key(each.finding_uid, each.analyst) for each in labels}
    said = truths(labels, kept, frozenset({labels[0].finding_uid}))
    assert {name: each.earlier for (_, name), each in said.items()} == {"s0": True, "s1": False}
    assert not any(each.earlier for each in truths(labels, kept).values())


def test_a_session_of_two_findings_was_known_when_either_was() -> None:
    labels = [label(name, "ada", attack=True, session="s0", time=at) for at, name in enumerate(("new", "known"))]
    kept = {label_key(each.finding_uid, each.analyst) for each in labels}
    assert truths(labels, kept, {labels[1].finding_uid})["team-0", "s0"].earlier


def test_a_finding_about_a_key_is_about_all_sessions_of_its_events() -> None:
    events = [
        LabelledEvent(
            event_id="", partition=0, offset=at, event_time_ms=0, session=f"s{at}", signals={}, p={}, p_combined=None,
            release="r",
        )
        for at in range(2)
    ]  # fmt: skip
    own = label("a", "ada", attack=True, session=None, entity_type="key", events=events)
    assert set(truths([own], {label_key(own.finding_uid, "ada")})) == {("team-0", "s0"), ("team-0", "s1")}


def test_the_same_traffic_is_judged_the_same_each_time(records: list[Record]) -> None:
    first, second = (judge(Traffic(records[40:], records[:40], {}), release(), AT_HALF, EMBEDDER) for _ in range(2))
    assert _plain(first) == _plain(second)


def _plain(judged: Judged) -> tuple[object, ...]:
    return judged.session, judged.least_p.tolist(), judged.decision, judged.signal, judged.slices


def _as_other_sessions(records: list[Record]) -> list[Record]:
    out = []
    for record in records:
        event = orjson.loads(record.value or b"")
        event["session"] = "other " + event["session"]
        event["event_id"] = event["event_id"][::-1]
        out.append(replace(record, value=orjson.dumps(event), offset=record.offset + len(records)))
    return out
