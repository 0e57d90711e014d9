"""`tidegate trainer`: retrain requests in their order, one job at a time, each by a process of its own.

The consumer stays in its group however long a job takes: the loop goes on polling, with the partition held, and the
request's offset is committed once its job is finished for good. Who is killed finds the request again.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Timer
from types import FrameType
from typing import Any, Literal

import msgspec
import orjson
from confluent_kafka import KafkaException

from schemas.manifest import Manifest
from schemas.retrain import RetrainRequest
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import RetriableError, StateError
from stream.record import Record
from stream.runtime.faults import backoffs, retriable_or_exit
from stream.runtime.group import GroupSource
from stream.runtime.http import StatusServer
from stream.runtime.metrics import TrainerMetrics
from stream.runtime.release.registry import Registry
from stream.runtime.release_store import read_manifest
from stream.runtime.trainer.folder import JobFolder
from stream.runtime.trainer.job import DONE, FAILED, STAGES, Done, Failed
from stream.runtime.trainer.tracking import untracked
from stream.runtime.trainer.worker import task
from stream.sources.kafka import Place

_LOG = logging.getLogger(__name__)
_TURN_SECONDS = 0.2
_LAST_RESORT_SECONDS = 0.5
"""Of the shutdown deadline, kept for ending the process whatever hangs."""
CRASHES_MAX = 3
"""Ends of a job's process that nobody can explain, after which the job has failed."""
WORKER = "stream.runtime.trainer.worker"
_ENVIRONMENT = (3, 6)
_PERMANENT = (2, 4, 5)
LogFormat = Literal["json", "text"]


class Worker:
    """A job's process, or one that records what is done; to be started from the thread that stays.

    Parameters
    ----------
    request
        None: record what is done and not recorded.
    module
        What it runs.
    """

    def __init__(
        self, settings: Settings, request: RetrainRequest | None, log_format: LogFormat, module: str = WORKER
    ) -> None:
        self.began = time.monotonic()
        self.result = ""
        """What came of it, once it said so."""
        self._tail = b""
        # In a group of its own, so that all that it starts can be ended with it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(task(settings, request, log_format))
            stdin.close()
        except BrokenPipeError:
            _LOG.warning("the job's process ended before it was told what to do")
        os.set_blocking(stdout.fileno(), False)

    def said(self) -> list[dict[str, str]]:
        """Lines since the last call."""
        assert self._process.stdout is not None
        self._tail += self._process.stdout.read() or b""
        *lines, self._tail = self._tail.split(b"\n")
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]

    @property
    def code(self) -> int | None:
        """How it ended; None while it works."""
        return self._process.poll()

    def end(self) -> None:
        """Kill it with all that it started: what it has not kept is done again by the next."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class TrainerService:
    """The loop.

    Parameters
    ----------
    connect
        Makes the source, given this service as its listener.
    ends
        Ends of its partitions as a `read_uncommitted` handle sees them now; asked once, with `until_end`.
    worker
        The module that works on a job.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[TrainerService], GroupSource],
        ends: Callable[[], Mapping[Place, int]],
        *,
        until_end: bool = False,
        log_format: LogFormat = "text",
        worker: str = WORKER,
        metrics: TrainerMetrics | None = None,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._ends = ends
        self._until_end = until_end
        self._log_format: LogFormat = log_format
        self._module = worker
        self._metrics = metrics or TrainerMetrics()
        self._stopping = Event()
        self._until: Mapping[Place, int] | None = None
        self._committed: dict[Place, int] = {}
        self._unready: str | None = "starting"
        self._announced = False
        self._worker: Worker | None = None
        self._stage: tuple[str, float] | None = None
        self._request: tuple[Place, int, RetrainRequest] | None = None
        """Place, offset and request of the job under way."""
        self._crashes = 0
        self._again_at = 0.0
        self._waits = backoffs(1.0, 60.0)
        self._source: GroupSource

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, or until the end.

        Raises
        ------
        TidegateError
            With the exit code that says what is wrong.
        """
        with ExitStack() as closing:
            for number in (signal.SIGTERM, signal.SIGINT):
                closing.callback(signal.signal, number, signal.signal(number, self._stop))
            http = StatusServer(self._settings.http.listen, self._metrics.registry, lambda: self._unready)
            closing.callback(http.close)
            self._metrics.job_running.set_function(lambda: float(self._request is not None))
            self._metrics.job_seconds.set_function(self._job_seconds)
            self._source = self._connect(self)
            closing.callback(self._source.close)
            # Before the source is closed, which may wait for the broker.
            closing.callback(self._give_up)
            if untracked(Path(self._settings.trainer.directory)):
                self._worker = Worker(self._settings, None, self._log_format, self._module)
            while not self._stopping.is_set():
                try:
                    self._turn(http.url)
                except RetriableError as error:
                    _LOG.warning("%s; trying again", error)
                    self._stopping.wait(_TURN_SECONDS)
                if self._complete():
                    break
            self._unready = "stopping"

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: the job's process is ended where it is, and this one by the deadline whatever hangs."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        guard = Timer(max(self._settings.shutdown.deadline_ms / 1000 - _LAST_RESORT_SECONDS, 0.05), self._last_resort)
        guard.daemon = True
        guard.start()

    def _last_resort(self) -> None:
        # The job's process dies with this one.
        os._exit(0)

    def _announce(self, url: str) -> None:
        if self._announced or not self._source.joined:
            return
        self._announced = True
        line = {
            "http": url,
            "pid": os.getpid(),
            "partitions": sorted({partition for _, partition in self._source.assigned}),
            "release": "",
        }
        sys.stdout.write(f"READY {orjson.dumps(line).decode()}\n")
        sys.stdout.flush()

    # -- a turn --------------------------------------------------------------------------------------------------------

    def _turn(self, url: str) -> None:
        # A held partition delivers nothing: with a job under way this only keeps the membership.
        polled = self._source.poll(1, 1 << 20, _TURN_SECONDS)
        self._unready = None if self._source.joined else "waiting for partitions"
        if self._until_end and self._until is None:
            self._until = self._ends()
        if self._request is None and self._worker is None and self._source.held:
            self._start()
        self._announce(url)
        for record in polled.records:
            self._take(record)
        for place, end in polled.ends.items():
            # Behind the last request lie markers at most, and lag would never be 0.
            if self._request is None and self._committed.get(place, -1) < end:
                self._commit(place, end)
        self._watch()
        for place in self._source.assigned:
            high = self._source.high(place)
            if high is not None and place in self._committed:
                lag = max(0, high - self._committed[place])
                self._metrics.lag.labels(place[0], str(place[1])).set(lag)

    def _start(self) -> None:
        """Deliver what follows what is committed."""
        held = self._source.held
        committed = self._source.committed(held, self._stopping.wait)
        if not committed:
            return
        self._committed.update({place: offset for place, offset in committed.items() if offset is not None})
        self._source.start({place: offset or 0 for place, offset in committed.items()}, held)

    def _take(self, record: Record) -> None:
        place = (record.topic, record.partition)
        try:
            request = msgspec.json.decode(record.value or b"", type=RetrainRequest)
        except UNDECODABLE as error:
            _LOG.warning("%s is no retrain request, and is passed over: %s", record.position, error)
            self._metrics.jobs.labels("undecodable").inc()
            self._commit(place, record.offset + 1)
            return
        if (why := self._done_before(request)) is not None:
            _LOG.info("%s: request %s is passed over: %s", record.position, request.request_id, why)
            self._metrics.jobs.labels("skipped").inc()
            self._commit(place, record.offset + 1)
            return
        _LOG.info("%s: request %s for %s: %s", record.position, request.request_id, request.subject, _why(request))
        self._source.hold({place})
        self._request, self._crashes, self._again_at = (place, record.offset, request), 0, 0.0
        self._waits = backoffs(1.0, 60.0)

    def _done_before(self, request: RetrainRequest) -> str | None:
        folder = Path(self._settings.trainer.directory) / request.request_id
        if (folder / DONE).exists():
            return "it was done before"
        if not folder.exists():
            for path, manifest in Registry(self._settings).manifests():
                if manifest.data.request_id == request.request_id and self._believed(path, manifest):
                    return f"release {manifest.name} was made for it, and the job's directory is not here"
        # Somebody asks again for what failed: it begins where it ended.
        (folder / FAILED).unlink(missing_ok=True)
        return None

    def _believed(self, path: Path, manifest: Manifest) -> bool:
        """Whether a trusted key vouches for it: who can only write the directory keeps no job from being done."""
        try:
            return read_manifest(path, self._settings) == manifest
        except StateError as error:
            _LOG.warning("%s; it counts for no request", error)
            return False

    # -- the job's process ---------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._worker is None:
            if self._request is not None and time.monotonic() >= self._again_at:
                self._worker = Worker(self._settings, self._request[2], self._log_format, self._module)
            return
        code = self._worker.code
        for line in self._worker.said():
            self._heed(line)
        if code is None:
            return
        result = self._worker.result
        self._end_worker()
        if self._request is None:
            return
        place, offset, request = self._request
        folder = JobFolder(Path(self._settings.trainer.directory), request.request_id)
        if folder.has(DONE):
            done = folder.read(DONE, Done)
            self._finish(place, offset, result or ("promoted" if done.promoted else "refused"))
        elif code in _PERMANENT and folder.has(FAILED):
            self._finish(place, offset, "failed")
        elif code in _ENVIRONMENT:
            self._retry("environment", f"its process ended with {code}")
        else:
            self._crashes += 1
            if self._crashes < CRASHES_MAX:
                self._retry("crash", f"its process ended with {code}, {self._crashes} of {CRASHES_MAX} times")
                return
            reason = f"its process ended {CRASHES_MAX} times before it was done, at last with {code}"
            _LOG.error("job %s has failed: %s; see the log", request.request_id, reason)
            folder.write(FAILED, Failed(request_id=request.request_id, reason=reason))
            self._finish(place, offset, "failed")

    def _heed(self, line: Mapping[str, Any]) -> None:
        assert self._worker is not None
        if (stage := line.get("stage")) is not None:
            self._close_stage()
            self._stage = (stage, time.monotonic())
            if stage in STAGES:
                self._metrics.job_progress.set(STAGES.index(stage) / len(STAGES))
        elif "done" in line:
            self._worker.result = line["done"]
        elif "untracked" in line:
            self._metrics.untracked.inc()

    def _close_stage(self) -> None:
        if self._stage is not None:
            name, began = self._stage
            self._metrics.stage_seconds.labels(name).observe(time.monotonic() - began)
            self._stage = None

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._close_stage()
            self._worker.end()
            self._worker = None

    def _give_up(self) -> None:
        if self._request is not None and self._worker is not None:
            _LOG.info("job %s is left where it is, and goes on from there", self._request[2].request_id)
        self._end_worker()
        self._request = None

    def _retry(self, why: str, what: str) -> None:
        assert self._request is not None
        wait = next(self._waits)
        _LOG.warning("job %s: %s; again in %.0f s", self._request[2].request_id, what, wait)
        self._metrics.retries.labels(why).inc()
        self._again_at = time.monotonic() + wait

    def _finish(self, place: Place, offset: int, result: str) -> None:
        self._metrics.jobs.labels(result).inc()
        self._metrics.job_progress.set(0)
        self._request = None
        self._commit(place, offset + 1)

    def _commit(self, place: Place, offset: int) -> None:
        try:
            self._source.commit({place: offset})
        except KafkaException as error:
            # The request comes again, and is passed over.
            raise retriable_or_exit(error.args[0], f"{place[0]}[{place[1]}]: the offset is not committed") from error
        self._committed[place] = offset

    def _job_seconds(self) -> float:
        worker = self._worker
        return time.monotonic() - worker.began if worker is not None and self._request is not None else 0.0

    # -- partitions ----------------------------------------------------------------------------------------------------

    def revoked(self, places: Sequence[Place]) -> None:
        """Give a job up whose request is somebody else's now; its directory stays."""
        for place in places:
            self._committed.pop(place, None)
        if self._request is not None and self._request[0] in places:
            _LOG.info("job %s is given up: its partition goes to another trainer", self._request[2].request_id)
            self._give_up()

    def lost(self, places: Sequence[Place]) -> None:
        """As `revoked`."""
        self.revoked(places)

    def _complete(self) -> bool:
        """Whether everything that was there at the start is done."""
        if self._until is None or self._request is not None or self._worker is not None:
            return False
        return all(self._committed.get(place, -1) >= end for place, end in self._until.items())


def _why(request: RetrainRequest) -> str:
    return "; ".join(reason.detail for reason in request.reasons)
