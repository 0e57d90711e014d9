"""Lines of a text file, packed or not, one at a time and none without end."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

LINE_BYTES_MAX = 8 * 2**20 + 64 * 2**10 + 1
"""One byte beyond what the events topic takes: a line cut here is still seen to be oversized."""


def read_lines(path: Path, bytes_max: int = LINE_BYTES_MAX) -> Iterator[bytes]:
    """Lines of `path` (gzip when it ends in ".gz") without their ends, each cut to `bytes_max`.

    Raises
    ------
    OSError
        When the file cannot be opened or read.
    EOFError
        When a gzip file ends too early.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        while line := stream.readline(bytes_max):
            whole = line.endswith(b"\n")
            if not whole and len(line) == bytes_max:
                while (rest := stream.readline(bytes_max)) and not rest.endswith(b"\n"):
                    pass
            yield line.rstrip(b"\r\n") if whole else line
