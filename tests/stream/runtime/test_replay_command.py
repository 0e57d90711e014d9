"""`tidegate replay` of files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from models.embedder import StaticEmbedder
from sample.records import LIVE
from stream.config import BatchSettings, ReleaseSettings, Settings, TopicsSettings
from stream.errors import EnvironmentFault, StateError, UsageError
from stream.record import Record, StateChange
from stream.runtime.replay_command import run
from stream.runtime.state_files import StateFolder
from stream.sinks.file import DEAD_LETTERS, FINDINGS, SCORES, SUMMARY
from stream.state.rows import ROWS, sealed
from stream.steps.route import partition_of
from tests.stream.releases import write
from tests.stream.streams import START_MS
from tidegate.commands import parse

FILES = (SCORES, FINDINGS, DEAD_LETTERS, SUMMARY)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "r"
    write(out, StaticEmbedder.load(device="cpu").space_id)
    return out


def native(number: int, after_ms: int = 0, tenant: str = "team-1", said: str = "hello there") -> dict[str, Any]:
    return {
        "tenant": tenant,
        "session": f"s{number % 3}",
        "event_time_ms": START_MS + after_ms,
        "messages": [{"role": "user", "parts": [{"type": "text", "text": f"{said} {number}"}]}],
    }


def captured(path: Path, lines: Sequence[dict[str, Any] | bytes]) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else orjson.dumps(line)) + b"\n" for line in lines))
    return path


def replay(out: Path, release: Path, *flags: object, settings: Settings | None = None) -> dict[str, bytes]:
    given = parse(["replay", *map(str, flags), "--release", str(release), "--out", str(out)])
    assert run(settings or Settings(), given) == 0
    return {name: (out / name).read_bytes() for name in FILES}


def lines(of: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in of.splitlines()]


def batches(records_max: int) -> Settings:
    return Settings(batch=BatchSettings(records_max=records_max))


# -- files -----------------------------------------------------------------------------------------------------------


def test_sample_is_replayed_to_the_same_bytes_twice_and_in_batches_of_any_size(tmp_path: Path, release: Path) -> None:
    flags = ("--input", LIVE, "--format", "corpus")
    told = [
        replay(tmp_path / name, release, *flags, settings=batches(size))
        for name, size in (("a", 2_000), ("b", 2_000), ("c", 7))
    ]
    assert told[0] == told[1] == told[2]
    scores = lines(told[0][SCORES])
    assert len(scores) > 2_000
    assert [(score["partition"], score["offset"]) for score in scores] == sorted(
        (score["partition"], score["offset"]) for score in scores
    )
    assert lines(told[0][FINDINGS])
    assert all(score["partition"] == partition_of(score["tenant"], None, 8) for score in scores)


def test_every_file_is_written_even_when_it_is_empty(tmp_path: Path, release: Path) -> None:
    told = replay(tmp_path / "out", release, "--input", captured(tmp_path / "in.jsonl", []))
    assert (told[SCORES], told[FINDINGS], told[DEAD_LETTERS]) == (b"", b"", b"")
    assert orjson.loads(told[SUMMARY])["events"] == 0


def test_summary_counts_and_holds_nothing_of_the_clock(tmp_path: Path, release: Path) -> None:
    path = captured(tmp_path / "in.jsonl", [native(0), native(1), native(1), b"{", b""])
    told = orjson.loads(replay(tmp_path / "out", release, "--input", path)[SUMMARY])
    assert {name: value for name, value in told.items() if not name.endswith("_sha256")} == {
        "conflicting_ids": 0,
        "deadletters": 1,
        "decisions": {"duplicate": 1, "none": 2},
        "events": 3,
        "findings": 0,
        "findings_opened": 0,
        "records": 4,
        "release": told["release"],
        "scores": 3,
    }
    assert told["release"].startswith("r-")


def test_offset_is_the_line_over_all_files(tmp_path: Path, release: Path) -> None:
    first = captured(tmp_path / "1.jsonl", [native(0), b"", native(1)])
    second = captured(tmp_path / "2.jsonl", [b"{", native(2)])
    told = replay(tmp_path / "out", release, "--input", first, second)
    assert [score["offset"] for score in lines(told[SCORES])] == [0, 2, 4]
    assert [(dead["offset"], dead["reason"]) for dead in lines(told[DEAD_LETTERS])] == [(3, "undecodable")]


def test_other_files_in_the_folder_stay(tmp_path: Path, release: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    replay(tmp_path / "out", release, "--input", captured(tmp_path / "in.jsonl", [native(0)]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, "notes.txt"}


def test_paced_replay_gives_the_same_bytes(tmp_path: Path, release: Path) -> None:
    path = captured(tmp_path / "in.jsonl", [native(n, 1_000 * n) for n in range(30)])
    full = replay(tmp_path / "full", release, "--input", path)
    assert replay(tmp_path / "paced", release, "--input", path, "--pace", "x200") == full


def test_journal_of_a_file_is_repeated(tmp_path: Path, release: Path) -> None:
    """Its ticks bring late what without them is not."""
    path = captured(tmp_path / "in.jsonl", [native(n, n) for n in range(4)])
    tick = {"partition": partition_of("team-1", None, 8), "before_offset": 2, "seq": 0, "kind": "tick"}
    value = {"core_time_ms": START_MS + 10**8}
    journal = captured(tmp_path / "journal.jsonl", [{**tick, "control_offset": None, "value": value}])
    told = replay(tmp_path / "out", release, "--input", path, "--journal", journal)
    assert [score["late"] for score in lines(told[SCORES])] == [False, False, True, True]
    without = replay(tmp_path / "without", release, "--input", path, "--journal", "none")
    assert [score["late"] for score in lines(without[SCORES])] == [False] * 4


def test_report_names_what_was_found(tmp_path: Path, release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = captured(tmp_path / "in.jsonl", [native(0)])
    replay(tmp_path / "out", release, "--input", path, "--report")
    report = f"Report: {tmp_path / 'out' / 'report.html'}, and 4 pictures beside it."
    assert capsys.readouterr().out.splitlines() == ["Nothing was found.", report]
    replay(tmp_path / "sample", release, "--input", LIVE, "--format", "corpus", "--report")
    told = capsys.readouterr().out.splitlines()
    assert any(line.startswith(("CRITICAL  ", "HIGH  ", "MEDIUM  ", "LOW  ")) for line in told)
    opened = orjson.loads((tmp_path / "sample" / SUMMARY).read_bytes())["findings_opened"]
    assert told[-2].startswith(f"{opened} findings: ")


# -- a state ---------------------------------------------------------------------------------------------------------


def exported(path: Path, release: str, partitions: int = 8, cursor: dict[str, Any] | None = None) -> Path:
    """A state in which each partition stands at offset 5."""
    told = {
        "v": ROWS["cursor"].version,
        "next_offset": 5, "core_time_ms": START_MS, "ingest_time_ms": START_MS, "next_control": 0, "release": release,
        "config_hash": "", "journal_seq": 1, **(cursor or {}),
    }  # fmt: skip
    with StateFolder(path, "state") as folder:
        for partition in range(partitions):
            row = sealed(StateChange(partition, b'["cursor"]', orjson.dumps(told)))
            folder.write(partition, [[Record("state", partition, 0, 0, row.key, row.value)]])
        folder.close()
    return path


def name_of(release: Path) -> str:
    return str(orjson.loads((release / "manifest.json").read_bytes())["name"])


def test_file_goes_on_from_a_state(tmp_path: Path, release: Path) -> None:
    state = exported(tmp_path / "state", name_of(release), cursor={"core_time_ms": START_MS + 10**7})
    path = captured(tmp_path / "in.jsonl", [native(0)])
    told = replay(tmp_path / "out", release, "--input", path, "--from-state", state)
    assert [score["late"] for score in lines(told[SCORES])] == [True]


def test_state_of_another_release_is_refused(tmp_path: Path, release: Path) -> None:
    state = exported(tmp_path / "state", "r-other")
    path = captured(tmp_path / "in.jsonl", [native(0)])
    with pytest.raises(StateError, match=r"partition 0 is that of release 'r-other'; got 'r-.*Give --release") as told:
        replay(tmp_path / "out", release, "--input", path, "--from-state", state)
    assert told.value.exit_code == 5


def test_state_of_another_number_of_partitions_is_refused(tmp_path: Path, release: Path) -> None:
    state = exported(tmp_path / "state", name_of(release), partitions=2)
    path = captured(tmp_path / "in.jsonl", [native(0)])
    with pytest.raises(StateError, match=r"as many partitions as topics\.partitions, 8; it has 2"):
        replay(tmp_path / "out", release, "--input", path, "--from-state", state)
    settings = Settings(topics=TopicsSettings(partitions=2))
    replay(tmp_path / "out", release, "--input", path, "--from-state", state, settings=settings)


def test_damaged_state_is_refused(tmp_path: Path, release: Path) -> None:
    state = exported(tmp_path / "state", name_of(release))
    (state / "partition-3.jsonl").write_bytes(b"")
    path = captured(tmp_path / "in.jsonl", [native(0)])
    with pytest.raises(StateError, match=r"partition-3\.jsonl must have sha256 .* Export it anew"):
        replay(tmp_path / "out", release, "--input", path, "--from-state", state)


# -- what cannot be done ---------------------------------------------------------------------------------------------


def test_release_that_scored_something_else_is_refused(tmp_path: Path, release: Path) -> None:
    path = captured(tmp_path / "in.jsonl", [native(0)])
    start = {"partition": 3, "before_offset": 0, "seq": 0, "kind": "start", "control_offset": None}
    journal = captured(tmp_path / "journal.jsonl", [{**start, "value": {"release": "r-other"}}])
    with pytest.raises(StateError, match="release 'r-other' scored partition 3") as told:
        replay(tmp_path / "out", release, "--input", path, "--journal", journal)
    assert told.value.exit_code == 5


def test_releases_that_the_journal_names_are_found_by_name_or_where_a_control_says(
    tmp_path: Path, release: Path
) -> None:
    path = captured(tmp_path / "in.jsonl", [native(i, i) for i in range(6)])
    partition = lines(replay(tmp_path / "whole", release, "--input", path)[SCORES])[0]["partition"]
    other = tmp_path / "releases" / write(tmp_path / "made", StaticEmbedder.load(device="cpu").space_id, seed=6)
    names = name_of(release), other.name
    start = {"partition": partition, "before_offset": 0, "seq": 0, "kind": "start", "control_offset": None}
    ids = {"space_id": "s", "feature_schema": "f", "state_schema": "s", "manifest_sha256": "0"}
    uri = (tmp_path / "made").as_uri()
    switch = {"kind": "release", "time_ms": 0, "issuer": "ada", "value": {"release": other.name, "uri": uri, **ids}}
    entries = [
        {**start, "value": {"release": names[0]}},
        {**start, "before_offset": 4, "seq": 1, "kind": "control", "control_offset": 0, "value": switch},
    ]
    journal = captured(tmp_path / "journal.jsonl", entries)
    flags = "--input", path, "--journal", journal
    settings = Settings(release=ReleaseSettings(directory=str(tmp_path / "releases")))
    told = replay(tmp_path / "by-uri", release, *flags, settings=settings)
    scored_by = [score["release"] for score in lines(told[SCORES])]
    assert set(scored_by) == set(names)
    (tmp_path / "releases").mkdir()
    (tmp_path / "made").rename(other)
    shutil.copytree(release, tmp_path / "releases" / names[0])
    by_name = replay(tmp_path / "by-name", release, *flags, settings=settings)
    # Either of them may be the one that is given.
    turned = replay(tmp_path / "turned", other, *flags, settings=settings)
    assert by_name[SCORES] == told[SCORES] == turned[SCORES]
    shutil.rmtree(tmp_path / "releases")
    with pytest.raises(StateError, match=rf"release '{names[1]}' scored a part of this: .* --journal none") as error:
        replay(tmp_path / "out", release, *flags, settings=settings)
    assert error.value.exit_code == 5


def test_input_that_is_not_there_is_a_usage_error(tmp_path: Path, release: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        replay(tmp_path / "out", release, "--input", tmp_path / "nowhere.jsonl")


def test_journal_that_is_not_there_is_a_usage_error(tmp_path: Path, release: Path) -> None:
    path = captured(tmp_path / "in.jsonl", [native(0)])
    with pytest.raises(UsageError, match=r"--journal .* must be a file of JSON lines, 'topic' or 'none'"):
        replay(tmp_path / "out", release, "--input", path, "--journal", tmp_path / "nowhere")


def test_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path, release: Path) -> None:
    path = captured(tmp_path / "in.jsonl", [native(0)])
    with pytest.raises(UsageError, match=r"--out .* cannot be written"):
        replay(path, release, "--input", path)


def test_release_that_is_not_there_is_exit_5(tmp_path: Path) -> None:
    path = captured(tmp_path / "in.jsonl", [native(0)])
    with pytest.raises(StateError):
        replay(tmp_path / "out", tmp_path / "nowhere", "--input", path)


def test_broken_off_replay_leaves_the_folder_as_it_was(tmp_path: Path, release: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00 cut short")
    with pytest.raises(UsageError):
        replay(tmp_path / "out", release, "--input", path)
    assert list((tmp_path / "out").iterdir()) == []


def test_full_disk_is_an_environment_fault(tmp_path: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stream.sinks.file._write", full)
    path = captured(tmp_path / "in.jsonl", [native(0)])
    with pytest.raises(EnvironmentFault, match="No space left on device"):
        replay(tmp_path / "out", release, "--input", path)
    assert list((tmp_path / "out").iterdir()) == []


# -- compare ---------------------------------------------------------------------------------------------------------


def compared(a: Path, b: Path) -> int:
    return run(Settings(), parse(["replay", "compare", str(a), str(b)]))


def test_compare_answers_by_exit_code(tmp_path: Path, release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = captured(tmp_path / "in.jsonl", [native(n) for n in range(3)])
    for name in "ab":
        replay(tmp_path / name, release, "--input", path)
    assert compared(tmp_path / "a", tmp_path / "b") == 0
    assert capsys.readouterr().out == (
        "equal: findings.jsonl (0 lines), scores.jsonl (3 lines), deadletters.jsonl (0 lines)\n"
    )
    scores = tmp_path / "b" / SCORES
    scores.write_bytes(scores.read_bytes().replace(b'"late":false', b'"late":true', 1))
    assert compared(tmp_path / "a", tmp_path / "b") == 4
    told = capsys.readouterr().out
    assert "scores.jsonl differs" in told and "late: false | true" in told and "findings.jsonl" not in told
