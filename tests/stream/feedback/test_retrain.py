"""When a model should be made anew, and that it is asked for once."""

from __future__ import annotations

from typing import Any

from stream.config import FeedbackSettings
from stream.feedback.inputs import VerdictSeen
from stream.feedback.retrain import requests, unasked, with_asked
from stream.feedback.tally import (
    ReleaseSeen,
    Tally,
    counted_key,
    counts,
    decode_counted,
    encode_counted,
    later_release,
    tally_of,
)
from tests.stream.feedback.inputs import finding, verdict
from tests.stream.feedback.test_join import row_of

SETTINGS = FeedbackSettings(labels_min=3, precision_floor=0.3, precision_labels_min=4, release_age_days=2.0)
IN_SERVICE = ReleaseSeen(release="r-1", at_ms=100)
DAY_MS = 86_400_000


def tally(number: int, *verdicts: VerdictSeen, release: str = "r-1", signal: str = "novelty", **about: Any) -> Tally:
    found = tally_of(row_of(finding(number, release=release, signal=signal, **about), *verdicts))
    assert found is not None
    return found


def judged(number: int, verdict_id: int, at_ms: int = 200, release: str = "r-1") -> Tally:
    return tally(number, verdict("ada", verdict_id, number=number, at_ms=at_ms), release=release)


def causes(tallies: list[Tally], now_ms: int = 300) -> list[list[str]]:
    return [[each.cause for each in request.reasons] for request in requests(tallies, IN_SERVICE, now_ms, SETTINGS)]


def test_enough_labels_since_the_release_ask_for_a_retraining() -> None:
    assert causes([judged(n, 2) for n in range(2)]) == []
    assert causes([judged(n, 2) for n in range(3)]) == [["labels"]]
    assert causes([judged(n, 2, at_ms=100) for n in range(9)]) == []


def test_disputed_labels_and_those_that_teach_nothing_are_not_counted() -> None:
    disputed = [tally(n, verdict("ada", 2, at_ms=200), verdict("bob", 1, at_ms=200)) for n in range(9)]
    assert {each.judged for each in disputed} == {"disputed"}
    assert causes([*disputed, *(judged(n, 10) for n in range(20, 29))]) == []


def test_a_signal_below_its_floor_asks_by_findings_of_the_release_in_service_alone() -> None:
    poor = [judged(n, 1, at_ms=50) for n in range(4)]
    assert causes(poor) == [["precision"]]
    assert causes([judged(n, 1, at_ms=50, release="r-0") for n in range(4)]) == []
    assert causes([*poor, *(judged(n, 2, at_ms=50) for n in range(10, 12))]) == []
    (request,) = requests(poor, IN_SERVICE, 300, SETTINGS)
    assert (request.reasons[0].signal, request.reasons[0].value) == ("novelty", 0.0)
    assert request.reasons[0].detail == "novelty: 0 of 4 judged findings were attacks"


def test_age_asks_only_once_there_is_a_new_label() -> None:
    late_ms = 100 + 3 * DAY_MS
    assert causes([], late_ms) == []
    assert causes([judged(1, 2)], late_ms) == [["age"]]
    assert causes([judged(1, 2)]) == []


def test_a_confirmed_drift_asks_for_its_tenant() -> None:
    drifted = tally(1, verdict("ada", 5, at_ms=200), signal="drift", entity_type="tenant")
    (request,) = requests([drifted], IN_SERVICE, 300, SETTINGS)
    assert (request.subject, request.reasons[0].cause, request.labels) == ("t1", "drift", 1)
    assert causes([tally(1, verdict("ada", 2, at_ms=200), signal="drift", entity_type="tenant")]) == []
    assert causes([tally(1, verdict("ada", 5, at_ms=90), signal="drift", entity_type="tenant")]) == []
    assert causes([tally(1, verdict("ada", 5, at_ms=200, adopt=True))]) == [["drift"]]


def test_the_same_situation_is_asked_for_once_while_the_release_stays() -> None:
    tallies = [judged(n, 2) for n in range(3)]
    (first,) = requests(tallies, IN_SERVICE, 300, SETTINGS)
    asked = with_asked(None, first)
    (again,) = requests([*tallies, *(judged(n, 2) for n in (7, 8))], IN_SERVICE, 900, SETTINGS)
    assert again.labels == 5
    assert unasked([again], [asked]) == []
    later = ReleaseSeen(release="r-2", at_ms=150)
    (other,) = requests(tallies, later, 900, SETTINGS)
    assert unasked([other], [asked]) == [other]
    assert with_asked(asked, other).request_ids == [other.request_id]


def test_after_a_refused_release_as_many_labels_again_ask_again() -> None:
    asked = None
    for count, expected in ((3, 1), (5, 1), (6, 2), (8, 2), (9, 3), (7, 3)):
        wanted = requests([judged(n, 2) for n in range(count)], IN_SERVICE, 300, SETTINGS)
        for request in unasked(wanted, [asked] if asked is not None else []):
            asked = with_asked(asked, request)
        assert asked is not None
        assert len(set(asked.request_ids)) == expected


def test_a_poor_signal_asks_again_once_enough_labels_are_new() -> None:
    poor = [judged(n, 1, at_ms=50) for n in range(4)]
    (first,) = requests(poor, IN_SERVICE, 300, SETTINGS)
    (same,) = requests([*poor, judged(4, 1)], IN_SERVICE, 300, SETTINGS)
    (other,) = requests([*poor, *(judged(n, 1) for n in range(4, 8))], IN_SERVICE, 300, SETTINGS)
    assert first.request_id == same.request_id != other.request_id


def test_after_a_rollback_the_same_reasons_ask_again() -> None:
    poor = [judged(n, 1, at_ms=50) for n in range(4)]
    (first,) = requests(poor, IN_SERVICE, 300, SETTINGS)
    asked = with_asked(None, first)
    promoted = later_release(IN_SERVICE, ReleaseSeen(release="r-2", at_ms=400))
    assert requests(poor, promoted, 500, SETTINGS) == []
    back = later_release(promoted, ReleaseSeen(release="r-1", at_ms=600))
    (again,) = requests(poor, back, 700, SETTINGS)
    assert again.release == first.release
    assert unasked([again], [asked]) == [again]


def test_a_worker_that_starts_again_asks_with_the_same_id() -> None:
    tallies = [judged(n, 2) for n in range(4)]
    (first,) = requests(tallies, IN_SERVICE, 300, SETTINGS)
    kept = [decode_counted(encode_counted(each)) for each in (*tallies, *tallies)]
    found = {each.uid: each for each in kept if isinstance(each, Tally)}
    # It meets the release anew, by a later score, and perhaps by scores that it has read before.
    in_service = decode_counted(encode_counted(IN_SERVICE))
    assert isinstance(in_service, ReleaseSeen)
    for seen in (ReleaseSeen(release="r-1", at_ms=900), ReleaseSeen(release="r-0", at_ms=50)):
        in_service = later_release(in_service, seen)
    (again,) = requests(list(found.values()), in_service, 5_000, SETTINGS)
    assert again.request_id == first.request_id


def test_counts_are_by_finding_and_the_last_record_of_one_counts() -> None:
    rows = {each.uid: each for each in (judged(1, 2), judged(4, 1), judged(1, 1))}
    found = counts(rows.values())
    assert (found["t1", "novelty"].attack, found["t1", "novelty"].benign) == (0, 2)
    assert found["t1", "novelty"].precision == 0.0


def test_what_is_counted_comes_out_as_it_went_in() -> None:
    for value in (
        judged(1, 2),
        IN_SERVICE,
        with_asked(None, requests([judged(n, 2) for n in range(3)], None, 1, SETTINGS)[0]),
    ):
        assert decode_counted(encode_counted(value)) == value
        assert counted_key(decode_counted(encode_counted(value))) == counted_key(value)
