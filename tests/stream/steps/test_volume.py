"""Volume in the stream: the same bits however events are batched, as a plain loop has them; its own attacks found."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from hashlib import sha256
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from models.training.volume import fit_priors, fit_units
from models.volume import SUB_FEATURES, Volume
from sample.records import LIVE, TRAIN, records
from stream.config import Settings
from stream.record import Record
from stream.state.volume import KEYS, LEARNED_COLUMNS, RECENT_CALLS, SESSION_COLUMNS, TENANT_COLUMNS
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from stream.steps.volume import baseline_of
from stream.steps.volume_keys import WINDOW_MS
from stream.steps.volume_words import explain
from tests.stream.steps.bench import VolumeBench
from tests.stream.streams import QUIET_MS, START_MS, event, message, record, stream

Event = dict[str, Any]
ADDRESSES = (None, "10.0.0.1", "10.0.0.77", "10.0.1.1", "10.0.2.3, 10.9.9.9", "2001:db8::1", "2001:db8:0:9::2", "here")
NETWORKS = (None, "a", "a", "b", "c", "d", "d", None)
"""Of each address: /24s and /48s."""


def dressed(seed: int, n: int, keys: int) -> list[Record]:
    """A random stream whose events come from many keys, user agents and networks, with costs."""
    random, out = Random(seed), []
    for made in stream(seed, n, partitions=2, tenants=2):
        if not (made.value or b"").startswith(b'{"event_id":"'):
            out.append(made)
            continue
        value = orjson.loads(made.value or b"") | {
            "key_hash": random.choice([None, *map(str, range(keys))]),
            "user_agent": random.choice([None, "a", "b", "c"]),
            "ip": random.choice(ADDRESSES),
            "cost_usd": random.choice([None, 0.1, 0.02]),
        }
        out.append(Record(made.topic, made.partition, made.offset, made.timestamp_ms, None, orjson.dumps(value)))
    return out


def kept(bench: VolumeBench) -> list[tuple[int, bytes, bytes | None]]:
    """Last rows of tenants; the bench lets sessions lie that only a timer would close."""
    rows = [(n, key, row) for n, rows in bench.rows.items() for key, row in dict(rows).items()]
    return sorted(row for row in rows if not row[1].startswith(b'["session"'))


@pytest.mark.parametrize(("seed", "keys"), [(1, 3), (2, KEYS + 4), (3, 40)])
def test_batches_of_any_size_give_the_same_bits_and_state(seed: int, keys: int) -> None:
    records = dressed(seed, 250, keys)
    results = []
    for size in (1, 7, len(records)):
        bench = VolumeBench(Volume(), QUIET_MS)
        values, features = bench.all(records, size)
        results.append((values.tobytes(), features.tobytes(), kept(bench)))
    assert results[1] == results[0]
    assert results[2] == results[0]


def test_restored_state_goes_on_with_the_same_bits() -> None:
    records = dressed(4, 300, KEYS + 4)
    whole, first, second = (VolumeBench(Volume(), QUIET_MS) for _ in range(3))
    expected = whole.all(records, 20)
    first.all(records[:140], 20)
    for partition, rows in first.rows.items():
        for key, value in dict(rows).items():
            kind, *ids = orjson.loads(key)
            if value is not None:
                (second.sessions if kind == "session" else second.tenants).load(partition, kind, [(ids, value)])
    second.core_time_ms = dict(first.core_time_ms)
    values, features = second.all(records[140:], 20)
    assert values.tobytes() == expected[0][-len(values) :].tobytes()
    assert features.tobytes() == expected[1][-len(values) :].tobytes()
    assert kept(whole) == sorted({row[:2]: row for row in kept(first) + kept(second)}.values())


def test_keys_windows_and_origins_are_what_a_plain_loop_says() -> None:
    records = [r for r in dressed(5, 400, KEYS + 6) if r.partition == 0]
    bench = VolumeBench(Volume(), QUIET_MS)
    bench.step(records)
    assert bench.given is not None
    seen = bench.given.observed
    at = 0
    held: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    core = 0
    for made in records:
        try:
            value = orjson.loads(made.value or b"")
        except ValueError:
            continue
        if not isinstance(value, dict) or "tenant" not in value:
            continue
        core = max(core, min(value["event_time_ms"], made.timestamp_ms + 300_000))
        own, key = held[value["tenant"]], value["key_hash"] or ""
        new_key = key not in own and len(own) > 0
        if key not in own:
            if len(own) == KEYS:
                # The one not seen for longest; of those of one second the one that took its slot first is as good.
                oldest = min(slot["seen"] for slot in own.values())
                slot_of = {name: slot["slot"] for name, slot in own.items() if slot["seen"] == oldest}
                gone = own.pop(min(slot_of, key=lambda name: slot_of[name]))
                free = gone["slot"]
            else:
                free = len(own)
            own[key] = {"slot": free, "window": None, "counts": Counter(), "agent": [], "network": []}
        slot = own[key]
        slot["seen"] = core // 1000
        if slot["window"] != core // WINDOW_MS:
            slot["window"], slot["counts"] = core // WINDOW_MS, Counter()
        slot["counts"]["calls"] += 1
        slot["counts"]["failed"] += value["status"] == "failure"
        new = [new_key]
        for name, what in (("agent", value["user_agent"]), ("network", NETWORKS[ADDRESSES.index(value["ip"])])):
            new.append(what is not None and len(slot[name]) > 0 and what not in slot[name])
            if what is not None:
                slot[name] = [*[other for other in slot[name] if other != what], what][-2:]
        assert seen.new[at].tolist() == new, at
        assert seen.key_errors[at].tolist() == [slot["counts"]["failed"], slot["counts"]["calls"]], at
        at += 1
    assert at == len(seen.hour) > 100


def calls_of(names: str) -> list[Record]:
    """One session's responses, each calling the tool of one letter."""
    return [
        record(i, event(i, START_MS + 1000 * i, output=[
            message("assistant", [{"type": "tool_call", "id": "c", "name": name, "arguments": "{}"}])
        ]))
        for i, name in enumerate(names)
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 100])
def test_calls_repeat_when_they_equal_one_of_the_four_before(size: int) -> None:
    names = "abababacdefghijjjj" + "a"
    bench, runs = VolumeBench(Volume()), []
    for low in range(0, len(names), size):
        bench.step(calls_of(names)[low : low + size])
        assert bench.given is not None
        runs += bench.given.observed.repeats.tolist()
    expected, length = [], 0
    for i, name in enumerate(names):
        length = length + 1 if name in names[max(0, i - RECENT_CALLS) : i] else 0
        expected.append(length)
    assert runs == expected


def test_calls_of_which_neither_tool_nor_arguments_were_recorded_are_not_the_same() -> None:
    bench = VolumeBench(Volume())
    said = [message("assistant", [{"type": "tool_call", "id": "c", "name": "", "arguments": "{}"}])]
    bench.step([record(i, event(i, START_MS + i, output=said)) for i in range(6)])
    assert bench.given is not None
    assert not bench.given.observed.repeats.any()


def test_sums_are_cut_at_the_learn_point_itself() -> None:
    records = [record(i, event(i, START_MS + 1000 * i, session=f"s{i}")) for i in range(50)]
    bench = VolumeBench(Volume())
    bench.step(records)
    # Learn points are 1, 2, 4, 8, 16, 32, 64: the last 18 of 50 calls wait.
    row = bench.tenants.find([(0, "team-1")])[0]
    assert bench.tenants["volume_counted"][row, 0] == 18
    assert bench.tenants["volume_counters"][row, 0] == pytest.approx(32, rel=0.02)


def test_a_batch_without_events_is_none() -> None:
    values, features = VolumeBench(Volume()).step([Record("t", 0, 0, 0, None, b"{")])
    assert values.shape == (0,) and features.shape == (0, len(SUB_FEATURES))


def test_state_is_bounded() -> None:
    def size(columns: Any) -> int:
        return sum(np.dtype(c.dtype).itemsize * int(np.prod(c.shape, dtype=int)) for c in columns)

    assert size(TENANT_COLUMNS) + size(LEARNED_COLUMNS) <= 1536
    assert size(SESSION_COLUMNS) <= 100


TENANTS = ("rapidapi-assistant", "tau-retail", "dojogt-travel")


@cache
def sessions(path: Any) -> dict[tuple[str, str], list[Event]]:
    """Benign sessions of a few of the sample's tenants, as events."""
    settings = Settings()
    ingest = IngestStep(
        Router(settings.topics.partitions, {}), format="native", policy="none", depth_max=64, bytes_max=1 << 23,
        tenant_field="", tenant_default="",
    )  # fmt: skip
    out: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for number, (time_ms, native, truth) in enumerate(records(path, "native")):
        if truth.label == "benign" and truth.tenant in TENANTS:
            for made in ingest.step([Record("x", 0, number, time_ms, None, orjson.dumps(native))]).events:
                value = orjson.loads(made.value or b"")
                out[value["tenant"], value["session"]].append(value)
    return out


def as_records(events: list[Event]) -> tuple[list[Record], list[tuple[str, str]]]:
    events = sorted(events, key=lambda value: value["event_time_ms"])
    made = [Record("x", 0, i, value["event_time_ms"], None, orjson.dumps(value)) for i, value in enumerate(events)]
    return made, [(value["tenant"], value["session"]) for value in events]


@cache
def trained() -> VolumeBench:
    """A model of the sample's first ten days, and what its tenants learned in them."""
    heard, of_session = as_records([value for own in sessions(TRAIN).values() for value in own])
    bench = VolumeBench(Volume())
    bench.all(heard, 500)
    model = fit_priors(baseline_of(bench.tenants, bench.tenants.find(bench.tenants.keys())))
    bench = VolumeBench(model)
    features = bench.all(heard, 500)[1] * model.unit.astype(np.float32)
    bench = VolumeBench(fit_units(model, features, np.unique(np.array(of_session), axis=0, return_inverse=True)[1]))
    bench.all(heard, 500)
    return bench


def highest(events: list[Event]) -> dict[tuple[str, str], tuple[float, str]]:
    """Of each session its highest value, and the sub-feature that spoke."""
    made, of_session = as_records(events)
    bench = deepcopy(trained())
    values, features = bench.all(made, 500)
    out: dict[tuple[str, str], tuple[float, str]] = {}
    for session, value, row in zip(of_session, values.tolist(), features, strict=True):
        out[session] = max(out.get(session, (-1.0, "")), (value, SUB_FEATURES[int(row.argmax())]))
    return out


def more(own: list[Event], n: int, change: Callable[[Event, int], None]) -> list[Event]:
    """The session, and its last event n times more, changed."""
    out = list(own)
    for i in range(n):
        value = deepcopy(own[-1])
        value["event_id"] = value["source"]["raw_sha256"] = sha256(f"{own[-1]['event_id']} {i}".encode()).hexdigest()
        value["event_time_ms"] += 3_000 * (i + 1)
        change(value, i)
        out.append(value)
    return out


def flood(own: list[Event], random: Random) -> list[Event]:
    return [
        value | {"completion_tokens": 10 * (value.get("completion_tokens") or 10), "cost_usd": 0.5} for value in own
    ]


def looped(own: list[Event], random: Random) -> list[Event]:
    def change(value: Event, i: int) -> None:
        value["output"] = [message("assistant", [{"type": "tool_call", "name": "search", "arguments": '{"q":1}'}])]

    return more(own, 20, change)


def leak(chars: int) -> Callable[[list[Event], Random], list[Event]]:
    def attack(own: list[Event], random: Random) -> list[Event]:
        made = [part for value in own for said in value.get("output", []) for part in said["parts"]
                if part["type"] == "tool_call"]  # fmt: skip
        if not made:
            return []
        part = made[-1]

        def change(value: Event, i: int) -> None:
            grown = part | {"arguments": part.get("arguments", "") + "x" * chars * (i + 1)}
            value["output"] = [message("assistant", [grown])]

        return more(own, 10, change)

    return attack


def stolen(own: list[Event], random: Random) -> list[Event]:
    ip, agent = f"{random.randrange(20, 200)}.7.{random.randrange(250)}.9", f"curl/{random.randrange(1000)}"
    return [
        value | {"ip": ip, "user_agent": agent, "event_time_ms": value["event_time_ms"] + 43_200_000} for value in own
    ]


def burst(own: list[Event], random: Random) -> list[Event]:
    return more(own, 6, lambda value, i: value.update(status="failure", output=[]))


ATTACKS = {
    "a token flood": (flood, {"completion_tokens", "cost"}),
    "a tool loop": (looped, {"repeats"}),
    "exfiltration, 400 characters more a call": (leak(400), {"argument_growth"}),
    "exfiltration, 40 characters more a call": (leak(40), {"argument_growth"}),
    "a stolen key": (stolen, {"origin", "new_network", "new_user_agent"}),
    "a burst of errors": (burst, {"errors", "key_errors"}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_found_by_the_sub_feature_that_is_made_for_it(attack: str) -> None:
    change, meant = ATTACKS[attack]
    random = Random(6)
    events: list[Event] = []
    attacked = set()
    for session, own in sorted(sessions(LIVE).items()):
        made = change(own, random) if random.random() < 0.15 else []
        attacked |= {session} if made else set()
        events += made or own
    found = highest(events)
    strange = np.array([found[session][0] for session in sorted(attacked)])
    normal = np.array([value for session, (value, _) in found.items() if session not in attacked])
    # The area under the ROC curve is the share of pairs in the right order (Mann, Whitney 1947).
    above = (strange[:, None] > normal).mean() + (strange[:, None] == normal).mean() / 2
    spoke = Counter(found[session][1] for session in attacked)
    assert len(strange) >= 5
    assert above > 0.9, (above, spoke)
    assert sum(spoke[name] for name in meant) >= len(strange) / 2, spoke


def test_words_say_what_was_seen_and_what_is_normal() -> None:
    bench = deepcopy(trained())
    own = min(sessions(LIVE).items())[1]
    events = [value | {"completion_tokens": 40_000} for value in own[:1]]
    _, features = bench.step(as_records(events)[0])
    assert bench.given is not None
    said = dict(explain(bench.given, 0, features[0]))
    assert said["completion_tokens"].startswith(("40000 completion tokens, normally about", "39", "40", "41"))
    assert "normally about" in said["completion_tokens"]
    found = features[0].copy()
    found[:] = 0
    found[SUB_FEATURES.index("new_network")] = 2
    assert explain(bench.given, 0, found)[0][1].startswith("network new to the key; ")
    for name in SUB_FEATURES:
        found[:] = 0
        found[SUB_FEATURES.index(name)] = 1
        ((named, text),) = explain(bench.given, 0, found)
        assert named == name and len(text) > 20
