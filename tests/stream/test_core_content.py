"""What of a request is new, and when a tenant learns it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from stream.config import DecisionSettings, FindingsSettings, LearningSettings
from stream.core import Core
from stream.inputs import InputBatch, Outcome
from stream.record import Record
from stream.steps.scored import Scored
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import (
    QUIET_MS,
    SETTINGS,
    START_MS,
    TOPIC,
    Message,
    Said,
    event,
    message,
    record,
    run,
    text,
)

EVERYTHING_FOUND = replace(
    SETTINGS,
    decision=DecisionSettings(session_fpr=1.0),
    learning=LearningSettings(grace_sessions=0),
    findings=FindingsSettings(quiet_ms=1_000),
)
"""Each event is an anomaly, and a second later each finding is closed, so that the next one speaks of one event."""
ALMOST_EVERYTHING_FOUND = replace(EVERYTHING_FOUND, decision=DecisionSettings(session_fpr=0.999999))
"""As far as there is anything to say of an event at all."""
NOTHING_FOUND = replace(SETTINGS, decision=DecisionSettings(session_fpr=1e-9))

SYSTEM, ASK, ANSWER = text("system", "be of help"), text("user", "what flies to rome"), text("assistant", "two planes")
MORE, OTHER, LAST = text("user", "and to oslo"), text("user", "rather by train"), text("assistant", "none at all")


class Talk:
    """One session's events, each in a batch of its own, on one core or on one restored for each."""

    def __init__(self, restart: bool) -> None:
        self._restart = restart
        self._heard: list[str] = []
        self._core = self._fresh()
        self._said = Said()
        self._offset = 0
        self.shown: list[str] = []
        """By the last finding."""

    def _fresh(self) -> Core:
        return Core(EVERYTHING_FOUND, release(), WordEmbedder(), watch=self._watch)

    def _watch(self, scored: Scored, _: Outcome) -> None:
        unseen = np.flatnonzero(scored.new.unseen).tolist()
        self._heard = sorted(text for at in unseen for text in scored.contents[at].texts)

    def new(self, messages: list[Message], output: list[Message]) -> list[str]:
        """What the core took for new in the next event, text by text."""
        if self._restart:
            self._core = self._fresh()
            self._core.restore(0, self._said.rows.get(0, []))
        value = event(self._offset, START_MS + 2_000 * self._offset, messages, output)
        outcome = self._core.step(InputBatch([record(self._offset, value)], topic=TOPIC))
        self._said.take(outcome)
        self._offset += 1
        told = orjson.loads(outcome.findings[-1].value)
        self.shown = [each["data"]["excerpt"] for each in told.get("evidences", [])]
        return self._heard


@pytest.fixture(params=[False, True], ids=["live", "restored"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(request.param)


def test_first_request_is_all_new(talk: Talk) -> None:
    assert talk.new([SYSTEM, ASK], [ANSWER]) == ["be of help", "two planes", "what flies to rome"]


def test_history_sent_again_is_not_new(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    assert talk.new([SYSTEM, ASK, ANSWER, MORE], [LAST]) == ["and to oslo", "none at all"]


def test_answer_that_the_client_left_out_of_its_history_is_not_new_when_it_returns(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    assert talk.new([SYSTEM, ASK, MORE], []) == ["and to oslo"]
    assert talk.new([SYSTEM, ASK, ANSWER, MORE], []) == []


def test_history_cut_at_its_start_brings_only_what_was_never_seen(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    assert talk.new([ANSWER, MORE], [LAST]) == ["and to oslo", "none at all"]


def test_history_edited_in_its_middle_brings_only_the_edit(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    assert talk.new([SYSTEM, OTHER, ANSWER, MORE], []) == ["and to oslo", "rather by train"]


def test_history_that_branches_brings_only_the_branch(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    talk.new([SYSTEM, ASK, ANSWER, MORE], [LAST])
    assert talk.new([SYSTEM, ASK, ANSWER, OTHER], []) == ["rather by train"]
    assert talk.new([SYSTEM, ASK, ANSWER, MORE, LAST, OTHER], []) == []


def test_same_request_again_brings_nothing_new(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    assert talk.new([SYSTEM, ASK], [ANSWER]) == []


def test_a_finding_shows_what_is_new_and_without_any_what_its_event_ends_with(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    assert sorted(talk.shown) == ["be of help", "two planes", "what flies to rome"]
    talk.new([SYSTEM, ASK, ANSWER, MORE], [])
    assert talk.shown == ["and to oslo"]
    talk.new([SYSTEM, ASK, ANSWER, MORE], [])
    assert talk.shown == ["and to oslo"]
    talk.new([SYSTEM, ASK], [ANSWER])
    assert talk.shown == ["two planes"]
    talk.new([], [])
    assert talk.shown == []


def test_event_without_content_is_scored_on_its_metadata_and_forgets_nothing(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    assert talk.new([], []) == []
    assert talk.new([SYSTEM, ASK, ANSWER, MORE], []) == ["and to oslo"]


def test_event_without_content_has_no_novelty() -> None:
    outcome = step(Core(SETTINGS, release(), WordEmbedder()), record(0, event(1, START_MS)))
    score = orjson.loads(outcome.scores[0].value)
    assert (set(score["signals"]), score["decision"]) == ({"sequence", "volume"}, "none")


def test_other_session_has_heard_nothing(talk: Talk) -> None:
    talk.new([SYSTEM, ASK], [ANSWER])
    live = Core(EVERYTHING_FOUND, release(), WordEmbedder())
    records = [record(i, event(i, START_MS + i, [SYSTEM, ASK], session=f"s{i}")) for i in range(2)]
    told = [orjson.loads(finding.value) for finding in step(live, *records).findings]
    assert [len(value["evidences"]) for value in told] == [2, 2]


def test_reasoning_is_no_content_whichever_of_two_equal_messages_comes_first() -> None:
    """Its message's digest does not cover it, so a cache that kept it would answer by what it happened to see."""

    def answer(thought: str) -> Message:
        parts = [{"type": "reasoning", "text": thought}, {"type": "text", "text": "yes"}]
        return message("assistant", parts)

    first = record(0, event(1, START_MS, [ASK], [answer("short")], session="a"))
    second = record(1, event(2, START_MS, [ASK], [answer("long and winding thoughts " * 9)], session="b"))
    straight = run(Core(EVERYTHING_FOUND, release(), WordEmbedder()), [InputBatch([first, second], topic=TOPIC)])
    said = Said()
    for one in (first, second):
        fresh = Core(EVERYTHING_FOUND, release(), WordEmbedder())
        fresh.restore(0, said.rows.get(0, []))
        run(fresh, [InputBatch([one], topic=TOPIC)], said)
    assert said.results() == straight.results()
    assert not any("winding" in orjson.dumps(value).decode() for value in straight.found())


# -- learning --------------------------------------------------------------------------------------------------------


def step(of: Core, *records: Record) -> Outcome:
    return of.step(InputBatch(records, topic=TOPIC))


def novelties(said_texts: list[str], size: int) -> list[float]:
    """Novelty of each text, said by a session of its own to a tenant that the release does not know."""
    live = Core(NOTHING_FOUND, release(), WordEmbedder())
    records = [
        record(i, event(i, START_MS + i, [text("user", said)], tenant="new", session=f"s{i}"))
        for i, said in enumerate(said_texts)
    ]
    said = run(live, [InputBatch(records[at : at + size], topic=TOPIC) for at in range(0, len(records), size)])
    return [score["signals"]["novelty"] for score in said.scored()]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_tenant_learns_at_its_events_1_2_4_8_16_and_32(size: int) -> None:
    """A text first said by event n is strange until the next learn point has passed."""
    said = "the same forty or more characters, again and again"
    for first, learned in ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64)):
        texts = [f"{number} something else altogether, of about the same size" for number in range(70)]
        texts[first - 1 :] = [said] * (71 - first)
        values = novelties(texts, size)
        assert set(values[first - 1 : learned]) == {values[first - 1]}, f"said first by event {first}"
        assert values[first - 1] > 0.1
        assert values[learned] < 0.01


def test_learned_rows_are_written_at_learn_points_only_and_pending_rows_go_with_them() -> None:
    live = Core(NOTHING_FOUND, release(), WordEmbedder())
    rows: dict[tuple[str, ...], bytes | None] = {}
    learned_after, waiting_after = [], []
    for number in range(1, 70):
        said = [text("user", f"said by {number}")]
        value = event(number, START_MS + number, said, tenant="new", session=f"s{number}")
        changes = {tuple(orjson.loads(c.key)): c.value for c in step(live, record(number, value)).changes}
        rows |= changes
        if ("learned", "new") in changes:
            learned_after.append(number)
        if not any(key[0] == "pending" and row is not None for key, row in rows.items()):
            waiting_after.append(number)
    assert learned_after == waiting_after == [1, 2, 4, 8, 16, 32, 64]


def test_duplicates_do_not_count_towards_learn_points() -> None:
    live = Core(NOTHING_FOUND, release(), WordEmbedder())
    values = [event(i, START_MS + i, [text("user", f"said by {i}")], tenant="new") for i in (1, 2, 3)]
    step(live, *[record(i, value) for i, value in enumerate(values)])
    again = step(live, *[record(9 + i, value) for i, value in enumerate(values)])
    assert not [change for change in again.changes if change.key.startswith(b'["learned"')]
    assert [orjson.loads(score.value)["ordinal"] for score in again.scores] == [3, 3, 3]


def test_what_is_found_is_held_back_from_the_memory_and_what_warms_up_is_not() -> None:
    for grace, told in ((0, "quarantined"), (99, "yes")):
        settings = replace(ALMOST_EVERYTHING_FOUND, learning=LearningSettings(grace_sessions=grace))
        live = Core(settings, release(), WordEmbedder())
        said = "a text of more than forty characters that is told twice"
        records = [
            record(i, event(i, START_MS + i, [text("user", said)], tenant="new", session=f"s{i}")) for i in range(2)
        ]
        scores = [orjson.loads(score.value) for score in step(live, *records).scores]
        assert [score["learned"] for score in scores] == [told, told]
        assert (scores[1]["signals"]["novelty"] < 0.01) is (told == "yes")


def test_first_sessions_of_a_tenant_are_warm_up() -> None:
    settings = replace(ALMOST_EVERYTHING_FOUND, learning=LearningSettings(grace_sessions=3))
    live = Core(settings, release(), WordEmbedder())

    def said(number: int, session: int) -> Record:
        # Nothing that was said before: strange to any past.
        words = " ".join(f"{number}-{i}" for i in range(30))
        value = event(number, START_MS + number, [text("user", words)], tenant="new", session=f"s{session}")
        return record(number, value)

    outcome = step(live, *[said(number, session) for number, session in enumerate([1, 2, 3, 4, 3, 1, 5])])
    decisions = [orjson.loads(score.value)["decision"] for score in outcome.scores]
    assert decisions == ["warmup", "warmup", "warmup", "finding", "warmup", "warmup", "finding"]
    assert len(outcome.findings) == 2


def test_tenant_of_the_release_s_training_input_goes_on_from_its_warm_row() -> None:
    """40 events in 5 sessions before the stream began (`tests.stream.releases`)."""
    live = Core(SETTINGS, release(), WordEmbedder())
    records = [record(i, event(i, START_MS + i, [ASK], tenant=f"team-{i}")) for i in range(2)]
    scores: list[dict[str, Any]] = [orjson.loads(score.value) for score in step(live, *records).scores]
    assert [score["ordinal"] for score in scores] == [41, 1]


def test_state_on_the_topic_wins_over_the_warm_row() -> None:
    before = run(
        Core(SETTINGS, release(), WordEmbedder()),
        [InputBatch([record(0, event(0, START_MS, [ASK], tenant="team-0"))], topic=TOPIC)],
    )
    live = Core(SETTINGS, release(), WordEmbedder())
    live.restore(0, before.rows[0])
    later = event(1, START_MS + QUIET_MS, [ASK], tenant="team-0")
    assert orjson.loads(step(live, record(1, later)).scores[0].value)["ordinal"] == 42
