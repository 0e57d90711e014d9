"""From a record's arrival in Kafka to its committed score and finding, and what exactly-once costs.

    python -m benchmarks.latency --release out/demo/release

Ingest and score run as processes with default settings, the broker beside them on the same cores. The highest rate is
measured first, as `benchmarks.end_to_end` does; then sessions like the sample's come at half of it, as many at once as
that takes, each at its own pace and with words of its own. A record arrives when the broker says so (the raw topic's
`LogAppendTime`) and is through when a `read_committed` consumer has its score or finding. Between them lie the event's
timestamp, which is when ingest had normalised it, and that of its score, which is when the scorer wrote it: they, and
what the services export, tell the stages apart.

The cost of exactly-once is the rate of `score` with `--delivery at-least-once` over that with `exactly-once`, on the
same events, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.end_to_end import run_once
from benchmarks.workload import EVENTS_TOPIC, PARTITIONS, RAW_TOPIC, litellm, normalised
from deploy.kafka.local import LocalKafka
from sample.records import LIVE, TRAIN
from tests.drills.checker import read
from tests.drills.soak.committed import Committed
from tests.drills.soak.scrape import Scraped, scrape
from tests.drills.soak.sessions import Sent, patterns, under_way
from tidegate.demo.process import Service, environment, run

SCORES, FINDINGS = "genai.anomaly.scores.v1", "genai.anomaly.findings.v1"
_READY_S, _END_S, _LEFT_S = 60.0, 600.0, 60.0
_WARM_S = 45.0
"""Not counted: caches fill, and river is imported for the first drift detector."""
_CLOSE = 3
_SEED = 7
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Seen:
    """Scores and findings with the moments at which a consumer had them.

    Parameters
    ----------
    prefix
        Of the topics.
    """

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self.scores: list[tuple[float, Message]] = []
        self.findings: list[tuple[float, Message]] = []
        topics = {prefix + SCORES: PARTITIONS, prefix + FINDINGS: PARTITIONS}
        self._reader = Committed(bootstrap_servers, topics, self._note)
        self._reader.start()

    def _note(self, message: Message, now_s: float) -> None:
        (self.scores if str(message.topic()).endswith(SCORES) else self.findings).append((now_s, message))

    def stop(self) -> None:
        """Read no more."""
        self._reader.stop()


@dataclass(frozen=True, slots=True)
class Way:
    """One record's moments, epoch seconds."""

    arrived: float
    normalised: float
    written: float
    seen: float


def measure(bootstrap_servers: str, release: Path, out: Path, rate: float, seconds: float) -> dict[str, float]:
    """Latencies, in ms, of records that come at `rate` a second for `seconds`; stages in ms an event.

    Raises
    ------
    TimeoutError
        When scores do not come.
    """
    prefix = "latency."
    settings = _settings(bootstrap_servers, prefix)
    raw = f"{prefix}{RAW_TOPIC}"
    _create_raw(bootstrap_servers, raw)
    run(["topics", "create", "--source-topic", raw], settings, out / "topics.log")
    ingest = ["ingest", "--source-topic", raw, "--format", "litellm", "--group-id", f"{prefix}ingest"]
    score = ["score", "--release", str(release), "--group-id", f"{prefix}score"]
    sent = list(under_way(patterns([TRAIN, LIVE]), rate, time.time(), _WARM_S + seconds, _SEED))
    count = len(sent)
    seen = Seen(bootstrap_servers, prefix)
    with (
        Service(score, settings, out / "score.log") as scoring,
        Service(ingest, settings, out / "ingest.log") as ingesting,
    ):
        urls = {"score": scoring.ready(_READY_S)["http"], "ingest": ingesting.ready(_READY_S)["http"]}
        begun = time.time()
        warm = sum(record.time_s < sent[0].time_s + _WARM_S for record in sent)
        _send(bootstrap_servers, raw, sent[:warm])
        before = {name: scrape(url) for name, url in urls.items()}
        _send(bootstrap_servers, raw, sent[warm:])
        told = {name: scrape(url).since(before[name]) for name, url in urls.items()}
        took = time.time() - begun
        until = time.monotonic() + _LEFT_S
        while len(seen.scores) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"not all of {count} scores came within {_LEFT_S:.0f} s of the last record")
            time.sleep(0.2)
    seen.stop()
    scores, findings = _ways(bootstrap_servers, prefix, raw, seen, begun + _WARM_S)
    figures = {"rate": count / took, "scores": float(len(scores)), "findings": float(len(findings))}
    for what, ways in (("score", scores), ("finding", findings)):
        figures |= quantiles(what, [way.seen - way.arrived for way in ways])
    figures |= quantiles("stretch_arrival_to_normalised", [way.normalised - way.arrived for way in scores])
    figures |= quantiles("stretch_normalised_to_written", [way.written - way.normalised for way in scores])
    figures |= quantiles("stretch_written_to_seen", [way.seen - way.written for way in scores])
    return figures | stages(told, scores)


def cost(bootstrap_servers: str, release: Path, out: Path, repetitions: int) -> dict[str, float]:
    """Events a second of `score` either way on the same events in turns, and their ratio."""
    prefix = "cost."
    run(["topics", "create"], _settings(bootstrap_servers, prefix), out / "topics.log")
    events = normalised(litellm())
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 20})
    for number, event in enumerate(events):
        producer.produce(prefix + EVENTS_TOPIC, event.value, event.key, event.partition)
        if number % 500 == 0:
            producer.flush()
    producer.flush()
    rates: dict[str, list[float]] = {"exactly-once": [], "at-least-once": []}
    for number in range(repetitions):
        # Whoever comes second finds the broker's caches warm: they take turns in that as well.
        for delivery in list(rates)[:: 1 if number % 2 == 0 else -1]:
            rates[delivery].append(_throughput(bootstrap_servers, prefix, delivery, number, release, out, len(events)))
            print(f"{delivery}: {rates[delivery][-1]:.0f} events/s", flush=True)
    ratios = [slow / fast for slow, fast in zip(rates["exactly-once"], rates["at-least-once"], strict=True)]
    return {
        "exactly_once_events_per_s": statistics.median(rates["exactly-once"]),
        "at_least_once_events_per_s": statistics.median(rates["at-least-once"]),
        "exactly_once_ratio": statistics.median(ratios),
        "exactly_once_ratio_min": min(ratios),
        "exactly_once_ratio_max": max(ratios),
    }


def _settings(bootstrap_servers: str, prefix: str, **more: str) -> dict[str, str]:
    return environment(
        KAFKA_BOOTSTRAP_SERVERS=bootstrap_servers,
        TIDEGATE_TOPICS__PREFIX=prefix,
        TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
        **more,
    )


def _create_raw(bootstrap_servers: str, topic: str) -> None:
    """A topic whose records the broker dates, when it appends them."""
    # As large as `topics create` makes it, which leaves what is there alone.
    config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "8454144"}
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for created in admin.create_topics([NewTopic(topic, 1, 1, config=config)]).values():
        created.result(10)


def _send(bootstrap_servers: str, topic: str, records: Sequence[Sent]) -> None:
    """Send `records` as far apart as they are dated."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "linger.ms": 1})
    begun = time.monotonic()
    for record in records:
        wait_s = begun + record.time_s - records[0].time_s - time.monotonic()
        if wait_s > 0.002:
            producer.poll(0)
            time.sleep(wait_s)
        producer.produce(topic, record.value, partition=0)
    producer.flush()


def _ways(bootstrap_servers: str, prefix: str, raw: str, seen: Seen, since_s: float) -> tuple[list[Way], list[Way]]:
    """Those of scores, and of findings that an event opened or went on with; of records from `since_s` on."""
    arrived = {message.offset(): _time_s(message) for message in read(bootstrap_servers, raw)}
    events = {
        (message.partition(), message.offset()): (arrived[_source(message)[1]], _time_s(message))
        for message in read(bootstrap_servers, prefix + EVENTS_TOPIC)
    }

    def ways(records: list[tuple[float, Message]]) -> list[Way]:
        made = [Way(*events[_source(message)], _time_s(message), seen_s) for seen_s, message in records]
        return [way for way in made if way.arrived >= since_s]

    # A timer closes findings: no record's arrival.
    told = [(at, m) for at, m in seen.findings if json.loads(m.value() or b"{}")["activity_id"] != _CLOSE]
    return ways(seen.scores), ways(told)


def stages(told: Mapping[str, Scraped], scores: Sequence[Way]) -> dict[str, float]:
    """Where an event's time goes on average, ms; what is left of a stretch is waiting for a fetch or a batch."""
    out: dict[str, float] = {}
    for name, scraped in told.items():
        for stage in ("step", "queue", "commit"):
            out[f"{name}_{stage}_ms"] = 1000 * (scraped.mean("tidegate_stage_seconds", stage=stage) or 0.0)
        for phase in ("produce", "offsets", "commit"):
            seconds = scraped.mean("tidegate_transaction_seconds", phase=phase) or 0.0
            out[f"{name}_transaction_{phase}_ms"] = 1000 * seconds
        batches = scraped.total("tidegate_stage_seconds_count", stage="step")
        out[f"{name}_batch_records"] = scraped.total("tidegate_records_total") / max(batches, 1.0)
    first, second, third = (
        1000 * statistics.fmean(stretch)
        for stretch in zip(
            *((w.normalised - w.arrived, w.written - w.normalised, w.seen - w.written) for w in scores), strict=True
        )
    )
    out["mean_ms"] = first + second + third
    out["mean_ingest_wait_ms"] = first - out["ingest_step_ms"]
    out["mean_ingest_step_ms"] = out["ingest_step_ms"]
    out["mean_ingest_transaction_ms"] = out["ingest_queue_ms"] + out["ingest_commit_ms"]
    out["mean_score_step_ms"] = out["score_step_ms"]
    of_score = out["mean_score_step_ms"] + out["score_queue_ms"]
    out["mean_score_wait_ms"] = second - out["mean_ingest_transaction_ms"] - of_score
    out["mean_score_transaction_ms"] = out["score_queue_ms"] + third
    return out


def _throughput(
    bootstrap_servers: str, prefix: str, delivery: str, number: int, release: Path, out: Path, count: int
) -> float:
    """Events a second from READY to the last score that is seen."""
    own = f"{prefix}{delivery}.{number}."
    settings = _settings(bootstrap_servers, prefix, TIDEGATE_TOPICS__OUTPUT_PREFIX=own)
    run(["topics", "create"], settings, out / "topics.log")
    arguments = ["score", "--release", str(release), "--group-id", f"{own}score", "--delivery", delivery]
    seen = Seen(bootstrap_servers, own)
    with Service(arguments, settings, out / "cost.log") as scoring:
        scoring.ready(_READY_S)
        begun = time.monotonic()
        while len(seen.scores) < count:
            scoring.check()
            if time.monotonic() > begun + _END_S:
                raise TimeoutError(f"not all of {count} scores came in {_END_S:.0f} s")
            time.sleep(0.05)
        took = time.monotonic() - begun
    seen.stop()
    return count / took


def quantiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in ms, by names that begin with `name`; nothing of nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {f"{name}_{q}_ms": 1000 * ordered[int(share * (len(ordered) - 1))] for q, share in _QUANTILES.items()}


def _time_s(message: Message) -> float:
    return message.timestamp()[1] / 1000


def _source(message: Message) -> tuple[int, int]:
    """Partition and offset of what a record came of."""
    place = dict(message.headers() or [])["tg-source"]
    assert isinstance(place, bytes)
    _, partition, offset = place.decode().rsplit("/", 2)
    return int(partition), int(offset)


def main() -> int:
    """Figures to stdout and --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("out/demo/release"))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long records come, warm-up apart")
    parser.add_argument("--rate", type=float, help="records a second (default: half of the highest rate)")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of the highest rate and of each delivery")
    parser.add_argument("--out", type=Path, default=Path("out/bench/latency"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, float] = {}
    with LocalKafka() as kafka:
        servers = kafka.bootstrap_servers
        if given.rate is None:
            highest = []
            for number in range(given.repetitions):
                highest.append(run_once(servers, f"highest{number}.", given.release, given.out)["events_per_s"])
                print(f"highest rate: {highest[-1]:.0f} events/s", flush=True)
            figures["highest_events_per_s"] = statistics.median(highest)
        rate = given.rate or figures["highest_events_per_s"] / 2
        figures |= measure(servers, given.release, given.out, rate, given.seconds)
        if given.repetitions:
            figures |= cost(servers, given.release, given.out, given.repetitions)
    text = json.dumps(figures, indent=2, sort_keys=True)
    (given.out / "summary.json").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
