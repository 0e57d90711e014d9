"""Rows of the state topic: what names them, their checksum, and how those of older versions are read.

A row's value is a JSON object that says its version, `v`, and ends in a checksum of partition, key and content. Who
changes what a kind of row holds raises its version here and adds a reader, which makes the new value of an older one:
state is then read on. Where no reader can be written the number at the start of `STATE_SCHEMA` is raised instead
(docs/decisions/0028).
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import orjson

from schemas.undecodable import UNDECODABLE
from stream.errors import StateError
from stream.record import StateChange

REBUILD = "Rebuild the partition's state, see docs/runbook.md."
_SEAL = b',"crc":"%08x"}'
_SEAL_SIZE = len(_SEAL % 0)
_PARTITIONS_TRIED = 4096

Reader = Callable[[bytes], bytes]
"""Makes the value of a row's version of one before it."""


class RowError(StateError):
    """A row that cannot be read.

    Parameters
    ----------
    key
        Of the row.
    """

    def __init__(self, message: str, key: bytes) -> None:
        super().__init__(message)
        self.key = key


def renumbered(version: int) -> Reader:
    """A reader of rows that differ in their version only.

    >>> renumbered(2)(b'{"row":"","v":1}')
    b'{"row":"","v":2}'
    """
    return lambda body: orjson.dumps({**orjson.loads(body), "v": version})


def widened(version: int, size: int) -> Reader:
    """A reader of a table's rows that had so many bytes less in front; the new columns are 0.

    >>> widened(5, 2)(b'{"row":"AQ==","v":4}')
    b'{"row":"AAAB","v":5}'
    """

    def read(body: bytes) -> bytes:
        row = bytes(size) + binascii.a2b_base64(orjson.loads(body)["row"], strict_mode=True)
        return orjson.dumps({"row": binascii.b2a_base64(row, newline=False).decode(), "v": version})

    return read


@dataclass(frozen=True, slots=True)
class RowKind:
    """One kind of row.

    Parameters
    ----------
    version
        That is written.
    ids
        Strings that name a row, behind its kind; the last one is a number where rows are `numbered`.
    unchecked
        The last version that had no checksum yet.
    readers
        By older version.
    """

    version: int
    ids: int
    unchecked: int
    readers: Mapping[int, Reader]
    numbered: bool = False

    @property
    def read(self) -> str:
        """Versions that are read, as a message says it."""
        return " or ".join(str(version) for version in sorted({*self.readers, self.version}))


def _checked_since(version: int, ids: int, *, numbered: bool = False) -> RowKind:
    """A kind of which this is the first version with a checksum, and all that is new in it."""
    return RowKind(version, ids, version - 1, {version - 1: renumbered(version)}, numbered)


ROWS: Mapping[str, RowKind] = {
    "cursor": _checked_since(4, 0),
    "tenant": _checked_since(2, 1),
    "volume": _checked_since(2, 1),
    "drift": _checked_since(2, 1),
    "learned": _checked_since(5, 1),
    # Version 5 holds what users have handed over.
    "session": RowKind(5, 2, unchecked=3, readers={version: widened(5, 2) for version in (3, 4)}),
    "finding": _checked_since(4, 3),
    "rule": _checked_since(2, 1),
    "verdict": _checked_since(2, 1),
    "pending": _checked_since(4, 2, numbered=True),
    "quarantine": _checked_since(3, 2, numbered=True),
    "dedup": _checked_since(2, 1, numbered=True),
}
"""Every kind of row that there is."""


class _Versioned(msgspec.Struct):
    v: int


_KEYS = msgspec.json.Decoder(list[str])
_VERSION = msgspec.json.Decoder(_Versioned)


def sealed(change: StateChange) -> StateChange:
    """A row with its checksum; a tombstone as it is."""
    if change.value is None:
        return change
    body = change.value[:-1]
    return StateChange(change.partition, change.key, body + _SEAL % _sum(change.partition, change.key, body))


def named(key: bytes, partition: int) -> tuple[str, list[str]]:
    """Kind and ids of a row.

    Raises
    ------
    RowError
        When the key names no row, or is not how its row's key is written: two would then be one.
    """
    where = f"state key {key[:80]!r} in partition {partition}"
    try:
        kind, *ids = _KEYS.decode(key)
    except (*UNDECODABLE, ValueError) as error:
        raise RowError(f"{where} must be a JSON array of strings, [kind, …]. {REBUILD}", key) from error
    row = ROWS.get(kind)
    if row is None:
        raise RowError(
            f"state row of kind {kind!r} in partition {partition}: a newer version wrote it. "
            "Run that version, or rebuild the partition's state, see docs/runbook.md.",
            key,
        )
    if len(ids) != row.ids or (row.numbered and not (ids[-1].isascii() and ids[-1].isdecimal())):
        raise RowError(f"{where} must name a row of its kind, {row.ids} ids behind it. {REBUILD}", key)
    if orjson.dumps([kind, *ids]) != key:
        raise RowError(f"{where} must be JSON without spaces or escapes that it does not need. {REBUILD}", key)
    return kind, ids


def opened(kind: str, key: bytes, partition: int, value: bytes) -> bytes:
    """The value of a row as this version writes it, without its checksum.

    Raises
    ------
    RowError
        When it is damaged, is another partition's, or of a version that is not read.
    """
    row, where = ROWS[kind], f"state row {key.decode()} in partition {partition}"
    body, said = value[:-_SEAL_SIZE], value[-_SEAL_SIZE:]
    checked = said == _SEAL % _sum(partition, key, body)
    if checked:
        body += b"}"
    elif said.startswith(_SEAL[:8]):
        raise RowError(f"{where} {_belongs(key, body, said)} {REBUILD}", key)
    else:
        body = value
    try:
        version = _VERSION.decode(body).v
    except UNDECODABLE as error:
        raise RowError(f"{where} must be a JSON object with its version `v`: {error}. {REBUILD}", key) from error
    if not checked and row.unchecked < version <= row.version:
        raise RowError(f"{where} must end in a checksum, and does not: it was cut or changed. {REBUILD}", key)
    if version == row.version:
        return body
    if version > row.version:
        raise RowError(
            f"{where} must have version {row.read}; got {version}: a newer Tidegate wrote it. Run that version, or "
            "rebuild the partition's state, see docs/runbook.md.",
            key,
        )
    if version not in row.readers:
        raise RowError(f"{where} must have version {row.read}; got {version}. {REBUILD}", key)
    try:
        return row.readers[version](body)
    except (ValueError, KeyError, TypeError) as error:
        raise RowError(f"{where}, of version {version}, cannot be read: {error}. {REBUILD}", key) from error


def _belongs(key: bytes, body: bytes, said: bytes) -> str:
    """Whose row it is, if it is one."""
    for other in range(_PARTITIONS_TRIED):
        if said == _SEAL % _sum(other, key, body):
            return f"is a row of partition {other}: the topic was written by hand, or copied with other partitions."
    return "must have the checksum that it says: a part of it was changed."


def _sum(partition: int, key: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(key, partition))
