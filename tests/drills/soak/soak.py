"""A pipeline under a day's rhythm for as long as asked, looked at all the while."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Message, Producer

from tests.drills.chaos.pipeline import end
from tests.drills.checker import POISON_HEADER
from tests.drills.soak.committed import Committed
from tests.drills.soak.load import DAY_S, Load
from tests.drills.soak.plan import DAYS, Plan
from tests.drills.soak.sample import Exported, ProcessSample, Sample, directory_bytes, process_sample, quantiles
from tests.drills.soak.sessions import Pattern
from tests.drills.switch_drill import make_twins
from tidegate.demo.process import Service, environment, run

PARTITIONS = 8
EVENTS, STATE = "genai.gateway.events.v1", "genai.anomaly.state.v1"
SCORES, FINDINGS = "genai.anomaly.scores.v1", "genai.anomaly.findings.v1"
_READY_S, _END_S = 300.0, 600.0
_SAMPLES_A_DAY = 30
_OUTAGE_S = 5.0
_BROKER = "broker"
_QUARANTINE_DAYS = "1"
"""Not seven: what is held back has to be let go within the warm-up."""
ACTIVITIES = {1: "created", 2: "updated", 3: "closed"}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it runs; what is not ours to look into is None."""

    bootstrap_servers: str
    pid: int | None = None
    log_dir: Path | None = None


@dataclass(slots=True)
class Soak:
    """Ingest, two scorers, and what happens to them.

    Parameters
    ----------
    release
        What both releases that are switched between are made of; they differ in their names.
    out
        For releases and logs.
    known
        What sessions are made of.
    events_per_s
        Mean over a day, by the clock.
    say
        Told what is done.
    """

    broker: Broker
    release: Path
    out: Path
    plan: Plan
    known: list[Pattern]
    events_per_s: float
    seed: int
    say: Callable[[str], None]
    prefix: str = field(default_factory=lambda: f"soak-{uuid.uuid4().hex[:8]}.")
    samples: list[Sample] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    """Seconds after the first record, and what was done then."""
    sent: int = 0
    """Records, poison among them."""
    poison: int = 0
    scored: int = 0
    findings: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """Services that did not end as they should."""
    _tenants: set[str] = field(default_factory=set)
    _arrived_ms: dict[str, int] = field(default_factory=dict)
    _latencies_ms: list[float] = field(default_factory=list)
    _services: dict[str, Service] = field(default_factory=dict)
    _urls: dict[str, str] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _settings: dict[str, str] = field(default_factory=dict)
    _begun: float = 0.0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _failure: BaseException | None = None

    @property
    def raw(self) -> str:
        """The topic that gateways would write to."""
        return f"{self.prefix}raw"

    def run(self, progress: Callable[[Soak], None]) -> None:
        """All of it; afterwards every record has come through, or `TimeoutError` is raised.

        Parameters
        ----------
        progress
            Called a few times a second.

        Raises
        ------
        CommandError
            When a service ends by itself.
        TimeoutError
            When scores are missing `_END_S` after the last record.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._prepare()
        with ExitStack() as closing:
            closing.callback(self._stop_all)
            for name in ("ingest", "score-a", "score-b"):
                self._start(name)
            for name in list(self._services):
                self._await_ready(name)
            topics = {self.prefix + SCORES: PARTITIONS, self.prefix + FINDINGS: PARTITIONS}
            reader = Committed(self.broker.bootstrap_servers, topics, self._seen)
            reader.start()
            closing.callback(reader.stop)
            self._begun = time.monotonic()
            threads = [
                threading.Thread(target=self._guarded, args=(work,), daemon=True)
                for work in (self._feed, self._sample, self._disturb)
            ]
            for thread in threads:
                thread.start()
            closing.callback(self._stopping.set)
            feeding, sampling, disturbing = threads
            self._wait(lambda: not feeding.is_alive() and not disturbing.is_alive(), progress)
            until = time.monotonic() + _END_S
            self._wait(lambda: self.scored >= self.sent - self.poison or time.monotonic() > until, progress)
            self._stopping.set()
            sampling.join()
        if self.scored < self.sent - self.poison:
            raise TimeoutError(f"{self.sent - self.poison - self.scored} scores did not come in {_END_S:.0f} s")

    @property
    def after_s(self) -> float:
        """Seconds since the first record."""
        return time.monotonic() - self._begun

    # -- services ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        public, self._names = make_twins(self.release, self.out)
        self._settings = environment(
            KAFKA_BOOTSTRAP_SERVERS=self.broker.bootstrap_servers,
            TIDEGATE_TOPICS__PREFIX=self.prefix,
            TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
            TIDEGATE_RELEASE__DIRECTORY=str(self.out / "releases"),
            TIDEGATE_RELEASE__TRUSTED_KEYS=public,
            TIDEGATE_LEARNING__QUARANTINE_DAYS=_QUARANTINE_DAYS,
        )
        run(["topics", "create", "--source-topic", self.raw], self._settings, self.out / "topics.log")

    def _start(self, name: str) -> None:
        kind, _, instance = name.partition("-")
        own = {
            "ingest": ["--source-topic", self.raw, "--format", "litellm"],
            "score": ["--release", self._names[0]],
        }[kind]
        arguments = [kind, *own, "--group-id", f"{self.prefix}{kind}"]
        # A third one that comes for a while has no name of its own: it leaves the group when it goes.
        if instance != "c":
            arguments += ["--instance-id", instance or "a"]
        self._services[name] = Service(arguments, self._settings, self.out / f"{name}.log")

    def _await_ready(self, name: str) -> None:
        self._urls[name] = str(self._services[name].ready(_READY_S)["http"])

    def _end(self, name: str, expected: int = 0) -> None:
        self._urls.pop(name, None)
        service = self._services.pop(name)
        end(service)
        if service.code != expected:
            self.faults.append(f"{name} ended with {service.code}, not {expected}: see {self.out / f'{name}.log'}")

    def _stop_all(self) -> None:
        for name in list(self._services):
            self._end(name)

    # -- threads -----------------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self._failure = error

    def _wait(self, done: Callable[[], bool], progress: Callable[[Soak], None]) -> None:
        while not done():
            if self._failure is not None:
                raise self._failure
            progress(self)
            self._stopping.wait(0.25)

    def _feed(self) -> None:
        """Send the days; the last event is dated now, so that none lies in the future."""
        properties = {"bootstrap.servers": self.broker.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5}
        producer = Producer(properties)
        begin_s = time.time() + self.plan.seconds - DAYS * DAY_S
        load = Load(self.known, self.events_per_s * self.plan.day_s, begin_s, self.seed)
        for record in load.records(DAYS):
            wait_s = record.at_s / self.plan.speed - self.after_s
            if wait_s > 0.005:
                producer.poll(0)
                if self._stopping.wait(wait_s):
                    return
            if record.event_id is None:
                producer.produce(self.raw, record.value, partition=0, headers={POISON_HEADER: b"1"})
                self.poison += 1
            else:
                self._arrived_ms[record.event_id] = time.time_ns() // 1_000_000
                producer.produce(self.raw, record.value, partition=0)
            self.sent += 1
            if record.tenant is not None:
                self._tenants.add(record.tenant)
        producer.flush()

    def _seen(self, message: Message, now_s: float) -> None:
        if str(message.topic()).endswith(FINDINGS):
            self.findings[ACTIVITIES[json.loads(message.value() or b"{}")["activity_id"]]] += 1
            return
        self.scored += 1
        event_id = dict(message.headers() or [])["tg-event-id"]
        assert isinstance(event_id, bytes)
        # Of a duplicate only the first; the second one's arrival is not told apart.
        arrived_ms = self._arrived_ms.pop(event_id.decode(), None)
        if arrived_ms is not None:
            self._latencies_ms.append(1000 * now_s - arrived_ms)

    def _sample(self) -> None:
        exported = Exported(self.prefix)
        ended = False
        # One more at the end, of all that runs then.
        while not ended:
            ended = self._stopping.wait(self.plan.day_s / _SAMPLES_A_DAY)
            pids = {name: service.pid for name, service in self._services.copy().items()}
            if self.broker.pid is not None:
                pids[_BROKER] = self.broker.pid
            processes: dict[str, ProcessSample] = {}
            for name, pid in pids.items():
                if (one := process_sample(pid)) is not None:
                    processes[name] = one
            lag, state_bytes, batch_latency_ms = exported.look(self._urls.copy())
            latencies, self._latencies_ms = self._latencies_ms, []
            log_dir = self.broker.log_dir
            self.samples.append(
                Sample(
                    self.after_s,
                    processes,
                    self.sent,
                    self.scored,
                    lag,
                    state_bytes,
                    len(self._tenants),
                    directory_bytes(log_dir, self.prefix + STATE) if log_dir is not None else float("nan"),
                    quantiles(latencies),
                    batch_latency_ms,
                )
            )

    # -- disturbances ------------------------------------------------------------------------------------------------

    def _disturb(self) -> None:
        for at_s, what in self.plan.disturbances():
            while (left_s := at_s - self.after_s) > 0:
                if self._stopping.wait(min(left_s, 1.0)):
                    return
                for service in self._services.copy().values():
                    service.check()
            self.marks.append((self.after_s, what))
            self.say(what)
            getattr(self, f"_{what}")()

    def _outage(self) -> None:
        names = list(self._services)
        for name in names:
            self._end(name)
        self._stopping.wait(_OUTAGE_S)
        for name in names:
            self._start(name)
        for name in names:
            self._await_ready(name)

    def _promote(self) -> None:
        command = ["release", "promote", self._names[1], "--override-gate", "--why", "soak", "--timeout", "300"]
        run(command, self._settings, self.out / "promote.log")

    def _rollback(self) -> None:
        run(["release", "rollback", "--timeout", "300"], self._settings, self.out / "rollback.log")

    def _join(self) -> None:
        self._start("score-c")
        self._await_ready("score-c")

    def _leave(self) -> None:
        self._end("score-c")

    def _kill(self) -> None:
        self._services["score-b"].kill()
        self._end("score-b", -signal.SIGKILL)
        self._start("score-b")
        self._await_ready("score-b")
