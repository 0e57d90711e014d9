"""Writes the runbook's table of permissions from its declaration; --check only compares."""

import sys
from pathlib import Path

from stream.runtime.acls import permissions_table

RUNBOOK = Path(__file__).resolve().parents[1] / "docs" / "runbook.md"
START, END = "<!-- permissions: scripts/runbook_tables.py -->\n", "\n<!-- /permissions -->"


def main() -> int:
    """Bring the runbook up to date; with --check 1 when it was not."""
    text = RUNBOOK.read_text()
    new = written(text)
    if "--check" in sys.argv:
        return int(new != text)
    RUNBOOK.write_text(new)
    return 0


def written(text: str) -> str:
    """The runbook with the table as it is declared."""
    before, rest = text.split(START)
    return before + START + permissions_table() + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    sys.exit(main())
