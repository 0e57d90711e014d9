"""Events as arrays: what systems other than the product read of the same events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.events import SAMPLE_CHARS, Events, new_messages
from schemas.event_head import EventHead, MessageHead
from stream.steps.content import ASSISTANT, CALL, ROLES, SYSTEM, TOOL, USER, Embeds
from stream.training.events import dealt_folds

ARRIVING = (USER, TOOL)
"""Roles of what comes from outside, and may attack."""
COLUMNS = (
    "prompt_tokens",
    "completion_tokens",
    "cost_usd",
    "duration_ms",
    *(f"new_chars_{role}" for role in ROLES),
    "messages",
    "new_messages",
    "tool_calls",
    "tools_offered",
    "gap_s",
    "failed",
    "hour_sin",
    "hour_cos",
)
"""Of `Features.numeric`: sizes and gaps as log(1 + x), costs in microdollars."""
_AT_ONCE = 4096
"""Characters that an embedder reads of one text."""
_HOUR_MS, _DAY_HOURS = 3_600_000, 24
_CODES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL}


class Embedder(Embeds, Protocol):
    """What reads texts, and names the space that its vectors are of."""

    space_id: str


@dataclass(frozen=True, slots=True)
class Features:
    """Events (n) of sessions (s), with their new messages (k) and the distinct texts (m) of these."""

    tenant: NDArray[np.str_]
    """(n,)"""
    session: NDArray[np.int64]
    """(n,) rows of the sessions."""
    fold: NDArray[np.int64]
    """(s,) tasks of a tenant, or sessions where it has none, lie in one fold."""
    numeric: NDArray[np.float32]
    """(n, COLUMNS), 0 where a gateway says nothing."""
    chars: NDArray[np.int64]
    """(n, roles) new characters, tool calls apart from what the assistant says; all of them, however many are read."""
    message_event: NDArray[np.int64]
    """(k,) rising."""
    message_role: NDArray[np.int8]
    """(k,)"""
    message_text: NDArray[np.int64]
    """(k,) rows of `texts`."""
    texts: Sequence[str]
    """(m,) cut where an event has too much of it."""
    vectors: NDArray[np.float32]
    """(m, d) unit rows, 0 for a text without words."""
    seconds: float
    """What reading took."""

    def __len__(self) -> int:
        return len(self.session)

    @property
    def embedding(self) -> NDArray[np.float32]:
        """Mean (n, d) of what arrives with each event, 0 where nothing does."""
        arriving = np.flatnonzero(np.isin(self.message_role, ARRIVING))
        mean = np.zeros((len(self), self.vectors.shape[1]), np.float32)
        event = self.message_event[arriving]
        np.add.at(mean, event, self.vectors[self.message_text[arriving]])
        count = np.bincount(event, minlength=len(self))
        mean /= np.maximum(count, 1)[:, None].astype(np.float32)
        return mean

    def take(self, rows: NDArray[np.intp]) -> Features:
        """Some of the events, rows rising; sessions and texts keep their rows."""
        place = np.full(len(self), -1, np.int64)
        place[rows] = np.arange(len(rows))
        kept = np.flatnonzero(place[self.message_event] >= 0)
        return replace(
            self,
            tenant=self.tenant[rows],
            session=self.session[rows],
            numeric=self.numeric[rows],
            chars=self.chars[rows],
            message_event=place[self.message_event[kept]],
            message_role=self.message_role[kept],
            message_text=self.message_text[kept],
        )


class FeatureReader:
    """Reads events once, however many systems ask.

    Parameters
    ----------
    embedder
        Of the texts.
    folds
        That sessions are dealt to.
    kept
        Of how many last read events the features are kept: those that are learned from, and those that are judged.
    """

    def __init__(self, embedder: Embeds, folds: int = 5, kept: int = 2) -> None:
        self._embedder = embedder
        self._folds = folds
        self._kept = kept
        self._read: list[tuple[Events, Features]] = []

    def __call__(self, events: Events) -> Features:
        """Their features."""
        for known, features in self._read:
            if known is events:
                return features
        features = read_features(events, self._embedder, self._folds)
        self._read = [*self._read, (events, features)][-self._kept :]
        return features


def read_features(events: Events, embedder: Embeds, folds: int = 5) -> Features:
    """Features of `events`."""
    begun = time.perf_counter()
    numbers: dict[str, int] = {}
    of_event: list[int] = []
    of_role: list[int] = []
    of_text: list[int] = []
    chars = np.zeros((len(events), len(ROLES)), np.int64)
    fresh = np.zeros(len(events), np.int64)
    for at, messages in enumerate(new_messages(events)):
        left = SAMPLE_CHARS
        fresh[at] = len(messages)
        for message in messages:
            role, text, called = _said(message)
            chars[at, role] += len(text)
            chars[at, CALL] += len(called)
            text = f"{text}\n{called}"[:left] if called else text[:left]
            left -= len(text)
            of_event.append(at)
            of_role.append(role)
            of_text.append(numbers.setdefault(text, len(numbers)))
    texts = list(numbers)
    sessions = events.sessions
    tasks = [f"task {s.task}" if s.task is not None else f"session {s.session}" for s in sessions]
    return Features(
        tenant=np.array([head.tenant for head in events.heads], np.str_),
        session=events.session,
        fold=dealt_folds([str(session.tenant) for session in sessions], tasks, folds),
        numeric=_numeric(events, chars, fresh),
        chars=chars,
        message_event=np.array(of_event, np.int64),
        message_role=np.array(of_role, np.int8),
        message_text=np.array(of_text, np.int64),
        texts=texts,
        vectors=whole_vectors(texts, embedder),
        seconds=time.perf_counter() - begun,
    )


def whole_vectors(texts: Sequence[str], embedder: Embeds) -> NDArray[np.float32]:
    """Unit vectors (m, d) of whole texts: an embedder reads a text's first characters alone, so long ones go by parts.

    A part counts by its length.
    """
    parts = [text[low : low + _AT_ONCE] for text in texts for low in range(0, max(len(text), 1), _AT_ONCE)]
    counts = np.array([max(-(-len(text) // _AT_ONCE), 1) for text in texts], np.int64)
    vectors = embedder.embed_int8(parts, embedder.encode(parts)).astype(np.float32)
    vectors *= np.array([len(part) for part in parts], np.float32)[:, None]
    whole = np.zeros((len(texts), vectors.shape[1]), np.float32)
    np.add.at(whole, np.repeat(np.arange(len(texts)), counts), vectors)
    length = np.linalg.norm(whole, axis=1, keepdims=True)
    whole /= np.where(length > 0, length, 1).astype(np.float32)
    return whole


def _said(message: MessageHead) -> tuple[int, str, str]:
    """Role of a message, what it says, and the tool calls it makes."""
    role = _CODES.get(message.role, USER)
    said: list[str] = []
    called: list[str] = []
    for part in message.parts:
        if part.type == "tool_call":
            called.append(f"{part.name or ''} {part.arguments or ''}")
        elif part.type != "reasoning":
            said.append(part.text or part.response or "")
            role = TOOL if part.type == "tool_call_response" else role
    return role, "\n".join(said), "\n".join(called)


def _numeric(events: Events, chars: NDArray[np.int64], fresh: NDArray[np.int64]) -> NDArray[np.float32]:
    """Columns (n, COLUMNS)."""
    heads = events.heads
    sizes = np.array([_sizes(head) for head in heads], np.float64).reshape(len(heads), -1)
    time_ms = np.array([head.event_time_ms for head in heads], np.int64)
    gap_s = np.zeros(len(heads))
    order = np.argsort(events.session, kind="stable")
    goes_on = np.flatnonzero(np.diff(events.session[order]) == 0)
    gap_s[order[goes_on + 1]] = np.diff(time_ms[order])[goes_on] / 1000
    angle = 2 * np.pi * (time_ms / _HOUR_MS % _DAY_HOURS) / _DAY_HOURS
    # (n, 4), (n, roles), (n,), (n,), (n, 2), (n,): as `COLUMNS` has them.
    logged = np.column_stack([sizes[:, :4], chars, sizes[:, 4], fresh, sizes[:, 5:], np.maximum(gap_s, 0)])
    failed = np.array([head.status != "success" for head in heads], np.float64)
    return np.column_stack([np.log1p(logged), failed, np.sin(angle), np.cos(angle)]).astype(np.float32)


def _sizes(head: EventHead) -> tuple[float, ...]:
    calls = sum(part.type == "tool_call" for message in head.output for part in message.parts)
    return (
        head.prompt_tokens or 0,
        head.completion_tokens or 0,
        (head.cost_usd or 0.0) * 1e6,
        head.duration_ms or 0.0,
        len(head.messages),
        calls,
        len(head.tools),
    )
