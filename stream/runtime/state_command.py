"""`tidegate state export` and `tidegate state inspect`: the scorer's state, as its topic holds it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from stream.config import Settings
from stream.record import Record
from stream.runtime.state_files import LiveRows, StateFolder, kind_of, read_cursor
from stream.runtime.topic_reader import TopicReader
from stream.state.partition import CURSOR_KEY, Cursor

_KINDS = {"tenants": "tenant", "sessions": "session", "findings": "finding"}
"""Column of the table -> kind of row that it counts."""
_YEAR_10000_MS = 253_402_300_800_000


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Write the state to a folder, or say what it holds.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    reader = TopicReader(settings, "state")
    try:
        if arguments.action == "export":
            _export(reader, settings.topics.state, arguments)
        else:
            _inspect(reader, settings.topics.state, as_json=arguments.json)
    finally:
        reader.close()
    return 0


def _export(reader: TopicReader, topic: str, arguments: argparse.Namespace) -> None:
    with StateFolder(arguments.out, topic) as folder:
        for partition, batches in _partitions(reader, topic):
            folder.write(partition, batches)
        manifest = folder.close()
    rows = sum(stored.rows for stored in manifest.partitions.values())
    size = sum(stored.bytes for stored in manifest.partitions.values())
    print(f"{rows} rows, {size} bytes of {len(manifest.partitions)} partitions in {arguments.out}")


def _inspect(reader: TopicReader, topic: str, *, as_json: bool) -> None:
    told = [described(partition, batches) for partition, batches in _partitions(reader, topic)]
    if as_json:
        print(orjson.dumps({"topic": topic, "partitions": told}, option=orjson.OPT_SORT_KEYS).decode())
        return
    print("\n".join(_table(told)))


def described(partition: int, batches: Iterator[Sequence[Record]]) -> dict[str, Any]:
    """What a partition holds: its cursor, and its live rows and their bytes, by kind."""
    live: LiveRows[tuple[int, bytes]] = LiveRows()
    for records in batches:
        for record in records:
            if record.key is not None:
                value = record.value
                cursor = value if value is not None and record.key == CURSOR_KEY else b""
                size = len(record.key) + len(value or b"")
                live.put(record.key, (size, cursor) if value is not None else None)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for key, (size, _) in live.rows.items():
        counts[kind_of(key)] += 1
        sizes[kind_of(key)] += size
    where = live.rows.get(CURSOR_KEY)
    return {
        "partition": partition,
        "cursor": _told(read_cursor(where[1], partition)) if where is not None else None,
        **{name: counts[kind] for name, kind in _KINDS.items()},
        "rows": dict(sorted(counts.items())),
        "bytes": dict(sorted(sizes.items())),
        "bytes_total": sizes.total(),
    }


def _partitions(reader: TopicReader, topic: str) -> Iterator[tuple[int, Iterator[list[Record]]]]:
    for partition, bounds in sorted(reader.bounds(topic).items()):
        yield partition, reader.read(topic, partition, bounds.start, bounds.end)


def _told(cursor: Cursor) -> dict[str, Any]:
    return {name: getattr(cursor, name) for name in cursor.__struct_fields__}


def _table(told: Sequence[dict[str, Any]]) -> Iterator[str]:
    heads = ("partition", "next offset", "core time", *_KINDS, "rows", "bytes", "release")
    lines = [heads, *(_cells(each) for each in told)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        yield "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
    rows: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for each in told:
        rows.update(each["rows"])
        sizes.update(each["bytes"])
    yield ""
    width = max([len(kind) for kind in rows], default=0)
    for kind in sorted(rows):
        yield f"{kind.ljust(width)}  {rows[kind]:>10} rows  {sizes[kind]:>12} bytes"


def _cells(told: dict[str, Any]) -> tuple[str, ...]:
    cursor = told["cursor"]
    place = ("-", "-") if cursor is None else (str(cursor["next_offset"]), _time(cursor["core_time_ms"]))
    counts = tuple(str(told[name]) for name in _KINDS)
    size = (str(sum(told["rows"].values())), str(told["bytes_total"]))
    return (str(told["partition"]), *place, *counts, *size, "-" if cursor is None else cursor["release"])


def _time(ms: int) -> str:
    """ISO 8601, to the second; `-` before the first event, and what no calendar holds as it is.

    >>> _time(1793491200000), _time(-(1 << 62)), _time(1 << 52)
    ('2026-11-01T00:00:00Z', '-', '4503599627370496')
    """
    if ms < 0:
        return "-"
    if ms >= _YEAR_10000_MS:
        return str(ms)
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
