"""The process that works on a job, apart from the one that answers: `python -m stream.runtime.trainer.worker`.

It reads what to do from stdin, tells what begins on stdout as JSON lines, and ends with the exit code of commands. It
dies with the service that started it, and so do its own children: nothing works on a job that nobody watches.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from schemas.retrain import RetrainRequest
from stream.config import Settings
from stream.errors import TidegateError
from stream.runtime import logs
from stream.runtime.settings import SECTIONS, secrets_of
from stream.runtime.topic_reader import TopicReader
from stream.runtime.trainer.folder import JobFolder
from stream.runtime.trainer.job import FAILED, Failed, Job
from stream.runtime.trainer.plan import last_switch
from stream.runtime.trainer.tracking import TrackingFailed, crown, track, untracked

_LOG = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_PERMANENT = (2, 4, 5)
"""Exit codes of what fails alike at the next attempt."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told."""

    settings: dict[str, dict[str, Any]]
    request: RetrainRequest | None
    """None: only what could not be recorded before is to be."""
    parent: int
    log_format: Literal["json", "text"] = "text"


def task(settings: Settings, request: RetrainRequest | None, log_format: Literal["json", "text"]) -> bytes:
    """What to write to a worker's stdin; it holds what secrets the settings hold, and lies nowhere."""
    plain = {section: asdict(getattr(settings, section)) for section in SECTIONS}
    return msgspec.json.encode(Task(settings=plain, request=request, parent=os.getpid(), log_format=log_format))


def settings_of(plain: dict[str, dict[str, Any]]) -> Settings:
    """The settings that `task` took apart."""
    kinds = {item.name: type(getattr(Settings(), item.name)) for item in fields(Settings) if item.name in SECTIONS}
    return Settings(
        **{
            section: kinds[section](
                **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            )
            for section, values in plain.items()
        }
    )


def main() -> int:
    """Work on what stdin says."""
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    die_with_parent()
    # Forked ones, as those of the fits, would outlive this process otherwise.
    os.register_at_fork(after_in_child=die_with_parent)
    if os.getppid() != given.parent:
        return 1
    logs.configure(given.log_format)
    settings = settings_of(given.settings)
    logs.hide(secrets_of(settings))
    code = 0
    if given.request is not None:
        code = _work(given.request, settings)
    _track(settings)
    return code


def _work(request: RetrainRequest, settings: Settings) -> int:
    job = None
    try:
        job = Job(request, settings, lambda stage: tell("stage", stage))
        done = job.run()
    except TidegateError as error:
        _LOG.error("job %s: %s", request.request_id, error)
        if job is not None and error.exit_code in _PERMANENT:
            job.folder.write(FAILED, Failed(request_id=request.request_id, reason=logs.masked(str(error))))
        return error.exit_code
    _LOG.info("job %s: release %s: %s", done.request_id, done.release, done.decision)
    tell("done", "promoted" if done.promoted else "refused" if not done.passed else "waiting")
    return 0


def _track(settings: Settings) -> None:
    root = Path(settings.trainer.directory)
    for request_id in untracked(root):
        tell("stage", "track")
        try:
            track(settings, JobFolder(root, request_id))
        except (TrackingFailed, TidegateError) as error:
            _LOG.warning("job %s is not recorded in MLflow, and will be at the next start: %s", request_id, error)
            tell("untracked", request_id)
    try:
        _crown(settings)
    except (TrackingFailed, TidegateError) as error:
        _LOG.warning("MLflow's alias champion may be that of an earlier release, until the next start: %s", error)


def _crown(settings: Settings) -> None:
    """Let MLflow call champion what scorers were last asked to serve, whoever asked."""
    with closing(TopicReader(settings, "trainer")) as reader:
        asked = last_switch(reader, settings, reader.bounds(settings.topics.controls)[0].end)
    if asked is not None:
        crown(settings, asked.switch.release)


def tell(what: str, value: str) -> None:
    """A line for the service."""
    sys.stdout.buffer.write(orjson.dumps({what: value}) + b"\n")
    sys.stdout.buffer.flush()


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends; without Linux nobody does."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
