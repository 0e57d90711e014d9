"""What is found is held back from the memory for its time, and learned then."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from models.novelty import Novelty
from stream.config import DecisionSettings, LearningSettings, Settings
from stream.core import Core
from stream.errors import StateError
from stream.inputs import InputBatch
from stream.record import Record, StateChange
from stream.state.pending import CLOSINGS_MAX, SEGMENTS_MAX
from stream.state.quarantine import QUARANTINE_MAX
from stream.state.rows import sealed
from stream.state.schema import KINDS, tenant_table
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, START_MS, TOPIC, Said, cut, event, record, run, stream, text

MINUTE_MS = 60_000
HELD_MS = 60 * MINUTE_MS


def held_for(ms: int, settings: Settings = SETTINGS, grace_sessions: int = 0) -> Settings:
    return replace(settings, learning=LearningSettings(grace_sessions=grace_sessions, quarantine_days=ms / 86_400_000))


EVERYTHING_FOUND = replace(SETTINGS, decision=DecisionSettings(session_fpr=1.0))
"""Whatever is learned has been held back."""
USUAL = "please book the flight to rome for two people and send a summary"
TOPIC_OF_THEIRS = "quarterly pension liabilities of our norwegian subsidiary restated under another accounting standard"


def core(settings: Settings) -> Core:
    return Core(settings, release(), WordEmbedder())


def restored(settings: Settings, said: Said) -> Core:
    fresh = core(settings)
    for partition, rows in said.rows.items():
        fresh.restore(partition, rows)
    return fresh


def told(number: int, at_ms: int, said: str) -> Record:
    """A session of a tenant that the release does not know, of one event."""
    return record(number, event(number, START_MS + at_ms, [text("user", said)], tenant="new", session=f"s{number}"))


def rows_left(said: Said, kind: str = "quarantine") -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows of a kind that are no tombstones."""
    latest = {tuple(orjson.loads(key)): value for rows in said.rows.values() for key, value in rows}
    return {key: orjson.loads(value) for key, value in latest.items() if key[0] == kind and value is not None}


# -- from found to known -----------------------------------------------------------------------------------------------


class Days:
    """A tenant that says the usual every minute, and now and then something else."""

    def __init__(self, restart: bool) -> None:
        self._settings = held_for(HELD_MS, replace(SETTINGS, decision=DecisionSettings(session_fpr=0.2)), 8)
        self._restart = restart
        self._core = core(self._settings)
        self.said = Said()
        self._number = 0

    def usual(self, minutes: int) -> None:
        for _ in range(minutes):
            self.tell(USUAL)

    def tell(self, words: str) -> dict[str, Any]:
        if self._restart:
            self._core = restored(self._settings, self.said)
        told_now = told(self._number, self._number * MINUTE_MS, words)
        self._number += 1
        run(self._core, [InputBatch([told_now], topic=TOPIC)], self.said)
        return self.said.scored()[-1]


@pytest.mark.parametrize("restart", [False, True])
def test_topic_is_found_until_its_time_has_come_and_a_learn_point_passed_and_not_from_then_on(restart: bool) -> None:
    days = Days(restart)
    days.usual(64)
    first = days.tell(TOPIC_OF_THEIRS)
    assert (first["decision"], first["learned"]) == ("finding", "quarantined")
    days.usual(31)
    assert days.tell(TOPIC_OF_THEIRS)["decision"] == "finding"
    days.usual(26)
    # 59 minutes after the first, and then 61: a learn point lies before, the next one still ahead.
    assert days.tell(TOPIC_OF_THEIRS)["decision"] == "finding"
    days.usual(1)
    assert days.tell(TOPIC_OF_THEIRS)["decision"] == "finding"
    days.usual(2)
    known = days.tell(TOPIC_OF_THEIRS)
    assert (known["ordinal"], known["decision"], known["learned"]) == (129, "none", "yes")
    assert known["signals"]["novelty"] < 0.01 < first["signals"]["novelty"]


def test_topic_that_keeps_being_found_is_learned_all_the_same() -> None:
    """More often than the quarantine holds segments: what comes later does not push out what was first."""
    days = Days(restart=False)
    days.usual(64)
    decisions = []
    for _ in range(6 * QUARANTINE_MAX):
        decisions.append(days.tell(TOPIC_OF_THEIRS)["decision"])
        days.usual(1)
    assert decisions[: 2 * QUARANTINE_MAX] == ["finding"] * 2 * QUARANTINE_MAX
    assert decisions[4 * QUARANTINE_MAX :] == ["none"] * 2 * QUARANTINE_MAX


def test_without_quarantine_what_is_found_is_learned_like_anything_else() -> None:
    live = core(held_for(0, EVERYTHING_FOUND))
    said = run(live, cut([told(i, i, TOPIC_OF_THEIRS) for i in range(2)], 1))
    assert [score["decision"] for score in said.scored()] == ["finding", "finding"]
    assert [score["learned"] for score in said.scored()] == ["yes", "yes"]
    assert said.scored()[1]["signals"]["novelty"] < 0.01
    assert not rows_left(said)


def test_what_was_held_back_strengthens_what_the_memory_has_meanwhile_learned() -> None:
    """Told before learn points 1 and 2 and due before 4 and 8: the first takes a slot, the second finds it."""
    live = core(held_for(60_000, EVERYTHING_FOUND))
    times_ms = [0, 30_000, 60_000, 70_000, 91_000, 92_000, 93_000, 94_000]
    words = [TOPIC_OF_THEIRS] * 2 + [f"{number} other words {number} of no kin" for number in range(6)]
    records = [told(i, at_ms, said) for i, (at_ms, said) in enumerate(zip(times_ms, words, strict=True))]
    run(live, cut(records[:4], 2))
    _, after_4 = live.export_tenants()
    run(live, cut(records[4:], 3))
    _, after_8 = live.export_tenants()
    assert (after_4["used"].tolist(), after_8["used"].tolist()) == ([1], [1])
    assert after_4["weights"][0, 0] == 1 < after_8["weights"][0, 0]


def test_segments_of_a_finding_that_are_known_or_empty_take_no_room() -> None:
    live = core(held_for(0, EVERYTHING_FOUND))
    said = run(live, cut([told(0, 0, USUAL)], 1))
    again = restored(held_for(HELD_MS, EVERYTHING_FOUND), said)
    run(again, cut([told(1, 1, USUAL)], 1), said)
    assert [score["learned"] for score in said.scored()] == ["yes", "quarantined"]
    assert not rows_left(said)


# -- rows --------------------------------------------------------------------------------------------------------------


def test_row_goes_when_all_of_its_segments_were_learned() -> None:
    live = core(held_for(60_000, EVERYTHING_FOUND))
    said = run(
        live, [InputBatch([told(i, 30_000 * i, f"{i} words {i} of {i} its own") for i in range(3)], topic=TOPIC)]
    )
    assert len(rows_left(said)) == 1
    # Learn point 4 comes when two of three are due, learn point 8 when all are.
    run(live, cut([told(3, 95_000, USUAL)], 1), said)
    assert len(rows_left(said)) == 2
    run(live, cut([told(i, 125_000 + i, USUAL) for i in range(4, 8)], 4), said)
    # What was said last is held back still.
    assert [key[2] for key in rows_left(said)] == [f"{number:020d}" for number in (1, 2)]


def test_what_was_learned_does_not_come_back_with_the_row_that_held_it() -> None:
    settings = held_for(60_000, EVERYTHING_FOUND)
    records = [told(i, 30_000 * i, f"{i} words {i} of {i} its own") for i in range(3)]
    later = [told(i, 95_000 + i, USUAL) for i in range(3, 8)] + [told(i, 190_000 + i, USUAL) for i in range(8, 16)]
    live = core(settings)
    said = run(live, [InputBatch(records, topic=TOPIC), *cut(later[:1], 1)])
    again = restored(settings, said)
    for batch in cut(later[1:], 12):
        live.step(batch)
        again.step(batch)
    ours, theirs = live.export_tenants()[1], again.export_tenants()[1]
    for column, values in ours.items():
        assert np.array_equal(values, theirs[column]), column


def test_row_with_fewer_vectors_than_segments_is_refused() -> None:
    settings = held_for(HELD_MS, EVERYTHING_FOUND)
    said = run(core(settings), cut([told(0, 0, USUAL)], 1))
    damage = {}
    for key, value in rows_left(said).items():
        del value["crc"]
        row = StateChange(0, orjson.dumps(key), orjson.dumps({**value, "vectors": ""}))
        damage[(*key,)] = sealed(row).value
    rows = [(key, damage.get(tuple(orjson.loads(key)), value)) for key, value in said.rows[0]]
    with pytest.raises(StateError, match="must have a vector for each segment; got 0 vectors of 1"):
        core(settings).restore(0, rows)


def test_warm_rows_tell_no_time() -> None:
    live = core(SETTINGS)
    run(live, cut([told(0, 0, USUAL)], 1))
    assert live.export_tenants()[1]["learned_core_ms"].tolist() == [0]


def test_tenant_s_arrays_stay_within_their_bound() -> None:
    """A full memory, pending and quarantine: 256 bytes a vector, and what stands beside each."""
    table = tenant_table(Novelty()).bytes_per_row()
    pending = SEGMENTS_MAX * (256 + 1 + 2 + 8 + 4) + CLOSINGS_MAX * 4 * len(KINDS)
    quarantine = QUARANTINE_MAX * (256 + 1 + 8 + 4 + 8)
    assert 28 * 1024 < table + pending + quarantine <= 32 * 1024


def test_flood_of_findings_leaves_a_bounded_quarantine() -> None:
    settings = held_for(10**9, EVERYTHING_FOUND)
    said = Said()
    live = core(settings)
    for number in range(200):
        words = " ".join(f"{number}-{word}" for word in range(60))
        run(live, cut([told(number, number, words)], 1), said)
    heads = [len(value["segments"]) for value in rows_left(said).values()]
    assert sum(size * 3 // 4 // 17 for size in heads) == QUARANTINE_MAX


# -- however it is cut -------------------------------------------------------------------------------------------------

EAGER = held_for(50_000, EVERYTHING_FOUND)
RECORDS = stream(seed=21, n=700)


@pytest.fixture(scope="module")
def whole() -> Said:
    return run(core(EAGER), cut(RECORDS, len(RECORDS)))


def test_the_stream_learns_what_it_held_back() -> None:
    said = run(core(EAGER), cut(RECORDS, 10))
    keys = [orjson.loads(key)[0] for rows in said.rows.values() for key, value in rows if value is None]
    assert keys.count("quarantine") > 20
    assert core(EAGER).state_bytes() == 0
    never = run(core(held_for(10**9, EVERYTHING_FOUND)), cut(RECORDS, 10))
    assert never.results() != said.results()


@pytest.mark.parametrize("size", [1, 7, 333, 2_000])
@pytest.mark.parametrize("restart", [False, True])
def test_batches_of_any_size_give_the_same_bytes(whole: Said, size: int, restart: bool) -> None:
    said, live = Said(), core(EAGER)
    for batch in cut(RECORDS, size if not restart else max(size, 3)):
        if restart:
            live = restored(EAGER, said)
        run(live, [batch], said)
    assert said.results() == whole.results()


@pytest.mark.parametrize("seed", range(3))
def test_restored_at_random_cuts_gives_the_same_bytes(whole: Said, seed: int) -> None:
    random = Random(seed)
    said, live = Said(), core(EAGER)
    for batch in cut(RECORDS, (random.choice([1, 3, 17, 120]) for _ in RECORDS)):
        if random.random() < 0.5:
            live = restored(EAGER, said)
        run(live, [batch], said)
    assert said.results() == whole.results()


def test_quarantine_of_other_length_after_a_restart_leaves_out_what_was_learned() -> None:
    """The time that each segment is due was set when it was flagged."""
    long, short = held_for(10**7, EVERYTHING_FOUND), held_for(30_000, EVERYTHING_FOUND)
    said = run(core(long), cut(RECORDS[:200], 20))
    straight = restored(short, said)
    cut_again = Said(rows={partition: list(rows) for partition, rows in said.rows.items()})
    one = run(straight, cut(RECORDS[200:], 20), Said())
    many = Said()
    for batch in cut(RECORDS[200:], 20):
        again = restored(short, cut_again)
        outcome = again.step(batch)
        many.take(outcome)
        for change in outcome.changes:
            cut_again.rows.setdefault(change.partition, []).append((change.key, change.value))
    assert many.results() == one.results()
