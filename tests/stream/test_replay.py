"""Replay says what the live scorer said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import orjson
import pytest

from schemas.journal import Journal
from stream.config import DecisionSettings, FindingsSettings, Settings
from stream.core import Core
from stream.errors import StateError
from stream.inputs import Applied, InputBatch, Outcome
from stream.journal import JournalPlan, Start, read_entries
from stream.record import OutRecord, Record
from stream.release import Release
from stream.replay import Replay, Told
from stream.sinks.file import DEAD_LETTERS, FINDINGS, SCORES, FileSink
from stream.sinks.memory import MemorySink
from stream.sources.memory import MemorySource
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from tests.doubles import WordEmbedder
from tests.stream.controls import begin, end, switch, verdict
from tests.stream.releases import release
from tests.stream.streams import QUIET_MS, SETTINGS, START_MS, TOPIC, cut, event, record, stream, text

STRICTER = replace(SETTINGS, decision=DecisionSettings(session_fpr=0.005), findings=FindingsSettings(quiet_ms=QUIET_MS))
OUTPUTS = (SCORES, FINDINGS, DEAD_LETTERS)


RELEASES = {made.name: made for made in (release(), release("r-other", seed=6), release("r-third", seed=7))}


def core(settings: Settings) -> Core:
    return Core(settings, release(), WordEmbedder())


def plain() -> JournalPlan:
    """Nothing to be repeated."""
    return JournalPlan(SETTINGS, release().name)


def core_of(named: str) -> Callable[[Settings], Core]:
    return lambda settings: Core(settings, RELEASES[named], WordEmbedder())


class LiveScorer:
    """What a scorer does to its core over a stream's life, and what its topics hold afterwards."""

    def __init__(
        self, out: Path, random: Random, partitions: int = 3, controls: Mapping[int, dict[str, Any]] | None = None
    ) -> None:
        """`controls` come after so many records each."""
        self.journal: list[bytes] = []
        self.rows: dict[int, list[tuple[bytes, bytes | None]]] = {}
        self._sink = FileSink(out)
        self._random = random
        self._settings = SETTINGS
        self._core = core(SETTINGS)
        self._serving = release()
        self._controls = {p: [self._start(p)] for p in range(partitions)}
        self._due = dict(controls or {})
        self._log: list[dict[str, Any]] = []

    def run(self, records: Sequence[Record]) -> None:
        """Batches, markers, ticks and restarts, as they happen to come."""
        random, at, turn = self._random, 0, 0
        while at < len(records):
            turn += 1
            for place in [place for place in sorted(self._due) if place <= at]:
                self._given(self._due.pop(place))
            size = random.choice([1, 3, 10, 40])
            batch = records[at : at + size]
            at += size
            partitions = {record.partition for record in batch}
            last = batch[-1]
            following = (record.offset for record in records[at:] if record.partition == last.partition)
            # Behind the last record may lie a transaction's marker.
            ends = {last.partition: random.choice([last.offset + 1, next(following, last.offset + 2)])}
            self._step(batch, [control for p in sorted(partitions) for control in self._waiting(p)], ends)
            if random.random() < 0.3:
                self._tick(random.randrange(3))
            if random.random() < 0.1:
                self._restart(SETTINGS if turn % 3 else STRICTER)
        for partition in range(3):
            self._tick(partition)
        self._sink.close()

    def take_over(self, former: LiveScorer) -> None:
        """Go on where another process stopped."""
        self.rows = {partition: list(rows) for partition, rows in former.rows.items()}
        self._restart(former._settings)

    def _given(self, value: dict[str, Any]) -> None:
        """A control appears on its topic: each partition takes it at its next batch."""
        self._log.append(value)
        named = value["value"].get("release") if value else None
        if named in RELEASES:
            self._serving = RELEASES[named]
            self._core.serve(self._serving)

    def _waiting(self, partition: int) -> list[Applied]:
        """What takes effect in the partition before its next batch."""
        cursor = self._core.cursor(partition)
        begin = cursor.next_control if cursor is not None else 0
        topic = [Applied(partition, "control", value, begin + i) for i, value in enumerate(self._log[begin:])]
        return [*self._controls.pop(partition, []), *topic]

    def _config(self) -> dict[str, object]:
        return {"config": self._settings.determinism(), "config_hash": self._settings.config_hash}

    def _start(self, partition: int) -> Applied:
        return Applied(partition, "start", self._config() | {"release": self._serving.name})

    def _tick(self, partition: int) -> None:
        cursor = self._core.cursor(partition)
        if cursor is None:
            return
        passed_ms = self._random.choice([1, QUIET_MS // 2, QUIET_MS, 3 * QUIET_MS])
        value = {"core_time_ms": cursor.core_time_ms + passed_ms, "ingest_time_ms": cursor.ingest_time_ms + passed_ms}
        controls = [*self._waiting(partition), Applied(partition, "tick", value)]
        self._step([], controls, {partition: cursor.next_offset})

    def _restart(self, settings: Settings) -> None:
        self._settings = settings
        self._core = core(settings)
        self._core.serve(self._serving)
        for partition in range(3):
            self._core.restore(partition, self.rows.get(partition, []))
            cursor = self._core.cursor(partition)
            if cursor is None:
                self._controls[partition] = [self._start(partition)]
            elif cursor.config_hash != settings.config_hash:
                self._controls[partition] = [Applied(partition, "config", self._config())]
            else:
                self._controls.pop(partition, None)

    def _step(self, records: Sequence[Record], controls: Sequence[Applied], ends: dict[int, int]) -> None:
        outcome = self._core.step(InputBatch(records, controls, ends, TOPIC))
        self._sink.write(outcome)
        self.journal += [entry.value for entry in outcome.journal]
        for change in outcome.changes:
            self.rows.setdefault(change.partition, []).append((change.key, change.value))


def entries(journal: Iterable[bytes]) -> list[Journal]:
    return read_entries((f"entry {number}", value) for number, value in enumerate(journal))


def replayed(
    out: Path, records: Sequence[Record], plan: JournalPlan, records_max: int = 2_000, restore: LiveScorer | None = None
) -> Told:
    """Replay `records` into folder `out`."""
    with FileSink(out) as sink:
        replay = Replay(
            core_of(plan.release), plan, sink, topic=TOPIC, records_max=records_max, release_of=RELEASES.__getitem__
        )
        for partition, rows in restore.rows.items() if restore is not None else ():
            fresh = core(SETTINGS)
            fresh.restore(partition, rows)
            cursor = fresh.cursor(partition)
            assert cursor is not None
            replay.restore(partition, rows, cursor.next_offset)
        told = replay.run(MemorySource(records))
        sink.close(told.summary())
    return told


def read(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in OUTPUTS}


# -- with a journal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("records_max", [1, 7, 2_000])
def test_replay_with_the_journal_gives_the_live_scorer_s_bytes(tmp_path: Path, seed: int, records_max: int) -> None:
    """Ticks, restarts, transaction markers and changes of configuration included."""
    records = stream(seed=100 + seed, n=250)
    live = LiveScorer(tmp_path / "live", Random(seed))
    live.run(records)
    mixed = sorted(records, key=lambda record: (record.offset, record.partition))
    plan = JournalPlan.of(Settings(), entries(live.journal), release().name)
    replayed(tmp_path / "replay", mixed, plan, records_max)
    assert read(tmp_path / "replay") == read(tmp_path / "live")


def controls(random: Random) -> dict[int, dict[str, Any]]:
    """Releases, rules and verdicts, and what takes no effect, at random places of a stream of 250."""
    told = [switch("r-other"), switch("r-refused"), switch("r-third"), switch("r-test"), switch("r-other")]
    told += [begin(rule_id=f"x-{i}", action=action) for i, action in enumerate(("exception", "suppression", "snooze"))]
    told += [end("x-0"), verdict("keep_out", "team-1", risk_ms=60_000), verdict("admit", "team-1", adopt=True), {}]
    places = random.sample(range(1, 250), len(told))
    return dict(zip(places, told, strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("records_max", [7, 2_000])
def test_replay_repeats_switches_of_releases_rules_and_verdicts(tmp_path: Path, seed: int, records_max: int) -> None:
    """Each partition takes them at its own next batch, with ticks, restarts and other configurations between them."""
    records = stream(seed=300 + seed, n=250)
    live = LiveScorer(tmp_path / "live", Random(seed), controls=controls(Random(seed)))
    live.run(records)
    mixed = sorted(records, key=lambda record: (record.offset, record.partition))
    scored_by = {orjson.loads(line)["release"] for line in (tmp_path / "live" / SCORES).read_bytes().splitlines()}
    assert len(scored_by) > 1
    for named in sorted(scored_by):
        plan = JournalPlan.of(Settings(), entries(live.journal), named)
        replayed(tmp_path / named, mixed, plan, records_max)
        assert read(tmp_path / named) == read(tmp_path / "live")


def test_the_live_streams_hold_what_is_to_be_repeated(tmp_path: Path) -> None:
    kinds: dict[str, int] = {}
    for seed in range(8):
        live = LiveScorer(tmp_path / str(seed), Random(seed))
        live.run(stream(seed=100 + seed, n=250))
        for entry in entries(live.journal):
            kinds[entry.kind] = kinds.get(entry.kind, 0) + 1
    assert kinds["start"] == 24
    assert kinds["tick"] > 50
    assert kinds["config"] > 5


@pytest.mark.parametrize("seed", range(3))
def test_replay_from_a_state_goes_on_with_the_live_scorer_s_bytes(tmp_path: Path, seed: int) -> None:
    records = stream(seed=200 + seed, n=300)
    half, random = records[:150], Random(seed)
    first = LiveScorer(tmp_path / "first", random)
    first.run(half)
    rest = LiveScorer(tmp_path / "rest", random)
    rest.take_over(first)
    rest.run(records[150:])
    journal = entries(first.journal + rest.journal)
    starts: dict[int, Start] = {}
    for partition, rows in first.rows.items():
        cursor = orjson.loads(dict(rows)[b'["cursor"]'] or b"")
        starts[partition] = cursor["next_offset"], cursor["journal_seq"]
    plan = JournalPlan.of(Settings(), journal, release().name, starts)
    replayed(tmp_path / "replay", records[150:], plan, 64, restore=first)
    assert read(tmp_path / "replay") == read(tmp_path / "rest")


def test_without_its_ticks_a_journal_gives_other_bytes(tmp_path: Path) -> None:
    records = stream(seed=100, n=250)
    live = LiveScorer(tmp_path / "live", Random(0))
    live.run(records)
    without = [entry for entry in entries(live.journal) if entry.kind != "tick"]
    replayed(tmp_path / "replay", records, JournalPlan.of(Settings(), without, release().name))
    assert read(tmp_path / "replay") != read(tmp_path / "live")


def tick_at(before: int, core_time_ms: int, seq: int = 0) -> Journal:
    value = {"core_time_ms": core_time_ms}
    return Journal(partition=0, before_offset=before, seq=seq, kind="tick", control_offset=None, value=value)


FOUND_AT_ONCE = replace(
    SETTINGS,
    decision=DecisionSettings(session_fpr=1.0),
    learning=replace(SETTINGS.learning, grace_sessions=0),
)


def findings_of(records: Sequence[Record], journal: Sequence[Journal]) -> list[tuple[int, int]]:
    """Activity and source offset of each finding."""
    sink = MemorySink()
    plan = JournalPlan.of(FOUND_AT_ONCE, journal, release().name)
    Replay(core, plan, sink, topic=TOPIC).run(MemorySource(records))
    return [(orjson.loads(finding.value)["activity_id"], finding.source[2]) for finding in sink.findings]


def test_tick_takes_effect_before_its_offset_and_behind_the_last_record() -> None:
    records = [record(offset, event(offset, START_MS + offset, [text("user", "hi")])) for offset in (3, 7, 9)]
    late_ms = START_MS + 10 * QUIET_MS
    assert findings_of(records, []) == [(1, 3), (2, 7), (2, 9)]
    assert findings_of(records, [tick_at(7, late_ms)]) == [(1, 3), (3, 7), (1, 7), (2, 9)]
    assert findings_of(records, [tick_at(5, late_ms)]) == [(1, 3), (3, 5), (1, 7), (2, 9)]
    assert findings_of(records, [tick_at(12, late_ms)]) == [(1, 3), (2, 7), (2, 9), (3, 12)]


def test_partition_that_the_journal_does_not_name_is_replayed_with_the_settings_given(tmp_path: Path) -> None:
    records = stream(seed=7, n=60)
    replayed(tmp_path / "a", records, JournalPlan.of(SETTINGS, [], release().name))
    with FileSink(tmp_path / "b") as sink:
        straight = core(SETTINGS)
        for batch in cut(records, 10):
            sink.write(straight.step(batch))
        sink.close()
    assert read(tmp_path / "a") == read(tmp_path / "b")


# -- the journal itself ----------------------------------------------------------------------------------------------


def written(entry: Journal) -> bytes:
    return msgspec.json.encode(entry)


def start(named: str, before: int = 0, seq: int = 0, **value: object) -> Journal:
    return Journal(
        partition=0,
        before_offset=before,
        seq=seq,
        kind="start",
        control_offset=None,
        value={"config": SETTINGS.determinism(), "release": named, **value},
    )


def test_entries_come_in_the_order_in_which_they_took_effect_and_once() -> None:
    told = [tick_at(9, 1, seq=2), tick_at(5, 1, seq=1), tick_at(9, 2, seq=3), tick_at(9, 1, seq=2)]
    assert entries(map(written, told)) == [tick_at(5, 1, 1), tick_at(9, 1, 2), tick_at(9, 2, 3)]


def test_two_entries_in_one_place_are_two_scorers() -> None:
    with pytest.raises(StateError, match=r"entry 1: partition 0 already has another entry 2 before offset 9"):
        entries(map(written, [tick_at(9, 1, seq=2), tick_at(9, 5, seq=2)]))


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"partition":0}', b'{"kind":"nap"}', b'{"kind":"\xff"}'])
def test_what_is_no_entry_is_told_with_its_place(value: bytes) -> None:
    with pytest.raises(StateError, match="entry 0 must be a journal entry"):
        entries([value])


def test_configuration_is_the_journal_s_and_not_the_one_given() -> None:
    plan = JournalPlan.of(Settings(), [start("r"), tick_at(5, 1, 1)], "r", {0: (5, 0)})
    assert plan.begins(0).settings.config_hash == SETTINGS.config_hash
    assert (plan.begins(1).settings, plan.begins(1).release) == (Settings(), "r")


def test_release_that_did_not_score_the_range_is_refused() -> None:
    with pytest.raises(StateError, match=r"'r1' scored partition 0; got 'r2'. Give --release the directory of 'r1'"):
        JournalPlan.of(Settings(), [start("r1")], "r2")


@pytest.mark.parametrize(("value", "offset"), [({"kind": "release", "release": "r2"}, None), (switch("r2"), 3)])
def test_releases_that_the_journal_names_are_told_and_one_that_it_does_not_is_refused(
    value: dict[str, Any], offset: int | None
) -> None:
    took_over = Journal(partition=0, before_offset=50, seq=1, kind="control", control_offset=offset, value=value)
    for named in ("r1", "r2"):
        plan = JournalPlan.of(Settings(), [start("r1"), took_over], named)
        assert plan.releases == ["r1", "r2"]
        assert plan.moves(0)
    with pytest.raises(StateError, match="release 'r1' scored partition 0; got 'r3'"):
        JournalPlan.of(Settings(), [start("r1"), took_over], "r3")
    behind = JournalPlan.of(Settings(), [start("r1"), took_over], "r2", {0: (50, 1)})
    assert behind.due(0, 50)
    assert behind.begins(0).release == "r1"
    stands = JournalPlan.of(Settings(), [start("r1"), took_over], "r2", {0: (60, 2)}, {0: "r2"})
    assert (stands.begins(0).release, stands.releases) == ("r2", ["r2"])


def test_control_that_took_no_effect_names_no_release() -> None:
    refused = {**switch("r2"), "ignored": True}
    entry = Journal(partition=0, before_offset=50, seq=1, kind="control", control_offset=3, value=refused)
    plan = JournalPlan.of(Settings(), [start("r1"), entry], "r1")
    assert plan.releases == ["r1"]


def test_release_that_nobody_can_find_is_told() -> None:
    took_over = Journal(partition=0, before_offset=5, seq=1, kind="control", control_offset=0, value=switch("r2"))
    plan = JournalPlan.of(SETTINGS, [start(release().name), took_over], release().name)
    replay = Replay(core, plan, MemorySink(), topic=TOPIC)
    with pytest.raises(StateError, match="release 'r2' was served, and only 'r-test' is given"):
        replay.run(MemorySource([record(offset, event(offset, START_MS)) for offset in (3, 7)]))


def test_configuration_of_another_version_is_refused() -> None:
    value = {"config": {"core": {"nap_ms": 1}}}
    strange = Journal(partition=0, before_offset=0, seq=0, kind="config", control_offset=None, value=value)
    plan = JournalPlan.of(Settings(), [strange], "r")
    with pytest.raises(StateError, match=r"core\.nap_ms"):
        plan.take(0)


# -- files -----------------------------------------------------------------------------------------------------------


def raw(number: int, tenant: str, after_ms: int) -> Record:
    """A native record on a line of a file."""
    value = {
        "tenant": tenant,
        "session": "s",
        "event_time_ms": START_MS + after_ms,
        "messages": [{"role": "user", "parts": [{"type": "text", "text": f"words {number}"}]}],
    }
    return Record("captured.jsonl", 0, number, 0, None, orjson.dumps(value))


def ingest(partitions: int = 8) -> IngestStep:
    return IngestStep(Router(partitions), format="native")


def scores_of(records: Sequence[Record], records_max: int = 2_000) -> list[tuple[int, int, str, bool]]:
    sink = MemorySink()
    replay = Replay(core, plain(), sink, topic=TOPIC, ingest=ingest(), records_max=records_max)
    replay.run(MemorySource(records))
    scores = [orjson.loads(score.value) for score in sink.scores]
    return sorted((score["partition"], score["offset"], score["tenant"], score["clamped"]) for score in scores)


def test_file_s_records_go_to_their_tenant_s_partition_at_the_offset_of_their_line() -> None:
    records = [raw(number, f"team-{number % 3}", number * 1_000) for number in range(9)]
    partition_of = {f"team-{n}": Router(8).route(f"team-{n}", "s")[1] for n in range(3)}
    expected = sorted((partition_of[f"team-{n % 3}"], n, f"team-{n % 3}", False) for n in range(9))
    for records_max in (1, 4, 100):
        assert scores_of(records, records_max) == expected


def test_file_s_ingest_time_is_its_event_time_so_that_nothing_is_clamped() -> None:
    records = [raw(0, "a", 0), raw(1, "a", 10**9)]
    assert [clamped for *_, clamped in scores_of(records)] == [False, False]


def test_dead_letters_of_ingest_and_of_the_core_end_up_together() -> None:
    sink = MemorySink()
    records = [raw(0, "a", 0), Record("captured.jsonl", 0, 1, 0, None, b"{")]
    told = Replay(core, plain(), sink, topic=TOPIC, ingest=ingest()).run(MemorySource(records))
    assert [(letter.record.offset, letter.reason) for letter in sink.dead_letters] == [(1, "undecodable")]
    assert (told.records, told.events, told.dead_letters) == (2, 1, 1)
    sink = MemorySink()
    bad = Record(TOPIC, 2, 5, START_MS, None, b"{}")
    told = Replay(core, plain(), sink, topic=TOPIC).run(MemorySource([bad]))
    assert [(letter.record.partition, letter.reason) for letter in sink.dead_letters] == [(2, "schema")]
    assert told.dead_letters == 1


def test_trace_of_a_file_s_record_reaches_its_score() -> None:
    trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    class Traced:
        """Ingest whose events carry a trace."""

        def step(self, records: Sequence[Record]) -> object:
            done = ingest().step(records)
            done.events = [replace(each, traceparent=trace) for each in done.events]
            return done

    sink = MemorySink()
    replay = Replay(core, plain(), sink, topic=TOPIC, ingest=Traced())  # type: ignore[arg-type]
    replay.run(MemorySource([raw(0, "a", 0)]))
    assert [score.traceparent for score in sink.scores] == [trace]


# -- batches ---------------------------------------------------------------------------------------------------------


class Spy:
    """A core that notes its batches."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def step(self, inputs: InputBatch) -> Outcome:
        self.sizes.append(len(inputs.records))
        return Outcome(scores=[OutRecord(0, b"", b"", (TOPIC, 0, 0), "") for _ in inputs.records])

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        raise AssertionError

    def serve(self, release: Release) -> None:
        raise AssertionError


def sizes_of(records: Sequence[Record], records_max: int) -> list[int]:
    spy = Spy()
    Replay(lambda _: spy, plain(), MemorySink(), topic=TOPIC, records_max=records_max).run(MemorySource(records))
    return spy.sizes


def test_batches_hold_as_many_records_as_asked_for() -> None:
    records = [Record(TOPIC, 0, offset, 0, None, b"{}") for offset in range(100)]
    assert sizes_of(records, 1) == [1] * 100
    assert sizes_of(records, 7) == [7] * 14 + [2]
    assert sizes_of(records, 70) == [70, 30]


def test_batch_of_large_records_ends_early() -> None:
    records = [Record(TOPIC, 0, offset, 0, None, bytes(2**20)) for offset in range(100)]
    assert max(sizes_of(records, 2_000)) <= 32


def test_progress_is_told_after_each_batch() -> None:
    told: list[int] = []
    records = [Record(TOPIC, 0, offset, 0, None, b"{}") for offset in range(10)]
    replay = Replay(lambda _: Spy(), plain(), MemorySink(), topic=TOPIC, records_max=4)
    replay.run(MemorySource(records), lambda so_far: told.append(so_far.records))
    assert told == [4, 8, 10]


def test_replay_imports_no_broker() -> None:
    code = "import stream.replay, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"confluent_kafka", "faust", "prometheus_client", "torch"}
