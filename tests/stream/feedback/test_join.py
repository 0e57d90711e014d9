"""Labels depend on what came, never on the order or on how often."""

from __future__ import annotations

import random

import msgspec
import orjson
import pytest

from schemas.label import Label
from stream.feedback.inputs import Forget, Input, verdict_seen
from stream.feedback.join import (
    ANALYSTS_MAX,
    EVENTS_FIRST,
    EVENTS_MAX,
    Row,
    beyond,
    decode_row,
    encode_row,
    joined,
    labels,
    rarest_signal,
)
from tests.stream.feedback.inputs import evidence, finding, verdict


def row_of(*values: Input) -> Row:
    row = Row()
    for value in values:
        after = joined(row, value)
        assert after is not None
        row = after
    return row


def label_of(row: Row, analyst: str, *, segments: bool = True) -> Label:
    found = labels(row, segments=segments)[orjson.dumps([_uid(row), analyst])]
    return msgspec.json.decode(found, type=Label)


def _uid(row: Row) -> str:
    assert row.finding is not None
    return row.finding.uid


INPUTS: list[Input] = [
    finding(revision=1, events=1), finding(revision=2, events=3), finding(revision=3, events=4), evidence(place=0),
    evidence(place=1, partition=1), evidence(place=3), evidence(place=9), verdict("ada", 2, 1), verdict("ada", 1, 2),
    verdict("ada", 5, 2), verdict("bob", 8, 1), verdict("eve", 10, 1),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_labels_do_not_depend_on_order_or_repetition(seed: int) -> None:
    expected = labels(row_of(*INPUTS), segments=True)
    random_ = random.Random(seed)
    shuffled = [*INPUTS, *random_.choices(INPUTS, k=6)]
    random_.shuffle(shuffled)
    assert labels(row_of(*shuffled), segments=True) == expected
    assert len(expected) == 3


def test_the_latest_verdict_of_an_analyst_counts_and_of_two_at_once_always_the_same() -> None:
    label = label_of(row_of(*INPUTS), "ada")
    assert (label.verdict_time, label.verdict_id) == (2, 5)
    assert label_of(row_of(finding(), verdict("ada", 2, 9), verdict("ada", 1, 3)), "ada").verdict_id == 2


def test_a_record_that_says_nothing_new_leaves_the_row_as_it_is() -> None:
    row = row_of(*INPUTS)
    assert all(joined(row, value) is row for value in INPUTS)
    assert decode_row(encode_row(row)) == row


def test_only_events_that_the_finding_lists_are_told() -> None:
    label = label_of(row_of(*INPUTS), "bob")
    assert [(each.partition, each.offset) for each in label.events] == [(0, 100), (0, 103), (1, 101)]
    assert label.events_told == 4
    assert label.revision == 3


def test_analysts_who_disagree_are_both_kept_and_both_disputed() -> None:
    row = row_of(finding(), verdict("ada", 2), verdict("bob", 5), verdict("eve", 10))
    assert [label_of(row, name).disputed for name in ("ada", "bob", "eve")] == [True, True, False]
    assert [label_of(row, name).teaches for name in ("ada", "bob", "eve")] == ["attack", "benign", None]
    agreeing = row_of(finding(), verdict("ada", 2), verdict("bob", 8))
    assert not label_of(agreeing, "ada").disputed


def test_excerpts_are_left_out_where_they_are_not_wanted() -> None:
    row = row_of(finding(), verdict("ada", 2))
    assert [each.text for each in label_of(row, "ada").segments] == ["do 1"]
    assert label_of(row, "ada", segments=False).segments == []


def test_a_verdict_on_a_canary_teaches_nothing() -> None:
    assert label_of(row_of(finding(test=True), verdict("ada", 2)), "ada").teaches is None


def test_without_a_finding_there_is_no_label_yet() -> None:
    assert labels(row_of(verdict("ada", 2), evidence()), segments=True) == {}


def test_an_endless_session_does_not_make_an_endless_row() -> None:
    row = row_of(finding(events=2), *(evidence(place=place) for place in range(EVENTS_FIRST + EVENTS_MAX + 200)))
    assert len(row.events) == EVENTS_FIRST + EVENTS_MAX
    assert {evidence(place=0).event.event_id, evidence(place=519).event.event_id} <= row.events.keys()


def test_made_up_analysts_do_not_make_an_endless_row() -> None:
    row = row_of(finding(), *(verdict(f"a{number}", 2) for number in range(ANALYSTS_MAX)))
    one_more = verdict("one more", 1)
    assert beyond(row, one_more)
    assert joined(row, one_more) is row
    known = verdict("a7", 5, 9)
    assert not beyond(row, known)
    assert label_of(row_of(finding(), *row.verdicts.values(), known), "a7").verdict_id == 5
    assert not beyond(row, evidence())


def test_a_verdict_dated_ahead_is_replaced_by_a_later_one() -> None:
    ahead, later = verdict("ada", 1, 10**15), verdict("ada", 2, 2_000)
    seen = [verdict_seen(ahead.verdict, "unverified", 1_000), verdict_seen(later.verdict, "unverified", 2_000)]
    assert label_of(row_of(finding(), *seen), "ada").verdict_id == 2
    assert labels(row_of(finding(), *seen), segments=True) == labels(row_of(finding(), *seen[::-1]), segments=True)


def test_a_row_is_forgotten_only_when_nothing_was_heard_of_it() -> None:
    row = row_of(finding(at_ms=10**15))
    assert joined(row, Forget(uid=_uid(row), before_ms=10**15)) is row
    assert joined(row, Forget(uid=_uid(row), before_ms=10**15 + 1)) is None


def test_the_rarest_signal_is_that_of_the_smallest_p_value() -> None:
    assert rarest_signal(finding(signal="drift")) == "drift"
    assert rarest_signal(msgspec.structs.replace(finding(), p={})) is None
    assert rarest_signal(msgspec.structs.replace(finding(), p={"b": 0.1, "a": 0.1})) == "a"
