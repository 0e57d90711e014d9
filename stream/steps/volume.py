"""Events -> what the volume signal judges, wave by wave, and what each tenant's next learn point takes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from models.volume import (
    BEGUN,
    CALLS,
    COUNTERS,
    FAILED,
    FIRST,
    GAUGES,
    GONE_ON,
    HOURS,
    NEW_KEY,
    PER_CALL,
    REPEATED,
    SESSIONS,
    SIZES,
    SUB_FEATURES,
    TOOLS,
    Baseline,
    Lesson,
    Observed,
    Volume,
    believed,
    cusum,
    error_steps,
    growth_steps,
    hour_of,
    log_grid,
)
from stream.batch import EventBatch
from stream.state.table import SessionKey, Table, TenantKey
from stream.state.volume import RECENT_CALLS
from stream.steps.sessions import Runs
from stream.steps.volume_keys import KeyUse, key_use

_HOURS_MAX = (1 << 16) - 1
_NOTHING = ("", "{}")
_GATHERED = ("volume_counts", "volume_sums", "volume_squares", "volume_counted", "volume_hours_counted")


@dataclass(slots=True)
class ToolCalls:
    """Tool calls (c) in the events' responses, in order."""

    event: NDArray[np.int64]
    tool: NDArray[np.int64]
    """(c,) hashed."""
    identity: NDArray[np.uint64]
    """(c,) hash of tool and arguments, 0 where the gateway recorded neither: two such need not be the same."""
    chars: NDArray[np.int64]
    """(c,) of the arguments."""


@dataclass(slots=True)
class VolumeInput:
    """Events (n) of a batch, with what of them does not depend on what their tenants have learned."""

    tenant: NDArray[np.int64]
    """(n,) state rows."""
    observed: Observed
    keys: KeyUse
    call_event: NDArray[np.int64]
    """(c,) of tool calls, by `call_group`, then in order."""
    call_group: NDArray[np.int64]
    """(c,) run and tool."""
    call_size: NDArray[np.int64]
    size_event: NDArray[np.int64]
    """(o,) of sizes to be learned."""
    size_gauge: NDArray[np.int64]
    size: NDArray[np.int64]
    """(o,) winsorised once their events have been scored."""
    counted: NDArray[np.int64]
    """(n, C)."""
    hour_counts: NDArray[np.bool_]
    """(n,) whether the event is its session's first in its hour."""
    untaken: NDArray[np.bool_]
    """(n,) events that no learn point has taken."""
    growth: NDArray[np.int64]
    """(k, TOOLS) CUSUM by run and tool; moves with each wave."""
    calls: NDArray[np.uint64]
    """(k, RECENT_CALLS) after the batch."""
    repeats: NDArray[np.int64]
    """(k,) after the batch."""
    errors: NDArray[np.int64]
    """(k,) after the batch."""
    new: NDArray[np.int64]
    """(k,) after the batch."""
    normal: NDArray[np.float32]
    """(n, J), what was normal when the event was scored: `explain` reads it."""
    unfamiliar: NDArray[np.bool_]
    """(n,) whether the event's session was unlike its tenant's, if the release asks."""
    as_anyones: NDArray[np.bool_]
    """(n, PER_CALL) which of the event's own sizes were held against any tenant's calls."""


class VolumeStep:
    """Observes a batch once, scores it wave by wave, teaches tenants at their learn points.

    Parameters
    ----------
    model
        The release's.
    """

    def __init__(self, model: Volume) -> None:
        self.model = model

    def observe(
        self,
        live: EventBatch,
        runs: Runs,
        core_time_ms: NDArray[np.int64],
        tenant: NDArray[np.int64],
        calls: ToolCalls,
        sessions: Table[SessionKey],
        tenants: Table[TenantKey],
    ) -> VolumeInput:
        """What can be said of the events (n) without what was learned; no state changes.

        Parameters
        ----------
        core_time_ms
            (n,) their partitions' time.
        tenant
            (n,) state rows.
        calls
            Of the events' responses.
        """
        n = len(live)
        keys = key_use(live, core_time_ms, tenant, tenants)
        counted = np.zeros((n, len(COUNTERS)), np.int64)
        counted[:, CALLS] = 1
        counted[:, FAILED] = live.failed
        counted[:, SESSIONS] = (runs.position == 0) & (runs.row[runs.of_event] < 0)
        errors, errors_after = _errors(live, runs, _carried(runs, sessions, "volume_errors"))
        repeats, recent, repeats_after = _repeats(calls, runs, sessions, counted)
        new_after = _new(keys, runs, _carried(runs, sessions, "volume_new"), counted)
        sizes = np.empty((n, SIZES), np.int64)
        own = live.prompt_tokens, live.completion_tokens, live.cost_usd * 1e6, live.duration_ms
        for column, values in enumerate((*own, *keys.counts[:, :2].T.astype(np.float64))):
            sizes[:, column] = log_grid(values)
        hour, hour_counts = _hours(live, runs, sessions)
        call_size = log_grid(calls.chars.astype(np.float64))
        event, gauge = np.nonzero(sizes[:, :PER_CALL] >= 0)
        closed = log_grid(keys.closed_counts[:, :2].astype(np.float64))
        group = runs.of_event[calls.event] * TOOLS + calls.tool
        order = np.argsort(group, kind="stable")
        return VolumeInput(
            tenant=tenant,
            observed=Observed(
                hour=hour,
                sizes=sizes,
                growth=np.zeros(n, np.int64),
                errors=errors,
                key_errors=keys.counts[:, [2, 0]],
                repeats=repeats,
                new=keys.new,
            ),
            keys=keys,
            call_event=calls.event[order],
            call_group=group[order],
            call_size=call_size[order],
            size_event=np.concatenate([event, calls.event, np.repeat(keys.closed_event, 2)]),
            size_gauge=np.concatenate([gauge, SIZES + calls.tool, np.tile([PER_CALL, PER_CALL + 1], len(closed))]),
            size=np.concatenate([sizes[event, gauge], call_size, closed.ravel()]),
            counted=counted,
            hour_counts=hour_counts,
            untaken=np.ones(n, np.bool_),
            growth=_carried(runs, sessions, "volume_growth"),
            calls=recent,
            repeats=repeats_after,
            errors=errors_after,
            new=new_after,
            normal=np.zeros((n, len(SUB_FEATURES)), np.float32),
            unfamiliar=np.zeros(n, np.bool_),
            as_anyones=np.zeros((n, PER_CALL), np.bool_),
        )

    def score(
        self,
        given: VolumeInput,
        here: NDArray[np.int64],
        unfamiliar: NDArray[np.bool_],
        tenants: Table[TenantKey],
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Signal (m,) and sub-features (m, J) of the events `here`, a wave, by what their tenants have learned so far.

        Waves must come in order: CUSUMs go on from one to the next.

        Parameters
        ----------
        unfamiliar
            (m,) whether the events' sessions are unlike their tenants'.
        """
        rows, local = np.unique(given.tenant[here], return_inverse=True)
        normal = self.model.normal(baseline_of(tenants, rows))
        at = np.full(len(given.tenant), -1, np.int64)
        at[here] = local
        calls = np.flatnonzero(at[given.call_event] >= 0)
        event, group = given.call_event[calls], given.call_group[calls]
        steps = growth_steps(normal, at[event], group % TOOLS, given.call_size[calls])
        growth = cusum(steps, group, given.growth.ravel()[group])
        # Of several writes to one place the last one stays, which is the latest call's.
        given.growth.reshape(-1)[group] = growth
        np.maximum.at(given.observed.growth, event, growth)
        sizes = np.flatnonzero(at[given.size_event] >= 0)
        row, gauge = at[given.size_event[sizes]], given.size_gauge[sizes]
        given.size[sizes] = believed(normal, row, gauge, given.size[sizes])
        observed = given.observed.take(here)
        as_anyones = self.model.as_anyones(normal, local, observed, unfamiliar)
        value, features = self.model.score(normal, local, observed, as_anyones)
        given.normal[here] = self.model.typical(normal)[local]
        given.unfamiliar[here], given.as_anyones[here] = unfamiliar, as_anyones
        return value.astype(np.float64), features

    def learn(self, given: VolumeInput, due: NDArray[np.int64], tenants: Table[TenantKey]) -> None:
        """Let the tenants of the events `due`, one each, learn from what they have brought up to these events.

        Changes learned columns, and sets those back that gather for the next learn point.
        """
        due = due[np.argsort(given.tenant[due], kind="stable")]
        rows = given.tenant[due]
        until = np.full(int(given.tenant.max()) + 1, -1, np.int64)
        until[rows] = due
        lesson = self._gathered(given, given.untaken & (np.arange(len(given.tenant)) <= until[given.tenant]), rows)
        lesson.counts += tenants["volume_counts"][rows]
        lesson.sums += tenants["volume_sums"][rows]
        lesson.squares += tenants["volume_squares"][rows]
        lesson.counters += tenants["volume_counted"][rows]
        lesson.hours = np.minimum(lesson.hours + tenants["volume_hours_counted"][rows], _HOURS_MAX)
        baseline = baseline_of(tenants, rows)
        self.model.learn(baseline, lesson)
        tenants["volume_gauges"][rows] = baseline.gauges
        tenants["volume_counters"][rows] = baseline.counters
        tenants["volume_hours"][rows] = baseline.hours
        for column in _GATHERED:
            tenants[column][rows] = 0

    def store(
        self,
        given: VolumeInput,
        tenants: Table[TenantKey],
        sessions: Table[SessionKey],
        run: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Write what the batch leaves behind; the tenants (rows) whose live columns changed, to be marked.

        Parameters
        ----------
        run, rows
            (r,) runs that are still open, and their session rows.
        """
        changed = np.unique(given.tenant)
        lesson = self._gathered(given, given.untaken, changed)
        given.untaken[:] = False
        tenants["volume_counts"][changed] += lesson.counts.astype(np.int32)
        tenants["volume_sums"][changed] += lesson.sums.astype(np.int32)
        tenants["volume_squares"][changed] += lesson.squares
        tenants["volume_counted"][changed] += lesson.counters.astype(np.int32)
        hours = tenants["volume_hours_counted"][changed] + lesson.hours
        tenants["volume_hours_counted"][changed] = np.minimum(hours, _HOURS_MAX)
        given.keys.store(tenants)
        sessions["volume_calls"][rows] = given.calls[run]
        sessions["volume_repeats"][rows] = given.repeats[run]
        sessions["volume_growth"][rows] = given.growth[run]
        sessions["volume_errors"][rows] = given.errors[run]
        sessions["volume_new"][rows] = given.new[run]
        return changed

    def _gathered(self, given: VolumeInput, chosen: NDArray[np.bool_], rows: NDArray[np.int64]) -> Lesson:
        """Take the `chosen` events (n,), all of the tenants `rows` (t, sorted): what they bring."""
        t = len(rows)
        lesson = Lesson(
            np.zeros((t, len(GAUGES)), np.int64),
            np.zeros((t, len(GAUGES)), np.int64),
            np.zeros((t, len(GAUGES)), np.int64),
            np.zeros((t, len(COUNTERS)), np.int64),
            np.zeros((t, HOURS), np.int64),
        )
        sizes = np.flatnonzero(chosen[given.size_event])
        row = np.searchsorted(rows, given.tenant[given.size_event[sizes]])
        gauge, size = given.size_gauge[sizes], given.size[sizes]
        np.add.at(lesson.counts, (row, gauge), 1)
        np.add.at(lesson.sums, (row, gauge), size)
        np.add.at(lesson.squares, (row, gauge), size * size)
        events = np.flatnonzero(chosen)
        np.add.at(lesson.counters, np.searchsorted(rows, given.tenant[events]), given.counted[events])
        events = events[given.hour_counts[events]]
        np.add.at(lesson.hours, (np.searchsorted(rows, given.tenant[events]), given.observed.hour[events]), 1)
        given.untaken &= ~chosen
        return lesson


def baseline_of(tenants: Table[TenantKey], rows: NDArray[np.int64]) -> Baseline:
    """A copy of what these tenants have learned."""
    return Baseline(tenants["volume_gauges"][rows], tenants["volume_counters"][rows], tenants["volume_hours"][rows])


def tool_calls(live: EventBatch) -> ToolCalls:
    """The tool calls that the events' responses make; a history that is sent again makes none."""
    event: list[int] = []
    tool: list[int] = []
    identity: list[int] = []
    chars: list[int] = []
    for i, head in enumerate(live.heads):
        for message in head.output:
            for part in message.parts:
                if part.type == "tool_call":
                    name, arguments = part.name or "", part.arguments or ""
                    event.append(i)
                    tool.append(_bucket(name))
                    identity.append(_identity(name, arguments))
                    chars.append(len(arguments))
    return ToolCalls(
        np.array(event, np.int64), np.array(tool, np.int64), np.array(identity, np.uint64), np.array(chars, np.int64)
    )


def _carried(runs: Runs, sessions: Table[SessionKey], column: str) -> NDArray[np.int64]:
    """A session column (k, ...) as the runs bring it from earlier batches, 0 for those that begin here."""
    stored = sessions[column][runs.row].astype(np.int64)
    stored[runs.row < 0] = 0
    return stored


def _errors(live: EventBatch, runs: Runs, carried: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """CUSUM (n,) of each event's session's failures, and (k,) after the batch."""
    order = runs.order
    run = runs.of_event[order]
    out = np.empty(len(order), np.int64)
    out[order] = cusum(error_steps(live.failed[order]), run, carried[run])
    return out, out[runs.last]


def _hours(live: EventBatch, runs: Runs, sessions: Table[SessionKey]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Hour (n,) of each event, and whether its session's event before lies in another, or there is none."""
    row = runs.row[runs.of_event]
    before = np.where(runs.previous >= 0, live.event_time_ms[runs.previous], sessions["last_event_ms"][row])
    hour = hour_of(live.event_time_ms)
    begins = (runs.previous < 0) & (row < 0)
    return hour, begins | (hour_of(before) != hour)


def _new(keys: KeyUse, runs: Runs, carried: NDArray[np.int64], counted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count each session's first new key, user agent and network; bits (k,) after the batch."""
    after = carried.copy()
    for bit in range(keys.new.shape[1]):
        events = np.flatnonzero(keys.new[:, bit])
        run, first = np.unique(runs.of_event[events], return_index=True)
        fresh = carried[run] >> bit & 1 == 0
        counted[events[first[fresh]], NEW_KEY + bit] = 1
        after[run] |= 1 << bit
    return after


def _repeats(
    calls: ToolCalls, runs: Runs, sessions: Table[SessionKey], counted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Length (n,) of the longest row of repeated tool calls that each event's calls end or go on.

    Counts the calls that could begin, or continue, such a row, and those that do.

    Returns
    -------
    repeats
        (n,).
    recent, repeats_after
        (k, RECENT_CALLS) hashes and (k,) length after the batch.
    """
    n, k = len(runs.of_event), len(runs.keys)
    stored = sessions["volume_calls"][runs.row].copy()
    stored[runs.row < 0] = 0
    row_length = _carried(runs, sessions, "volume_repeats")
    told = np.flatnonzero(calls.identity)
    order = told[np.argsort(runs.of_event[calls.event[told]], kind="stable")]
    event = calls.event[order]
    run = runs.of_event[event]
    made = np.bincount(run, minlength=k)
    # Each run's earlier calls stand before its own on one line.
    base = np.cumsum(made + RECENT_CALLS) - (made + RECENT_CALLS)
    line = np.zeros(len(order) + k * RECENT_CALLS, np.uint64)
    line[base[:, None] + np.arange(RECENT_CALLS)] = stored
    begin = np.cumsum(made) - made
    at = base[run] + RECENT_CALLS + np.arange(len(order)) - begin[run]
    line[at] = calls.identity[order]
    repeated = np.zeros(len(order), np.bool_)
    for back in range(1, RECENT_CALLS + 1):
        repeated |= line[at - back] == line[at]
    number = np.arange(len(order))
    broken = np.maximum.accumulate(np.where(repeated, -1, number))
    length = number - np.where(broken < begin[run], begin[run] - 1 - row_length[run], broken)
    first = number == begin[run]
    before = np.where(first, row_length[run], np.r_[0, length[:-1]]) if len(order) else length
    followed = line[at - 1] != 0
    for counter, where in (
        (FIRST, followed & (before == 0)),
        (BEGUN, repeated & (before == 0)),
        (REPEATED, before > 0),
        (GONE_ON, repeated & (before > 0)),
    ):
        np.add.at(counted[:, counter], event[where], 1)
    out = np.zeros(n, np.int64)
    np.maximum.at(out, event, length)
    after = row_length.copy()
    after[run] = length
    recent = line[(base + made)[:, None] + np.arange(RECENT_CALLS)]
    return out, recent, after


@lru_cache(maxsize=4096)
def _bucket(name: str) -> int:
    """As `stream.steps.content` counts tools."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % TOOLS


def _identity(name: str, arguments: str) -> int:
    if not name and arguments in _NOTHING:
        return 0
    said = f"{name}\x1f{arguments}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(said, digest_size=8).digest(), "big") or 1
