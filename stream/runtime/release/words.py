"""Releases in words: times, tables and trees for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

_YEAR_10000_MS = 253_402_300_800_000


@dataclass(slots=True)
class Node:
    """A line, and what stands below it."""

    text: str
    below: list[Node] = field(default_factory=list)

    def add(self, text: str) -> Node:
        """A further line below this one."""
        node = Node(text)
        self.below.append(node)
        return node

    def lines(self) -> Iterator[str]:
        r"""The tree, one line for each node.

        >>> tree = Node("r-2")
        >>> _ = tree.add("data").add("captured.jsonl.gz")
        >>> _ = tree.add("parent r-1")
        >>> print(*tree.lines(), sep="\n")
        r-2
        ├─ data
        │  └─ captured.jsonl.gz
        └─ parent r-1
        """
        yield self.text
        for number, node in enumerate(self.below, 1):
            mark, rest = ("└─ ", "   ") if number == len(self.below) else ("├─ ", "│  ")
            for line_number, line in enumerate(node.lines()):
                yield (rest if line_number else mark) + line


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    r"""Rows as lines, the first of them heads, every column as wide as it needs.

    >>> print(*table([("name", "parent"), ("r-0123", "-")]), sep="\n")
    name    parent
    r-0123  -
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def time_of(ms: int) -> str:
    """ISO 8601, to the second; what no calendar holds as it is.

    >>> time_of(1793491200000), time_of(-1)
    ('2026-11-01T00:00:00Z', '-')
    """
    if ms < 0:
        return "-"
    if ms >= _YEAR_10000_MS:
        return str(ms)
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ranges(numbers: Sequence[int]) -> str:
    """Whole numbers in order, neighbours drawn together.

    >>> ranges([0, 1, 2, 5, 7, 8]), ranges([])
    ('0-2, 5, 7-8', '-')
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(str(each) for each in part) for part in parts) or "-"


def counted(number: int, what: str, plural: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "partition"), counted(2, "partition"), counted(0, "analysis", "analyses")
    ('1 partition', '2 partitions', '0 analyses')
    """
    return f"{number} {what if number == 1 else plural or what + 's'}"
