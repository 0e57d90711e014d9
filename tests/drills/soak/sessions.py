"""The sample's sessions as patterns: as many new ones as are wanted, each with words of its own."""

from __future__ import annotations

import hashlib
import heapq
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from sample.records import records

_NAMES = ("litellm_call_id", "session_id", "trace_id")
_TIMES = ("startTime", "endTime", "completionStartTime")
_SPOKEN = ("user", "tool", "assistant")


class Sent(NamedTuple):
    """A record for the raw topic."""

    time_s: float
    """Its event time, epoch seconds."""
    call: str
    """Its `litellm_call_id`."""
    value: bytes

    @property
    def event_id(self) -> str:
        """What ingest calls it."""
        identity = json.dumps(["litellm", self.call], separators=(",", ":"))
        return hashlib.sha256(identity.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Pattern:
    """One session of the sample, as LiteLLM logs it."""

    attack: bool
    begin_s: float
    """Epoch seconds of its first call."""
    calls: tuple[tuple[float, dict[str, Any]], ...]
    """Seconds since its first call, and the record."""

    def session(self, number: int, begin_s: float, tenant: str | None = None) -> Iterator[Sent]:
        """Records of a session like it, new in its ids and in all that is said, in the order of time.

        Parameters
        ----------
        number
            Tells it from all others.
        tenant
            Whose it is; None: the pattern's own.
        """
        for after_s, record in self.calls:
            value = _renewed(record, number, begin_s + after_s, tenant)
            yield Sent(begin_s + after_s, f"{record['litellm_call_id']}-{number}", value)


def patterns(paths: Iterable[Path]) -> list[Pattern]:
    """Every session of these corpus files, in the order of their beginnings."""
    calls: dict[tuple[str | None, str], list[tuple[float, dict[str, Any]]]] = {}
    attacks: dict[tuple[str | None, str], bool] = {}
    for number, path in enumerate(paths):
        for time_ms, record, truth in records(path, "litellm"):
            key = (truth.tenant, f"{number} {truth.gateway_session}")
            calls.setdefault(key, []).append((time_ms / 1000, record))
            attacks[key] = truth.label == "attack"
    return [
        Pattern(attacks[key], told[0][0], tuple((time_s - told[0][0], record) for time_s, record in told))
        for key, told in calls.items()
    ]


def rounds(known: list[Pattern], count: int, round_s: float) -> Iterator[bytes]:
    """Every session `count` times, each time another one, in the order of time.

    A round comes `round_s` seconds after the one before; the last one is dated as the sample is, so that nothing lies
    in the future.
    """
    for turn in range(count):
        moved_s = (turn - count + 1) * round_s
        made = [one.session(turn * len(known) + i, one.begin_s + moved_s) for i, one in enumerate(known)]
        for sent in heapq.merge(*made, key=lambda sent: sent.time_s):
            yield sent.value


def under_way(known: list[Pattern], rate: float, begin_s: float, seconds: float, seed: int) -> Iterator[Sent]:
    """Records of as many sessions at once as make `rate` a second, each at its own pace, in the order of time.

    Sessions begin at random moments, as early as the longest one takes before `begin_s`, so that from then on they come
    and go in balance; records from before `begin_s` are left out.
    """
    chance = random.Random(seed)
    longest_s = max(one.calls[-1][0] for one in known)
    sessions = int(rate * (longest_s + seconds) * len(known) / sum(len(one.calls) for one in known))
    begins = sorted(begin_s + chance.uniform(-longest_s, seconds) for _ in range(sessions))
    drawn = [(chance.choice(known), at_s) for at_s in begins]
    made = [one.session(number, at_s) for number, (one, at_s) in enumerate(drawn) if at_s + one.calls[-1][0] >= begin_s]
    for sent in heapq.merge(*made, key=lambda sent: sent.time_s):
        if begin_s <= sent.time_s < begin_s + seconds:
            yield sent


def _renewed(record: dict[str, Any], number: int, start_s: float, tenant: str | None) -> bytes:
    made = dict(record)
    for name in _NAMES:
        if made.get(name):
            made[name] = f"{made[name]}-{number}"
    moved_s = start_s - float(record["startTime"])
    for name in _TIMES:
        if made.get(name) is not None:
            made[name] += moved_s
    if tenant is not None:
        made["metadata"] = {**made["metadata"], "user_api_key_team_id": tenant, "user_api_key_hash": f"{tenant} key"}
    made["messages"] = [_said(message, number) for message in made["messages"]]
    answer = made["response"]
    if isinstance(answer, dict) and answer.get("choices"):
        choices = [{**choice, "message": _said(choice["message"], number)} for choice in answer["choices"]]
        made["response"] = {**answer, "choices": choices}
    return orjson.dumps(made)


def _said(message: dict[str, Any], number: int) -> dict[str, Any]:
    """The message with the session's number in its words: no cache has met it, and the next call repeats it."""
    text = message.get("content")
    if message.get("role") not in _SPOKEN or not isinstance(text, str) or not text:
        return message
    return {**message, "content": f"{text} (case {number})"}
