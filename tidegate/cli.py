"""The command `tidegate`: flags in, a module's `run` called, its exit code out.

A command's module is imported when that command runs, so that `--help` and `version` answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType

from stream.errors import EnvironmentFault, TidegateError
from tidegate.commands import parse, version

MODULES = {
    "ingest": "stream.runtime.ingest_command",
    "score": "stream.runtime.score_command",
    "replay": "stream.runtime.replay_command",
    "explain": "stream.runtime.explain_command",
    "train": "stream.runtime.train_command",
    "evaluate": "evaluation.command",
    "feedback": "stream.runtime.feedback.command",
    "verdict": "stream.runtime.verdict_command",
    "exceptions": "stream.runtime.exceptions_command",
    "trainer": "stream.runtime.trainer.command",
    "release": "stream.runtime.release.command",
    "topics": "stream.runtime.topics",
    "state": "stream.runtime.state_command",
    "canary": "stream.runtime.canary",
    "config": "stream.runtime.config_show",
}
"""Command -> the module whose `run(settings, arguments)` does it and returns the exit code."""

_OWN_PACKAGES = {"tidegate", "schemas", "models", "stream", "evaluation"}
_SERVICES = {"ingest", "score", "canary", "feedback", "trainer"}
_NUMERIC = {"score", "replay", "explain", "train", "evaluate", "trainer"}
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 done, 1 a bug, 2 usage or configuration, 3 environment, 4 a check failed, 5 state or release, 6 fenced,
        130 interrupted.
    """
    given = parse(arguments)
    if given.command == "version":
        print(f"tidegate {version()}")
        return 0
    sys.excepthook = _log_crash
    if given.command in _SERVICES:
        # A service sets handlers of its own once it runs; imports and the broker's checks come before that.
        signal.signal(signal.SIGTERM, _stop_before_start)
        signal.signal(signal.SIGINT, _stop_before_start)
    try:
        return _run(given)
    except TidegateError as error:
        print(f"tidegate: error: {_masked(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; Python would complain once more when it closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(given: Namespace) -> int:
    from stream.runtime import logs, settings

    logs.configure(given.log_format)
    if given.command in _NUMERIC:
        # Products here are small: threads of the BLAS cost more than they bring, and take the cores that polling,
        # committing and the broker need. They have to be set before numpy is imported; a user's own choice wins.
        for variable in _THREADS:
            os.environ.setdefault(variable, "1")
    values = settings.from_arguments(given)
    logs.hide(settings.secrets_of(values))
    if "debug" in values.kafka.properties:
        logs.listen_to_clients()
    try:
        run: Callable[..., int] = import_module(MODULES[given.command]).run
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OWN_PACKAGES:
            raise
        raise EnvironmentFault(
            f"'tidegate {given.command}' needs the package {package}, which is not installed. "
            "Install it with: pip install 'tidegate[stream]'"
        ) from error
    return run(values, given)


def _masked(text: str) -> str:
    """What libraries and brokers said, without secrets."""
    from stream.runtime.logs import masked

    return masked(text)


def _stop_before_start(number: int, frame: FrameType | None) -> None:
    """Nothing has been done: end at once."""
    # An exception could be lost in a callback of the import system or of librdkafka.
    os._exit(0)


def _log_crash(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """Write a bug's traceback into the log, in the log's format; Python then exits with 1."""
    import logging

    logging.getLogger("tidegate").critical("a bug, please report it", exc_info=error)


if __name__ == "__main__":
    sys.exit(main())
