"""What a session's tools told its model, and which of its calls do it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.provenance import PASSAGES, WORDS, Provenance, Told, Words
from stream.state.table import SessionKey, Table
from stream.steps.content import SYSTEM, TOOL, USER, Content
from stream.steps.sessions import NewContent, Runs

_TOLD = ("hash", "weight", "role")
_NAME = "told_"


@dataclass(slots=True)
class Obeyed:
    """The provenance of a batch (n events, k runs)."""

    x: NDArray[np.float64]
    """(n,) scores, NaN where an event's model called no tool."""
    told: Told
    """What each run's session has heard by the end of the batch."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Texts (t) of one kind in the order of their events, and the event of each."""

    event: NDArray[np.int64]
    words: Words
    role: NDArray[np.float32]

    def of(self, events: NDArray[np.bool_]) -> "_Rows":
        """Those of some events."""
        kept = np.flatnonzero(events[self.event])
        return _Rows(self.event[kept], Words(self.words.hash[kept], self.words.weight[kept]), self.role[kept])


def obeyed(
    provenance: Provenance,
    runs: Runs,
    new: NewContent,
    contents: Sequence[Content],
    covered: NDArray[np.float32],
    table: Table[SessionKey],
) -> Obeyed:
    """Score the calls of a batch's events (n) by what their sessions have heard before them.

    An event's request comes before its answer: what a tool says in it, its call may obey. Events of one session take
    their turns, the first of every session at once, then the second.

    `covered` (m,) are log-odds that users' requests take from how much like an order a new message's passages sound.
    """
    n = len(runs.of_event)
    told = _load(provenance, runs, table)
    x = np.full(n, np.nan)
    unseen = np.flatnonzero(new.unseen)
    parts = [contents[i] for i in unseen.tolist()]
    event = new.event[unseen]
    heard = _segments(event, parts, covered[unseen])
    asked = _values(event, parts)
    if len(heard.event) == 0 and len(asked.event) == 0:
        return Obeyed(x, told)
    speaks = np.zeros(n, bool)
    speaks[heard.event] = True
    speaks[asked.event] = True
    spoken = runs.order[speaks[runs.order]]
    turn = np.zeros(n, np.int64)
    run = runs.of_event[spoken]
    starts = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
    turn[spoken] = np.arange(len(spoken)) - np.repeat(starts, np.diff(np.r_[starts, len(spoken)]))
    for number in range(int(turn[spoken].max()) + 1):
        here = speaks & (turn == number)
        _take_turn(provenance, runs, told, heard.of(here), asked.of(here), x)
    return Obeyed(x, told)


def _take_turn(
    provenance: Provenance, runs: Runs, told: Told, heard: _Rows, asked: _Rows, x: NDArray[np.float64]
) -> None:
    said = np.flatnonzero(np.isnan(heard.role))
    hashes = heard.words.hash[said]
    present = hashes != 0
    rows = np.broadcast_to(runs.of_event[heard.event[said]][:, None], hashes.shape)
    provenance.say(told, rows[present], hashes[present])
    orders = np.flatnonzero(heard.role > 0)
    passages = Words(heard.words.hash[orders, :WORDS], heard.words.weight[orders, :WORDS])
    provenance.tell(told, runs.of_event[heard.event[orders]], passages, heard.role[orders])
    if len(asked.event) == 0:
        return
    value, _ = provenance.score(told, runs.of_event[asked.event], asked.words)
    np.fmax.at(x, asked.event, value)


def store_told(table: Table[SessionKey], rows: NDArray[np.int64], told: Told, runs: NDArray[np.int64]) -> None:
    """Write what `runs` (r) have heard to their state rows (r)."""
    table["told_count"][rows] = told.count[runs]
    table["told_used"][rows] = np.minimum(told.count[runs], PASSAGES)
    for column in _TOLD:
        table[_NAME + column][rows] = getattr(told, column)[runs]
    table["said"][rows] = told.said[runs]
    table["said_used"][rows] = np.where(told.said[runs].any(axis=1), told.said.shape[1], 0)


def _load(provenance: Provenance, runs: Runs, table: Table[SessionKey]) -> Told:
    told = provenance.empty(len(runs.keys))
    on = np.flatnonzero(runs.row >= 0)
    rows = runs.row[on]
    told.count[on] = table["told_count"][rows]
    for column in _TOLD:
        getattr(told, column)[on] = table[_NAME + column][rows]
    told.said[on] = table["said"][rows]
    return told


def _segments(event: NDArray[np.int64], parts: Sequence[Content], covered: NDArray[np.float32]) -> _Rows:
    """Segments of users and operators, their role NaN, and those of tools with theirs."""
    counts = np.fromiter((len(part.texts) for part in parts), np.int64, len(parts))
    of = np.repeat(event, counts)
    if len(of) == 0:
        return _none()
    code = np.concatenate([part.roles for part in parts])
    judged = np.concatenate([part.judged[:, 0] for part in parts]) - np.repeat(covered, counts)
    role = np.where(code == TOOL, np.nan_to_num(judged), np.float32(np.nan)).astype(np.float32)
    kept = np.flatnonzero(np.isin(code, (USER, SYSTEM)) | (role > 0))
    hashes = np.concatenate([part.words.hash for part in parts])[kept]
    weights = np.concatenate([part.words.weight for part in parts])[kept]
    return _Rows(of[kept], Words(hashes, weights), role[kept])


def _values(event: NDArray[np.int64], parts: Sequence[Content]) -> _Rows:
    counts = np.fromiter((len(part.values) for part in parts), np.int64, len(parts))
    of = np.repeat(event, counts)
    if len(of) == 0:
        return _none()
    hashes = np.concatenate([part.asked.hash for part in parts])
    weights = np.concatenate([part.asked.weight for part in parts])
    return _Rows(of, Words(hashes, weights), np.zeros(len(of), np.float32))


def _none() -> _Rows:
    return _Rows(
        np.zeros(0, np.int64), Words(np.zeros((0, 0), np.uint32), np.zeros((0, 0), np.uint8)), np.zeros(0, np.float32)
    )
