"""What every source and every sink promises; each contract also rejects one that breaks it."""

from collections.abc import Callable, Sequence
from itertools import chain, cycle
from pathlib import Path

import orjson
import pytest

from stream.inputs import Outcome
from stream.record import DeadLetter, OutRecord, Record
from stream.sinks.file import FileSink
from stream.sinks.memory import MemorySink
from stream.sinks.sink import Sink
from stream.sources.file import FileSource
from stream.sources.memory import MemorySource
from stream.sources.source import Source

VALUES = [orjson.dumps({"event_time_ms": 1_788_220_800_000 + i, "n": i}) for i in range(23)]

# -- sources -----------------------------------------------------------------------------------------------------------

MakeSource = Callable[[Path], Source]


def memory_source(folder: Path) -> Source:
    return MemorySource(Record("t", 0, i, 1_788_220_800_000 + i, None, value) for i, value in enumerate(VALUES))


def file_source(folder: Path) -> Source:
    paths = [folder / "a.jsonl", folder / "b.jsonl"]
    for path, values in zip(paths, (VALUES[:10], VALUES[10:]), strict=True):
        path.write_bytes(b"".join(value + b"\n" for value in values))
    return FileSource(paths)


SOURCES: dict[str, MakeSource] = {"memory": memory_source, "file": file_source}
every_source = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)


def brings_each_record_once_in_order(make: MakeSource, folder: Path) -> None:
    """However it is polled, and never more than was asked for."""
    for sizes in ((1,), (7,), (1, 5, 2), (1000,)):
        source = make(folder)
        records: list[Record] = []
        for size in cycle(sizes):
            polled = source.poll(size)
            assert len(polled) <= size
            records += polled
            if source.exhausted:
                break
        assert [record.value for record in records] == VALUES
        offsets = [record.offset for record in records]
        assert offsets == sorted(set(offsets))
        assert [record.timestamp_ms for record in records] == [1_788_220_800_000 + i for i in range(len(VALUES))]


def stays_exhausted(make: MakeSource, folder: Path) -> None:
    source = make(folder)
    assert not source.exhausted
    while not source.exhausted:
        source.poll(10)
    assert source.poll(10) == []
    assert source.exhausted


@every_source
def test_source_brings_each_record_once_in_order_however_it_is_polled(make: MakeSource, tmp_path: Path) -> None:
    brings_each_record_once_in_order(make, tmp_path)


@every_source
def test_source_stays_exhausted_once_it_is(make: MakeSource, tmp_path: Path) -> None:
    stays_exhausted(make, tmp_path)


class Forgetful:
    """Loses the first record of each poll but the first, and never ends."""

    def __init__(self) -> None:
        self._inner = memory_source(Path())
        self._polled = False

    def poll(self, max_records: int) -> list[Record]:
        polled = self._inner.poll(max_records)[self._polled :]
        self._polled = True
        return polled

    @property
    def exhausted(self) -> bool:
        return self._polled


@pytest.mark.parametrize("contract", [brings_each_record_once_in_order, stays_exhausted])
def test_contracts_reject_a_source_that_loses_records(
    contract: Callable[[MakeSource, Path], None], tmp_path: Path
) -> None:
    with pytest.raises(AssertionError):
        contract(lambda _: Forgetful(), tmp_path)


# -- sinks -------------------------------------------------------------------------------------------------------------

Held = tuple[list[bytes], list[bytes], list[tuple[int, str]]]
"""Values of scores and findings, offset and reason of dead letters, a partition's in order."""
WriteAll = Callable[[Path, Sequence[Outcome]], Held]


def into_memory(folder: Path, outcomes: Sequence[Outcome]) -> Held:
    sink = MemorySink()
    write_all(sink, outcomes)
    return (
        [record.value for record in sink.scores],
        [record.value for record in sink.findings],
        [(letter.record.offset, letter.reason) for letter in sink.dead_letters],
    )


def into_files(folder: Path, outcomes: Sequence[Outcome]) -> Held:
    with FileSink(folder, spill_bytes=2_000) as sink:
        write_all(sink, outcomes)
        sink.close()
    letters = [orjson.loads(line) for line in (folder / "deadletters.jsonl").read_bytes().splitlines()]
    return (
        (folder / "scores.jsonl").read_bytes().splitlines(),
        (folder / "findings.jsonl").read_bytes().splitlines(),
        [(letter["offset"], letter["reason"]) for letter in letters],
    )


def write_all(sink: Sink, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        sink.write(outcome)


def score(offset: int) -> OutRecord:
    return OutRecord(0, b"k", orjson.dumps({"score": offset}), ("events", 0, offset), f"{offset:064x}")


def finding(offset: int) -> OutRecord:
    value = orjson.dumps({"finding": offset, "metadata": {"sequence": 1 + offset % 3}})
    return OutRecord(0, b"k", value, ("events", 0, offset), f"{offset:064x}")


def letter(offset: int) -> DeadLetter:
    return DeadLetter(Record("raw", 0, offset, 0, None, b"?"), "schema", "…", "decode", "DecodeError")


def outcomes(size: int) -> list[Outcome]:
    """Twenty events, a finding for each third and a dead letter for each fifth, `size` events at a time."""
    return [
        Outcome(
            scores=[score(i) for i in part],
            findings=[finding(i) for i in part if i % 3 == 0],
            dead_letters=[letter(i) for i in part if i % 5 == 0],
        )
        for part in (range(start, min(start + size, 20)) for start in range(0, 20, size))
    ]


SINKS: dict[str, WriteAll] = {"memory": into_memory, "file": into_files}
every_sink = pytest.mark.parametrize("write", SINKS.values(), ids=SINKS)


def holds_all_once_in_order(write: WriteAll, folder: Path) -> None:
    """However outcomes were cut."""
    everything = outcomes(20)[0]
    expected: Held = (
        [record.value for record in everything.scores],
        [record.value for record in everything.findings],
        [(made.record.offset, made.reason) for made in everything.dead_letters],
    )
    for size in (1, 7, 20):
        assert write(folder / str(size), outcomes(size)) == expected


@every_sink
def test_sink_holds_all_once_in_order_however_outcomes_were_cut(write: WriteAll, tmp_path: Path) -> None:
    holds_all_once_in_order(write, tmp_path)


def last_outcome_only(folder: Path, given: Sequence[Outcome]) -> Held:
    return into_memory(folder, given[-1:])


def everything_twice(folder: Path, given: Sequence[Outcome]) -> Held:
    return into_memory(folder, list(chain(given, given)))


@pytest.mark.parametrize("broken", [last_outcome_only, everything_twice])
def test_contract_rejects_a_sink_that_loses_or_repeats(broken: WriteAll, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        holds_all_once_in_order(broken, tmp_path)
