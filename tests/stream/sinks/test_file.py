"""Files as a sink: what is written, in which order, all or nothing."""

from hashlib import sha256
from pathlib import Path

import orjson

from stream.inputs import Outcome
from stream.record import DeadLetter, OutRecord, Record
from stream.sinks.file import FileSink

FILES = ["deadletters.jsonl", "findings.jsonl", "scores.jsonl", "summary.json"]


def score(partition: int, offset: int) -> OutRecord:
    value = orjson.dumps({"at": [partition, offset]})
    return OutRecord(partition, b"k", value, ("events", partition, offset), f"{offset:064x}")


def finding(partition: int, offset: int, revision: int, home: int = 0) -> OutRecord:
    value = orjson.dumps({"at": [partition, offset], "metadata": {"sequence": revision}})
    return OutRecord(home, b"k", value, ("events", partition, offset), f"{offset:064x}")


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_folder_holds_four_files_even_when_nothing_happened(tmp_path: Path) -> None:
    with FileSink(tmp_path / "out") as sink:
        sink.close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert orjson.loads((tmp_path / "out" / "summary.json").read_bytes())["scores"] == 0


def test_lines_are_ordered_by_source_partition_offset_and_revision(tmp_path: Path) -> None:
    with FileSink(tmp_path) as sink:
        sink.write(Outcome(findings=[finding(1, 5, 3, home=0), finding(1, 5, 1, home=7), finding(1, 9, 2)]))
        sink.write(Outcome(findings=[finding(0, 7, 1, home=9)]))
        said = sink.close()
    ordered = [(*line["at"], line["metadata"]["sequence"]) for line in lines(tmp_path / "findings.jsonl")]  # type: ignore[misc, index]
    assert ordered == [(0, 7, 1), (1, 5, 1), (1, 5, 3), (1, 9, 2)]
    assert (said["findings"], said["findings_opened"]) == (4, 2)


def test_summary_holds_counts_hashes_and_what_the_caller_adds(tmp_path: Path) -> None:
    with FileSink(tmp_path) as sink:
        sink.write(Outcome(scores=[score(0, 0), score(0, 1)]))
        said = sink.close({"release": "r1"})
    assert said == orjson.loads((tmp_path / "summary.json").read_bytes())
    assert said["scores"] == 2
    assert said["scores_sha256"] == sha256((tmp_path / "scores.jsonl").read_bytes()).hexdigest()
    assert said["release"] == "r1"


def test_dead_letter_line_says_where_why_and_which_bytes(tmp_path: Path) -> None:
    letter = DeadLetter(Record("raw", 0, 4, 0, None, b"{"), "undecodable", "raw[0]@4: no JSON", "decode", "DecodeError")
    with FileSink(tmp_path) as sink:
        sink.write(Outcome(dead_letters=[letter]))
        sink.close()
    (line,) = lines(tmp_path / "deadletters.jsonl")
    assert line == {
        "topic": "raw",
        "partition": 0,
        "offset": 4,
        "reason": "undecodable",
        "stage": "decode",
        "exception_class": "DecodeError",
        "message": "raw[0]@4: no JSON",
        "sha256": sha256(b"{").hexdigest(),
        "bytes": 1,
    }
    assert list(line) == sorted(line)


def test_run_that_breaks_off_leaves_the_former_files_and_nothing_else(tmp_path: Path) -> None:
    with FileSink(tmp_path) as sink:
        sink.write(Outcome(scores=[score(0, 0)]))
        sink.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with FileSink(tmp_path, spill_bytes=1) as sink:
        sink.write(Outcome(scores=[score(0, 1)]))
        assert {path.name for path in tmp_path.iterdir()} > before.keys()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_bytes_do_not_depend_on_what_memory_holds(tmp_path: Path) -> None:
    for name, spill_bytes in (("roomy", 1 << 20), ("tight", 1)):
        with FileSink(tmp_path / name, spill_bytes) as sink:
            for offset in range(20):
                sink.write(Outcome(scores=[score(partition, offset) for partition in (3, 1)]))
            sink.close()
    assert all((tmp_path / "roomy" / f).read_bytes() == (tmp_path / "tight" / f).read_bytes() for f in FILES)
