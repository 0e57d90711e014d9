"""Sessions laid side by side: their calls in the order of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import pairwise

import msgspec

from schemas.corpus import Call, CorpusSession, calls

UNDATED_START_MS = 1_788_220_800_000
"""2026-09-01T00:00:00Z: when the first session without a time of its own starts."""
UNDATED_INTERVAL_MS = 60_000
"""From one session without a time to the next."""

CHARS_PER_TOKEN = 4
_FIRST_TOKEN_MS = 380
_PROMPT_TOKEN_MS = 0.06
_OUTPUT_TOKEN_MS = 17
_TOOL_MS = 900
_USER_MS = 15_000


class TimedCall(msgspec.Struct, frozen=True):
    """A call and when it starts."""

    time_ms: int
    session: CorpusSession
    call: Call


def timeline(sessions: Iterable[CorpusSession]) -> Iterator[TimedCall]:
    """The calls of `sessions`, merged by start; calls that start together in the order of their sessions.

    Holds only the sessions that are under way. Sessions without times follow each other every `UNDATED_INTERVAL_MS`.

    Raises
    ------
    ValueError
        When a session starts before one that precedes it.
    """
    under_way: list[tuple[int, int, int, CorpusSession, list[Call], tuple[int, ...]]] = []
    latest = 0
    for order, session in enumerate(sessions):
        times = call_times(session, UNDATED_START_MS + order * UNDATED_INTERVAL_MS)
        if not times:
            continue
        if times[0] < latest:
            raise ValueError(
                f"session {session.session!r} (number {order}) starts at {times[0]} ms, before the one that precedes "
                f"it ({latest} ms). Sort the file by start_ms."
            )
        latest = times[0]
        while under_way and under_way[0][0] <= latest:
            yield _next(under_way)
        heappush(under_way, (times[0], order, 0, session, calls(session), times))
    while under_way:
        yield _next(under_way)


def call_times(session: CorpusSession, start_ms: int) -> tuple[int, ...]:
    """Start of each call in ms since the epoch: the session's own where it holds them, else laid from its start.

    Parameters
    ----------
    session
        Its `calls_ms` count when there is one for each call and none goes back, else its `start_ms` does.
    start_ms
        The start of a session that has none.
    """
    made = calls(session)
    own = session.calls_ms
    if made and len(own) == len(made) and all(a <= b for a, b in pairwise(own)):
        return own
    now = start_ms if session.start_ms is None else session.start_ms
    times: list[int] = []
    for call in made:
        if call.index:
            pause = _USER_MS if _typed(session, call) else _TOOL_MS
            now += int(pause * (0.5 + unit(session.session, call.index, "pause")))
        times.append(now)
        now += duration_ms(session, call)
    return tuple(times)


def first_token_ms(session: CorpusSession, call: Call) -> int:
    """How long the first token takes to come, in ms: longer for a longer prompt, a little different each time."""
    jitter = 0.6 + 0.8 * unit(session.session, call.index, "ttft")
    return int((_FIRST_TOKEN_MS + _PROMPT_TOKEN_MS * prompt_tokens(session, call)) * jitter)


def duration_ms(session: CorpusSession, call: Call) -> int:
    """How long the call takes, in ms."""
    pace = _OUTPUT_TOKEN_MS * (0.7 + 0.6 * unit(session.session, call.index, "pace"))
    return first_token_ms(session, call) + int(pace * completion_tokens(session, call))


def prompt_tokens(session: CorpusSession, call: Call) -> int:
    """Tokens of the request, at four characters each and four tokens a message."""
    return sum(_tokens(session, position) for position in range(call.history))


def completion_tokens(session: CorpusSession, call: Call) -> int:
    """Tokens of the response; 0 when there is none."""
    return _tokens(session, call.history) if call.answered else 0


def unit(*names: object) -> float:
    """A number in [0, 1) that is the same for the same names, on every machine.

    >>> unit("a", 1) == unit("a", 1) != unit("a", 2)
    True
    """
    digest = blake2b("\x1f".join(map(str, names)).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def _next(under_way: list[tuple[int, int, int, CorpusSession, list[Call], tuple[int, ...]]]) -> TimedCall:
    time_ms, order, index, session, made, times = heappop(under_way)
    if index + 1 < len(made):
        heappush(under_way, (times[index + 1], order, index + 1, session, made, times))
    return TimedCall(time_ms, session, made[index])


def _typed(session: CorpusSession, call: Call) -> bool:
    return any(turn.role == "user" for turn in session.turns[call.new : call.history])


def _tokens(session: CorpusSession, position: int) -> int:
    turn = session.turns[position]
    chars = len(turn.text) + sum(len(call.name) + len(call.arguments) for call in turn.tool_calls)
    return 4 + -(-chars // CHARS_PER_TOKEN)
