"""What a fixed stream comes to, kept as files, so that a change of results is seen and meant.

`python -m tests.replay.golden` writes the expectations anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from stream.core import Core
from stream.inputs import Applied, InputBatch
from stream.record import Record
from stream.sinks.file import DEAD_LETTERS, FINDINGS, SCORES, FileSink
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, START_MS, TOPIC, stream

FOLDER = Path(__file__).parent
INPUTS = FOLDER / "inputs.jsonl"
EXPECTED = FOLDER / "expected"
OUTPUTS = (SCORES, FINDINGS, DEAD_LETTERS)
END_MS = START_MS + 10**9
"""A last tick brings every partition here, so that every finding is closed."""


def core() -> Core:
    """The core that the expectations are of."""
    return Core(SETTINGS, release(reading=True), WordEmbedder())


def inputs() -> list[Record]:
    """The stream, as records of the events topic."""
    records = []
    for line in INPUTS.read_bytes().splitlines():
        told = orjson.loads(line)
        value = told["value"].encode("latin-1")
        headers = tuple((name, text.encode()) for name, text in told["headers"])
        records.append(Record(TOPIC, told["partition"], told["offset"], told["timestamp_ms"], None, value, headers))
    return records


def last_ticks(partitions: Sequence[int]) -> InputBatch:
    """The end of the stream."""
    controls = [Applied(partition, "tick", {"core_time_ms": END_MS}) for partition in partitions]
    return InputBatch([], controls, topic=TOPIC)


def write(out: Path, records: Sequence[Record]) -> None:
    """Score `records` in one batch into folder `out`."""
    live = core()
    with FileSink(out) as sink:
        sink.write(live.step(InputBatch(records, topic=TOPIC)))
        sink.write(live.step(last_ticks(sorted({record.partition for record in records}))))
        sink.close()


def _write_inputs() -> None:
    with INPUTS.open("wb") as file:
        for record in stream(seed=5, n=70, partitions=2, tenants=2, sessions=3):
            told = {
                "partition": record.partition,
                "offset": record.offset,
                "timestamp_ms": record.timestamp_ms,
                "headers": [(name, (value or b"").decode()) for name, value in record.headers],
                # Not all of it is UTF-8.
                "value": (record.value or b"").decode("latin-1"),
            }
            file.write(orjson.dumps(told) + b"\n")


if __name__ == "__main__":
    if not INPUTS.exists():
        _write_inputs()
    write(EXPECTED, inputs())
    (EXPECTED / "summary.json").unlink()
