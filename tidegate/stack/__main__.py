"""`make stack`: what docker-compose.yml runs, as processes, a real gateway before it and a real Prometheus behind."""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.litellm.proxy import LiteLLMProxy, ProxyUnavailable
from deploy.prometheus.local import LocalPrometheus, PrometheusUnavailable
from stream.config import Settings
from tidegate.demo.cluster import Cluster, cluster
from tidegate.demo.process import CommandError, Service, environment, run
from tidegate.demo.release import sample_release
from tidegate.demo.watch import Watch
from tidegate.keys import signing_key
from tidegate.stack import compose, feed
from tidegate.stack.feed import captured
from tidegate.stack.gateway import TEAM, Caller, Seen, make_known
from tidegate.stack.panels import draw, queries, spelled_out, without_data

ROOT = Path(__file__).resolve().parents[2]
_READY_S, _CAUGHT_UP_S, _SCRAPED_S = 180.0, 240.0, 60.0
_PROXY_S = 240.0
"""LiteLLM imports for ten seconds of CPU before it listens; on a busy machine that takes minutes."""
_FINDING_S = 5.0
"""A call through the gateway is a finding within this time, or the check fails."""
_LATE_S = 60.0
_INTERVAL = "20s"
"""Of the rates: several scrapes of one second."""
_GRACE_MORE = 3


def main() -> int:
    """Run the stack; 0 when every check passes."""
    parser = argparse.ArgumentParser(prog="make stack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="to stream the capture over (default: 40)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "stack", help="where everything goes")
    parser.add_argument("--release", type=Path, help="score with this release (default: the demo's)")
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _interrupt)
    out: Path = given.out
    shutil.rmtree(out / "prometheus", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    for stale in [*out.glob("*.json*"), *out.glob("*.png"), *out.glob("*.log")]:
        stale.unlink()
    try:
        return Stack(console, out, given.release, given.seconds).run()
    except KeyboardInterrupt:
        console.print("\nStopped; Kafka, Prometheus, the proxy and the services are down.")
        return 130
    except (CommandError, ProxyUnavailable, PrometheusUnavailable) as error:
        console.print(f"[red]stack: {escape(str(error))}[/red]")
        return 1


class Stack:
    """One run.

    Parameters
    ----------
    console, out
        Where it says what it does, where it leaves what came out.
    release
        What to score with; None trains what the demo scores with, or takes it from the demo.
    seconds
        To stream the capture over.
    """

    def __init__(self, console: Console, out: Path, release: Path | None, seconds: float) -> None:
        self._console, self._out, self._seconds = console, out, seconds
        self._release = release
        self._began = time.monotonic()
        self._figures: dict[str, Any] = {}
        self._faults: list[str] = []
        self._setting: dict[str, str] = {}
        self._instead: dict[str, str] = {}

    def run(self) -> int:
        """All of it; 0 when every check passes."""
        (demo := ROOT / "out" / "demo").mkdir(parents=True, exist_ok=True)
        release = self._release or sample_release(self._console, demo)
        self._console.print("Starting Kafka, LiteLLM's proxy, Tidegate's services and Prometheus …")
        with ExitStack() as running:
            kafka = running.enter_context(cluster(self._out / "kafka"))
            services, gateway = self._start(running, kafka, release)
            targets = {name: [_address(said["http"])] for name, said in services.items()}
            targets["gateway"] = [_address(gateway)]
            prometheus = running.enter_context(LocalPrometheus(targets, self._out / "prometheus"))
            self._console.print(f"Prometheus is on {prometheus.url} for as long as this runs")
            self._traffic(kafka, gateway, prometheus)
            self._look(prometheus, {name: said["http"] for name, said in services.items()}, targets)
        return self._finish(release)

    def _start(self, running: ExitStack, kafka: Cluster, release: Path) -> tuple[dict[str, dict[str, Any]], str]:
        """Start what the compose file starts; each service's READY line, and the proxy's address."""
        source = f"{kafka.prefix}{compose.SOURCE}"
        folders = self._folders(release)
        of_kafka = {
            "TIDEGATE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TIDEGATE_TOPICS__PREFIX": kafka.prefix,
            "TIDEGATE_RELEASE__TRUSTED_KEYS": self._trusted(release),
        }

        def setting_of(service: str) -> dict[str, str]:
            return environment(**compose.variables(service, folders) | of_kafka)

        instead = {compose.SOURCE: source, compose.LISTEN: "127.0.0.1:0", **folders}
        instead[compose.RELEASE] = str(release)
        setting = setting_of("topics")
        self._setting, self._instead = setting, instead
        run(compose.command("topics", instead), setting, self._out / "topics.log")
        for_gateway = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "TIDEGATE_LITELLM__TOPIC": source}
        proxy = LiteLLMProxy(for_gateway, self._out / "litellm.log")
        began = {
            name: running.enter_context(
                Service(compose.command(name, instead) + _own(name, kafka), setting_of(name), self._out / f"{name}.log")
            )
            for name in ("ingest", "score", "feedback", "trainer")
        }
        services = {name: service.ready(_READY_S) for name, service in began.items()}
        running.callback(proxy.stop)
        proxy.start(_PROXY_S)
        # Every few seconds instead of every minute: this run is short.
        canary = [*compose.command("canary", instead), "--interval", "5"]
        services["canary"] = running.enter_context(Service(canary, setting, self._out / "canary.log")).ready(_READY_S)
        for name, said in services.items():
            self._console.print(f"{name} is ready: pid {said['pid']}, metrics on {said['http']}/metrics")
        self._console.print(f"LiteLLM's proxy answers on {proxy.url}")
        return services, proxy.url

    def _folders(self, release: Path) -> dict[str, str]:
        """What the compose file's volumes are here, by their path in a container."""
        folders = {name: self._out / name.strip("/") for name in ("/releases", "/keys", "/feedback", "/trainer")}
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        shutil.copytree(release, folders["/releases"] / "sample")
        key = folders["/keys"] / "signing.pem"
        signing_key(key)
        return {**{name: str(folder) for name, folder in folders.items()}, "/keys/signing.pem": str(key)}

    def _trusted(self, release: Path) -> str:
        """The key that `release` is signed with; an unsigned one is served only where no key is trusted."""
        signature = orjson.loads((release / "manifest.json").read_bytes()).get("signature")
        return str(signature["key"]) if signature else ""

    def _traffic(self, kafka: Cluster, gateway: str, prometheus: LocalPrometheus) -> None:
        """Calls through the proxy and captured traffic beside them; how long until the attack is a finding."""
        seen, caller = Seen(TEAM), Caller(gateway)
        partitions = Settings().topics.partitions
        watch = Watch(kafka.bootstrap_servers, f"{kafka.prefix}genai.anomaly.findings.v1", partitions, seen.finding)
        watch.start()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        known = Settings().learning.grace_sessions + _GRACE_MORE
        try:
            with Progress(*columns, console=self._console) as progress:
                calling = progress.add_task("benign sessions through the proxy", total=known)
                make_known(caller, known, lambda count: progress.update(calling, completed=count))
                self._attack(caller, seen)
                self._feed(progress, prometheus)
                self._catch_up(prometheus)
        finally:
            watch.stop()

    def _feed(self, progress: Progress, prometheus: LocalPrometheus) -> None:
        """Run the compose file's feeder, once through the capture."""
        count, pause = len(captured()), threading.Event()
        ingested = 'sum(tidegate_records_total{job="ingest"})'
        before = _number(prometheus, ingested)
        task = progress.add_task("captured calls ingested", total=count)
        command = [*compose.command("feeder", self._instead), "--seconds", f"{self._seconds:g}", "--rounds", "1"]
        with Service(command, self._setting, self._out / "feeder.log", module=feed.__name__) as feeder:
            deadline = time.monotonic() + self._seconds + _CAUGHT_UP_S
            # The canary's records are counted too: from its end on, what is left is waited for by `_catch_up`.
            while (done := _number(prometheus, ingested) - before) < count and time.monotonic() < deadline:
                progress.update(task, completed=done)
                pause.wait(0.5)
            feeder.wait(_CAUGHT_UP_S)
        progress.update(task, completed=count)
        self._figures["captured_calls"] = count

    def _attack(self, caller: Caller, seen: Seen) -> None:
        session, answered = caller.attack()
        found = seen.wait(session, _LATE_S)
        seconds = math.nan if found is None else found - answered
        self._figures["seconds_to_finding"] = None if found is None else round(seconds, 3)
        if found is None:
            self._faults.append(f"the injected tool result of session {session} has no finding after {_LATE_S:.0f} s")
        elif seconds > _FINDING_S:
            self._faults.append(f"the finding came after {seconds:.1f} s, not within {_FINDING_S:.0f} s")
        else:
            self._console.print(f"The injected tool result was a finding {seconds:.2f} s after the proxy's answer.")

    def _catch_up(self, prometheus: LocalPrometheus) -> None:
        """Wait until everything is scored."""
        pause, deadline = threading.Event(), time.monotonic() + _CAUGHT_UP_S
        lag = math.inf
        while time.monotonic() < deadline:
            lag = sum(float(series["value"][1]) for series in prometheus.query("tidegate_lag_records"))
            if lag == 0:
                return
            pause.wait(0.5)
        self._faults.append(f"{lag:.0f} offsets are not done {_CAUGHT_UP_S:.0f} s after the last record")

    def _look(self, prometheus: LocalPrometheus, urls: Mapping[str, str], targets: Mapping[str, list[str]]) -> None:
        """What an operator would look at: targets, /readyz, dashboard, alerts, canary."""
        up = prometheus.up()
        down = sorted(set(targets) - {job for job, answers in up.items() if all(answers)})
        self._check(not down, f"Prometheus cannot scrape {', '.join(down)}")
        for name, url in urls.items():
            self._check(_is_ready(url), f"{name} is not ready: {url}/readyz")
        asked = queries()
        faults = self._settled(prometheus, asked)
        self._faults += faults
        plots = draw(prometheus, asked, _INTERVAL, self._seconds + 60, self._out)
        firing = {series["metric"]["alertname"] for series in prometheus.query('ALERTS{alertstate="firing"}')}
        self._figures |= {
            "prometheus_targets": len(targets),
            "prometheus_targets_up": len(targets) - len(down),
            "dashboard_queries": len(asked),
            "dashboard_queries_with_data": len(asked) - len(faults),
            "plots": len(plots),
            "alerts_firing": ", ".join(sorted(firing)),
            "events_scored": _number(prometheus, "sum(tidegate_decisions_total)"),
            "findings": _number(prometheus, 'sum(tidegate_findings_total{activity="create"})'),
            "gateway_records": _number(prometheus, 'sum(tidegate_litellm_records_total{result="delivered"})'),
            "gateway_records_dropped": _number(prometheus, 'sum(tidegate_litellm_records_total{result!="delivered"})'),
            "canary_found": _number(prometheus, 'tidegate_canary_attacks_total{result="found"}'),
            "canary_missed": _number(prometheus, 'tidegate_canary_attacks_total{result="missed"}'),
            "latency_p99_seconds": _number(
                prometheus, "histogram_quantile(0.99, sum by (le) (tidegate_latency_seconds_bucket))"
            ),
        }
        self._check(self._figures["canary_found"] > 0, "no canary was found")
        self._check(self._figures["gateway_records_dropped"] == 0, "the gateway's log dropped records")

    def _settled(self, prometheus: LocalPrometheus, asked: Any) -> list[str]:
        """Faults of the dashboard's queries, once the last scrapes have come in."""
        pause, deadline = threading.Event(), time.monotonic() + _SCRAPED_S
        while (faults := without_data(prometheus, asked, _INTERVAL)) and time.monotonic() < deadline:
            pause.wait(1.0)
        return faults

    def _check(self, passed: bool, fault: str) -> None:
        if not passed:
            self._faults.append(fault)

    def _finish(self, release: Path) -> int:
        self._figures |= {
            "release": orjson.loads((release / "manifest.json").read_bytes())["name"],
            "seconds": round(time.monotonic() - self._began, 1),
            "checks_failed": len(self._faults),
        }
        summary = self._out / "summary.json"
        summary.write_bytes(orjson.dumps(self._figures, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        shutil.rmtree(self._out / "kafka", ignore_errors=True)
        for name, value in sorted(self._figures.items()):
            self._console.print(f"  {name:<30} {value}")
        self._console.print(f"Pictures: {self._out}/*.png   figures: {summary}   logs: {self._out}/*.log")
        for fault in self._faults:
            self._console.print(f"[red]stack: {escape(fault)}[/red]")
        return 1 if self._faults else 0


def _own(service: str, kafka: Cluster) -> list[str]:
    return ["--group-id", kafka.group(service)]


def _address(url: str) -> str:
    return url.removeprefix("http://")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5.0) as answer:  # noqa: S310 -- our own process
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def _number(prometheus: LocalPrometheus, expression: str) -> float:
    """The one value of an expression, 0 where it has none."""
    series = prometheus.query(spelled_out(expression, _INTERVAL))
    return round(float(series[0]["value"][1]), 4) if series else 0.0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
