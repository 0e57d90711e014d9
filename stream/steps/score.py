"""Signals, p-values and decisions of a batch, wave by wave, with what each wave teaches."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.calibration import Calibration
from models.novelty import Memory, Novelty
from models.volume import SUB_FEATURES
from stream.state.pending import Closings, Pending, Segments
from stream.state.quarantine import Flagged, Quarantine
from stream.state.schema import (
    KINDS,
    KNOWN_ATTACK,
    NOVELTY,
    PROVENANCE,
    RING,
    ROLE_SURPRISE,
    SEQUENCE,
    SHARED,
    TOOL_KNOWN_ATTACK,
    TOOL_NOVELTY,
    VOLUME,
)
from stream.state.table import Table, TenantKey
from stream.steps.content import ROLES, TOOL, USER
from stream.steps.drift import DriftInput, DriftStep, Moved
from stream.steps.learn_points import is_learn_point, waves
from stream.steps.likeness import RELIABLE_CHARS, likest
from stream.steps.rings import learn_sessions
from stream.steps.sessions import running_highest
from stream.steps.volume import VolumeInput, VolumeStep

HEARD = {USER: NOVELTY, TOOL: TOOL_NOVELTY}
"""Roles whose text is remembered, with the signal of its distance."""
_SIGNAL_OF_ROLE = np.array([HEARD.get(role, -1) for role in range(len(ROLES))], np.int64)
SAME_DISTANCE = np.float32(0.02)
"""Of two segments that say the same: a sentence hidden among known ones moves a segment further, if not far."""
UNFAMILIAR = 0.05
"""Share of a tenant's sessions in which users say something as new, or that take as strange a course: how large its
calls are then says nothing of theirs."""
_DAY_MS = 86_400_000
_LONGEST_MS = 1 << 61


def quarantine_ms(days: float) -> int:
    """`learning.quarantine_days` in ms of core time.

    >>> quarantine_ms(0.5), quarantine_ms(1e-12), quarantine_ms(0)
    (43200000, 1, 0)
    """
    return max(round(min(days * _DAY_MS, _LONGEST_MS)), int(days > 0))


@dataclass(frozen=True, slots=True)
class ScoreInput:
    """Events (n) that are no duplicates, in order, with their segments (s) in the order of their events."""

    tenant: NDArray[np.int64]
    """(n,) state rows."""
    core_time_ms: NDArray[np.int64]
    """(n,) their partitions' time."""
    ordinal: NDArray[np.int64]
    """(n,) of each event in its tenant."""
    ordinal_before: NDArray[np.int64]
    """(n,) the tenant's last ordinal in an earlier batch."""
    opened: NDArray[np.int64]
    """(n,) sessions the tenant had opened by this event."""
    session_ordinal: NDArray[np.int64]
    """(n,) the number of the event's own session in its tenant."""
    run: NDArray[np.int64]
    """(n,) index of its session in this batch."""
    windows: NDArray[np.int8]
    lengths: NDArray[np.int64]
    adapter: NDArray[np.int64]
    """(n,) rows of the bank, -1 for tenants that the release does not know."""
    operating_point: NDArray[np.float64]
    """(n,) the share of a tenant's benign sessions that may be found anomalous."""
    kept_out: NDArray[np.bool_]
    """(n,) what is flagged of the event is not kept to be learned later."""
    provenance: NDArray[np.float64]
    """(n,) that signal, which no tenant's learning changes; NaN where an event has none."""
    segment_event: NDArray[np.int64]
    segment_role: NDArray[np.int8]
    segment_judged: NDArray[np.float32]
    """(s, c) by the text models, NaN for roles they do not judge; of what tools say, less what is covered."""
    segment_covered: NDArray[np.float32]
    """(s,) log-odds that the user's requests took from each of `segment_judged`."""
    segment_chars: NDArray[np.float32]
    segment_vector: NDArray[np.int8]
    segment_owner: NDArray[np.uint64]
    segment_key: NDArray[np.uint32]
    """(s,) hash of the API key that it came with, 0 for none."""


Excepted = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(slots=True)
class Closing:
    """Sessions (c) that close within the batch, by tenant and time."""

    tenant: NDArray[np.int64]
    before_event: NDArray[np.int64]
    """(c,) the event whose time passed their end: it fires after those before it."""
    run: NDArray[np.int64]
    """(c,) the run that ends, or -1 where it is one of `maxima`."""
    maxima: NDArray[np.float64]
    """(c, kinds), of sessions without an event in this batch."""


@dataclass(slots=True)
class Scores:
    """What the events (n) came to."""

    x: NDArray[np.float64]
    """(n, kinds) signal values, NaN where an event has none."""
    p: NDArray[np.float64]
    """(n, kinds), 1 where there is no signal."""
    p_combined: NDArray[np.float64]
    eligible: NDArray[np.bool_]
    """(n, kinds) which count: all where the tenant has a past, the shared ones where it is young."""
    newcomer: NDArray[np.bool_]
    """(n,) whether the tenant is young and the release was not trained on it."""
    leading: NDArray[np.intp]
    """(n,) the kind that weighs most in it, of those that count for the tenant."""
    anomalous: NDArray[np.bool_]
    """(n,) at or beyond the operating point."""
    warmup: NDArray[np.bool_]
    """(n,) only signals against a past that the tenant does not have yet say so."""
    quarantined: NDArray[np.bool_]
    """(n,) held back from the memory."""
    location: NDArray[np.float64]
    """(n, kinds), what was normal for the tenant when the event was scored."""
    observations: NDArray[np.int64]
    """(n, kinds), sessions of the tenant's own behind it."""
    feature_error: NDArray[np.float32]
    """(n, F), the sequence signal by feature."""
    volume: NDArray[np.float32]
    """(n, J), the volume signal by sub-feature."""
    moved: list[Moved]
    """What of tenants' traffic has moved at their learn points."""
    distance: NDArray[np.float32]
    """(s,), the novelty signal by segment."""


@dataclass(slots=True)
class _Left:
    """What of a batch no learn point has taken yet."""

    slot: NDArray[np.int16]
    """(s,) of its tenant's memory that a segment was close to when scored, or -1."""
    waiting: NDArray[np.bool_]
    """(s,) segments to be learned."""
    flagged: NDArray[np.bool_]
    """(s,) segments to be held back first."""
    unclosed: NDArray[np.bool_]
    """(c,) closed sessions."""


class ScoreStep:
    """Scores with frozen state between learn points, learns at them.

    Parameters
    ----------
    novelty, volume, drift, bank, calibration
        The release's models.
    stamp
        By which state knows the release.
    grace_sessions
        Sessions of a tenant before its own past decides.
    quarantine_ms
        Core time that flagged segments are held back from the memory; with 0 they are learned like any others.
    learning
        False while a release is calibrated: memories stay as they are.
    """

    def __init__(
        self,
        novelty: Novelty,
        volume: VolumeStep,
        drift: DriftStep,
        bank: SequenceBank,
        calibration: Calibration,
        stamp: np.uint64,
        *,
        grace_sessions: int,
        quarantine_ms: int,
        learning: bool = True,
    ) -> None:
        self.novelty = novelty
        self._volume = volume
        self._drift = drift
        self.bank = bank
        self.calibration = calibration
        self._stamp = stamp
        self._grace_sessions = grace_sessions
        self._quarantine_ms = quarantine_ms
        self._learning = learning

    def score(
        self,
        given: ScoreInput,
        calls: VolumeInput,
        window: DriftInput,
        closing: Closing,
        run_maxima: NDArray[np.float64],
        tenants: Table[TenantKey],
        pending: Pending,
        quarantine: Quarantine,
        excepted: Excepted | None = None,
    ) -> tuple[Scores, Segments, Closings]:
        """Score a batch; `run_maxima` (k, kinds), the tenants' learned columns and the quarantine change in place.

        Parameters
        ----------
        excepted
            Tells of anomalous events (m), with the kinds (m) that are rarest in them, which are known to be harmless;
            None where nobody has said so of any.

        Returns
        -------
        Scores
            Of every event.
        Segments, Closings
            What waits for the tenants' next learn points.
        """
        n = len(given.tenant)
        kinds = len(KINDS)
        sequence, feature_error = self.bank.score(given.windows, given.lengths, given.adapter)
        scores = Scores(
            x=np.full((n, kinds), np.nan),
            p=np.ones((n, kinds)),
            p_combined=np.ones(n),
            eligible=np.ones((n, kinds), bool),
            newcomer=np.zeros(n, bool),
            leading=np.zeros(n, np.intp),
            anomalous=np.zeros(n, bool),
            warmup=np.zeros(n, bool),
            quarantined=np.zeros(n, bool),
            location=np.zeros((n, kinds)),
            observations=np.zeros((n, kinds), np.int64),
            feature_error=feature_error,
            volume=np.zeros((n, len(SUB_FEATURES)), np.float32),
            moved=[],
            distance=np.zeros(len(given.segment_event), np.float32),
        )
        scores.x[:, SEQUENCE] = sequence
        scores.x[:, PROVENANCE] = given.provenance
        segments = len(given.segment_event)
        wave = waves(given.ordinal, given.ordinal_before)
        learns = is_learn_point(given.ordinal)
        audible = _SIGNAL_OF_ROLE[given.segment_role] >= 0
        left = _Left(
            slot=np.full(segments, -1, np.int16),
            waiting=audible.copy(),
            flagged=np.zeros(segments, bool),
            unclosed=np.ones(len(closing.tenant), bool),
        )
        for number in range(int(wave.max(initial=-1)) + 1):
            here = np.flatnonzero(wave == number)
            heard = np.flatnonzero(audible & (wave[given.segment_event] == number))
            self._novelty(given, tenants, heard, scores, left.slot)
            unfamiliar = self._unfamiliar(given, here, scores.x, run_maxima, tenants)
            scores.x[here, VOLUME], scores.volume[here] = self._volume.score(calls, here, unfamiliar, tenants)
            self._decide(given, tenants, here, scores)
            self._drift.hear(window, here, np.where(np.isnan(scores.x[here]), np.nan, scores.p[here]))
            np.fmax.at(run_maxima, given.run[here], scores.x[here])
            self._hold_back(given, here, heard, scores, left, excepted)
            due = here[learns[here]]
            if len(due) and self._learning:
                self._learn(given, closing, run_maxima, tenants, pending, quarantine, due, left)
                self._volume.learn(calls, due, tenants)
                scores.moved += self._drift.learn(window, due, given.ordinal, tenants)
        quarantine.add(self._flagged(given, np.flatnonzero(left.flagged), left.slot))
        ended = np.flatnonzero(left.unclosed)
        return (
            scores,
            _segments(given, np.flatnonzero(left.waiting), left.slot),
            self._closed(closing, ended, run_maxima),
        )

    def _novelty(
        self,
        given: ScoreInput,
        tenants: Table[TenantKey],
        heard: NDArray[np.int64],
        scores: Scores,
        slot: NDArray[np.int16],
    ) -> None:
        """Signals of new segments: the strangest of an event, or the likest few to known attacks (`likest`)."""
        if len(heard) == 0:
            return
        event = given.segment_event[heard]
        rows, local = np.unique(given.tenant[event], return_inverse=True)
        distance, slot[heard] = self.novelty.score(
            memory_of(tenants, rows), local, given.segment_role[heard], given.segment_vector[heard]
        )
        reliable = np.minimum(given.segment_chars[heard] / RELIABLE_CHARS, np.float32(1))
        scores.distance[heard] = distance * reliable
        np.fmax.at(scores.x, (event, _SIGNAL_OF_ROLE[given.segment_role[heard]]), scores.distance[heard])
        # What the tenant has heard before, all but word for word, is no surprise however it speaks.
        fresh = np.flatnonzero(distance > SAME_DISTANCE)
        role, judged = given.segment_role[heard[fresh]], given.segment_judged[heard[fresh]]
        told = role == TOOL
        np.fmax.at(scores.x[:, ROLE_SURPRISE], event[fresh[told]], judged[told, 0])
        if judged.shape[1] > 1:
            kind = np.where(told, TOOL_KNOWN_ATTACK, KNOWN_ATTACK)
            likest(scores.x, event[fresh], kind, judged[:, 1:].max(axis=1), given.segment_chars[heard[fresh]])

    def _unfamiliar(
        self,
        given: ScoreInput,
        here: NDArray[np.int64],
        x: NDArray[np.float64],
        run_maxima: NDArray[np.float64],
        tenants: Table[TenantKey],
    ) -> NDArray[np.bool_]:
        """Whether the sessions of the events `here` (m), a wave, have been unlike their tenants' by then.

        What a session said earlier is judged by what its tenant has learned since.

        Parameters
        ----------
        x
            (n, kinds).
        run_maxima
            (k, kinds), before the wave.
        """
        row, run = given.tenant[here], given.run[here]
        unfamiliar = np.zeros(len(here), np.bool_)
        if self._volume.model.anyone is None:
            return unfamiliar
        for kind in (NOVELTY, SEQUENCE):
            highest = running_highest(x[here, kind], run, run_maxima[run, kind])
            location, scale = tenants["location"][row, kind], tenants["scale"][row, kind]
            strange = self.calibration.p_values(kind, highest, location, scale) <= UNFAMILIAR
            unfamiliar |= strange & np.isfinite(highest)
        return unfamiliar

    def _decide(self, given: ScoreInput, tenants: Table[TenantKey], here: NDArray[np.int64], scores: Scores) -> None:
        rows = given.tenant[here]
        x = scores.x[here]
        location, scale = tenants["location"][rows], tenants["scale"][rows]
        p = np.ones_like(x)
        for kind in range(len(KINDS)):
            p[:, kind] = self.calibration.p_values(kind, x[:, kind], location[:, kind], scale[:, kind])
        p[~np.isfinite(x)] = 1
        scores.location[here] = location
        scores.observations[here] = np.minimum(tenants["maxima_count"][rows], RING)
        scores.p[here] = p
        young = given.session_ordinal[here] <= self._grace_sessions
        # That an event has nothing for one of the kinds that count is no other try for its session.
        eligible = SHARED | ~young[:, None]
        newcomer = young & (given.adapter[here] < 0)
        scores.eligible[here], scores.newcomer[here] = eligible, newcomer
        scores.leading[here] = self.calibration.leading(p, eligible)
        combined = self.calibration.combine(p, eligible, newcomer)[1]
        operating_point = given.operating_point[here]
        scores.anomalous[here] = combined <= operating_point
        if young.any():
            everything = np.ones((int(young.sum()), len(KINDS)), np.bool_)
            past_too = self.calibration.combine(p[young], everything, newcomer[young])[1]
            scores.warmup[here[young]] = past_too <= operating_point[young]
            scores.warmup &= ~scores.anomalous
        scores.p_combined[here] = combined

    def _hold_back(
        self,
        given: ScoreInput,
        here: NDArray[np.int64],
        heard: NDArray[np.int64],
        scores: Scores,
        left: _Left,
        excepted: Excepted | None,
    ) -> None:
        """What was flagged is held back from the memory, not from the calibration (design.md, "Learning")."""
        if self._quarantine_ms == 0:
            return
        scores.quarantined[here] = scores.anomalous[here]
        anomalous = here[scores.anomalous[here]]
        if excepted is not None and len(anomalous):
            scores.quarantined[anomalous] = ~excepted(anomalous, scores.p[anomalous].argmin(axis=1))
        mine = heard[scores.quarantined[given.segment_event[heard]]]
        left.waiting[mine] = False
        # What the tenant knows already, and what is empty, would take the room of what is to be learned.
        new = (left.slot[mine] < 0) & given.segment_vector[mine].any(axis=1)
        left.flagged[mine] = new & ~given.kept_out[given.segment_event[mine]]

    def _flagged(self, given: ScoreInput, index: NDArray[np.int64], slot: NDArray[np.int16]) -> Flagged:
        due_ms = given.core_time_ms[given.segment_event[index]] + self._quarantine_ms
        return Flagged.of(_segments(given, index, slot), due_ms)

    def _closed(self, closing: Closing, index: NDArray[np.int64], run_maxima: NDArray[np.float64]) -> Closings:
        return Closings.under(self._stamp, closing.tenant[index], _maxima(closing, index, run_maxima))

    def _released(self, flagged: Flagged, memory: Memory, rows: NDArray[np.int64]) -> Segments:
        """Flagged segments as the memories of `rows` (sorted) hear them now: some have become known meanwhile."""
        _, slot = self.novelty.score(memory, np.searchsorted(rows, flagged.row), flagged.role, flagged.vector)
        return Segments(flagged.row, flagged.role, slot, flagged.owner, flagged.key, flagged.vector)

    def _learn(
        self,
        given: ScoreInput,
        closing: Closing,
        run_maxima: NDArray[np.float64],
        tenants: Table[TenantKey],
        pending: Pending,
        quarantine: Quarantine,
        due: NDArray[np.int64],
        left: _Left,
    ) -> None:
        """Let the tenants of the events `due` learn what they have heard up to them, and what was held back enough."""
        due = due[np.argsort(given.tenant[due], kind="stable")]
        rows = given.tenant[due]
        until = np.full(int(max(rows.max(), given.tenant.max(), closing.tenant.max(initial=0))) + 1, -1, np.int64)
        until[rows] = due
        heard = given.segment_event <= until[given.tenant[given.segment_event]]
        now, held_back = np.flatnonzero(left.waiting & heard), np.flatnonzero(left.flagged & heard)
        ended = np.flatnonzero(left.unclosed & (closing.before_event <= until[closing.tenant]))
        left.waiting[now] = False
        left.flagged[held_back] = False
        left.unclosed[ended] = False
        memory = memory_of(tenants, rows)
        quarantine.add(self._flagged(given, held_back, left.slot))
        released = self._released(quarantine.release(rows, given.core_time_ms[due]), memory, rows)
        earlier, closed = pending.take(rows)
        lesson = released.joined(earlier.joined(_segments(given, now, left.slot)).latest())
        self.novelty.learn(
            memory,
            lesson.lesson(rows),
            given.ordinal[due] - tenants["learned_at"][rows],
            given.opened[due] >= self._grace_sessions,
        )
        _put_back(tenants, rows, memory)
        closed = closed.joined(self._closed(closing, ended, run_maxima)).latest()
        learn_sessions(tenants, rows, closed, self.calibration, self._stamp)
        tenants["learned_at"][rows] = given.ordinal[due]
        tenants["learned_core_ms"][rows] = given.core_time_ms[due]
        tenants.mark("learned", rows)


def memory_of(tenants: Table[TenantKey], rows: NDArray[np.int64]) -> Memory:
    """A copy of these tenants' memories."""
    return Memory(
        tenants["memory"][rows],
        tenants["roles"][rows],
        tenants["weights"][rows],
        tenants["owners"][rows],
        tenants["keys"][rows],
        tenants["used"][rows],
    )


def _put_back(tenants: Table[TenantKey], rows: NDArray[np.int64], memory: Memory) -> None:
    tenants["memory"][rows] = memory.vectors
    tenants["roles"][rows] = memory.roles
    tenants["weights"][rows] = memory.weights
    tenants["owners"][rows] = memory.owners
    tenants["keys"][rows] = memory.keys
    tenants["used"][rows] = memory.used


def _segments(given: ScoreInput, index: NDArray[np.int64], slot: NDArray[np.int16]) -> Segments:
    return Segments(
        given.tenant[given.segment_event[index]],
        given.segment_role[index],
        slot[index],
        given.segment_owner[index],
        given.segment_key[index],
        given.segment_vector[index],
    )


def _maxima(closing: Closing, index: NDArray[np.int64], run_maxima: NDArray[np.float64]) -> NDArray[np.float64]:
    run = closing.run[index]
    if len(run_maxima) == 0:
        return closing.maxima[index]
    return np.where(run[:, None] >= 0, run_maxima[run], closing.maxima[index])
