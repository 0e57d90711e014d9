"""`tidegate feedback`: verdicts, findings and evidence become labels, effects at once, and requests to retrain."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from dataclasses import astuple
from pathlib import Path
from threading import Timer
from typing import Any

import faust
import orjson
from aiokafka.errors import (  # type: ignore[import-untyped]
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)

from stream.config import Settings
from stream.errors import EnvironmentFault, FencedError, TidegateError
from stream.runtime.broker import Broker
from stream.runtime.clients import now_ms
from stream.runtime.feedback import topics
from stream.runtime.feedback.credentials import credentials
from stream.runtime.feedback.transport import Transport
from stream.runtime.feedback.web import Web
from stream.runtime.feedback.worker import TrackedTable, Worker
from stream.runtime.logs import masked
from stream.runtime.metrics import FeedbackMetrics
from stream.runtime.permissions import check_permissions

_LOG = logging.getLogger(__name__)
_TURN_SECONDS = 0.1
_LAST_RESORT_SECONDS = 0.5
"""Of the shutdown deadline, kept for ending the process whatever hangs."""
_STORE = "rocksdb://?driver=rocksdict"
_REQUEST_BYTES_MAX = topics.MESSAGE_BYTES_MAX
_REFUSED = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
)
_QUIET_LOGGERS = ("faust", "mode", "aiokafka", "kafka")
_LOUD_LOGGERS = ("faust.transport.producer", "mode.timers")
"""These warn of a full buffer, which is waited for, and of a commit that takes longer than its interval."""


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Join until told to stop.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    access = credentials(settings.kafka.properties)
    broker = Broker(settings, "feedback")
    named = settings.topics
    own = topics.OwnTopics.of(settings, arguments.group_id)
    check_permissions(broker.admin, settings, "feedback", arguments.group_id, own=astuple(own))
    broker.require([named.findings, named.scores, named.verdicts, named.labels], named.partitions)
    broker.require([named.controls, named.retrain], 1)
    dead_letters = f"{named.verdicts}.dlq"
    broker.ensure_dead_letters(dead_letters, named.verdicts)
    limits = broker.partitions(dead_letters), broker.message_bytes_max(dead_letters)
    topics.check_retention(broker, settings)
    topics.ensure(broker, settings, own)
    _quieten()
    asyncio.run(Feedback(settings, arguments.group_id, arguments.instance_id, own, limits, access).serve())
    return 0


class Feedback:
    """One process of the worker, from its start to its end.

    Parameters
    ----------
    dead_letters
        Partitions and `max.message.bytes` of the verdicts' dead letter topic.
    access
        Faust's credentials.
    """

    def __init__(
        self,
        settings: Settings,
        group_id: str,
        instance_id: str | None,
        own: topics.OwnTopics,
        dead_letters: tuple[int, int],
        access: Any,
    ) -> None:
        self._settings, self._group_id, self._instance_id = settings, group_id, instance_id
        self._own, self._dead_letters, self._access = own, dead_letters, access
        self._metrics = FeedbackMetrics()
        self._started = time.monotonic()
        self._failure: BaseException | None = None
        self._stopping: asyncio.Event
        self._recovered = False
        self._app: Any
        self._worker: Worker

    async def serve(self) -> None:
        """Run until a signal comes; where something fails, the process ends with the code that says what."""
        self._stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self._app = self._faust_app()
        self._worker = Worker(
            self._app, self._settings, self._own, self._dead_letters, self._metrics, now_ms, self._failed
        )
        self._app.consumer.says_nothing = self._worker.says_nothing
        self._app.on_rebalance_complete.connect(self._on_recovered, weak=False)
        web = Web(self._settings.http.listen, self._worker, self._metrics, self.unready)
        self._metrics.ready.set_function(lambda: float(self.unready() is None))
        await web.start()
        starting = asyncio.ensure_future(self._app.start())
        try:
            announced = False
            while not self._stopping.is_set() and self._failure is None:
                await _first(self._stopping.wait(), _TURN_SECONDS)
                if starting.done() and starting.exception() is not None:
                    self._failed(starting.exception() or RuntimeError("not started"))
                if self._app.crashed:
                    self._failed(self._app.crash_reason or RuntimeError("Faust stopped by itself"))
                if not announced and self.unready() is None:
                    announced = True
                    self._announce(web.url)
                self._show_lag()
        finally:
            await self._end(starting, web)

    def unready(self) -> str | None:
        """Why /readyz says no."""
        if self._failure is not None or self._stopping.is_set():
            return "stopping"
        if not self._recovered:
            return "recovering tables"
        return "rebalancing" if self._app.rebalancing else None

    def _faust_app(self) -> Any:
        kafka, feedback = self._settings.kafka, self._settings.feedback
        session_s = kafka.session_timeout_ms / 1000
        directory = Path(feedback.directory) / self._group_id / (self._instance_id or "worker")
        directory.mkdir(parents=True, exist_ok=True)
        app = faust.App(
            self._group_id,
            broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
            broker_credentials=self._access,
            broker_client_id="tidegate-feedback",
            broker_session_timeout=session_s,
            broker_heartbeat_interval=max(0.2, min(1.5, session_s / 10)),
            broker_request_timeout=max(90.0, session_s),
            broker_commit_interval=0.5,
            consumer_group_instance_id=self._instance_id,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=_REQUEST_BYTES_MAX,
            producer_max_request_size=_REQUEST_BYTES_MAX,
            producer_linger=0.005,
            processing_guarantee="at_least_once",
            store=_STORE,
            datadir=directory,
            Table=TrackedTable,
            topic_disable_leader=True,
            topic_allow_declare=False,
            topic_partitions=self._settings.topics.partitions,
            stream_recovery_delay=0.0,
            web_enabled=False,
            autodiscover=False,
        )
        app.transport = Transport(app.conf.broker_consumer, app)
        app.producer_transport = Transport(app.conf.broker_producer, app)
        return app

    async def _on_recovered(self, app: Any, **_: Any) -> None:
        if not self._recovered:
            self._metrics.recovery_seconds.observe(time.monotonic() - self._started)
        self._worker.recovered()
        self._recovered = True

    def _announce(self, url: str) -> None:
        findings = self._settings.topics.findings
        line = {
            "http": url,
            "pid": os.getpid(),
            "partitions": sorted(each.partition for each in self._app.consumer.assignment() if each.topic == findings),
            "release": self._worker.release,
        }
        sys.stdout.write(f"READY {orjson.dumps(line).decode()}\n")
        sys.stdout.flush()

    def _show_lag(self) -> None:
        if self._recovered:
            for place, lag in self._app.consumer.lags().items():
                self._metrics.lag.labels(place.topic, place.partition).set(lag)

    def _failed(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            _LOG.error("the worker cannot go on: %s", error, exc_info=not isinstance(error, KafkaError | TidegateError))

    def _stop(self) -> None:
        """Take a signal: finish what is under way, and end the process by the deadline whatever hangs."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        # Nothing is lost by it: what is not committed is done again by the next start.
        seconds = self._settings.shutdown.deadline_ms / 1000 - _LAST_RESORT_SECONDS
        guard = Timer(max(seconds, 0.05), os._exit, (0,))
        guard.daemon = True
        guard.start()

    async def _end(self, starting: asyncio.Future[Any], web: Web) -> None:
        if self._failure is not None:
            self._give_up(self._failure)
        if self._recovered:
            self._app.consumer.stop_flow()
            await self._worker.settle(self._settings.shutdown.deadline_ms / 2000)
            await self._app.consumer.commit()
        if not starting.done():
            starting.cancel()
        await self._app.stop()
        await web.close()

    def _give_up(self, failure: BaseException) -> None:
        """End at once: stopping Faust after a failure may hang or fail again, and would commit nothing that helps."""
        error = _as_exit(failure)
        if isinstance(error, TidegateError):
            print(f"tidegate: error: {masked(str(error))}", file=sys.stderr)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_code if isinstance(error, TidegateError) else 1)


async def _first(waiting: Any, seconds: float) -> None:
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return


def _as_exit(error: BaseException) -> BaseException:
    """What ends the process: an error of Kafka's is one that a restart may mend, anything else a bug."""
    if isinstance(error, TidegateError):
        return error
    if isinstance(error, _REFUSED):
        return EnvironmentFault(
            f"the broker refuses the feedback worker: {error!r}. Grant its principal what "
            "'tidegate topics acls --only feedback' prints, and check [kafka.properties]."
        )
    if isinstance(error, KafkaError):
        return FencedError(f"the feedback worker cannot go on: {error!r}. Start it again: it goes on where it was.")
    return EnvironmentFault(str(error)) if isinstance(error, OSError) else error


def _quieten() -> None:
    """What Faust says of every start and rebalance fills pages; what it warns of stays."""
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _LOUD_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # The topics are made, with a configuration of their own, before Faust asks for them.
    driver = logging.getLogger("faust.transport.drivers.aiokafka")
    driver.addFilter(lambda record: "Topic creation disabled" not in record.getMessage())
