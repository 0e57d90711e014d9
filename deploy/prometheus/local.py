"""Debian's Prometheus on loopback, for `make stack` and the tests: installed, or the package unpacked beside us.

`python -m deploy.prometheus.local fetch` gets it. That needs no root and starts no service: apt downloads the package
and checks its hash, dpkg-deb unpacks it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from deploy.processes import end, free_ports, spawn

HERE = Path(__file__).parent
HOME = HERE.parents[1] / ".prometheus"
CONFIG = HERE / "prometheus.yml"
ALERTS = HERE.parent / "alerts.yml"
INSTALL = "run 'apt-get install prometheus', or 'apt-get update' and then 'make setup'"
_ASK_S = 5.0


class PrometheusUnavailable(RuntimeError):
    """Prometheus cannot be had, or does not start; the message says what to do."""


def tool(name: str, home: Path = HOME) -> Path:
    """Path of `prometheus` or `promtool`: the installed one, or what `fetch` unpacked.

    Raises
    ------
    PrometheusUnavailable
        When there is neither.
    """
    unpacked = home / "usr" / "bin" / name
    found = shutil.which(name) or (str(unpacked) if unpacked.is_file() else None)
    if found is None:
        raise PrometheusUnavailable(f"{name} is not here: {INSTALL}.")
    return Path(found)


def fetch(home: Path = HOME) -> None:
    """Unpack Debian's package `prometheus` into `home`, unless Prometheus is here already.

    Raises
    ------
    PrometheusUnavailable
        When apt or dpkg-deb is missing or fails.
    """
    if all(shutil.which(name) or (home / "usr" / "bin" / name).is_file() for name in ("prometheus", "promtool")):
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise PrometheusUnavailable("Prometheus is fetched with apt-get and dpkg-deb, which are not here.")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prometheus-", dir=home.parent) as scratch:
        part = Path(scratch)
        if not _download(part) and os.geteuid() == 0:
            _run(["apt-get", "update", "-qq"], part)
            _download(part)
        packages = list(part.glob("prometheus_*.deb"))
        if not packages:
            raise PrometheusUnavailable(f"apt-get could not download the package prometheus: {INSTALL}.")
        _run(["dpkg-deb", "-x", str(packages[0]), str(part / "unpacked")], part)
        shutil.rmtree(home, ignore_errors=True)
        (part / "unpacked").rename(home)


def _download(folder: Path) -> bool:
    command = ["apt-get", "download", "-qq", "prometheus"]
    return not subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrometheusUnavailable(f"{' '.join(command)} failed: {done.stderr.strip()}. {INSTALL.capitalize()}.")


def configuration(targets: Mapping[str, Sequence[str]], scrape_interval: str = "1s") -> dict[str, Any]:
    """`prometheus.yml` with addresses instead of names, and the rules where they lie in the repository.

    Parameters
    ----------
    targets
        Job -> `host:port` of its processes; the jobs must be those of the file, and may be fewer.

    Raises
    ------
    ValueError
        For a job that the file does not know.
    """
    given: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    jobs = [job["job_name"] for job in given["scrape_configs"]]
    if strange := targets.keys() - set(jobs):
        raise ValueError(f"{CONFIG.name} has the jobs {', '.join(jobs)}; got {', '.join(sorted(strange))}")
    given["global"] = {"scrape_interval": scrape_interval, "evaluation_interval": scrape_interval}
    given["rule_files"] = [str(ALERTS)]
    wanted = [job for job in given["scrape_configs"] if job["job_name"] in targets]
    for job in wanted:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
    given["scrape_configs"] = wanted
    return given


class LocalPrometheus:
    """Prometheus on a free loopback port; a context manager, gone when the block ends.

    Parameters
    ----------
    targets
        As `configuration` takes them.
    folder
        For its configuration, data and log; what is in it stays.

    Attributes
    ----------
    url
        `http://127.0.0.1:PORT` while it runs.
    """

    def __init__(self, targets: Mapping[str, Sequence[str]], folder: Path, scrape_interval: str = "1s") -> None:
        self.url = ""
        self._config = configuration(targets, scrape_interval)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout_s: float = 30.0) -> None:
        """Start it, and return once it answers.

        Raises
        ------
        PrometheusUnavailable
            When it is not here, ends, or is silent for `timeout_s`.
        """
        binary = tool("prometheus")
        self._folder.mkdir(parents=True, exist_ok=True)
        config, log = self._folder / "prometheus.yml", self._folder / "prometheus.log"
        config.write_text(yaml.safe_dump(self._config, sort_keys=False))
        url = f"http://127.0.0.1:{free_ports(1)[0]}"
        command = [str(binary), f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        command += [f"--web.listen-address={url.removeprefix('http://')}", "--log.level=warn"]
        with log.open("wb") as output:
            self._process = spawn(command, output.fileno())
        pause, deadline = threading.Event(), time.monotonic() + timeout_s
        while not _answers(f"{url}/-/ready"):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.stop()
                raise PrometheusUnavailable(f"Prometheus did not start; see {log}: {log.read_text()[-500:]}")
            pause.wait(0.1)
        self.url = url

    def stop(self) -> None:
        """End it. Safe to call twice."""
        process, self._process = self._process, None
        self.url = ""
        if process is not None:
            end(process, 8.0)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query returns: one entry a series, `metric` and `value`.

        Raises
        ------
        ValueError
            When the expression is none.
        """
        return self._ask("query", {"query": expression})

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """What a query over a time range returns: one entry a series, `metric` and `values`."""
        return self._ask("query_range", {"query": expression, "start": start, "end": end, "step": step})

    def up(self) -> dict[str, list[bool]]:
        """Job -> whether each of its targets was scraped the last time."""
        found: dict[str, list[bool]] = {}
        for series in self.query("up"):
            found.setdefault(series["metric"]["job"], []).append(float(series["value"][1]) == 1.0)
        return found

    def _ask(self, what: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=_ASK_S) as answer:  # noqa: S310 -- our own process
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            said = json.load(error)
            raise ValueError(f"{parameters['query']}: {said.get('error', error)}") from error
        return result


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0):  # noqa: S310 -- our own process
            return True
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `fetch` Prometheus."""
    parser = argparse.ArgumentParser(prog="python -m deploy.prometheus.local", description="A real Prometheus.")
    parser.add_argument("command", choices=("fetch",))
    parser.parse_args(arguments)
    try:
        fetch()
    except PrometheusUnavailable as error:
        print(f"local prometheus: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
