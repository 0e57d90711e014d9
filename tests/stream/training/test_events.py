"""Events are put in the order of time, once each, and what belongs together is held out together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest

from stream.errors import UsageError
from stream.record import Record
from stream.training.events import FOLDS, Gathered, TrainingEvents, arrange
from stream.training.gather import Tally, gather_files
from tests.stream.training.captures import SETTINGS, START_MS, corpus, session, write_lines

FUTURE_MS = SETTINGS.core.future_ms


@pytest.fixture
def gathered(tmp_path: Path) -> list[Gathered]:
    path = write_lines(tmp_path / "c.jsonl", corpus(sessions=120))
    return list(gather_files([path], "corpus", SETTINGS, Tally()))


def named(events: TrainingEvents) -> list[tuple[str, int]]:
    """Tenant and fold of each session."""
    tenants = [events.tenants[row] for row in events.session_tenant.tolist()]
    return list(zip(tenants, events.session_fold.tolist(), strict=True))


def test_events_are_in_the_order_of_time_and_numbered(gathered: list[Gathered]) -> None:
    shuffled = Random(1).sample(gathered, len(gathered))
    events = arrange(shuffled, FUTURE_MS)
    times = [record.timestamp_ms for record in events.records]
    assert times == sorted(times)
    assert (events.first_ms, events.last_ms) == (START_MS, times[-1])
    assert [record.offset for record in events.records] == list(range(240))
    assert [r.value for r in events.records] == [r.value for r in arrange(gathered, FUTURE_MS).records]
    assert events.sha256 == arrange(gathered, FUTURE_MS).sha256 != arrange(gathered[:-1], FUTURE_MS).sha256


def test_an_event_given_twice_counts_once(gathered: list[Gathered]) -> None:
    once, twice = arrange(gathered, FUTURE_MS), arrange([*gathered, *gathered], FUTURE_MS)
    assert once.records == twice.records
    assert once.sha256 == twice.sha256


def test_a_record_that_the_core_cannot_read_is_counted_and_left_out(gathered: list[Gathered]) -> None:
    broken = Gathered(Record("t", 0, 0, START_MS, None, b'{"event_id": "short"}'))
    nothing = Gathered(Record("t", 0, 0, START_MS, None, None))
    events = arrange([broken, *gathered, nothing], FUTURE_MS)
    assert (len(events.records), events.unreadable) == (240, 2)


def test_sessions_of_one_task_are_held_out_together(gathered: list[Gathered]) -> None:
    events = arrange(gathered, FUTURE_MS)
    by_tenant = np.array([events.session_fold[events.session_tenant == row] for row in range(3)])
    # Sessions 2i and 2i + 1 of each tenant are of one task.
    assert np.array_equal(by_tenant[:, ::2], by_tenant[:, 1::2])


def test_every_fold_holds_sessions_of_every_tenant(gathered: list[Gathered]) -> None:
    counted = {
        pair: named(arrange(gathered, FUTURE_MS)).count(pair) for pair in set(named(arrange(gathered, FUTURE_MS)))
    }
    assert len(counted) == 3 * FOLDS
    assert set(counted.values()) == {8}


def test_without_tasks_sessions_are_dealt(gathered: list[Gathered]) -> None:
    events = arrange([replace(item, task=None) for item in gathered], FUTURE_MS)
    assert np.bincount(events.session_fold).tolist() == [24] * FOLDS


def folds_by_opening(path: Path, opening: Callable[[int], str]) -> dict[str, set[int]]:
    """Of 60 sessions of one tenant, the `i`-th of which opens with `opening(i)`: folds that hold each opening."""
    lines = [session(i, "team", task=None) for i in range(60)]
    for number, line in enumerate(lines):
        line["turns"][0]["text"] = opening(number)
    events = arrange(gather_files([write_lines(path, lines)], "corpus", SETTINGS, Tally()), FUTURE_MS)
    found: dict[str, set[int]] = {}
    for record, row in zip(events.records, events.session.tolist(), strict=True):
        number = int(orjson.loads(record.value or b"")["session"].removeprefix("s"))
        found.setdefault(opening(number), set()).add(int(events.session_fold[row]))
    return found


def test_without_tasks_sessions_that_open_alike_are_held_out_together(tmp_path: Path) -> None:
    found = folds_by_opening(tmp_path / "c.jsonl", lambda number: f"What is {number // 6}?")
    assert [len(folds) for folds in found.values()] == [1] * 10
    assert set.union(*found.values()) == set(range(FOLDS))


def test_a_greeting_is_no_task(tmp_path: Path) -> None:
    found = folds_by_opening(tmp_path / "c.jsonl", lambda number: f"What is {number}?" if number % 4 else "Hello")
    # A quarter of the sessions, more than one of five folds would hold.
    assert found["Hello"] == set(range(FOLDS))


def test_an_opening_that_all_sessions_share_holds_none_of_them_together(tmp_path: Path) -> None:
    pair = [session(i, "team", task=None) for i in range(2)]
    for line in pair:
        line["turns"][0]["text"] = "What is it?"
    events = arrange(gather_files([write_lines(tmp_path / "c.jsonl", pair)], "corpus", SETTINGS, Tally()), FUTURE_MS)
    assert len(set(events.session_fold.tolist())) == 2


def test_two_sessions_lie_in_two_folds_whatever_their_tenants(tmp_path: Path) -> None:
    for tenants in range(1, 8):
        pair = [line | {"tenant": f"of-{tenants}-{i * tenants % 2}"} for i, line in enumerate(corpus(7)[::6])]
        path = write_lines(tmp_path / "c.jsonl", pair)
        events = arrange(gather_files([path], "corpus", SETTINGS, Tally()), FUTURE_MS)
        assert len(set(events.session_fold.tolist())) == 2


def test_no_event_at_all_is_told_with_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"must hold at least one benign event; it holds none\. Name another --input"):
        arrange([], FUTURE_MS)
