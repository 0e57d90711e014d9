"""Days of traffic that are alike, and never the same."""

from collections import Counter
from itertools import pairwise

import orjson
import pytest

from sample.records import LIVE
from stream.record import Record
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from tests.drills.soak.load import DAY_S, Load
from tests.drills.soak.sessions import Pattern, patterns, rounds

BEGIN_S = 1_780_000_000.0


@pytest.fixture(scope="module")
def known() -> list[Pattern]:
    return patterns([LIVE])


def test_days_are_as_long_as_each_other_and_new_tenants_come_on_all_of_them(known: list[Pattern]) -> None:
    sent = list(Load(known, 3_000, BEGIN_S, seed=3).records(4))
    days = Counter(int(record.at_s // DAY_S) for record in sent)
    assert all(days[day] == pytest.approx(3_000, rel=0.25) for day in range(4))
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(sent))
    met: set[str] = set()
    for day in range(4):
        today = {record.tenant for record in sent if record.tenant and record.at_s // DAY_S == day}
        assert today - met
        met |= today


def test_some_records_come_twice_and_some_are_poison(known: list[Pattern]) -> None:
    sent = list(Load(known, 3_000, BEGIN_S, seed=3).records(2))
    ids = Counter(record.event_id for record in sent)
    poison = ids.pop(None)
    assert 0 < poison < 100
    assert 0 < sum(count > 1 for count in ids.values()) < 200


def test_ingest_knows_a_session_of_the_load_by_the_ids_that_it_was_sent_with(known: list[Pattern]) -> None:
    pattern = max(known, key=lambda one: len(one.calls))
    sent = list(pattern.session(7, BEGIN_S, "newcomer 1"))
    records = [Record("raw", 0, offset, 1, None, one.value) for offset, one in enumerate(sent)]
    events = IngestStep(Router(8), format="litellm").step(records).events
    bodies = [orjson.loads(event.value) for event in events]
    assert [body["event_id"] for body in bodies] == [one.event_id for one in sent]
    assert {body["tenant"] for body in bodies} == {"newcomer 1"}
    assert len({body["session"] for body in bodies}) == 1
    assert [body["event_time_ms"] for body in bodies] == [round(one.time_s * 1000) for one in sent]


def test_no_two_sessions_of_a_pattern_say_the_same(known: list[Pattern]) -> None:
    spoken = [
        {m["content"] for m in orjson.loads(value)["messages"] if m["role"] in ("user", "tool") and m["content"]}
        for value in rounds(known[:1], 2, 86_400.0)
    ]
    half = len(spoken) // 2
    assert set().union(*spoken[:half]).isdisjoint(set().union(*spoken[half:]))
