"""Lines sorted on disk, for more of them than memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from heapq import merge
from operator import itemgetter
from pathlib import Path

Key = tuple[int, int, int]
"""Partition, offset, revision."""

_LINE_OVERHEAD = 200
"""Bytes that Python keeps for a line besides its text."""


class LineSorter:
    """Lines by key, those of one key in the order they came.

    Parameters
    ----------
    folder
        Where sorted runs are kept; its owner removes them.
    name
        Of the runs' files.
    bytes_max
        Lines kept in memory before a run is written.
    """

    def __init__(self, folder: Path, name: str, bytes_max: int) -> None:
        self._folder = folder
        self._name = name
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lines: list[tuple[Key, bytes]] = []
        self._runs: list[Path] = []

    def add(self, key: Key, line: bytes) -> None:
        """Take a line, which holds no line end."""
        self._lines.append((key, line))
        self._bytes += len(line) + _LINE_OVERHEAD
        if self._bytes >= self._bytes_max:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        """All lines, sorted, without line ends."""
        with ExitStack() as files:
            runs = [_read(files.enter_context(run.open("rb"))) for run in self._runs]
            self._lines.sort(key=itemgetter(0))
            for _, line in merge(*runs, iter(self._lines), key=itemgetter(0)):
                yield line

    def _spill(self) -> None:
        run = self._folder / f"{self._name}.{len(self._runs)}.run"
        self._lines.sort(key=itemgetter(0))
        with run.open("wb") as file:
            file.writelines(b"%d %d %d %b\n" % (*key, line) for key, line in self._lines)
        self._runs.append(run)
        self._lines.clear()
        self._bytes = 0


def _read(run: Iterator[bytes]) -> Iterator[tuple[Key, bytes]]:
    for line in run:
        partition, offset, revision, text = line.split(b" ", 3)
        yield (int(partition), int(offset), int(revision)), text[:-1]
