"""What a soak comes to: did memory grow, and was anything lost."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

from confluent_kafka import Message

from tests.drills.checker import Verdict, check_ingest, read
from tests.drills.soak.plan import DAYS, WARM_DAYS
from tests.drills.soak.sample import Sample
from tests.drills.soak.soak import EVENTS, SCORES, Soak

GROWTH_MAX = 0.05
"""What a process may have more, as a share, on the last day than on the first one after warm-up."""
_JUDGED = ("ingest", "score-a", "score-b")
_MB = 1_000_000


def memory_of_day(samples: Sequence[Sample], name: str, day_of: Callable[[float], int], day: int) -> float | None:
    """Median of a process's resident memory over a whole day, all its phases equally; None where it has no sample."""
    told = [s.processes[name].rss_bytes for s in samples if name in s.processes and day_of(s.after_s) == day]
    return statistics.median(told) if told else None


def judge(soak: Soak) -> tuple[dict[str, float], list[str]]:
    """Figures, and what is wrong."""
    figures, faults = _memory(soak)
    lost = _losses(soak)
    last = soak.samples[-1] if soak.samples else None
    waited = [sample.latency_ms for sample in soak.samples]
    figures |= {
        "minutes": soak.plan.minutes,
        "events_sent": float(soak.sent),
        "events_scored": float(soak.scored),
        "poison_sent": float(soak.poison),
        "tenants_new": float(last.tenants) if last else 0.0,
        "lag_max": max((sample.lag for sample in soak.samples), default=math.nan),
        "latency_p50_ms_median": _median([told["p50"] for told in waited]),
        "latency_p99_ms_median": _median([told["p99"] for told in waited]),
        "latency_p99_ms_max": max((t["p99"] for t in waited if not math.isnan(t["p99"])), default=math.nan),
        "state_mb_end": last.state_bytes / _MB if last else math.nan,
        "state_topic_mb_end": last.state_topic_bytes / _MB if last else math.nan,
        **{f"findings_{name}": float(soak.findings[name]) for name in ("created", "updated", "closed")},
        **{f"checked_{name}": float(value) for name, value in lost.figures.items()},
    }
    return figures, [*soak.faults, *faults, *lost.faults]


def _memory(soak: Soak) -> tuple[dict[str, float], list[str]]:
    figures: dict[str, float] = {}
    faults = []
    for name in _JUDGED:
        warm, end = (memory_of_day(soak.samples, name, soak.plan.day_of, day) for day in (WARM_DAYS, DAYS - 1))
        if warm is None or end is None:
            faults.append(f"{name} was not looked at on day {WARM_DAYS + 1} or on the last one")
            continue
        key = name.replace("-", "_")
        figures |= {f"{key}_memory_mb_warm": warm / _MB, f"{key}_memory_mb_end": end / _MB}
        growth = figures[f"{key}_memory_growth"] = end / warm - 1
        if growth > GROWTH_MAX:
            faults.append(
                f"{name} takes {growth:.1%} more memory at the end than after warm-up; {GROWTH_MAX:.0%} at most"
            )
    grown = [value for key, value in figures.items() if key.endswith("_growth")]
    return figures | {"memory_growth_max": max(grown, default=math.nan)}, faults


def _losses(soak: Soak) -> Verdict:
    """Every record an event or a dead letter, every event one score."""
    servers, events = soak.broker.bootstrap_servers, soak.prefix + EVENTS
    verdict = check_ingest(servers, soak.raw, events)
    places = Counter((int(message.partition() or 0), int(message.offset() or 0)) for message in read(servers, events))
    scores = Counter(_source(message) for message in read(servers, soak.prefix + SCORES))
    verdict.figures["scores"] = scores.total()
    verdict.require(not places - scores, f"{(places - scores).total()} events have no score")
    verdict.require(not scores - places, f"{(scores - places).total()} scores are there twice or came from nowhere")
    return verdict


def _source(message: Message) -> tuple[int, int]:
    place = dict(message.headers() or [])["tg-source"]
    assert isinstance(place, bytes)
    _, partition, offset = place.decode().rsplit("/", 2)
    return int(partition), int(offset)


def _median(values: Sequence[float]) -> float:
    told = [value for value in values if not math.isnan(value)]
    return statistics.median(told) if told else math.nan
