"""`report.json`, `report.html` and their pictures, out of rows and facts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import orjson

from evaluation.bootstrap import REPLICATES
from evaluation.report.columns import SESSIONS, Rows
from evaluation.report.compute import compute
from evaluation.report.facts import Facts, read_facts
from evaluation.report.page import page
from evaluation.report.pictures import drawn, of_attacks
from evaluation.report.pictures_benign import of_benign
from evaluation.report.pictures_stream import of_stream
from evaluation.report.screens import Excerpts
from schemas.undecodable import UNDECODABLE
from stream.runtime.report.page import put

DATA, PAGE, EXCERPTS = "report.json", "report.html", "excerpts.jsonl"
Progress = Callable[[str], None]


class Excerpt(msgspec.Struct, frozen=True):
    """A line of `excerpts.jsonl`: what a session says, for whoever reads about errors."""

    tenant: str
    session: str
    text: str


def write_report(
    rows: Rows,
    facts: Facts,
    out: Path,
    excerpts: Excerpts,
    replicates: int = REPLICATES,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Write `report.json`, `report.html` and `report-*.png` into folder `out`; what `report.json` says.

    The page loads nothing and runs nothing: text in it may be an attacker's, is escaped, and has no script to reach.
    The same rows and facts give the same bytes.

    Parameters
    ----------
    excerpts
        Text by tenant and session, redacted by the caller, shown beside errors; where there is none, none is shown.
    replicates
        Of the bootstrap.
    progress
        Told what is computed next.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    report = compute(rows, facts, excerpts, replicates, progress)
    made: dict[str, Any] = msgspec.to_builtins(report)
    put(out / DATA, orjson.dumps(made, option=orjson.OPT_APPEND_NEWLINE))
    progress("pictures")
    pictures = {}
    # Of an earlier report, of other protocols.
    for old in out.glob("report-*.png"):
        old.unlink()
    for name, svg, png in drawn(of_attacks(report) | of_benign(report) | of_stream(report)):
        pictures[name] = svg
        put(out / f"report-{name}.png", png)
    put(out / PAGE, page(report, pictures).encode())
    return made


def rebuild(out: Path, progress: Progress = lambda _: None) -> dict[str, Any]:
    """The report of a finished run, out of the `sessions.jsonl` and `facts.json` that it left in `out`.

    Raises
    ------
    OSError
        When there is none, or the folder cannot be written.
    ValueError
        When a file is not what it should be.
    """
    progress("reading")
    return write_report(Rows.read(out / SESSIONS), read_facts(out), out, read_excerpts(out), progress=progress)


def read_excerpts(out: Path) -> dict[tuple[str, str], str]:
    """Those that a run left; none where it left none. A line that was not written to its end has none."""
    path = out / EXCERPTS
    if not path.exists():
        return {}
    decoder = msgspec.json.Decoder(Excerpt)
    found: dict[tuple[str, str], str] = {}
    for line in path.read_bytes().splitlines():
        with suppress(*UNDECODABLE):
            each = decoder.decode(line)
            found[each.tenant, each.session] = each.text
    return found
