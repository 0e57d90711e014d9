"""Files become redacted, routed events; of labelled ones the benign alone."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from sample.records import TRAIN, records
from stream.errors import UsageError
from stream.steps.route import partition_of
from stream.training.gather import Tally, gather_files
from tests.stream.training.captures import SETTINGS, corpus, session, write_lines


def test_only_benign_sessions_of_a_corpus_are_taken(tmp_path: Path) -> None:
    lines = [*corpus(5), session(5, label="attack"), session(6, label=None), session(7)]
    tally = Tally()
    events = list(gather_files([write_lines(tmp_path / "c.jsonl.gz", lines)], "auto", SETTINGS, tally))
    sessions = {orjson.loads(event.record.value or b"")["session"] for event in events}
    assert sessions == {"s0", "s1", "s2", "s3", "s4", "s7"}
    assert (tally.labelled, tally.left_out, tally.dead_letters.total()) == (True, 2, 0)


def test_events_bear_their_task_and_the_partition_of_their_tenant(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", corpus(6))
    for event in gather_files([path], "corpus", SETTINGS, Tally()):
        tenant = orjson.loads(event.record.value or b"")["tenant"]
        assert (event.task, event.record.partition) == ("t0", partition_of(tenant, None, 8))


def test_sessions_without_times_follow_each_other_over_all_files(tmp_path: Path) -> None:
    undated = [{name: value for name, value in line.items() if name != "start_ms"} for line in corpus(4)]
    paths = [write_lines(tmp_path / f"{i}.jsonl", undated[2 * i : 2 * i + 2]) for i in range(2)]
    events = list(gather_files(paths, "corpus", SETTINGS, Tally()))
    told = [orjson.loads(event.record.value or b"")["session"] for event in events]
    assert told == ["s0", "s0", "s1", "s1", "s2", "s2", "s3", "s3"]


def test_sessions_need_not_be_sorted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", corpus(6)[::-1])
    events = list(gather_files([path], "corpus", SETTINGS, Tally()))
    times = [event.record.timestamp_ms for event in events]
    assert times == sorted(times)


def test_a_gateways_log_is_taken_as_unlabelled_and_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    logged = [record for _, (_, record, _) in zip(range(20), records(TRAIN, "litellm"), strict=False)]
    path = write_lines(tmp_path / "log.jsonl", logged)
    path.write_bytes(b"no json\n" + path.read_bytes() + b'{"hello": 1}\n')
    tally = Tally()
    events = list(gather_files([path], "litellm", SETTINGS, tally))
    assert len(events) == 20
    assert (tally.labelled, tally.left_out) == (False, 0)
    assert tally.dead_letters.total() == 2


def test_a_line_of_a_corpus_that_is_no_session_is_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", corpus(2))
    path.write_bytes(path.read_bytes() + b"no session\n")
    tally = Tally()
    assert len(list(gather_files([path], "auto", SETTINGS, tally))) == 4
    assert tally.dead_letters == {"undecodable": 1}


def test_a_missing_or_damaged_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be a file of JSON lines"):
        list(gather_files([tmp_path / "none.jsonl"], "auto", SETTINGS, Tally()))
    whole = write_lines(tmp_path / "c.jsonl.gz", corpus(40))
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"c\.jsonl\.gz cannot be read"):
        list(gather_files([whole], "corpus", SETTINGS, Tally()))
