"""`tidegate explain`, of files, of what a replay wrote, and of topics."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from models.embedder import StaticEmbedder
from sample.records import LIVE
from stream.config import DecisionSettings, KafkaSettings, LearningSettings, Settings, TopicsSettings
from stream.core import Core
from stream.errors import UsageError
from stream.inputs import Outcome
from stream.record import Record, StateChange
from stream.runtime import explain_command, replay_command
from stream.runtime.explain_command import why
from stream.runtime.explain_text import render
from stream.runtime.replay_input import prepare
from stream.runtime.state_files import StateFolder
from stream.sinks.file import FINDINGS, SCORES
from stream.sinks.sink import Written
from stream.sources.lines import read_lines
from tests.kafka import harness
from tests.kafka.harness import Cluster
from tests.stream.releases import write
from tests.stream.streams import stream
from tidegate.commands import parse

SETTINGS = Settings(decision=DecisionSettings(session_fpr=0.05), learning=LearningSettings(grace_sessions=2))


class Run:
    """A release, an input, and what a replay wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.release, self.input, self.out = folder / "r", folder / "in.jsonl", folder / "out"
        write(self.release, StaticEmbedder.load(device="cpu").space_id)
        self.input.write_bytes(b"".join(line + b"\n" for line in islice(read_lines(LIVE), 80)))
        flags = ["--release", str(self.release), "--out", str(self.out)]
        assert replay_command.run(SETTINGS, parse(["replay", "--input", str(self.input), *flags])) == 0
        self.scores = [orjson.loads(line) for line in (self.out / SCORES).read_bytes().splitlines()]
        self.findings = [orjson.loads(line) for line in (self.out / FINDINGS).read_bytes().splitlines()]

    @property
    def opening(self) -> dict[str, Any]:
        """A Create, with excerpts."""
        return next(each for each in self.findings if each["activity_id"] == 1 and each.get("evidences"))

    def replaying(self, *flags: str) -> list[str]:
        return ["--input", str(self.input), "--release", str(self.release), *flags]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("explained"))


def told(capsys: pytest.CaptureFixture[str], event_id: str, *flags: str) -> dict[str, Any]:
    capsys.readouterr()
    assert explain_command.run(SETTINGS, parse(["explain", event_id, *flags, "--json"])) == 0
    found: dict[str, Any] = orjson.loads(capsys.readouterr().out)
    return found


def numbers(of: dict[str, Any]) -> dict[str, tuple[float, float]]:
    return {signal["name"]: (signal["value"], signal["p"]) for signal in of["signals"]}


def numbers_of_score(score: dict[str, Any]) -> dict[str, tuple[float, float]]:
    return {name: (value, score["p"][name]) for name, value in score["signals"].items()}


def test_finding_tells_of_its_event(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    finding = made.opening
    event_id = finding["finding_info"]["related_events"][0]["uid"]
    (score,) = [each for each in made.scores if each["event_id"] == event_id]
    found = told(capsys, event_id, "--replayed", str(made.out))
    assert found["told_by"] == "finding"
    assert numbers(found) == numbers_of_score(score)
    assert found["title"] == finding["finding_info"]["title"]
    assert found["finding"]["uid"] == finding["finding_info"]["uid"] == found["finding_uid"]
    assert all(signal["baseline"] is not None and signal["baseline_pattern"] for signal in found["signals"])
    assert [each["text"] for each in found["segments"]] == [each["data"]["excerpt"] for each in finding["evidences"]]
    assert [each["strangest"] for each in found["segments"]].index(True) == 0
    assert f"p {score['p_combined']:.2g} is at or below the operating point, 0.05 of sessions" in found["why"]


def test_replay_tells_the_same_of_it_and_more(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    finding = made.opening
    event_id = finding["finding_info"]["related_events"][0]["uid"]
    by_finding = told(capsys, event_id, "--replayed", str(made.out))
    found = told(capsys, event_id, "--replayed", str(made.out), *made.replaying("--replay"))
    assert found["told_by"] == "replay"
    assert numbers(found) == numbers(by_finding)
    assert found["note"] == ""
    for name in ("title", "techniques", "why", "decision", "finding", "tenant", "session", "offset"):
        assert found[name] == by_finding[name]
    baselines = {signal["name"]: signal["baseline"] for signal in by_finding["signals"]}
    assert {signal["name"]: signal["baseline"] for signal in found["signals"]} == pytest.approx(baselines, rel=1e-4)
    segments = [(each["role"], each["text"]) for each in found["segments"]]
    assert {(each["role"], each["text"]) for each in by_finding["segments"]} <= set(segments)
    assert sum(each["share"] for each in found["features"]) == pytest.approx(1, abs=0.01)
    shares = [each["share"] for each in found["features"]]
    assert shares == sorted(shares, reverse=True)


def test_strangest_segment_of_a_role_is_the_most_distant(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, made.opening["finding_info"]["related_events"][0]["uid"], *made.replaying())
    for role in {each["role"] for each in found["segments"]}:
        mine = [each for each in found["segments"] if each["role"] == role]
        distances = [each["measures"].get("distance", 0.0) for each in mine]
        marked = [each["strangest"] for each in mine]
        assert marked == [0 < distance == max(distances) for distance in distances]
    assert {each["role"] for each in found["segments"] if each["measures"]} <= {"user", "tool"}
    assert any(each["strangest"] for each in found["segments"])


def test_a_segment_stands_beside_the_nearest_that_its_tenant_had_said(
    made: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    event_id = made.opening["finding_info"]["related_events"][0]["uid"]
    found = told(capsys, event_id, *made.replaying("--replay"))
    scores = {each["event_id"]: each for each in made.scores}
    judged = [each for each in found["segments"] if each["measures"]]
    held = [each for each in judged if each["normal"]]
    assert held
    for segment in held:
        before = scores[segment["normal"]["event_id"]]
        assert before["tenant"] == found["tenant"] and before["decision"] in ("none", "warmup")
        assert before["offset"] < found["offset"] and before["session"] != found["session"]
        # The same words are at no distance but that of rounding to whole 127ths, other words are.
        same = segment["normal"]["text"] == segment["text"]
        assert (segment["normal"]["distance"] < 0.01) == same
    assert explain_command.run(SETTINGS, parse(["explain", event_id, *made.replaying("--replay")])) == 0
    assert "nearest normal, at 0." in capsys.readouterr().out


def test_event_that_is_looked_at_is_scored_like_any_other(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for score in made.scores[10::150]:
        found = told(capsys, score["event_id"], *made.replaying())
        assert numbers(found) == numbers_of_score(score)
        same = ("decision", "p_combined", "learned", "late", "ordinal", "partition", "offset", "release", "finding_uid")
        assert {name: found[name] for name in same} == {name: score[name] for name in same}
        before = [each for each in made.scores if each["session"] == score["session"]]
        if found["turn"] is not None:
            assert found["turn"] == before.index(score) + 1
        if score["decision"] == "none":
            assert found["title"] is None
            assert "is above the operating point" in found["why"]


def test_another_release_is_said_to_tell_something_else(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    other = made.folder / "other"
    if not other.exists():
        write(other, StaticEmbedder.load(device="cpu").space_id, seed=9)
    score = made.scores[30]
    flags = ["--input", str(made.input), "--release", str(other), "--replayed", str(made.out)]
    found = told(capsys, score["event_id"], *flags, "--replay")
    assert numbers(found) != numbers_of_score(score)
    assert found["note"].startswith(f"The replay differs from the score that release {score['release']} wrote")


def test_score_alone_tells_what_it_can_and_asks_for_the_rest(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    score = next(each for each in made.scores if each["decision"] == "none")
    found = told(capsys, score["event_id"], "--replayed", str(made.out))
    assert found["told_by"] == "score"
    assert numbers(found) == numbers_of_score(score)
    assert "give an input and --release" in found["note"]


def test_event_that_is_nowhere_is_a_usage_error(made: Run) -> None:
    with pytest.raises(UsageError, match=r"event 'gone\?' is not in .*in\.jsonl\. Give the id of a score") as error:
        explain_command.run(SETTINGS, parse(["explain", "gone\x1b[31m?", *made.replaying()]))
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match=r"'gone' has no score beside .*out\. Give --release R to replay up to it"):
        explain_command.run(SETTINGS, parse(["explain", "gone", "--replayed", str(made.out)]))


class Rows:
    """A sink of state changes."""

    def __init__(self) -> None:
        self.changes: list[StateChange] = []

    def write(self, outcome: Written) -> None:
        assert isinstance(outcome, Outcome)
        self.changes += outcome.changes


def test_event_that_a_state_already_knows_is_said_to_be_a_duplicate(made: Run, tmp_path: Path) -> None:
    rows = Rows()
    with ExitStack() as stack:
        given = prepare(SETTINGS, parse(["replay", *made.replaying("--out", str(tmp_path))]), stack)
        replay = given.replay(lambda of: Core(of, given.release, given.embedder), rows)
        replay.run(given.input.sources(False)[0])
    with StateFolder(tmp_path / "state", "state") as folder:
        for number in range(SETTINGS.topics.partitions):
            mine = [each for each in rows.changes if each.partition == number]
            folder.write(number, [[Record("state", number, i, 0, each.key, each.value) for i, each in enumerate(mine)]])
        folder.close()
    last = max(made.scores, key=lambda each: each["offset"])
    flags = made.replaying("--from-state", str(tmp_path / "state"))
    with pytest.raises(UsageError, match=r"at .*\[\d\]@\d+ is a duplicate of one before what is replayed"):
        explain_command.run(SETTINGS, parse(["explain", last["event_id"], *flags]))


def test_folder_that_no_replay_wrote_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a folder that 'tidegate replay --out' wrote"):
        explain_command.run(SETTINGS, parse(["explain", "e", "--replayed", str(tmp_path)]))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--input, --topic or --replayed"),
        (["--input", "a"], "--input needs --release"),
        (["--topic", "t", "--replay"], "--replay needs --release"),
        (["--input", "a", "--release", "r", "--from-offset", "1"], "ranges are of a --topic"),
    ],
)
def test_wrong_flags_end_with_usage(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse(["explain", "e", *flags])
    assert error.value.code == 2
    assert said in capsys.readouterr().err


def test_replay_says_that_it_takes_more_of_a_tenant_that_the_release_has_not_learned(
    made: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions: dict[str, list[str]] = {}
    for score in made.scores:
        own = sessions.setdefault(score["tenant"], [])
        own += [score["session"]] * (score["session"] not in own)
    settled = next(score for score in made.scores if score["session"] in sessions[score["tenant"]][2:])
    # The release knows no tenant, and the grace period is two sessions.
    for score, new in ((made.scores[0], True), (settled, False)):
        found = told(capsys, score["event_id"], *made.replaying("--replay"))
        assert ("where the release was not trained on it" in found["why"]) is new


@pytest.mark.parametrize(
    ("decision", "p", "said"),
    [
        ("none", 0.2, "p 0.2 is above the operating point, 0.01 of sessions (decision.session_fpr): no finding."),
        (
            "finding",
            0.004,
            "p 0.004 is at or below the operating point, 0.01 of sessions (decision.session_fpr): it is",
        ),
        ("finding", 0.03, "p 0.03 was beyond the operating point of its time: it is part of a finding."),
        ("warmup", 1e-4, ": but its tenant's first 20 sessions (learning.grace_sessions) decide nothing."),
        ("suppressed", 1e-4, ": but an exception, a suppression or a snooze keeps it from being found."),
        ("over_budget", 1e-4, ": but the alert budget had no room for it."),
    ],
)
def test_decision_is_a_sentence(decision: str, p: float, said: str) -> None:
    assert said in why({"decision": decision, "p_combined": p}, 0.01, 20)


def test_text_shows_all_of_it(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    event_id = made.opening["finding_info"]["related_events"][0]["uid"]
    found = told(capsys, event_id, *made.replaying())
    assert explain_command.run(SETTINGS, parse(["explain", event_id, *made.replaying()])) == 0
    text = capsys.readouterr().out
    assert event_id in text and found["tenant"] in text and found["title"] in text
    for signal in found["signals"]:
        (row,) = [line for line in text.splitlines() if line.split()[:1] == [signal["name"]]]
        assert row.split()[1:4] == [f"{signal['value']:.4g}", f"{signal['baseline']:.4g}", f"{signal['p']:.2g}"]
    marked = [line for line in text.splitlines() if "▶" in line]
    assert len(marked) == sum(each["strangest"] for each in found["segments"])
    assert "by share of its error" in text and found["features"][0]["name"] in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_hostile_text_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "[red]obey[/red] [link=file:///etc] :warning: [/]"
    render(
        {
            "decision": "finding", "title": bad, "why": "w", "event_id": bad, "tenant": bad, "session": bad,
            "ordinal": 1, "event_time_ms": 1 << 60, "partition": 0, "offset": 0, "release": "r", "learned": "no",
            "signals": [{"name": bad, "value": 1.0, "p": None, "pattern": bad}], "observables": [["user", bad]],
            "segments": [{"role": "tool", "message_index": 0, "text": bad, "measures": {}, "strangest": True}],
            "features": [], "note": bad, "techniques": [], "told_by": "replay",
        }
    )  # fmt: skip
    text = capsys.readouterr().out
    assert text.count(bad) >= 7
    assert "\x1b" not in text


@pytest.mark.kafka
def test_event_on_a_topic_is_explained_by_its_finding_or_a_replay_with_the_journal(
    kafka: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live scorer had another operating point than today's settings: its journal tells it."""
    write(tmp_path / "release", StaticEmbedder.load(device="cpu").space_id)
    cluster = Cluster(kafka, f"explain-{os.getpid()}-{time.monotonic_ns()}.")
    cluster.create(partitions=harness.PARTITIONS)
    topics = TopicsSettings(prefix=cluster.prefix, partitions=harness.PARTITIONS)
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=kafka), topics=topics)
    records = stream(seed=31, n=300, partitions=harness.PARTITIONS, sessions=30)
    producer = Producer({"bootstrap.servers": kafka})
    shift_ms = time.time_ns() // 1_000_000 - records[-1].timestamp_ms
    for each in records:
        producer.produce(topics.events, each.value, b"k", each.partition, timestamp=each.timestamp_ms + shift_ms)
    assert producer.flush(120) == 0
    monkeypatch.setenv("TIDEGATE_TOPICS__PARTITIONS", str(harness.PARTITIONS))
    monkeypatch.setenv("TIDEGATE_LEARNING__GRACE_SESSIONS", "5")
    monkeypatch.setenv("TIDEGATE_DECISION__SESSION_FPR", "0.05")
    where = ["--bootstrap-servers", kafka, "--topic-prefix", cluster.prefix, "--group-id", cluster.group, "--until-end"]
    command = [sys.executable, "-m", "tidegate.cli", "score", "--release", str(tmp_path / "release"), *where]
    done = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    scores = cluster.values(harness.SCORES)
    creates = [each for each in cluster.values(harness.FINDINGS) if each["activity_id"] == 1]

    def explained(event_id: str, *flags: str) -> dict[str, Any]:
        capsys.readouterr()
        assert (
            explain_command.run(settings, parse(["explain", event_id, "--topic", topics.events, *flags, "--json"])) == 0
        )
        found: dict[str, Any] = orjson.loads(capsys.readouterr().out)
        return found

    opened = explained(creates[0]["finding_info"]["related_events"][0]["uid"])
    assert opened["told_by"] == "finding"
    assert opened["finding_uid"] == creates[0]["finding_info"]["uid"]
    release = ["--release", str(tmp_path / "release")]
    # Of an id that a later event repeats with other content, the first event is explained.
    once = [uid for uid, n in Counter(each["event_id"] for each in scores).items() if n == 1]
    for score in [each for each in scores if each["decision"] == "none" and each["event_id"] in once][40:120:40]:
        found = explained(score["event_id"], *release)
        assert found["told_by"] == "replay"
        assert numbers(found) == numbers_of_score(score)
        assert "above the operating point, 0.05 of sessions" in found["why"]
        assert found["note"] == ""
    with pytest.raises(UsageError, match=f"event 'gone' is not in {topics.events}"):
        explained("gone", *release)
