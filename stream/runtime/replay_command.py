"""`tidegate replay`: captured traffic, or a range of the events topic, through the core that scores live."""

from __future__ import annotations

import argparse
import logging
import time
from contextlib import ExitStack
from pathlib import Path

from stream.config import Settings
from stream.errors import CheckFailed, EnvironmentFault, UsageError
from stream.replay import Told
from stream.runtime import found
from stream.runtime.pacing import PacedSource, factor_of
from stream.runtime.replay_compare import compare
from stream.runtime.replay_input import prepare
from stream.sinks.file import FINDINGS, FileSink

_LOG = logging.getLogger(__name__)
_PROGRESS_SECONDS = 2.0


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Replay, or compare two replays.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    if arguments.action == "compare":
        return _compare(arguments.a, arguments.b)
    with ExitStack() as stack:
        return _replay(settings, arguments, stack)


def _compare(a: Path, b: Path) -> int:
    differences = compare(a, b)
    different = [each for each in differences if each.differs]
    for each in different:
        print("\n".join(each.told()))
    if different:
        return CheckFailed.exit_code
    print("equal: " + ", ".join(f"{each.file} ({each.lines_a} lines)" for each in differences))
    return 0


# -- replay ------------------------------------------------------------------------------------------------------------


def _replay(settings: Settings, arguments: argparse.Namespace, stack: ExitStack) -> int:
    # Imported here: `compare` needs neither models nor numpy, and only a report needs pictures.
    if arguments.report:
        from stream.runtime.report.page import write_report
    from stream.core import Core

    prepared = prepare(settings, arguments, stack)
    release = prepared.release
    sink = stack.enter_context(_sink(arguments.out))

    session_fpr = settings.decision.session_fpr

    def core(of: Settings) -> Core:
        # The journal may know another operating point than today's.
        nonlocal session_fpr
        session_fpr = of.decision.session_fpr
        return Core(of, release, prepared.embedder)

    replay = prepared.replay(core, sink)
    factor = factor_of(arguments.pace)
    sources = prepared.input.sources(factor is not None)
    source = sources[0] if factor is None else PacedSource(sources, factor)
    try:
        told = replay.run(source, _Progress())
        said = sink.close({**told.summary(), "release": release.name})
        reported = write_report(arguments.out, session_fpr) if arguments.report else []
    except OSError as error:
        raise EnvironmentFault(f"--out {arguments.out}: {error.strerror}. Make room there, or name another.") from error
    _LOG.info(
        "%d records: %d events scored, %d findings opened, %d dead letters; written to %s",
        told.records, told.events, said["findings_opened"], told.dead_letters, arguments.out,
    )  # fmt: skip
    if arguments.report:
        print("\n".join(found.told(arguments.out / FINDINGS)))
        print(f"Report: {arguments.out / reported[0]}, and {len(reported) - 1} pictures beside it.")
    return 0


def _sink(out: Path) -> FileSink:
    try:
        return FileSink(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}. Name another folder.") from error


class _Progress:
    """Says now and then how far a replay has come."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def __call__(self, told: Told) -> None:
        now = time.monotonic()
        if now - self._said < _PROGRESS_SECONDS:
            return
        self._said = now
        rate = told.records / (now - self._began)
        _LOG.info("%d records replayed, %.0f a second, %d findings", told.records, rate, told.findings)
