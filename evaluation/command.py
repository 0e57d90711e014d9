"""`tidegate evaluate`: how well this version detects, on any corpus of the documented layout."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from evaluation.arrivals import CLIENTS, REQUESTS, read_arrivals
from evaluation.corpus import read_corpus, told_of
from evaluation.parts import Parts, fingerprint
from evaluation.protocols.verdicts import PROTOCOL as STREAM
from evaluation.report.columns import SESSIONS
from evaluation.report.facts import Absent, Facts, write_facts
from evaluation.report.write import EXCERPTS, PAGE, rebuild
from evaluation.seed_process import Order, judge, shared_by
from stream.config import Settings
from stream.errors import EnvironmentFault, UsageError

PROTOCOLS = ("paired", "splice", "session", "hard_negatives", "slices", STREAM)


def run(settings: Settings, arguments: Namespace) -> int:
    """Judge the corpus's sessions and write `--out`.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    try:
        return _run(settings, arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EnvironmentFault(f"--out {arguments.out} must be a folder that can be written: {error}") from error


def _run(settings: Settings, arguments: Namespace) -> int:
    chosen = tuple(protocols(arguments.only))
    order = Order.of(settings, arguments, chosen, time.monotonic())
    arrivals: Path | None = arguments.arrivals
    if STREAM in chosen and arrivals is None:
        raise UsageError("--arrivals must name a folder of arrival traces, for the protocol stream. Or set --only.")
    if arguments.seeds < 1:
        raise UsageError(f"--seeds must be at least 1; got {arguments.seeds}.")
    shared = shared_by(order)()
    released = shared.release is not None
    order.tell(f"reading {arguments.corpus}")
    # Whoever names a folder that is none is told so before anything begins.
    corpus = read_corpus(arguments.corpus)
    absent = [Absent(protocol="corpus", reason=told_of(corpus.left_out))] if corpus.left_out else []
    for each in absent:
        order.tell(f"{each.reason}, and are left out")
    if STREAM in chosen and arrivals is not None and not read_arrivals(arrivals).clients:
        raise UsageError(
            f"--arrivals must be a folder with {CLIENTS} or {REQUESTS} in which somebody calls; {arrivals} has none. "
            "docs/evaluation.md says what is in them."
        )
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    inputs = [
        path for folder in (arguments.corpus, arrivals) if folder for path in folder.glob("*.jsonl*") if path.is_file()
    ]
    name = shared.release.name if shared.release is not None else ""
    whose = fingerprint(inputs, (repr(shared.settings), name, str(arguments.stream_events)))
    finished = any(path.is_dir() for path in (out / "parts").glob("*"))
    parts, resumed = Parts.open(out / "parts", whose)
    if resumed:
        order.tell("going on with what is finished of this evaluation")
    else:
        if finished:
            order.tell("what was finished here was of other files, settings or code: beginning anew")
        (out / EXCERPTS).write_bytes(b"")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    judge(order, seeds, released=released)
    order.tell("putting it together")
    names = [part for place, seed in enumerate(seeds) for part in order.names(place, seed, released=released)]
    _write(
        out,
        parts,
        names,
        Facts(
            nominal=shared.settings.decision.session_fpr,
            embedder=shared.settings.embedder.name,
            release=name,
            absent=absent,
        ),
    )
    report = rebuild(out, order.tell)
    for sentence in report["headline"]:
        print(sentence)
    print(f"{out / PAGE}; {time.monotonic() - order.begun:.0f} s")
    return 0


def _write(out: Path, parts: Parts, names: Sequence[str], head: Facts) -> None:
    """Rows and facts of all parts, as one."""
    waiting = out / f".{SESSIONS}"
    with waiting.open("wb") as sessions:
        for rows in parts.rows(names):
            sessions.write(rows)
    waiting.replace(out / SESSIONS)
    write_facts(parts.facts(names, head), out)


def protocols(only: str | None) -> list[str]:
    """The protocols that `--only` names, in their order; all without it.

    >>> protocols("stream,paired")
    ['paired', 'stream']

    Raises
    ------
    UsageError
        When it names another.
    """
    if only is None:
        return list(PROTOCOLS)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in PROTOCOLS] or not wanted:
        raise UsageError(f"--only must name some of {', '.join(PROTOCOLS)}; got {unknown if wanted else only!r}.")
    return [name for name in PROTOCOLS if name in wanted]
