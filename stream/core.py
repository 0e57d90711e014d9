"""The core: inputs in, Outcome out. No Kafka, clock, environment or disk."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from models.novelty import Novelty
from models.provenance import Provenance, Told
from schemas.control import ReleaseSwitch, RuleChange, VerdictEffect
from stream.batch import EventBatch
from stream.config import Settings
from stream.errors import StateError
from stream.inputs import CONTROLS_IGNORED, IGNORED, Applied, InputBatch, Outcome, effect_of
from stream.record import JournalEntry, Record
from stream.release import Release
from stream.state.forgetting import Forgetting
from stream.state.partition import Cursor, Partition
from stream.state.pending import Closings, Segments
from stream.state.rows import sealed
from stream.state.schema import KINDS, NEVER_MS, warm_columns
from stream.state.store import State
from stream.state.table import SessionKey
from stream.steps.columns import carried_maxima, score_input, tenant_rows
from stream.steps.content import Content, ContentReader, Embeds
from stream.steps.controls import ControlStep
from stream.steps.decide import Decider
from stream.steps.decode import decode
from stream.steps.delegation import Covered, covered, store_covered
from stream.steps.drift import DriftStep
from stream.steps.features import features, windows
from stream.steps.findings import FindingWriter
from stream.steps.provenance import obeyed, store_told
from stream.steps.report import ReportStep
from stream.steps.score import Excepted, ScoreInput, ScoreStep, quarantine_ms
from stream.steps.scored import Scored
from stream.steps.sessions import (
    Heads,
    NewContent,
    Runs,
    Suspicion,
    find_new_content,
    find_runs,
    find_suspicion,
    store_heads,
)
from stream.steps.timing import closing, quiet_sessions, timed
from stream.steps.volume import VolumeInput, VolumeStep, tool_calls

SUSPICIOUS_P = 0.1
"""At or below it an event is part of what a finding may be about, though it opens none."""


Watch = Callable[[Scored, Outcome], None]


class Core:
    """Scores micro-batches; the same inputs in the same order give the same bytes, however they are cut.

    Parameters
    ----------
    settings
        Of which only the sections that the journal holds are read.
    release
        What to score with.
    embedder
        Of the release's space.
    learning
        False while a release is calibrated: tenants' memories stay as they are.
    watch
        Shown every batch as it was scored, with what was said of it; it must change nothing.
    """

    def __init__(
        self,
        settings: Settings,
        release: Release,
        embedder: Embeds,
        *,
        learning: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self._settings = settings
        self._watch = watch
        self._embedder = embedder
        self._learning = learning
        self._quarantine_ms = quarantine_ms(settings.learning.quarantine_days)
        self._novelty = Novelty(dim=embedder.dim)
        self._provenance = Provenance()
        self._drift = DriftStep(KINDS)
        self._state = State(settings, self._novelty, release.name)
        self._forgetting = Forgetting(self._state, settings.learning)
        self._findings = FindingWriter(
            self._state.findings, release.name, settings.topics.partitions, settings.findings.test_tenant
        )
        self._put_in_service(release)

    @property
    def release(self) -> Release:
        """What is scored with."""
        return self._release

    def serve(self, release: Release) -> None:
        """Score with another release from the next step on, whose controls must switch every partition in it.

        Tenants' own calibration follows when their next event is scored; no state is read or written before.

        Raises
        ------
        StateError
            When state of the one in service means something else to it.
        """
        if release.ids != self._release.ids:
            names = ("space_id", "feature_schema", "state_schema")
            differing = ", ".join(
                f"{name} {theirs!r} against {ours!r}"
                for name, theirs, ours in zip(names, release.ids, self._release.ids, strict=True)
                if theirs != ours
            )
            raise StateError(
                f"release {release.name!r} cannot go on from the state of release {self._release.name!r}: {differing}. "
                "Let a second scorer with its own --group-id and --output-prefix serve it, and take over once it has "
                "caught up."
            )
        if release.name != self._release.name:
            self._put_in_service(release)

    def _put_in_service(self, release: Release) -> None:
        self._release = release
        self._state.release = release.name
        self._findings.serve(release.name)
        # What the former text models thought of a message is cached with it.
        self._reader = ContentReader(self._embedder, release.texts)
        self._decider = Decider(self._settings, release.sessions_per_day)
        self._report = ReportStep(self._state, self._findings, self._decider, release.name)
        self._volume = VolumeStep(release.volume)
        self._controls = ControlStep(self._state, self._quarantine_ms, release)
        self._score_step = ScoreStep(
            self._novelty,
            self._volume,
            self._drift,
            release.bank,
            release.calibration,
            self._state.stamp,
            grace_sessions=self._settings.learning.grace_sessions,
            quarantine_ms=self._quarantine_ms,
            learning=self._learning,
        )

    def cursor(self, partition: int) -> Cursor | None:
        """Where a partition stands, None when it is not held or has never had an input."""
        held = self._state.partitions.get(partition)
        return held.cursor() if held is not None else None

    def next_timer_ms(self, partition: int) -> int | None:
        """Core time at which the partition's next timer may be due."""
        return self._state.next_timer_ms(partition)

    def state_bytes(self) -> int:
        """Bytes that tenants and sessions take in memory."""
        return self._state.memory_bytes()

    def budget_used(self) -> float:
        """Share of what the partitions' allowances can hold that is spent; 0 without a budget."""
        used = room = 0.0
        for held in self._state.partitions.values():
            own = self._decider.used(held.number, held.allowances, held.core_time_ms)
            used, room = used + own[0], room + own[1]
        return used / room if room else 0.0

    def export_tenants(self) -> tuple[list[str], dict[str, NDArray[Any]]]:
        """Tenants (t), sorted, and the columns of their rows, t each: what a release's warm rows are made of.

        Of a tenant split over partitions it is the row of the one that has heard most of it.
        """
        table = self._state.tenants
        keys = table.keys()
        rows = table.find(keys)
        heard = table["ordinal"][rows].tolist()
        best: dict[str, tuple[int, int, int]] = {}
        for (partition, name), row, ordinal in zip(keys, rows.tolist(), heard, strict=True):
            best[name] = max(best.get(name, (0, 0, -1)), (ordinal, -partition, row))
        names = sorted(best)
        chosen = np.array([best[name][2] for name in names], np.int64)
        warm = {column: table[column][chosen] for column in warm_columns(table)}
        # Time starts anew where a warm row is taken, and so does what was learned when.
        warm["learned_core_ms"][:] = 0
        return names, warm

    def drop(self, partition: int) -> None:
        """Forget a partition: it was revoked, or its state ran ahead of a commit that failed."""
        self._state.drop(partition)

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take a partition's state from its rows, in the order of the topic: the last value of a key counts.

        Raises
        ------
        StateError
            When a row cannot be read.
        """
        self._state.restore(partition, rows)

    def step(self, inputs: InputBatch) -> Outcome:
        """Controls, then events: what should be written for them, all of it or nothing.

        State has changed in memory when this returns: a caller that cannot write the outcome drops the partitions.
        """
        outcome = Outcome()
        hits, misses = self._reader.hits, self._reader.misses
        for control in inputs.controls:
            self._apply(control, inputs.topic, outcome)
        self._check_served({record.partition for record in inputs.records})
        if inputs.records:
            batch, outcome.dead_letters = decode(inputs.records, self._settings.core.future_ms)
            if len(batch):
                self._score_days(batch, outcome)
            self._advance(inputs.records)
        for partition, offset in inputs.next_offsets.items():
            held = self._state.held(partition)
            held.next_offset = max(held.next_offset, offset)
        outcome.changes = [sealed(change) for change in (*outcome.changes, *self._state.changes())]
        outcome.counts["embedding_cache_hits"] = self._reader.hits - hits
        outcome.counts["embedding_cache_misses"] = self._reader.misses - misses
        return outcome

    def _check_served(self, partitions: Iterable[int]) -> None:
        for partition in sorted(partitions):
            named = self._state.held(partition).release
            if named != self._release.name:
                raise StateError(
                    f"partition {partition} must be scored by release {named!r}, which is in service there; the core "
                    f"serves {self._release.name!r}. Give the core the control that switches the partition."
                )

    def _apply(self, control: Applied, topic: str, outcome: Outcome) -> None:
        held = self._state.held(control.partition)
        value = _writable(control)
        from_topic = control.kind == "control" and (control.control_offset is not None or "value" in control.value)
        if from_topic and not self._takes_effect(held, value):
            value = {**value, IGNORED: True}
            outcome.counts[CONTROLS_IGNORED] = outcome.counts.get(CONTROLS_IGNORED, 0) + 1
        entry = {
            "before_offset": held.next_offset,
            "control_offset": control.control_offset,
            "kind": control.kind,
            "partition": control.partition,
            "seq": held.journal_seq,
            "value": value,
        }
        outcome.journal.append(JournalEntry(control.partition, orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)))
        held.journal_seq += 1
        if control.kind == "tick":
            held.ingest_time_ms = int(control.value.get("ingest_time_ms", held.ingest_time_ms))
            self._tick(held, int(control.value["core_time_ms"]), topic, outcome)
            return
        held.given = str(value.get("given", held.given))
        if control.control_offset is not None:
            held.next_control = control.control_offset + 1
        if not from_topic:
            held.release = str(value.get("release", held.release))
            held.config_hash = str(value.get("config_hash", held.config_hash))

    def _takes_effect(self, held: Partition, value: Mapping[str, Any]) -> bool:
        """Let a control from its topic take effect: whether it has one."""
        self._state.expire(held.number)
        effect = effect_of(value)
        if isinstance(effect, ReleaseSwitch):
            # The shell serves what it could load and believes. Whatever else was asked for was refused, or another
            # control of this step has come over it.
            if effect.release != self._release.name:
                return False
            held.release = effect.release
        elif isinstance(effect, RuleChange):
            self._controls.change_rule(held, effect)
        elif isinstance(effect, VerdictEffect):
            self._controls.take_verdict(held, effect, int(value["time_ms"]))
        return effect is not None

    def _tick(self, held: Partition, core_time_ms: int, topic: str, outcome: Outcome) -> None:
        """Time passes without an event: fire what is due."""
        if core_time_ms <= held.core_time_ms:
            return
        outcome.changes += self._forgetting.begin_day(held, core_time_ms)
        held.core_time_ms = core_time_ms
        state = self._state
        closed = quiet_sessions(state, held, core_time_ms, self._settings.core.session_quiet_ms, set())
        rows = np.array([row for _, _, row in closed], np.int64)
        tenants = state.tenants.find([key[:2] for _, key, _ in closed])
        closings = Closings.under(state.stamp, tenants, state.session_maxima(rows))
        outcome.changes += state.pending.store(Segments.none(self._novelty.dim), closings, state.tenants)
        state.sessions.remove([key for _, key, _ in closed])
        source = (topic, held.number, held.next_offset)
        self._report.close(held, core_time_ms, lambda _: source, outcome)

    def _advance(self, records: Sequence[Record]) -> None:
        for record in records:
            held = self._state.held(record.partition)
            held.next_offset = record.offset + 1
            held.ingest_time_ms = record.timestamp_ms

    def _score_days(self, batch: EventBatch, outcome: Outcome) -> None:
        """Score a batch, cut where an event takes its partition into another day: who is due is forgotten before it."""
        while (at := self._forgetting.next_day(batch)) is not None:
            if at > 0:
                self._score(batch.take(np.arange(at)), outcome)
                batch = batch.take(np.arange(at, len(batch)))
            held = self._state.held(int(batch.partition[0]))
            outcome.changes += self._forgetting.begin_day(held, int(batch.event_time_ms[0]))
        self._score(batch, outcome)

    def _score(self, batch: EventBatch, outcome: Outcome) -> None:
        state, quiet_ms = self._state, self._settings.core.session_quiet_ms
        placed = timed(batch, state, self._settings, outcome)
        no_content = sum(not (head.messages or head.output) for head in batch.heads)
        outcome.count({"clamped": int(batch.clamped.sum()), "late": int(placed.late.sum()), "no_content": no_content})
        live = batch.take(placed.live)
        core_time = placed.core_time_ms[placed.live]
        core_end = np.fromiter((state.partitions[p].core_time_ms for p in live.partition.tolist()), np.int64, len(live))
        keys: list[SessionKey] = [
            (p, head.tenant, head.session) for p, head in zip(live.partition.tolist(), live.heads, strict=True)
        ]
        runs = find_runs(keys, core_time, core_end, state.sessions, quiet_ms)
        new, heads = find_new_content(live, runs, state.sessions)
        contents = self._contents(live, new)
        x = features(live, new, contents, _previous_time(live, runs, state))
        seen, lengths, tail, tail_lengths = windows(x, runs, state.sessions)
        tenant, names = tenant_rows(keys, state, self._release)
        adapter = np.fromiter((self._release.adapters.get(name, -1) for name in names), np.int64, len(names))
        hears = self._release.texts.delegation is not None
        asked = covered(runs, new, contents, state.sessions, known=hears)
        heard = obeyed(self._provenance, runs, new, contents, asked.odds, state.sessions)
        given = score_input(
            runs,
            new,
            contents,
            seen,
            lengths,
            core_time,
            tenant,
            adapter,
            heard.x,
            asked.odds,
            [head.key_hash for head in live.heads],
            self._decider.session_fpr,
            state,
            self._novelty.dim,
        )
        made = tool_calls(live)
        calls = self._volume.observe(live, runs, core_time, tenant, made, state.sessions, state.tenants)
        window = self._drift.observe(live, tenant, made, given.segment_event, given.segment_role, given.segment_vector)
        ending = closing(placed, runs, state, quiet_ms)
        maxima = carried_maxima(runs, state)
        scores, segments, closings = self._score_step.score(
            given,
            calls,
            window,
            ending,
            maxima,
            state.tenants,
            state.pending,
            state.quarantine,
            self._excepted(live, core_time) if state.rules else None,
        )
        outcome.count({"unfamiliar": int(calls.unfamiliar.sum())})
        suspicion = find_suspicion(scores.p_combined <= SUSPICIOUS_P, live.event_time_ms, runs, state.sessions)
        # The last of several writes to one row stays, which is the latest event's.
        state.tenants["ordinal"][tenant] = given.ordinal
        state.tenants["sessions"][tenant] = given.opened
        state.tenants.mark("tenant", np.unique(tenant))
        self._store_sessions(
            live, core_time, runs, heads, given, maxima, tail, tail_lengths, heard.told, asked, suspicion, calls
        )
        state.tenants.mark("drift", self._drift.store(window, state.tenants))
        outcome.changes += state.pending.store(segments, closings, state.tenants)
        scored = Scored(placed, live, given, calls, scores, suspicion, new, contents, self._release.texts.classes)
        self._report.report(scored, outcome)
        if self._watch is not None:
            self._watch(scored, outcome)

    def _excepted(self, live: EventBatch, core_time_ms: NDArray[np.int64]) -> Excepted:
        """Tells of anomalous events whether an exception says that they are harmless."""

        def excepted(events: NDArray[np.int64], kinds: NDArray[np.int64]) -> NDArray[np.bool_]:
            out = np.zeros(len(events), np.bool_)
            for i, (event, kind) in enumerate(zip(events.tolist(), kinds.tolist(), strict=True)):
                head, place = live.heads[event], (int(live.partition[event]), live.heads[event].tenant)
                rule = self._state.rules.find(place, head.session, head.key_hash, KINDS[kind], int(core_time_ms[event]))
                out[i] = rule is not None and rule.action == "exception"
            return out

        return excepted

    def _contents(self, live: EventBatch, new: NewContent) -> list[Content]:
        messages = []
        for event, position in zip(new.event.tolist(), new.message.tolist(), strict=True):
            head = live.heads[event]
            request = len(head.messages)
            messages.append(head.messages[position] if position < request else head.output[position - request])
        return self._reader.read(messages)

    def _store_sessions(
        self,
        live: EventBatch,
        core_time_ms: NDArray[np.int64],
        runs: Runs,
        heads: Sequence[Heads],
        given: ScoreInput,
        maxima: NDArray[np.float64],
        tail: NDArray[np.int8],
        tail_lengths: NDArray[np.int64],
        told: Told,
        asked: Covered,
        suspicion: Suspicion,
        calls: VolumeInput,
    ) -> None:
        """Each session's last run is what is left of it: a row while it is open, else nothing."""
        k, table = len(runs.keys), self._state.sessions
        final = [i for i in range(k) if i + 1 == k or runs.keys[i + 1] != runs.keys[i]]
        table.remove([runs.keys[i] for i in final if runs.ended_ms[i] != NEVER_MS and runs.keys[i] in table])
        stay = [i for i in final if runs.ended_ms[i] == NEVER_MS]
        if not stay:
            self._store_volume(calls, np.zeros(0, np.int64), np.zeros(0, np.int64))
            return
        rows = table.find([runs.keys[i] for i in stay])
        absent = np.flatnonzero(rows < 0)
        rows[absent] = table.create([runs.keys[stay[i]] for i in absent.tolist()])
        run = np.array(stay, np.int64)
        last = runs.last[run]
        counts = np.bincount(runs.of_event, minlength=k)[run]
        goes_on = runs.row[run] >= 0
        table["events"][rows] = np.where(goes_on, table["events"][rows], 0) + counts
        table["suspicious_turn"][rows] = suspicion.first_turn[last]
        table["suspicious_ms"][rows] = suspicion.first_ms[last]
        table["session_ordinal"][rows] = given.session_ordinal[last]
        table["last_core_ms"][rows] = core_time_ms[last]
        table["last_event_ms"][rows] = live.event_time_ms[last]
        table["session_maxima"][rows] = maxima[run]
        table["session_stamp"][rows] = self._state.stamp
        table["window"][rows] = tail[run]
        table["window_used"][rows] = tail_lengths[run]
        store_heads(table, rows, [heads[i] for i in stay])
        store_told(table, rows, told, run)
        store_covered(table, rows, asked.code[run])
        self._store_volume(calls, run, rows)
        table.mark("session", rows)
        quiet_ms = self._settings.core.session_quiet_ms
        for i in np.flatnonzero(~goes_on).tolist():
            key = runs.keys[stay[i]]
            self._state.partitions[key[0]].watch(int(core_time_ms[last[i]]) + quiet_ms, key)

    def _store_volume(self, calls: VolumeInput, run: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        tenants = self._state.tenants
        tenants.mark("volume", self._volume.store(calls, tenants, self._state.sessions, run, rows))


def _writable(control: Applied) -> dict[str, Any]:
    """A control's value as the journal can hold it: of one from its topic that cannot be written, that it is ignored.

    >>> _writable(Applied(0, "control", {"kind": "exception", "time_ms": 2**65}, 7))
    {'kind': 'unreadable', 'refused': 'no control: it cannot be written as JSON', 'ignored': True}
    """
    value = dict(control.value)
    if control.kind == "control":
        try:
            # As deep as in a journal's entry.
            orjson.dumps({"value": value}, option=orjson.OPT_SORT_KEYS)
        except (orjson.JSONEncodeError, RecursionError):
            return {"kind": "unreadable", "refused": "no control: it cannot be written as JSON", IGNORED: True}
    return value


def _previous_time(live: EventBatch, runs: Runs, state: State) -> NDArray[np.int64]:
    """Event time (n) of the session's event before, or the event's own where it is the first."""
    stored = np.where(runs.row >= 0, state.sessions["last_event_ms"][runs.row], NEVER_MS)[runs.of_event]
    before = np.where(runs.previous >= 0, live.event_time_ms[runs.previous], stored)
    return np.where(before == NEVER_MS, live.event_time_ms, before)
