"""A scorer's state as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import orjson
import pytest

from stream.core import Core
from stream.errors import StateError, UsageError
from stream.record import Record
from stream.runtime.state_files import MANIFEST, ExportedState, LiveRows, StateFolder, read_cursor
from stream.state.partition import Cursor
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, Said, cut, run, stream

TOPIC = "genai.anomaly.state.v1"
RECORDS = stream(seed=21, n=300)


def core() -> Core:
    return Core(SETTINGS, release(), WordEmbedder())


@pytest.fixture(scope="module")
def said() -> Said:
    return run(core(), cut(RECORDS[:200], 20))


def on_topic(rows: Iterable[tuple[bytes, bytes | None]], at_once: int = 7) -> list[list[Record]]:
    """Rows as a reader of the state's topic brings them."""
    records = [Record(TOPIC, 0, offset, 0, key, value) for offset, (key, value) in enumerate(rows)]
    return [records[at : at + at_once] for at in range(0, len(records), at_once)]


def export(out: Path, said: Said) -> ExportedState:
    with StateFolder(out, TOPIC) as folder:
        for partition in range(4):
            folder.write(partition, on_topic(said.rows.get(partition, [])))
        folder.close()
    return ExportedState(out)


def test_what_is_read_back_restores_the_same_state(tmp_path: Path, said: Said) -> None:
    state = export(tmp_path / "state", said)
    again, live = core(), core()
    for partition in state.cursors:
        again.restore(partition, state.rows(partition))
        live.restore(partition, said.rows[partition])
    assert run(again, cut(RECORDS[200:], 9)).results() == run(live, cut(RECORDS[200:], 9)).results()


def test_manifest_tells_what_each_partition_holds(tmp_path: Path, said: Said) -> None:
    manifest = export(tmp_path / "state", said).manifest
    assert manifest.topic == TOPIC
    for partition in range(3):
        live = {key: value for key, value in dict(said.rows[partition]).items() if value is not None}
        told = manifest.partitions[partition]
        assert told.rows == len(live) == sum(told.counts.values())
        assert told.counts["tenant"] == sum(key.startswith(b'["tenant"') for key in live)
        assert told.cursor == msgspec.json.decode(live[b'["cursor"]'], type=Cursor)
        assert told.bytes == (tmp_path / "state" / told.file).stat().st_size
    assert (manifest.partitions[3].rows, manifest.partitions[3].cursor) == (0, None)


def test_only_the_last_row_of_each_key_is_written_and_none_that_is_gone(tmp_path: Path, said: Said) -> None:
    state = export(tmp_path / "state", said)
    rows = list(state.rows(0))
    assert len({key for key, _ in rows}) == len(rows)
    assert dict(rows) == {key: value for key, value in dict(said.rows[0]).items() if value is not None}


def test_transaction_whose_end_was_not_seen_does_not_count(tmp_path: Path) -> None:
    """A live scorer goes on while it is read: rows behind the last cursor are part of a transaction only."""

    def cursor(offset: int) -> tuple[bytes, bytes]:
        told = Cursor(offset, 0, 0, 0, "r", "", 0)
        return b'["cursor"]', msgspec.json.encode(told)

    rows: list[tuple[bytes, bytes | None]] = [
        (b'["tenant","a"]', b'"1"'), (b'["tenant","b"]', b'"1"'), cursor(5),
        (b'["tenant","a"]', b'"2"'), (b'["tenant","b"]', None), (b'["tenant","c"]', b'"2"'),
    ]  # fmt: skip
    for extra, expected in (([], {b"a": b"1", b"b": b"1"}), ([cursor(9)], {b"a": b"2", b"c": b"2"})):
        with StateFolder(tmp_path / str(len(extra)), TOPIC) as folder:
            folder.write(0, on_topic([*rows, *extra], at_once=1))
            folder.close()
        state = ExportedState(tmp_path / str(len(extra)))
        found = {key: value for key, value in state.rows(0) if key != b'["cursor"]'}
        assert {key[11:12]: value[1:2] for key, value in found.items()} == expected
        assert state.cursors[0].next_offset == (9 if extra else 5)


def test_live_rows_keep_the_last_of_each_key() -> None:
    live: LiveRows[int] = LiveRows()
    for key, row in ((b"a", 1), (b"b", 2), (b"a", None), (b'["cursor"]', 3), (b"b", 4)):
        live.put(key, row)
    assert live.rows == {b"b": 2, b'["cursor"]': 3}


def test_export_appears_whole_or_not_at_all(tmp_path: Path, said: Said) -> None:
    with StateFolder(tmp_path / "state", TOPIC) as folder:
        folder.write(0, on_topic(said.rows[0]))
        assert not (tmp_path / "state").exists()
    assert list(tmp_path.iterdir()) == []


def test_export_takes_an_empty_folder_and_no_other(tmp_path: Path, said: Said) -> None:
    (tmp_path / "empty").mkdir()
    assert export(tmp_path / "empty", said).manifest.partitions[0].rows > 0
    with pytest.raises(UsageError, match="must be a new or an empty folder"):
        StateFolder(tmp_path / "empty", TOPIC)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="must be a new or an empty folder"):
        StateFolder(tmp_path / "file", TOPIC)
    with pytest.raises(UsageError, match="cannot be written"):
        StateFolder(tmp_path / "file" / "below", TOPIC)


def test_row_that_is_no_text_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"genai\.anomaly\.state\.v1\[0\]@0: a state row must be JSON text"):
        StateFolder(tmp_path / "state", TOPIC).write(0, on_topic([(b'["tenant","a"]', b"\xff")]))


def test_damaged_file_is_refused_with_the_remedy(tmp_path: Path, said: Said) -> None:
    export(tmp_path / "state", said)
    path = tmp_path / "state" / "partition-1.jsonl"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole.replace(b"tenant", b"Tenant", 1), b""):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match=r"partition-1\.jsonl must have sha256 .* Export it anew"):
            ExportedState(tmp_path / "state")
    path.unlink()
    with pytest.raises(StateError, match=r"partition-1\.jsonl cannot be read: No such file"):
        ExportedState(tmp_path / "state")


def test_manifest_that_is_none_is_refused_with_the_remedy(tmp_path: Path, said: Said) -> None:
    with pytest.raises(StateError, match=r"manifest\.json cannot be read"):
        ExportedState(tmp_path)
    export(tmp_path / "state", said)
    path = tmp_path / "state" / MANIFEST
    told = orjson.loads(path.read_bytes())
    (tmp_path / "outside").write_bytes(b"")
    told["partitions"]["0"]["file"] = "../outside"
    for damaged, match in (
        (b"{", "is not one that 'tidegate state export' wrote"),
        (orjson.dumps({**told, "partitions": {}, "v": 2}), "must have version 1; got 2"),
        (orjson.dumps(told), r"names the file '\.\./outside', which is not in its folder"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match=match):
            ExportedState(tmp_path / "state")


def test_cursor_that_cannot_be_read_is_told() -> None:
    with pytest.raises(StateError, match="cursor of partition 3 cannot be read"):
        read_cursor(b"{}", 3)
