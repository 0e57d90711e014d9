"""`tidegate replay compare`: whether two replays said the same, and where not."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from stream.errors import UsageError
from stream.sinks.file import DEAD_LETTERS, FINDINGS, SCORES
from stream.sinks.sorter import Key, LineSorter
from stream.sources.lines import read_lines

FILES = (FINDINGS, SCORES, DEAD_LETTERS)
_SPILL_BYTES = 32 * 2**20
_FIELDS_SHOWN = 8
_VALUE_SHOWN = 60


@dataclass(slots=True)
class Difference:
    """How one file differs."""

    file: str
    lines_a: int = 0
    lines_b: int = 0
    changed: int = 0
    only_a: int = 0
    only_b: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    """Path of a field -> changed lines in which it differs."""
    first: list[str] = field(default_factory=list)
    """What is different at the first place, a sentence a line."""

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return bool(self.first)

    def told(self) -> Iterator[str]:
        """For a person to read."""
        yield (
            f"{self.file} differs: {self.lines_a} lines in A, {self.lines_b} in B; {self.changed} changed, "
            f"{self.only_a} only in A, {self.only_b} only in B."
        )
        yield from (f"  {line}" for line in self.first)
        if self.fields:
            most = self.fields.most_common(_FIELDS_SHOWN)
            more = len(self.fields) - len(most)
            named = ", ".join(f"{name} ({count})" for name, count in most)
            yield f"  fields that differ (in lines): {named}{f' and {more} more' if more else ''}"


def compare(a: Path, b: Path) -> list[Difference]:
    """What differs in each file of two folders that `replay --out` wrote, or a live run's in the same form.

    A line is known again by its partition and offset, a finding's by its uid and revision, so that one that is missing
    does not make all that follow it differ. Memory is bounded.

    Raises
    ------
    UsageError
        When a folder holds none of the files, or a line is not JSON.
    """
    for folder in (a, b):
        if not any((folder / name).is_file() for name in FILES):
            raise UsageError(f"{folder} must be a folder that 'tidegate replay --out' wrote; it holds no {FILES[0]}.")
    return [_compare_file(name, a / name, b / name) for name in FILES if (a / name).is_file() or (b / name).is_file()]


def _compare_file(name: str, a: Path, b: Path) -> Difference:
    told = Difference(name)
    for number, (ours, theirs) in enumerate(zip_longest(_lines(a), _lines(b)), 1):
        told.lines_a += ours is not None
        told.lines_b += theirs is not None
        if ours != theirs and not told.first:
            told.first = _first(number, ours, theirs, (a, b))
    if not told.differs:
        return told
    with tempfile.TemporaryDirectory() as folder:
        for ours, theirs in _joined(_keyed(name, a, Path(folder) / "a"), _keyed(name, b, Path(folder) / "b")):
            if ours is None:
                told.only_b += 1
            elif theirs is None:
                told.only_a += 1
            elif ours != theirs:
                told.changed += 1
                told.fields.update(path for path, _, _ in _fields(orjson.loads(ours), orjson.loads(theirs)))
    return told


def _lines(path: Path) -> Iterator[bytes]:
    return read_lines(path, _LINE_BYTES_MAX) if path.is_file() else iter(())


_LINE_BYTES_MAX = 64 * 2**20


def _first(number: int, ours: bytes | None, theirs: bytes | None, paths: tuple[Path, Path]) -> list[str]:
    if ours is None or theirs is None:
        where, line = ("A", ours) if theirs is None else ("B", theirs)
        return [f"first at line {number}, which only {where} has: {_shown(line)}"]
    differing = list(_fields(_parsed(ours, number, paths[0]), _parsed(theirs, number, paths[1])))
    out = [f"first at line {number}, A | B:"]
    out += [f"  {name}: {_shown(mine)} | {_shown(other)}" for name, mine, other in differing[:_FIELDS_SHOWN]]
    if not differing:
        out.append("  the same values, written differently")
    return out


def _fields(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Paths of the values that differ, with both."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            inner = f"{path}.{name}" if path else name
            if name in ours and name in theirs:
                yield from _fields(ours[name], theirs[name], inner)
            else:
                yield inner, ours.get(name, _ABSENT), theirs.get(name, _ABSENT)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _fields(mine, other, f"{path}[{index}]")
    elif ours != theirs or type(ours) is not type(theirs):
        yield path, ours, theirs


class _Absent:
    pass


_ABSENT = _Absent()


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = value.decode(errors="replace") if isinstance(value, bytes) else orjson.dumps(value).decode()
    # What is compared may hold what a terminal obeys.
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= _VALUE_SHOWN else f"{text[:_VALUE_SHOWN]}…"


# -- lines of two files, side by side ----------------------------------------------------------------------------------


def _keyed(name: str, path: Path, folder: Path) -> Iterator[tuple[Key, bytes]]:
    """Lines with what they are known by, in its order."""
    folder.mkdir()
    sorter = LineSorter(folder, name, _SPILL_BYTES)
    key_of: Callable[[dict[str, Any]], Key] = _finding_key if name == FINDINGS else _place_key
    for number, line in enumerate(_lines(path), 1):
        value = _parsed(line, number, path)
        try:
            key = key_of(value)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}, line {number} must be a line of a replay's {name}; it lacks {error}.") from error
        sorter.add(key, b"%d %d %d %b" % (*key, line))
    for keyed in sorter:
        first, second, third, text = keyed.split(b" ", 3)
        yield (int(first), int(second), int(third)), text


def _place_key(value: dict[str, Any]) -> Key:
    return int(value["partition"]), int(value["offset"]), 0


def _finding_key(value: dict[str, Any]) -> Key:
    digest = blake2b(str(value["finding_info"]["uid"]).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big"), int(value["metadata"]["sequence"])


def _joined(
    a: Iterator[tuple[Key, bytes]], b: Iterator[tuple[Key, bytes]]
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Lines of one key side by side, None where one file has none."""
    ours, theirs = next(a, None), next(b, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            yield (ours[1] if ours is not None else None), None
            ours = next(a, None)
        elif ours is None or theirs[0] < ours[0]:
            yield None, theirs[1]
            theirs = next(b, None)
        else:
            yield ours[1], theirs[1]
            ours, theirs = next(a, None), next(b, None)


def _parsed(line: bytes, number: int, path: Path) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path}, line {number} must be JSON; {error}.") from error
