"""A scorer's state as files: what `state export` writes and `replay --from-state` reads."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Generic, Self, TypeVar

import msgspec
import orjson

from schemas.undecodable import UNDECODABLE
from stream.errors import StateError, UsageError
from stream.record import Record
from stream.state.partition import CURSOR_KEY, Cursor

MANIFEST = "manifest.json"
_VERSION = 1
_ANEW = "Export it anew with 'tidegate state export'."
_HASHED_AT_ONCE = 2**20

T = TypeVar("T")


class LiveRows(Generic[T]):
    """What is left of each key's rows, as far as whole transactions go.

    A transaction ends with its partition's cursor: what comes behind the last one belongs to a transaction of which
    more is to come, and does not count.
    """

    def __init__(self) -> None:
        self.rows: dict[bytes, T] = {}
        self._open: dict[bytes, T | None] = {}

    def put(self, key: bytes, row: T | None) -> None:
        """Take the next row; None is a tombstone."""
        self._open[key] = row
        if key != CURSOR_KEY:
            return
        for name, last in self._open.items():
            if last is None:
                self.rows.pop(name, None)
            else:
                self.rows[name] = last
        self._open.clear()


class StatePartition(msgspec.Struct, frozen=True, kw_only=True):
    """One partition of an exported state."""

    file: str
    rows: int
    bytes: int
    sha256: str
    counts: dict[str, int]
    """Rows by kind."""
    cursor: Cursor | None
    """None where nothing has been scored."""


class StateManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json` of an exported state."""

    topic: str
    partitions: dict[int, StatePartition]
    v: int = _VERSION


class StateFolder:
    """An exported state being written: it appears at `out` with `close`, whole, or not at all.

    Parameters
    ----------
    out
        A folder that is not there yet, or is empty.

    Raises
    ------
    UsageError
        When something is there, or it cannot be written.
    """

    def __init__(self, out: Path, topic: str) -> None:
        # A link at `out` stays, and what it points to is written.
        self._out = Path(os.path.realpath(out))
        self._topic = topic
        self._partitions: dict[int, StatePartition] = {}
        if self._out.exists() and not (self._out.is_dir() and not any(self._out.iterdir())):
            raise UsageError(f"--out {out} must be a new or an empty folder. Name another, or remove what is there.")
        try:
            self._out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self._out.name}.", dir=self._out.parent))
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {error.strerror}. Name another folder.") from error
        self._folder.chmod(0o755)

    def write(self, partition: int, batches: Iterable[Sequence[Record]]) -> StatePartition:
        """Take a partition's rows, in the order of the topic.

        Raises
        ------
        StateError
            When a row is no text, or the cursor none.
        """
        live: LiveRows[tuple[int, int]] = LiveRows()
        cursor = b""
        # Every row is written as it comes and only its place kept, so that memory holds keys, not rows.
        with tempfile.TemporaryFile(dir=self._folder) as spool:
            at = 0
            for records in batches:
                for record in records:
                    if record.key is None:
                        continue
                    if record.value is None:
                        live.put(record.key, None)
                        continue
                    line = _line(record, record.key, record.value)
                    spool.write(line)
                    live.put(record.key, (at, len(line)))
                    at += len(line)
                    if record.key == CURSOR_KEY:
                        cursor = record.value
            spool.flush()
            lines = (_part(spool.fileno(), *place) for place in sorted(live.rows.values()))
            name = f"partition-{partition}.jsonl"
            size, digest = self._put(name, lines)
        self._partitions[partition] = StatePartition(
            file=name,
            rows=len(live.rows),
            bytes=size,
            sha256=digest,
            counts=dict(sorted(Counter(kind_of(key) for key in live.rows).items())),
            cursor=read_cursor(cursor, partition) if live.rows else None,
        )
        return self._partitions[partition]

    def close(self) -> StateManifest:
        """Put the folder into place."""
        manifest = StateManifest(topic=self._topic, partitions=self._partitions)
        plain = msgspec.to_builtins(manifest, str_keys=True)
        self._put(MANIFEST, [orjson.dumps(plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"])
        self._folder.replace(self._out)
        return manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _put(self, name: str, parts: Iterable[bytes]) -> tuple[int, str]:
        size, digest = 0, sha256()
        with (self._folder / name).open("wb") as file:
            for part in parts:
                file.write(part)
                digest.update(part)
                size += len(part)
            file.flush()
            os.fsync(file.fileno())
        return size, digest.hexdigest()


class ExportedState:
    """A state that `state export` wrote, found whole.

    Raises
    ------
    StateError
        When a file is missing or not the one that was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.manifest = _read_manifest(folder)
        for partition in self.manifest.partitions.values():
            self._check(partition)

    @property
    def cursors(self) -> Mapping[int, Cursor]:
        """Partition -> where it stands; without those of which nothing has been scored."""
        return {p: stored.cursor for p, stored in self.manifest.partitions.items() if stored.cursor is not None}

    def rows(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Rows of a partition, in the order of the topic."""
        path = self._folder / self.manifest.partitions[partition].file
        with path.open("rb") as file:
            for line in file:
                row = _ROW.decode(line)
                yield row.key.encode(), row.value.encode()

    def place_of(self, partition: int, key: bytes) -> str:
        """File and line of a row, as messages name it."""
        lines = (number for number, row in enumerate(self.rows(partition), 1) if row[0] == key)
        return f"{self._folder / self.manifest.partitions[partition].file}:{next(lines, 0)}"

    def _check(self, partition: StatePartition) -> None:
        path = self._folder / partition.file
        digest = sha256()
        try:
            with path.open("rb") as file:
                while part := file.read(_HASHED_AT_ONCE):
                    digest.update(part)
        except OSError as error:
            raise StateError(f"state {path} cannot be read: {error.strerror}. {_ANEW}") from error
        if digest.hexdigest() != partition.sha256:
            raise StateError(
                f"state {path} must have sha256 {partition.sha256}, as {MANIFEST} says; got {digest.hexdigest()}: "
                f"it is damaged or was changed. {_ANEW}"
            )


class _Row(msgspec.Struct):
    key: str
    value: str


_ROW = msgspec.json.Decoder(_Row)


def kind_of(key: bytes) -> str:
    """What a row is about.

    >>> kind_of(b'["session","team-1","s"]'), kind_of(b"?")
    ('session', 'unknown')
    """
    try:
        named = orjson.loads(key)
    except orjson.JSONDecodeError:
        return "unknown"
    return str(named[0]) if isinstance(named, list) and named else "unknown"


def read_cursor(value: bytes, partition: int) -> Cursor:
    """Where a partition stands.

    Raises
    ------
    StateError
        When that cannot be read.
    """
    try:
        return msgspec.json.decode(value, type=Cursor)
    except UNDECODABLE as error:
        raise StateError(
            f"cursor of partition {partition} cannot be read: {error}. "
            "Rebuild the partition's state, see docs/runbook.md."
        ) from error


def _line(record: Record, key: bytes, value: bytes) -> bytes:
    try:
        return orjson.dumps({"key": key.decode(), "value": value.decode()}) + b"\n"
    except UnicodeDecodeError as error:
        raise StateError(
            f"{record.position}: a state row must be JSON text; got {value[:40]!r}. Is this the state's topic?"
        ) from error


def _part(file: int, at: int, size: int) -> bytes:
    return os.pread(file, size, at)


def _read_manifest(folder: Path) -> StateManifest:
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=StateManifest)
    except OSError as error:
        raise StateError(f"state {path} cannot be read: {error.strerror}. {_ANEW}") from error
    except UNDECODABLE as error:
        raise StateError(f"state {path} is not one that 'tidegate state export' wrote: {error}. {_ANEW}") from error
    if manifest.v != _VERSION:
        raise StateError(f"state {path} must have version {_VERSION}; got {manifest.v}. {_ANEW}")
    for partition in manifest.partitions.values():
        if Path(partition.file).name != partition.file:
            raise StateError(f"state {path} names the file {partition.file!r}, which is not in its folder. {_ANEW}")
    return manifest
