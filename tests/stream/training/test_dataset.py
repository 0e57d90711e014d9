"""What teaches, what is held out and what attacks teach, from captured events, scores and labels."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from schemas.label import label_key
from stream.record import Record
from stream.training.capture import Captured
from stream.training.events import arrange
from stream.training.labels import latest_labels
from tests.stream.training.captures import SETTINGS, START_MS
from tests.stream.training.labelled import INJECTION, attacks, captured, conversation, divided, label, names, trained_on


@pytest.fixture(scope="module")
def traffic() -> Captured:
    return captured([conversation(i, f"team-{i % 2}") for i in range(40)])


def test_the_latest_sessions_are_held_out_and_taught_to_nobody(traffic: Captured) -> None:
    data = divided(traffic)
    held = {fact.session for fact in data.sessions.values() if fact.held_out}
    assert held == {f"s{i}" for i in range(32, 40)}
    assert trained_on(data) == {f"s{i}" for i in range(32)}
    assert {orjson.loads(record.value or b"")["session"] for record in data.held_out} == held


def test_a_session_of_the_task_of_one_held_out_is_held_out_too() -> None:
    said = "Book a table for four at the Anchor, on Friday at 19:30!"
    again = "book a table for FOUR at the anchor on friday at 20:15"
    sessions = [conversation(i, opening={3: again, 39: said}.get(i, "")) for i in range(40)]
    data = divided(captured(sessions))
    assert data.sessions["team-0", "s3"].held_out
    assert "s3" not in trained_on(data)


def test_a_tenant_that_always_asks_the_same_is_divided_by_time() -> None:
    sessions = [conversation(i, opening="write the daily report about all open tickets") for i in range(40)]
    data = divided(captured(sessions))
    assert trained_on(data) == {f"s{i}" for i in range(32)}


def test_sessions_of_equal_task_lie_in_one_fold() -> None:
    said = "the same long question that two sessions begin with"
    data = divided(captured([conversation(i, opening=said if i in (3, 8) else "") for i in range(40)]))
    events = arrange(data.training, SETTINGS.core.future_ms)
    fold = {
        orjson.loads(record.value or b"")["session"]: int(events.session_fold[session])
        for record, session in zip(events.records, events.session.tolist(), strict=True)
    }
    assert fold["s3"] == fold["s8"]


def test_what_was_found_and_nobody_judged_calibrates_without_teaching(traffic: Captured) -> None:
    name = names(traffic)["s4"]
    first = traffic.records[traffic.of_session[name][0]]
    data = divided(traffic, found=[(first.partition, first.offset)])
    assert data.counts["calibrate_only"] == 1
    events = arrange(data.training, SETTINGS.core.future_ms)
    assert events.session_learns is not None
    assert int((~events.session_learns).sum()) == 1
    assert len(events.learning) == len(events.records) - len(traffic.of_session[name])


def test_what_was_found_and_judged_benign_teaches_and_is_believed(traffic: Captured) -> None:
    name = names(traffic)["s4"]
    data = divided(traffic, [label(traffic, name, "benign")])
    events = arrange(data.training, SETTINGS.core.future_ms)
    assert events.session_believed is not None
    assert int(events.session_believed.sum()) == 1
    assert data.counts["calibrate_only"] == 0
    assert [segment.group for segment in data.mistaken] == [orjson.dumps(list(name)).decode()] * len(data.mistaken)
    assert data.mistaken


def test_a_labelled_attack_neither_trains_nor_calibrates(traffic: Captured) -> None:
    name = names(traffic)["s4"]
    data = divided(traffic, [label(traffic, name, "attack")])
    assert "s4" not in trained_on(data)
    assert data.sessions[name].judged == "attack"
    assert data.sessions[name].family == "injection"
    assert {orjson.loads(record.value or b"")["session"] for record in data.labelled} == {"s4"}


def test_labels_are_hashed_and_named_whatever_their_order(traffic: Captured) -> None:
    labels = [label(traffic, names(traffic)[f"s{i}"], "attack" if i < 3 else "benign") for i in range(6)]
    records = [
        Record("labels", 0, i, 0, label_key(each.finding_uid, each.analyst), msgspec.json.encode(each))
        for i, each in enumerate([*labels, *labels[::-1]])
    ]
    latest, unreadable = latest_labels([*records, Record("labels", 0, 99, 0, b"k", b"{}")])
    assert unreadable == 1
    assert latest == sorted(labels, key=lambda each: label_key(each.finding_uid, each.analyst))
    used = divided(traffic, latest).labels
    assert (used.attacks, used.benign) == (3, 3)
    assert used.findings == sorted(each.finding_uid for each in labels)
    assert used == divided(traffic, latest_labels(records[::-1])[0]).labels


def test_labelled_attacks_are_on_both_sides_the_latest_held_out() -> None:
    found, labels = attacks(10)
    data = divided(found, labels)
    held = {fact.session for fact in data.sessions.values() if fact.held_out and fact.judged == "attack"}
    assert held == {"s7", "s8", "s9"}
    taught = {orjson.loads(segment.group)[1] for segment in data.attacks}
    assert taught == {f"s{i}" for i in range(7)}


def test_attacks_that_show_the_same_words_are_on_one_side() -> None:
    found = captured([conversation(i, tool=INJECTION if i in (1, 9) else "") for i in range(40)])
    labels = [label(found, names(found)[f"s{i}"], "attack") for i in (1, 4, 5, 6, 7, 9)]
    data = divided(found, labels)
    assert data.sessions["team-0", "s1"].held_out == data.sessions["team-0", "s9"].held_out


def test_attacks_of_one_wording_are_divided_by_their_tasks_alone() -> None:
    found = captured([conversation(i, tool=INJECTION if i < 5 else "") for i in range(40)])
    data = divided(found, [label(found, names(found)[f"s{i}"], "attack") for i in range(5)])
    # Three are wanted, at most half of them: two of five.
    assert data.counts["held_out_attack"] == 2
    assert len({segment.group for segment in data.attacks}) == 3


def test_a_tenant_of_whom_nothing_is_learned_is_left_out() -> None:
    found = captured(
        [*(conversation(i) for i in range(20)), conversation(20, "team-9"), *map(conversation, range(21, 40))]
    )
    name = names(found)["s20"]
    first = found.records[found.of_session[name][0]]
    data = divided(found, found=[(first.partition, first.offset)])
    assert "s20" not in trained_on(data)


def test_what_the_champion_has_heard_since_is_told_in_the_order_of_time(traffic: Captured) -> None:
    data = divided(traffic, heard_after_ms=START_MS + 600_000 * 20)
    heard = [orjson.loads(record.value or b"") for record in data.heard]
    assert {each["session"] for each in heard} == {f"s{i}" for i in range(20, 32)}
    assert [each["event_time_ms"] for each in heard] == sorted(each["event_time_ms"] for each in heard)
