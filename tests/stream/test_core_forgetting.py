"""Who is not heard of for long is forgotten, by the partition's time alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import orjson
import pytest

from stream.config import DecisionSettings, LearningSettings
from stream.core import Core
from stream.inputs import InputBatch
from stream.record import Record
from tests.doubles import WordEmbedder
from tests.stream.controls import applied, verdict
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, START_MS, Said, cut, event, record, run, text, tick

DAY_MS = 86_400_000
MIDNIGHT_MS = START_MS // DAY_MS * DAY_MS
FORGETFUL = replace(
    SETTINGS,
    decision=DecisionSettings(session_fpr=0.3),
    learning=LearningSettings(
        grace_sessions=1, quarantine_days=1.5, forget_tenants_days=3.0, forget_keys_days=2.0,
    ),
)  # fmt: skip


def core() -> Core:
    return Core(FORGETFUL, release(), WordEmbedder())


def call(number: int, time_ms: int, tenant: str = "team-1", partition: int = 0, **more: Any) -> Record:
    value = event(number, time_ms, [text("user", f"words {number % 5} of {number % 3}")], tenant=tenant, **more)
    return record(number, value, partition=partition)


def days() -> list[Record]:
    """Weeks of two partitions: tenants and keys that come, go and return, sessions across midnight."""
    random, clock, out = Random(3), [MIDNIGHT_MS] * 2, []
    for number in range(160):
        partition = random.randrange(2)
        clock[partition] += random.choice([0, 20_000, 50_000, DAY_MS // 8, DAY_MS // 3, DAY_MS]) + random.randrange(3)
        tenant = random.choice(["busy", "busy", f"team-{random.randrange(7)}"])
        key, session = f"key-{random.randrange(5)}", f"s{random.randrange(2)}"
        late = DAY_MS if random.random() < 0.05 else 0
        out.append(
            call(number, clock[partition] - late, tenant, partition, key_hash=key, session=session, user_agent=key)
        )
    return out


DAYS = days()


@pytest.fixture(scope="module")
def whole() -> Said:
    return run(core(), cut(DAYS, 2_000))


LASTING = ("tenant", "volume", "drift", "learned", "session", "finding")
"""Kinds of rows that do not depend on how a stream was cut."""


def live_rows(said: Said, partition: int = 0) -> set[tuple[str, ...]]:
    rows = dict(said.rows[partition])
    return {tuple(orjson.loads(key)) for key, value in rows.items() if value is not None}


def restarted(batches: Sequence[InputBatch], random: Random) -> Said:
    said, live = Said(), core()
    for batch in batches:
        if random.random() < 0.4:
            live = core()
            for partition, rows in said.rows.items():
                live.restore(partition, rows)
        run(live, [batch], said)
    return said


def test_the_stream_has_tenants_that_start_anew(whole: Said) -> None:
    ordinals = [(score["partition"], score["tenant"], score["ordinal"]) for score in whole.scored()]
    assert sum(ordinal == 1 for *_, ordinal in ordinals) > len({(p, tenant) for p, tenant, _ in ordinals}) + 3
    assert max(ordinal for _, tenant, ordinal in ordinals if tenant == "busy") > 20


@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_give_the_same_bytes_and_rows(whole: Said, size: int) -> None:
    said = run(core(), cut(DAYS, size))
    assert said.results() == whole.results()
    for partition in range(2):
        lasting = [{row for row in live_rows(each, partition) if row[0] in LASTING} for each in (said, whole)]
        assert lasting[0] == lasting[1]


@pytest.mark.parametrize("seed", range(3))
def test_restored_at_random_cuts_gives_the_same_bytes(whole: Said, seed: int) -> None:
    random = Random(seed)
    sizes = [random.choice([1, 3, 20]) for _ in DAYS]
    assert restarted(list(cut(DAYS, sizes)), random).results() == whole.results()


@pytest.mark.parametrize(("past_ms", "ordinal"), [(-1, 3), (0, 1)])
def test_tenant_is_forgotten_by_the_first_midnight_after_its_time(past_ms: int, ordinal: int) -> None:
    first = MIDNIGHT_MS + 5_000
    back = MIDNIGHT_MS + 4 * DAY_MS + past_ms
    said = run(core(), cut([call(0, first), call(1, first + 1), call(2, back)], 10))
    assert said.scored()[-1]["ordinal"] == ordinal


def test_no_row_is_left_of_a_forgotten_tenant_but_what_has_its_own_end() -> None:
    live = core()
    records = [call(i, MIDNIGHT_MS + i * 1_000, session=f"s{i}") for i in range(12)]
    said = run(live, [applied(verdict("keep_out", tenant="team-1", risk_ms=30 * DAY_MS)), *cut(records, 3)])
    run(live, cut([call(20, MIDNIGHT_MS + 10_000, "team-2")], 1), said)
    assert {row[0] for row in live_rows(said) if "team-1" in row} >= {"tenant", "learned", "volume", "session"}
    run(live, [tick(0, MIDNIGHT_MS + 20 * DAY_MS)], said)
    assert {row[0] for row in live_rows(said)} == {"cursor", "dedup", "verdict"}
    assert live.state_bytes() == 0
    fresh = core()
    fresh.restore(0, said.rows[0])
    assert fresh.cursor(0) == live.cursor(0)


def test_tenant_that_calls_every_day_stays_whole() -> None:
    records = [call(i, MIDNIGHT_MS + i * DAY_MS, session=f"s{i}") for i in range(30)]
    assert run(core(), cut(records, 30)).scored()[-1]["ordinal"] == 30


def test_tenant_that_comes_back_in_the_step_that_forgets_it_keeps_nothing() -> None:
    live, said = core(), Said()
    run(live, cut([call(i, MIDNIGHT_MS + i, session=f"s{i}") for i in range(20)], 20), said)
    run(live, cut([call(50, MIDNIGHT_MS + 9 * DAY_MS, session="s1")], 1), said)
    names, columns = live.export_tenants()
    assert (names, columns["ordinal"].tolist(), columns["sessions"].tolist()) == (["team-1"], [1], [1])
    assert {row[:2] for row in live_rows(said) if row[0] == "session"} == {("session", "team-1")}
    fresh = core()
    fresh.restore(0, said.rows[0])
    more = [call(60 + i, MIDNIGHT_MS + 9 * DAY_MS + 5 + i) for i in range(9)]
    assert run(fresh, cut(more, 4)).results() == run(live, cut(more, 4)).results()


def keys_of(live: Core) -> list[int]:
    row = live.export_tenants()[1]["volume_key"][0]
    return [int(key) for key in row if key]


def test_key_is_forgotten_unless_it_is_the_one_heard_last_and_the_others_keep_their_order() -> None:
    live = core()
    hours = [0, 1, 30, 31]
    records = [call(i, MIDNIGHT_MS + at * DAY_MS // 24, key_hash=f"k{i}") for i, at in enumerate(hours)]
    run(live, cut(records, 4))
    before = keys_of(live)
    # The calls of the first day are two days old at the third midnight.
    run(live, [tick(0, MIDNIGHT_MS + 3 * DAY_MS)])
    assert len(before) == 4 and keys_of(live) == before[2:]
    run(live, [tick(0, MIDNIGHT_MS + 4 * DAY_MS)])
    assert keys_of(live) == before[3:]


def test_what_one_partition_forgets_another_keeps() -> None:
    live = core()
    run(live, cut([call(0, MIDNIGHT_MS), call(0, MIDNIGHT_MS, partition=1)], 2))
    run(live, [tick(1, MIDNIGHT_MS + 9 * DAY_MS)])
    after = [call(5, MIDNIGHT_MS + 10_000), call(5, MIDNIGHT_MS + 9 * DAY_MS + 1, partition=1)]
    assert [score["ordinal"] for score in run(live, cut(after, 2)).scored()] == [2, 1]


def test_more_sessions_and_tenants_than_a_table_begins_with_come_back() -> None:
    live = core()
    records = [call(i, MIDNIGHT_MS + i, f"team-{i}", session=f"s{i}") for i in range(300)]
    said = run(live, cut(records, 300))
    back = core()
    back.restore(0, said.rows[0])
    after = [call(400 + i, MIDNIGHT_MS + 500 + i, f"team-{i}", session=f"s{i}") for i in range(0, 300, 7)]
    assert run(back, cut(after, 9)).results() == run(live, cut(after, 9)).results()
