"""Drift in the stream: windows are the same however events are batched, and say what moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from stream.record import Record
from stream.state.drift import learned_columns, tenant_columns
from stream.steps.drift import FROM_ORDINAL
from tests.stream.steps.bench import DriftBench
from tests.stream.streams import QUIET_MS, START_MS, event, record, stream, text

Change = Callable[[dict[str, Any]], None]


def traffic(n: int, changed_from: int, change: Change) -> list[Record]:
    """One tenant's calls, four a session, of which those after `changed_from` are changed."""
    rng = np.random.default_rng(3)
    records = []
    for number in range(n):
        # A user says one of forty things, which is what topics are to a tenant.
        messages = [text("system", "You book flights."), text("user", f"question {int(rng.integers(40))}")]
        value = event(
            number, START_MS + 5_000 * number, messages, [text("assistant", "yes")],
            session=f"s{number // 4}", model_served="m-1" if rng.random() < 0.9 else "m-2",
            prompt_tokens=int(np.exp(6 + rng.normal())), completion_tokens=int(np.exp(4 + 0.7 * rng.normal())),
            cost_usd=float(np.exp(rng.normal() - 8)), duration_ms=float(np.exp(7 + 0.5 * rng.normal())),
            status="failure" if rng.random() < 0.02 else "success",
        )  # fmt: skip
        if number > changed_from:
            change(value)
        records.append(record(number, value))
    return records


def test_batches_of_any_size_give_the_same_drifts_and_state() -> None:
    records = stream(2, 700, partitions=2, tenants=1)
    results = []
    for size in (1, 7, 100, 1000):
        bench = DriftBench(quiet_ms=QUIET_MS)
        found = [(offset, tenant, moved.metric, moved.before, moved.after, moved.statistic)
                 for offset, tenant, moved in bench.all(records, size)]  # fmt: skip
        # The bench lets sessions lie that only a timer would close; nothing of drift is in them.
        rows = [(n, sorted((k, v) for k, v in dict(rows).items() if not k.startswith(b'["session"')))
                for n, rows in sorted(bench.rows.items())]  # fmt: skip
        results.append((sorted(found), rows))
    assert all(result == results[0] for result in results[1:])
    learned = [key for key, _ in results[0][1][0][1] if key.startswith(b'["learned"')]
    assert learned, "the streams must be long enough for windows to be taken"


def test_restored_numbers_go_on_as_if_nothing_had_happened() -> None:
    records = traffic(900, 700, lambda value: value.update(cost_usd=value["cost_usd"] * 5))
    whole = DriftBench()
    expected = whole.all(records, 50)
    first, second = DriftBench(), DriftBench()
    found = first.all(records[:450], 50)
    for partition, rows in first.rows.items():
        for key, value in rows:
            kind, *ids = orjson.loads(key)
            table = second.sessions if kind == "session" else second.tenants
            if value is not None:
                table.load(partition, kind, [(ids, value)])
    second.core_time_ms = dict(first.core_time_ms)
    found += second.all(records[450:], 50)
    assert [(offset, moved.metric) for offset, _, moved in found] == [
        (offset, moved.metric) for offset, _, moved in expected
    ]
    assert expected


CHANGES: dict[str, Change] = {
    "models": lambda value: value.update(model_served="m-3"),
    "prompt": lambda value: value["messages"].__setitem__(0, text("system", "You sell cars.")),
    "topic": lambda value: value["messages"].__setitem__(1, text("user", f"order {value['event_time_ms'] % 3}")),
    "completion_tokens": lambda value: value.update(completion_tokens=value["completion_tokens"] * 2),
    "failed": lambda value: value.update(status="failure" if value["event_time_ms"] % 15_000 == 0 else "success"),
}


@pytest.mark.parametrize("metric", CHANGES)
def test_what_changes_is_found_within_three_hundred_events_and_named(metric: str) -> None:
    changed_from = 900
    found = DriftBench([]).all(traffic(1_260, changed_from, CHANGES[metric]), 200)
    assert found, f"{metric} changed and nothing moved"
    assert {moved.metric for _, _, moved in found} == {metric}
    assert all(changed_from < offset <= changed_from + 300 for offset, _, _ in found)
    assert all(tenant == "team-1" and moved.statistic > 1 for _, tenant, moved in found)


def test_nothing_moves_where_nothing_changes() -> None:
    assert DriftBench([]).all(traffic(2_000, 2_000, lambda value: None), 500) == []


def test_windows_begin_past_the_ordinal_from_which_they_count() -> None:
    bench = DriftBench([])
    bench.all(traffic(FROM_ORDINAL, 10_000, lambda value: None), 64)
    assert not bench.tenants["drift_detectors"].any()
    assert not bench.tenants["drift_counts"].any(), "what came before the last learn point is no part of a window"
    bench = DriftBench([])
    bench.all(traffic(FROM_ORDINAL + 32, 10_000, lambda value: None), 64)
    assert bench.tenants["drift_detectors"][:, 0, 0].max() == 1


def test_numbers_that_another_version_wrote_are_not_gone_on_from() -> None:
    bench = DriftBench([])
    records = traffic(900, 10_000, lambda value: None)
    bench.all(records[:600], 100)
    assert bench.tenants["drift_detectors"][:, 0, 0].max() > 8
    bench.tenants["drift_version"][:] = 7
    bench.all(records[600:], 300)
    assert 0 < bench.tenants["drift_detectors"][:, 0, 0].max() <= 10
    assert set(bench.tenants["drift_version"].tolist()) <= {7, bench.model.version}


def test_a_tenant_takes_less_than_a_kibibyte() -> None:
    columns = [*tenant_columns(7), *learned_columns(7)]
    assert sum(np.dtype(c.dtype).itemsize * int(np.prod(c.shape, dtype=int)) for c in columns) <= 1024
