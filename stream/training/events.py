"""What a release is trained on: events in the order of time, each with the session and the fold it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from stream.errors import UsageError
from stream.record import Record
from stream.steps.decode import decode

FOLDS = 5
_ALIKE = 2
"""Sessions that open alike, of however small a tenant, are no greeting yet."""
_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Gathered:
    """An event that has not found its place yet."""

    record: Record
    """As on the events topic, its partition that of its tenant."""
    task: str | None = None
    """Sessions of a tenant with equal task are one conversation told again; None where that is not known."""
    learns: bool = True
    """Whether its session teaches the models; one that does not is scored and calibrated on all the same."""
    believed: bool = False
    """Whether somebody said that its session is benign."""


@dataclass(frozen=True, slots=True)
class TrainingEvents:
    """Events (n) of s sessions and t tenants, in the order of time."""

    records: list[Record]
    """(n,), none of them twice, each readable by the core; offsets count them."""
    session: NDArray[np.int64]
    """(n,), numbered by first event."""
    session_tenant: NDArray[np.int64]
    """(s,)"""
    session_fold: NDArray[np.int64]
    """(s,), 0 to `FOLDS` - 1."""
    tenants: list[str]
    """(t,), sorted."""
    first_ms: int
    last_ms: int
    unreadable: int
    """Records that are no events."""
    sha256: str
    """Of the events' ids and raw hashes, in order."""
    session_learns: NDArray[np.bool_] | None = None
    """(s,) whether it teaches the models; None: all do."""
    session_believed: NDArray[np.bool_] | None = None
    """(s,) whether somebody said that it is benign; None: nobody did of any."""
    tenant_sessions: NDArray[np.int64] | None = None
    """(t,) sessions of the input, where some of them were taken out since."""

    @property
    def sessions_of_tenants(self) -> NDArray[np.int64]:
        """Sessions (t,) of the input."""
        if self.tenant_sessions is not None:
            return self.tenant_sessions
        return np.bincount(self.session_tenant, minlength=len(self.tenants))

    @property
    def learning(self) -> NDArray[np.intp]:
        """Events (l,) of sessions that teach."""
        if self.session_learns is None:
            return np.arange(len(self.session))
        return np.flatnonzero(self.session_learns[self.session])

    @property
    def fold(self) -> NDArray[np.int64]:
        """The fold (n,) of each event's session."""
        return self.session_fold[self.session]

    def without(self, sessions: NDArray[np.bool_]) -> TrainingEvents:
        """The same input less the events of `sessions` (s,); its hash stays.

        Each tenant must keep a session that teaches.
        """
        kept = np.flatnonzero(~sessions)
        number = np.cumsum(~sessions) - 1
        at = np.flatnonzero(~sessions[self.session])
        records = (self.records[i] for i in at.tolist())
        return replace(
            self,
            records=[Record(r.topic, r.partition, i, r.timestamp_ms, r.key, r.value) for i, r in enumerate(records)],
            session=number[self.session[at]],
            session_tenant=self.session_tenant[kept],
            session_fold=self.session_fold[kept],
            session_learns=None if self.session_learns is None else self.session_learns[kept],
            session_believed=None if self.session_believed is None else self.session_believed[kept],
            tenant_sessions=self.sessions_of_tenants,
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    time_ms: int
    record: Record
    identity: tuple[str, str]
    session: tuple[str, str]
    """Tenant and name."""
    opening: str
    """Digest of the first thing that a user says in it."""
    gathered: Gathered


def arrange(gathered: Iterable[Gathered], future_ms: int) -> TrainingEvents:
    """Events in the order of time, the first of equal ones kept, tasks (where there is none, openings) dealt to folds.

    Parameters
    ----------
    gathered
        In the order in which they came, which decides between events of one time.
    future_ms
        `core.future_ms`.

    Raises
    ------
    UsageError
        When there is no event.
    """
    placed: dict[tuple[str, str], _Placed] = {}
    unreadable = 0
    for event in _read(gathered, future_ms):
        if event is None:
            unreadable += 1
        else:
            placed.setdefault(event.identity, event)
    if not placed:
        raise UsageError("the input must hold at least one benign event; it holds none. Name another --input or range.")
    events = sorted(placed.values(), key=lambda event: event.time_ms)
    numbers: dict[tuple[str, str], int] = {}
    firsts: list[_Placed] = []
    for event in events:
        if event.session not in numbers:
            numbers[event.session] = len(numbers)
            firsts.append(event)
    tasks = _tasks(firsts)
    tenants = sorted({tenant for tenant, _ in numbers})
    rows = {tenant: row for row, tenant in enumerate(tenants)}
    digest = sha256()
    for event in events:
        digest.update("\n".join((*event.identity, "")).encode())
    return TrainingEvents(
        records=[
            Record(r.topic, r.partition, offset, r.timestamp_ms, r.key, r.value)
            for offset, r in enumerate(event.record for event in events)
        ],
        session=np.array([numbers[event.session] for event in events], np.int64),
        session_tenant=np.array([rows[tenant] for tenant, _ in numbers], np.int64),
        session_fold=dealt_folds([tenant for tenant, _ in numbers], tasks),
        tenants=tenants,
        first_ms=events[0].time_ms,
        last_ms=events[-1].time_ms,
        unreadable=unreadable,
        sha256=digest.hexdigest(),
        session_learns=np.array([event.gathered.learns for event in firsts], np.bool_),
        session_believed=np.array([event.gathered.believed for event in firsts], np.bool_),
    )


def _tasks(firsts: Sequence[_Placed]) -> list[str]:
    """What each session (s) must lie in one fold with, by their first events.

    Without a task it is how a session opens: another answer to the same question is no session that was never seen. An
    opening of more of its tenant's sessions than a fold holds is a greeting, and no task. Nor is one that all share.
    """
    openings = Counter((first.session[0], first.opening) for first in firsts)
    sessions = Counter(first.session[0] for first in firsts)
    tasks = []
    for first in firsts:
        tenant, name = first.session
        common = openings[tenant, first.opening] > max(sessions[tenant] // FOLDS, _ALIKE) or not first.opening
        common = common or openings[tenant, first.opening] == len(firsts)
        if first.gathered.task is not None:
            tasks.append(f"task {first.gathered.task}")
        else:
            tasks.append(f"session {name}" if common else f"opening {first.opening}")
    return tasks


def _read(gathered: Iterable[Gathered], future_ms: int) -> Iterator[_Placed | None]:
    """Events as the core reads them, None for what it would not."""
    waiting = iter(gathered)
    while chunk := list(islice(waiting, _AT_ONCE)):
        batch, dead = decode([item.record for item in chunk], future_ms)
        refused = {id(letter.record) for letter in dead}
        readable = (item for item in chunk if id(item.record) not in refused)
        for item, head, time_ms in zip(readable, batch.heads, batch.event_time_ms.tolist(), strict=True):
            identity = head.event_id, head.source.raw_sha256
            opening = next((message.digest for message in head.messages if message.role == "user"), "")
            yield _Placed(time_ms, item.record, identity, (head.tenant, head.session), opening, item)
        yield from (None for _ in dead)


def dealt_folds(tenants: Sequence[str], tasks: Sequence[str], folds: int = FOLDS) -> NDArray[np.int64]:
    """Folds (s,) of sessions: each tenant's tasks, shuffled by their hash, are dealt in turn, so no fold lacks it.

    >>> dealt_folds(["a", "a", "a"], ["t1", "t2", "t1"], 2).tolist() in ([0, 1, 0], [1, 0, 1])
    True
    """
    own: dict[str, set[str]] = {}
    for tenant, task in zip(tenants, tasks, strict=True):
        own.setdefault(tenant, set()).add(task)
    fold_of: dict[tuple[str, str], int] = {}
    for tenant, its in own.items():
        # From another fold on for every tenant: those with few tasks would otherwise all lie in the first ones.
        first = _drawn(tenant)[0]
        for turn, task in enumerate(sorted(its, key=lambda task: (_drawn(tenant, task), task))):
            fold_of[tenant, task] = (first + turn) % folds
    if len(set(fold_of.values())) < 2:
        fold_of = {task: turn % folds for turn, task in enumerate(sorted(fold_of))}
    return np.array([fold_of[task] for task in zip(tenants, tasks, strict=True)], np.int64)


def _drawn(*names: str) -> bytes:
    return blake2b("\x1f".join(names).encode("utf-8", "surrogatepass"), digest_size=8).digest()
