"""Files as a source: offsets, event times, formats, and what cannot be read."""

import gzip
from pathlib import Path

import orjson
import pytest

from stream.errors import UsageError
from stream.record import Record
from stream.sources.file import FileSource


def put(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read(source: FileSource, size: int = 1000) -> list[Record]:
    records: list[Record] = []
    while not source.exhausted:
        records += source.poll(size)
    return records


def session(name: str, start_ms: int, *calls_ms: int, **fields: object) -> bytes:
    turns = [{"role": role, "text": f"{name} {i}"} for i in range(len(calls_ms)) for role in ("user", "assistant")]
    line = {"session": name, "tenant": "t", "turns": turns, "start_ms": start_ms, "calls_ms": list(calls_ms), **fields}
    return orjson.dumps(line)


def test_offset_is_the_line_number_over_all_files_and_blank_lines_are_left_out(tmp_path: Path) -> None:
    a = put(tmp_path / "a.jsonl", b'{"startTime": 1}', b"", b'{"startTime": 2}')
    b = put(tmp_path / "b.jsonl", b'{"event_time_ms": 3000}')
    records = read(FileSource([a, b]))
    assert [(r.topic, r.partition, r.offset) for r in records] == [
        ("a.jsonl", 0, 0),
        ("a.jsonl", 0, 2),
        ("b.jsonl", 0, 3),
    ]


def test_timestamp_is_the_start_of_the_call(tmp_path: Path) -> None:
    path = put(
        tmp_path / "a.jsonl",
        b'{"startTime": 1788220800.25}',
        b'{"event_time_ms": 1788220801000}',
        b'[{"started_at": 1788220803000}, {"started_at": 1788220802000}]',
        b'{"resourceSpans": [{"startTimeUnixNano":"1788220805000000000"},{"startTimeUnixNano":1788220804000000000}]}',
        b'{"resourceSpans": [], "startTime": 1788220806}',
    )
    assert [r.timestamp_ms - 1_788_220_800_000 for r in read(FileSource([path]))] == [250, 1_000, 3_000, 5_000, 6_000]


@pytest.mark.parametrize(
    "line", [b"{", b'{"startTime": "noon"}', b'{"startTime": true}', b'{"startTime": 1e300}', b"[]"]
)
def test_line_that_tells_no_time_takes_the_one_before_it_and_passes_unchanged(tmp_path: Path, line: bytes) -> None:
    records = read(FileSource([put(tmp_path / "a.jsonl", b'{"startTime": 5}', line)]))
    assert (records[1].timestamp_ms, records[1].value) == (5000, line)


def test_call_that_tells_only_its_end_counts_from_there(tmp_path: Path) -> None:
    (record,) = read(FileSource([put(tmp_path / "a.jsonl", b'{"startTime": null, "endTime": 2.5}')]))
    assert record.timestamp_ms == 2500


def test_corpus_becomes_native_records_in_the_order_of_time_over_the_file(tmp_path: Path) -> None:
    path = put(tmp_path / "c.jsonl", session("a", 10, 10, 90), session("b", 20, 20, 30))
    records = read(FileSource([path]), size=3)
    assert [(r.offset, r.timestamp_ms) for r in records] == [(0, 10), (1, 20), (2, 30), (3, 90)]
    bodies = [orjson.loads(r.value or b"") for r in records]
    assert [body["session"] for body in bodies] == ["a", "b", "b", "a"]
    assert [len(body["messages"]) for body in bodies] == [1, 1, 3, 3]


def test_offsets_go_on_from_a_corpus_file_to_the_next(tmp_path: Path) -> None:
    a = tmp_path / "a.jsonl.gz"
    a.write_bytes(gzip.compress(session("a", 10, 10, 90) + b"\n"))
    b = put(tmp_path / "b.jsonl", b'{"startTime": 1}')
    assert [(r.topic, r.offset) for r in read(FileSource([a, b]))] == [
        ("a.jsonl.gz", 0),
        ("a.jsonl.gz", 1),
        ("b.jsonl", 2),
    ]


def test_corpus_line_that_cannot_be_read_is_passed_on_for_ingest_to_refuse(tmp_path: Path) -> None:
    path = put(tmp_path / "c.jsonl", session("a", 10, 10), b"{broken", session("b", 20, 20), b"{last")
    records = read(FileSource([path]))
    assert [r.value for r in records if r.value in (b"{broken", b"{last")] == [b"{broken", b"{last"]
    assert [r.offset for r in records] == [0, 1, 2, 3]


def test_format_named_by_the_caller_is_not_guessed(tmp_path: Path) -> None:
    path = put(tmp_path / "c.jsonl", session("a", 10, 10))
    assert read(FileSource([path], "native"))[0].value == session("a", 10, 10)


def test_missing_file_is_a_usage_error_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"input .*none\.jsonl must be a file of JSON lines"):
        FileSource([tmp_path / "none.jsonl"])


@pytest.mark.parametrize("damaged", [b"not gzip at all", gzip.compress(b'{"startTime": 1}\n' * 9, mtime=0)[:-12]])
def test_file_that_is_no_whole_gzip_is_a_usage_error(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match="cannot be read beyond record"):
        read(FileSource([path]))


def test_corpus_that_is_not_sorted_by_time_is_a_usage_error_with_the_remedy(tmp_path: Path) -> None:
    path = put(tmp_path / "c.jsonl", session("a", 20, 20), session("b", 10, 10))
    with pytest.raises(UsageError, match="Sort the file by start_ms"):
        read(FileSource([path]))


def test_empty_file_brings_no_record(tmp_path: Path) -> None:
    assert read(FileSource([put(tmp_path / "a.jsonl")])) == []
