"""`tidegate replay --topic` and `tidegate state` on a real broker, against what a live scorer wrote there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from models.embedder import StaticEmbedder
from stream.config import BatchSettings, KafkaSettings, Settings, TopicsSettings
from stream.errors import EnvironmentFault, StateError, UsageError
from stream.record import Record
from stream.runtime import replay_command, state_command
from stream.runtime.topic_reader import TopicReader, Window
from stream.sinks.file import FINDINGS, SCORES
from tests.kafka import harness
from tests.kafka.harness import Cluster
from tests.stream.controls import rule, verdict
from tests.stream.releases import write
from tests.stream.streams import stream
from tidegate.commands import parse

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

PARTITIONS = harness.PARTITIONS
_DAY_MS = 86_400_000
_BACK = 600
"""Records from here on come days after those before, when everybody is forgotten."""


def days_later(record: Record) -> Record:
    """The record as it would come three days later, if it can be read."""
    try:
        value = orjson.loads(record.value or b"")
        value["event_time_ms"] += 3 * _DAY_MS
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return record
    return replace(record, value=orjson.dumps(value))


_STREAM = stream(seed=31, n=700, partitions=PARTITIONS, sessions=30)
RECORDS = [*_STREAM[:_BACK], *map(days_later, _STREAM[_BACK:])]


class Captured:
    """A live scorer's topics, and a release's directory."""

    def __init__(self, cluster: Cluster, release: Path) -> None:
        self.cluster = cluster
        self.release = release
        kafka = KafkaSettings(bootstrap_servers=cluster.servers)
        self.settings = Settings(kafka=kafka, topics=TopicsSettings(prefix=cluster.prefix, partitions=PARTITIONS))
        self.topic = self.settings.topics.events
        self.first_findings: set[bytes] = set()
        """What the first of the two processes wrote."""

    def produce(self, records: Sequence[Record], shift_ms: int) -> None:
        """Events as ingest writes them, in transactions of some, so that markers lie between."""
        producer = Producer({"bootstrap.servers": self.cluster.servers, "transactional.id": f"{self.cluster.prefix}in"})
        producer.init_transactions(120)
        for at in range(0, len(records), 150):
            producer.begin_transaction()
            for each in records[at : at + 150]:
                producer.produce(
                    self.topic, each.value, b"k", each.partition, timestamp=each.timestamp_ms + shift_ms,
                    headers=list(each.headers),
                )  # fmt: skip
            producer.commit_transaction(120)

    def score(self, idle_seconds: float) -> None:
        """A live scorer to the end of what is there, then idle for a while, so that time passes by ticks."""
        cluster = self.cluster
        # Before it runs: time passes only while a timer is due, so that nobody may have to wait for one more.
        ticks = self.ticks()
        where = ["--bootstrap-servers", cluster.servers, "--topic-prefix", cluster.prefix, "--group-id", cluster.group]
        command = [sys.executable, "-m", "tidegate.cli", "score", "--release", str(self.release), *where]
        with (
            (self.release.parent / "score.log").open("w+") as log,
            subprocess.Popen(command, cwd=harness.ROOT, stdout=subprocess.PIPE, stderr=log) as process,
        ):
            assert process.stdout is not None
            if (ready := process.stdout.readline()).startswith(b"READY"):
                cluster.wait_committed(cluster.ends(harness.EVENTS, PARTITIONS))
                time.sleep(idle_seconds)
                until = time.monotonic() + harness.PATIENCE_S
                while self.ticks() == ticks:
                    assert time.monotonic() < until, "no time passes in idle partitions"
                process.send_signal(signal.SIGTERM)
            code = process.wait(120)
            log.seek(0)
            assert (code, ready[:5]) == (0, b"READY"), log.read()

    def ticks(self) -> int:
        """How often time has passed by itself."""
        return [entry["kind"] for entry in self.cluster.values(harness.JOURNAL)].count("tick")

    def live(self, name: str) -> list[bytes]:
        """What a topic holds, each partition in order."""
        return sorted(message.value() or b"" for message in self.cluster.read(name))

    def replay(self, out: Path, *flags: object, topic: str | None = None) -> dict[str, list[bytes]]:
        where = ["--topic", topic or self.topic, "--release", str(self.release), "--out", str(out)]
        assert replay_command.run(self.settings, parse(["replay", *where, *map(str, flags)])) == 0
        return {name: sorted((out / name).read_bytes().splitlines()) for name in (SCORES, FINDINGS)}

    def export(self, out: Path) -> None:
        assert state_command.run(self.settings, parse(["state", "export", "--out", str(out)])) == 0


@pytest.fixture(scope="module")
def captured(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """Two halves of a stream, scored by two processes, with ticks between and after; the state between exported."""
    folder = tmp_path_factory.mktemp("captured")
    write(folder / "release", StaticEmbedder.load(device="cpu").space_id)
    cluster = Cluster(kafka, f"replay-{os.getpid()}-{time.monotonic_ns()}.")
    cluster.create(partitions=PARTITIONS)
    environment = {
        "TIDEGATE_TOPICS__PARTITIONS": str(PARTITIONS),
        "TIDEGATE_LEARNING__GRACE_SESSIONS": "5",
        "TIDEGATE_LEARNING__FORGET_TENANTS_DAYS": "1.5",
        "TIDEGATE_LEARNING__FORGET_KEYS_DAYS": "1.0",
        "TIDEGATE_CORE__SESSION_QUIET_MS": "1000",
        "TIDEGATE_FINDINGS__QUIET_MS": "1500",
        "TIDEGATE_DECISION__SESSION_FPR": "0.05",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        made = Captured(cluster, folder / "release")
        half = len(RECORDS) // 2
        shift_ms = time.time_ns() // 1_000_000 - RECORDS[-1].timestamp_ms
        made.produce(RECORDS[:half], shift_ms)
        cluster.control("exception", {"rule": rule(tenant="team-1", session="s\u00e9ance 3")})
        cluster.control("verdict", verdict("keep_out", session="s\u00e9ance 5", risk_ms=_DAY_MS)["value"])
        made.score(idle_seconds=3)
        made.first_findings = set(made.live(harness.FINDINGS))
        made.export(folder / "state")
        # Dead letters of the scorer, and records of a transaction that was aborted.
        cluster.aborted(harness.EVENTS, 0, 5)
        cluster.control("verdict", verdict("admit", scope="tenant", session=None)["value"])
        made.produce(RECORDS[half:], shift_ms)
        made.score(idle_seconds=2)
    return made


@pytest.fixture
def state(captured: Captured) -> Path:
    """The state between the two halves."""
    return captured.release.parent / "state"


def entries(captured: Captured) -> list[dict[str, Any]]:
    return captured.cluster.values(harness.JOURNAL)


def test_replay_with_the_journal_is_byte_identical_to_the_live_scorer(captured: Captured, tmp_path: Path) -> None:
    told = captured.replay(tmp_path / "out")
    assert [entry["kind"] for entry in entries(captured)].count("tick") >= 2
    assert len(told[FINDINGS]) > 20
    assert told[SCORES] == captured.live(harness.SCORES)
    assert told[FINDINGS] == captured.live(harness.FINDINGS)


def test_replay_of_a_topic_does_not_depend_on_batches(captured: Captured, tmp_path: Path) -> None:
    whole = captured.replay(tmp_path / "whole")
    captured.settings = replace(captured.settings, batch=BatchSettings(records_max=7))
    try:
        assert captured.replay(tmp_path / "small") == whole
    finally:
        captured.settings = replace(captured.settings, batch=BatchSettings())
    assert (tmp_path / "small" / SCORES).read_bytes() == (tmp_path / "whole" / SCORES).read_bytes()


def test_configuration_comes_from_the_journal_and_not_from_the_settings(captured: Captured, tmp_path: Path) -> None:
    """The scorer ran with other sections than this process has."""
    assert captured.settings.core.session_quiet_ms != 1_000
    without = captured.replay(tmp_path / "without", "--journal", "none")
    assert without[FINDINGS] != captured.live(harness.FINDINGS)


def test_journal_of_a_file_does_as_well(captured: Captured, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(entry) for entry in entries(captured)))
    assert captured.replay(tmp_path / "out", "--journal", path)[SCORES] == captured.live(harness.SCORES)


def test_replay_from_an_exported_state_gives_the_rest(captured: Captured, state: Path, tmp_path: Path) -> None:
    cursors = orjson.loads((state / "manifest.json").read_bytes())["partitions"]
    begins = {int(p): told["cursor"]["next_offset"] for p, told in cursors.items()}
    told = captured.replay(tmp_path / "out", "--from-state", state)
    scores = [value for value in captured.live(harness.SCORES) if _is_behind(orjson.loads(value), begins)]
    assert told[SCORES] == scores
    kinds = {kind for told in cursors.values() for kind in told["counts"]}
    assert kinds >= {"rule", "verdict", "quarantine", "pending"}
    assert [entry["kind"] for entry in entries(captured)].count("control") == 3 * PARTITIONS
    # Days later everybody is new.
    ordinals = [orjson.loads(value)["ordinal"] for value in scores]
    assert ordinals.count(1) >= PARTITIONS
    assert max(ordinals) > 20
    assert len(told[FINDINGS]) > 5
    assert told[FINDINGS] == sorted(set(captured.live(harness.FINDINGS)) - captured.first_findings)


def _is_behind(score: dict[str, Any], begins: dict[int, int]) -> bool:
    return bool(score["offset"] >= begins[score["partition"]])


def findings(captured: Captured) -> list[tuple[tuple[int, int], bytes]]:
    """Findings, with the partition and the offset of what caused each."""
    out = []
    for message in captured.cluster.read(harness.FINDINGS):
        source = dict(message.headers() or [])["tg-source"]
        assert isinstance(source, bytes)
        _, partition, offset = source.split(b"/")
        out.append(((int(partition), int(offset)), message.value() or b""))
    return out


def test_offsets_bound_what_is_replayed(captured: Captured, tmp_path: Path) -> None:
    captured.replay(tmp_path / "out", "--from-offset", 20, "--to-offset", 60)
    scores = [orjson.loads(line) for line in (tmp_path / "out" / SCORES).read_bytes().splitlines()]
    live = [orjson.loads(value) for value in captured.live(harness.SCORES)]
    offsets = [(score["partition"], score["offset"]) for score in scores]
    assert offsets == sorted((s["partition"], s["offset"]) for s in live if 20 <= s["offset"] < 60)


def test_range_that_ends_early_is_a_prefix_of_the_live_scorer_s(captured: Captured, tmp_path: Path) -> None:
    told = captured.replay(tmp_path / "out", "--to-offset", 120)
    live = [value for value in captured.live(harness.SCORES) if orjson.loads(value)["offset"] < 120]
    assert told[SCORES] == live
    assert told[FINDINGS] == sorted(value for (_, offset), value in findings(captured) if offset < 120)


def test_times_bound_what_is_replayed(captured: Captured, tmp_path: Path) -> None:
    """By the records' timestamps, which are ingest times."""
    messages = captured.cluster.read(harness.EVENTS)
    times = sorted(message.timestamp()[1] for message in messages)
    begin, end = times[100], times[300]
    told = captured.replay(tmp_path / "out", "--from-time", begin, "--to-time", end, "--journal", "none")
    expected = [m for m in messages if begin <= m.timestamp()[1] < end]
    scored = {(score["partition"], score["offset"]) for score in map(orjson.loads, told[SCORES])}
    dead = (tmp_path / "out" / "deadletters.jsonl").read_bytes().splitlines()
    scored |= {(letter["partition"], letter["offset"]) for letter in map(orjson.loads, dead)}
    assert scored == {(m.partition(), m.offset()) for m in expected}


def test_paced_replay_of_a_topic_gives_the_same_bytes(captured: Captured, tmp_path: Path) -> None:
    told = captured.replay(tmp_path / "out", "--pace", "x1000000")
    assert told[SCORES] == captured.live(harness.SCORES)
    assert told[FINDINGS] == captured.live(harness.FINDINGS)


def test_replays_of_a_topic_are_equal_by_compare(captured: Captured, tmp_path: Path) -> None:
    for name in "ab":
        captured.replay(tmp_path / name)
    command = [sys.executable, "-m", "tidegate.cli", "replay", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:7]) == (0, "equal: ")


# -- what cannot be done ---------------------------------------------------------------------------------------------


def test_topic_that_is_not_there_is_exit_3(captured: Captured, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"topic nowhere does not exist"):
        captured.replay(tmp_path / "out", topic="nowhere")


def test_journal_that_is_not_there_is_exit_3_and_says_how_to_do_without(captured: Captured, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"journal topic .*journal\.v1 does not exist.*--journal none"):
        captured.replay(tmp_path / "out", topic=_without_journal(captured))


def _without_journal(captured: Captured) -> str:
    name = f"lonely.{harness.EVENTS}"
    captured.cluster.create(name, partitions=PARTITIONS)
    return captured.cluster.prefix + name


def test_state_and_a_first_offset_together_are_a_usage_error(captured: Captured, state: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--from-state says where to start"):
        captured.replay(tmp_path / "out", "--from-state", state, "--from-offset", 3)


def test_other_release_than_the_journal_s_is_exit_5(captured: Captured, tmp_path: Path) -> None:
    write(tmp_path / "other", StaticEmbedder.load(device="cpu").space_id, seed=9)
    other = Captured(captured.cluster, tmp_path / "other")
    with pytest.raises(StateError, match=r"the journal says that release 'r-.*' scored partition 0; got 'r-"):
        other.replay(tmp_path / "out")


# -- ranges ----------------------------------------------------------------------------------------------------------


def test_bounds_are_what_lies_in_the_window(captured: Captured) -> None:
    reader = TopicReader(captured.settings, "test")
    try:
        ends = captured.cluster.ends(harness.EVENTS, PARTITIONS)
        whole = reader.bounds(captured.topic)
        assert {p: (b.start, b.end, b.first, b.last) for p, b in whole.items()} == {
            p: (0, end, 0, end) for p, end in ends.items()
        }
        part = reader.bounds(captured.topic, Window(from_offset=5, to_offset=9))
        assert {(b.start, b.end) for b in part.values()} == {(5, 9)}
        beyond = reader.bounds(captured.topic, Window(from_offset=10**6, from_time_ms=10**13))
        assert all(b.start == b.end for b in beyond.values())
        before = reader.bounds(captured.topic, Window(to_time_ms=1))
        assert all(b.start == b.end == 0 for b in before.values())
    finally:
        reader.close()


def test_aborted_records_are_not_read_and_do_not_hold_up_the_end(captured: Captured) -> None:
    reader = TopicReader(captured.settings, "test")
    try:
        read = [
            record
            for partition, bound in reader.bounds(captured.topic).items()
            for batch in reader.read(captured.topic, partition, bound.start, bound.end)
            for record in batch
        ]
    finally:
        reader.close()
    assert [record.value for record in sorted(read, key=lambda r: (r.partition, r.offset))] == [
        record.value for record in sorted(RECORDS, key=lambda r: (r.partition, r.offset))
    ]


# -- state inspect ---------------------------------------------------------------------------------------------------


def test_inspect_tells_what_the_state_holds(captured: Captured, capsys: pytest.CaptureFixture[str]) -> None:
    assert state_command.run(captured.settings, parse(["state", "inspect"])) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].split()[:3] == ["partition", "next", "offset"]
    assert len(told[1].split()) == len(told[2].split()) == 9
    assert state_command.run(captured.settings, parse(["state", "inspect", "--json"])) == 0
    as_json = orjson.loads(capsys.readouterr().out)
    committed = captured.cluster.committed()
    assert {each["partition"]: each["cursor"]["next_offset"] for each in as_json["partitions"]} == committed
    for each in as_json["partitions"]:
        assert each["tenants"] == each["rows"]["tenant"] == 3
        assert each["bytes_total"] == sum(each["bytes"].values()) > 1_000


def test_state_of_a_topic_that_is_not_there_is_exit_3(captured: Captured, tmp_path: Path) -> None:
    nowhere = Settings(kafka=captured.settings.kafka, topics=TopicsSettings(prefix="nowhere."))
    with pytest.raises(EnvironmentFault, match=r"topic nowhere\.genai\.anomaly\.state\.v1 does not exist"):
        state_command.run(nowhere, parse(["state", "export", "--out", str(tmp_path / "out")]))
    assert list(tmp_path.iterdir()) == []
