"""Raw LiteLLM records in any number: the sample, laid behind itself again and again under other names."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from sample.records import LIVE, records

_ROUND_S = 5 * 86_400
POISON: Sequence[bytes] = (
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[1, 2]",
    b'{"hello": "world"}',
    b"[" * 5_000 + b"]" * 5_000,
    b'{"litellm_call_id": 7, "messages": "none"}',
)
"""Values that no gateway sends; each must become a dead letter."""
_DUPLICATED, _POISONED, _SHUFFLED = 0.01, 0.005, 0.05
_WINDOW = 20
_SHORTEST = 50
"""Of the sample's calls, so many give the calls of `many_tenants`."""


def raw_records(events: int) -> Iterator[bytes]:
    """`events` records in the order of time; each round of the sample comes five days after the one before.

    The last round is dated as the sample is, so that nothing lies in the future.
    """
    base = [record for _, record, _ in records(LIVE, "litellm")]
    last = (events - 1) // len(base)
    for number in range(events):
        turn, at = divmod(number, len(base))
        yield orjson.dumps(_renamed(base[at], turn, (turn - last) * _ROUND_S))


def many_tenants(tenants: int, calls: int) -> Iterator[bytes]:
    """Short calls of many tenants, `calls` of each, one tenant after the other and then all of them again."""
    base = sorted((record for _, record, _ in records(LIVE, "litellm")), key=lambda record: len(orjson.dumps(record)))
    for number in range(tenants * calls):
        record = _renamed(base[number // tenants % _SHORTEST], number + 1, 0)
        record["metadata"] = {**record["metadata"], "user_api_key_team_id": f"team-{number % tenants}"}
        yield orjson.dumps(record)


def rough(values: Iterator[bytes], seed: int) -> Iterator[tuple[bytes, bool]]:
    """The same, as a network with its retries and a careless producer deliver it; True where it is poison.

    Of the records 1 % come twice, some of them after a hundred others; 5 % of the stretches of twenty come in another
    order; one in two hundred is followed by something that is no record.
    """
    chance = random.Random(seed)
    late: list[bytes] = []
    window: list[bytes] = []
    for value in values:
        window.append(value)
        if chance.random() < _DUPLICATED:
            (window if chance.random() < 0.5 else late).append(value)
        if len(window) < _WINDOW:
            continue
        if chance.random() < _SHUFFLED:
            chance.shuffle(window)
        if late and chance.random() < 0.3:
            window.append(late.pop(0))
        for each in window:
            yield each, False
            if chance.random() < _POISONED:
                yield chance.choice(POISON), True
        window = []
    yield from ((each, False) for each in [*window, *late])


def _renamed(record: dict[str, Any], turn: int, shift_s: int) -> dict[str, Any]:
    later = dict(record)
    for name in ("litellm_call_id", "session_id", "trace_id"):
        if turn and later.get(name):
            later[name] = f"{later[name]}-{turn}"
    for name in ("startTime", "endTime", "completionStartTime"):
        if later.get(name) is not None:
            later[name] += shift_s
    return later
