"""Calls of many sessions, in the order of time."""

from collections.abc import Iterator

import msgspec
import pytest

from schemas.corpus import CorpusSession, Turn, calls
from schemas.corpus_timeline import (
    UNDATED_INTERVAL_MS,
    UNDATED_START_MS,
    call_times,
    completion_tokens,
    duration_ms,
    first_token_ms,
    prompt_tokens,
    timeline,
)

TALK = (Turn("user", "a" * 40), Turn("assistant", "b" * 20), Turn("user", "c"), Turn("assistant", "d"))


def dated(name: str, *times: int) -> CorpusSession:
    return CorpusSession(session=name, turns=TALK, start_ms=times[0], calls_ms=times)


def test_calls_of_overlapping_sessions_are_merged_by_time() -> None:
    merged = [(t.time_ms, t.session.session, t.call.index) for t in timeline([dated("a", 0, 50), dated("b", 10, 20)])]
    assert merged == [(0, "a", 0), (10, "b", 0), (20, "b", 1), (50, "a", 1)]


def test_calls_that_start_together_come_in_the_order_of_their_sessions() -> None:
    merged = [t.session.session for t in timeline([dated("b", 0, 9), dated("a", 0, 9)])]
    assert merged == ["b", "a", "b", "a"]


def test_sessions_that_go_back_in_time_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"session 'b' \(number 1\) starts at 5 ms.*Sort the file by start_ms"):
        list(timeline([dated("a", 10, 11), dated("b", 5, 6)]))


def test_timeline_reads_no_further_than_it_must() -> None:
    read: list[int] = []

    def counted() -> Iterator[CorpusSession]:
        for i, name in enumerate("abc"):
            read.append(i)
            yield dated(name, 10 * i, 10 * i + 1)

    first = timeline(counted())
    next(first)
    assert read == [0, 1]


def test_undated_sessions_follow_each_other_and_their_calls_never_overlap() -> None:
    sessions = [CorpusSession(session=name, turns=TALK) for name in "ab"]
    for order, session in enumerate(sessions):
        times = call_times(session, UNDATED_START_MS + order * UNDATED_INTERVAL_MS)
        first = calls(session)[0]
        assert times[0] == UNDATED_START_MS + order * UNDATED_INTERVAL_MS
        assert times[1] >= times[0] + duration_ms(session, first)
    assert [t.time_ms for t in timeline(sessions)] == sorted(t.time_ms for t in timeline(sessions))


def test_times_that_do_not_fit_the_calls_are_laid_anew_from_the_start() -> None:
    session = msgspec.structs.replace(dated("a", 7, 3), start_ms=7)
    times = call_times(session, 0)
    assert times[0] == 7
    assert times[1] > 7


def test_tokens_are_four_characters_each_and_an_unanswered_call_has_no_response() -> None:
    session = CorpusSession(session="s", turns=(Turn("user", "a" * 40),))
    (call,) = calls(session)
    assert prompt_tokens(session, call) == 14
    assert completion_tokens(session, call) == 0
    assert duration_ms(session, call) == first_token_ms(session, call) > 0
