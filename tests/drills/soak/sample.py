"""What is looked at every few seconds: processes, their metrics, the state topic on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from tests.drills.soak.scrape import Scraped, scrape

_EVENTS = "genai.gateway.events.v1"
_LATENCY = "tidegate_latency_seconds"


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process at one moment."""

    rss_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All of it at one moment; NaN where there was nothing to measure."""

    after_s: float
    """Since the first record, by the clock."""
    processes: dict[str, ProcessSample]
    """By service; the broker is one."""
    sent: int
    scored: int
    lag: float
    """Records between what is committed and the ends of the input, all services."""
    state_bytes: float
    tenants: int
    """That have sent something so far."""
    state_topic_bytes: float
    """Of the state topic's segments on the broker's disk."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """p50 and p99 from a record's arrival to its committed score, as a consumer saw them since the sample before."""
    batch_latency_ms: dict[str, float] = field(default_factory=dict)
    """p99 of `tidegate_latency_seconds` since the sample before, by service."""


def process_sample(pid: int) -> ProcessSample | None:
    """Memory, threads and open files of a process, None once it is gone."""
    proc = Path("/proc") / str(pid)
    try:
        told = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        descriptors = len(list((proc / "fd").iterdir()))
    except OSError:
        return None
    if "VmRSS" not in told:  # a zombie has none
        return None
    return ProcessSample(int(told["VmRSS"].split()[0]) * 1024, int(told["Threads"]), descriptors)


def directory_bytes(log_dir: Path, topic: str) -> float:
    """Bytes of a topic's segments in a broker's folder."""
    total = 0
    for segment in log_dir.glob(f"{topic}-*/*.log"):
        try:
            total += segment.stat().st_size
        except FileNotFoundError:  # compacted away meanwhile
            continue
    return float(total)


def quantiles(values: list[float]) -> dict[str, float]:
    """p50 and p99; NaN of nothing.

    >>> quantiles([3.0, 1.0, 2.0])
    {'p50': 2.0, 'p99': 2.0}
    """
    ordered = sorted(values)
    if not ordered:
        return {"p50": math.nan, "p99": math.nan}
    return {name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))}


class Exported:
    """What services export, from one sample to the next.

    Parameters
    ----------
    prefix
        Of the topics.
    """

    def __init__(self, prefix: str) -> None:
        self._events = prefix + _EVENTS
        self._before: dict[str, Scraped] = {}

    def look(self, urls: dict[str, str]) -> tuple[float, float, dict[str, float]]:
        """Lag, bytes of state, and p99 of each service's latency since the last look, ms; by its address."""
        lag = state = 0.0
        latency: dict[str, float] = {}
        now: dict[str, Scraped] = {}
        for name, url in urls.items():
            try:
                told = now[url] = scrape(url)
            except OSError:  # it has just been killed, or is being restored
                continue
            lag += told.total("tidegate_lag_records")
            state += told.total("tidegate_state_bytes")
            since = told.since(self._before[url]) if url in self._before else told
            p99 = since.quantile(_LATENCY, 0.99)
            latency[name] = math.nan if p99 is None else 1000 * p99
        self._before = now
        return lag, state, latency
