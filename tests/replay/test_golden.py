"""A fixed stream gives the expected bytes, whole and cut at each offset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from stream.inputs import InputBatch
from stream.record import Record
from stream.sinks.file import FileSink
from tests.replay.golden import EXPECTED, OUTPUTS, core, inputs, last_ticks, write
from tests.stream.streams import TOPIC, Said

INPUTS = inputs()
CHANGED = "results have changed; when that is meant, run: python -m tests.replay.golden"


def read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def test_inputs_give_the_expected_outputs(tmp_path: Path) -> None:
    write(tmp_path, INPUTS)
    assert read(tmp_path) == read(EXPECTED), CHANGED


def test_expectations_hold_findings_of_every_activity() -> None:
    findings = (EXPECTED / "findings.jsonl").read_bytes()
    assert all(b'"activity_id":%d' % activity in findings for activity in (1, 2, 3))


@pytest.mark.parametrize("at", range(1, len(INPUTS)))
def test_cut_at_each_offset_and_restored_the_bytes_are_the_same(tmp_path: Path, at: int) -> None:
    scored(tmp_path, [INPUTS[:at], INPUTS[at:]])
    assert read(tmp_path) == read(EXPECTED)


def scored(out: Path, batches: Sequence[Sequence[Record]]) -> None:
    """Each batch by a core of its own, restored from what those before it wrote."""
    said = Said()
    with FileSink(out) as sink:
        for batch in [*(InputBatch(records, topic=TOPIC) for records in batches), last_ticks([0, 1])]:
            fresh = core()
            for partition, rows in said.rows.items():
                fresh.restore(partition, rows)
            outcome = fresh.step(batch)
            said.take(outcome)
            sink.write(outcome)
        sink.close()
