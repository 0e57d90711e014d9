"""Raw LiteLLM records in any number: the sample, laid behind itself again and again under other names."""

from collections.abc import Iterator
from typing import Any

import orjson

from sample.records import LIVE, records

_ROUND_S = 5 * 86_400


def raw_records(events: int) -> Iterator[bytes]:
    """`events` records in the order of time; each round of the sample comes five days after the one before."""
    base = [record for _, record, _ in records(LIVE, "litellm")]
    for number in range(events):
        turn, at = divmod(number, len(base))
        yield orjson.dumps(_renamed(base[at], turn))


def _renamed(record: dict[str, Any], turn: int) -> dict[str, Any]:
    if turn == 0:
        return record
    later = dict(record)
    for name in ("litellm_call_id", "session_id", "trace_id"):
        if later.get(name):
            later[name] = f"{later[name]}-{turn}"
    for name in ("startTime", "endTime", "completionStartTime"):
        if later.get(name) is not None:
            later[name] += turn * _ROUND_S
    return later
