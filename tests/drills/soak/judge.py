"""What a soak comes to: did memory grow, and was anything lost."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from confluent_kafka import Message

from tests.drills.checker import Verdict, check_ingest, read
from tests.drills.soak.plan import DAYS, WARM_DAYS, Plan
from tests.drills.soak.sample import Sample
from tests.drills.soak.soak import EVENTS, SCORES, Soak

GROWTH_MAX = 0.05
"""What a process may have more, as a share, on the last day than on the first one after warm-up."""
_JUDGED = ("ingest", "score-a", "score-b")
_MB = 1_000_000


def judge(soak: Soak) -> tuple[dict[str, float], list[str]]:
    """Figures, and what is wrong."""
    figures, faults = memory(soak.samples, soak.plan)
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


def memory(samples: Sequence[Sample], plan: Plan) -> tuple[dict[str, float], list[str]]:
    """What each service takes: the median over the last day beside that over the first one after warm-up, MB.

    Whole days, so that all phases of the load count alike. A process that was killed is compared with the one before.
    """
    figures: dict[str, float] = {}
    faults = []
    for name in _JUDGED:
        days = [
            [
                s.processes[name].rss_bytes / _MB
                for s in samples
                if name in s.processes and plan.day_of(s.after_s) == day
            ]
            for day in (WARM_DAYS, DAYS - 1)
        ]
        if not all(days):
            faults.append(f"{name} was not looked at on day {WARM_DAYS + 1} or on the last one")
            continue
        warm, end = map(statistics.median, days)
        growth = end / warm - 1
        key = name.replace("-", "_")
        figures |= {f"{key}_memory_mb_warm": warm, f"{key}_memory_mb_end": end, f"{key}_memory_growth": growth}
        if growth > GROWTH_MAX:
            faults.append(f"{name} takes {growth:.1%} more memory on the last day than after warm-up; 5 % at most")
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
