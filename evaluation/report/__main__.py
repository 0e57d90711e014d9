"""Builds the report of a finished evaluation again: `python -m evaluation.report DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from evaluation.report.columns import SESSIONS
from evaluation.report.write import rebuild


def main(arguments: list[str]) -> int:
    """Write `report.json`, `report.html` and pictures; the exit code of `docs/evaluation.md`."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m evaluation.report DIR", file=sys.stderr)
        return 2
    out = Path(arguments[0])
    if not (out / SESSIONS).is_file():
        print(
            f"{out} must hold the {SESSIONS} of an evaluation; there is none. Run `tidegate evaluate`.", file=sys.stderr
        )
        return 2
    try:
        rebuild(out, lambda what: print(what, file=sys.stderr))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{out} could not be written: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
