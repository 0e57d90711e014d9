"""Raw records in Kafka to committed findings: ingest and score as processes, the broker beside them.

    python -m benchmarks.end_to_end --release out/demo/release

The raw topic is filled first; the clock runs from the start of both processes' work (their READY lines) to the last
score that a `read_committed` reader sees. State bytes are those of the state topic's records, keys and values, as
written, and those of the last value of each key.
"""

import argparse
import json
import statistics
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import Producer

from benchmarks.workload import PARTITIONS, RAW_TOPIC, litellm
from deploy.kafka.local import LocalKafka
from tests.drills.checker import read
from tidegate.demo.process import Service, environment, run
from tidegate.demo.tally import Tally
from tidegate.demo.watch import Watch

_READY_S, _END_S = 60.0, 600.0


def main() -> None:
    """Print the table, and write it to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("out/demo/release"))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench/end_to_end"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    runs = []
    with LocalKafka() as kafka:
        for number in range(given.repetitions):
            runs.append(run_once(kafka.bootstrap_servers, f"bench{number}.", given.release, given.out))
            print(json.dumps(runs[-1]))
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    (given.out / "summary.json").write_text(json.dumps(median, indent=2, sort_keys=True) + "\n")
    print(json.dumps(median, indent=2, sort_keys=True))


def run_once(bootstrap_servers: str, prefix: str, release: Path, out: Path) -> dict[str, float]:
    """Figures of one run, on topics of its own; logs in `out`."""
    settings = environment(
        KAFKA_BOOTSTRAP_SERVERS=bootstrap_servers,
        TIDEGATE_TOPICS__PREFIX=prefix,
        TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
    )
    raw = f"{prefix}{RAW_TOPIC}"
    run(["topics", "create", "--source-topic", raw], settings, out / "topics.log")
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 20})
    traffic = litellm()
    for record in traffic:
        producer.produce(raw, record.value, partition=0)
        if record.offset % 500 == 0:
            producer.flush()
    producer.flush()
    ingest = ["ingest", "--source-topic", raw, "--format", "litellm", "--group-id", f"{prefix}ingest"]
    score = ["score", "--release", str(release), "--group-id", f"{prefix}score"]
    with Service(score, settings, out / "score.log") as scoring:
        scoring.ready(_READY_S)
        with Service(ingest, settings, out / "ingest.log") as ingesting:
            ingesting.ready(_READY_S)
            begun = time.monotonic()
            tally = Tally()
            watch = Watch(bootstrap_servers, f"{prefix}genai.anomaly.scores.v1", PARTITIONS, tally.score)
            watch.start()
            while tally.scored < len(traffic) and time.monotonic() < begun + _END_S:
                scoring.check()
                ingesting.check()
                time.sleep(0.05)
            seconds = time.monotonic() - begun
            watch.stop()
    last: dict[tuple[int | None, bytes], int] = {}
    written = Counter[str]()
    tenants: set[tuple[int | None, str]] = set()
    for message in read(bootstrap_servers, f"{prefix}genai.anomaly.state.v1"):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        name = json.loads(key)
        size = len(key) + len(value or b"")
        written[name[0]] += size
        last[(message.partition(), key)] = size if value is not None else 0
        if name[0] == "tenant":
            tenants.add((message.partition(), name[1]))
    learned = [size for (_, key), size in last.items() if json.loads(key)[0] in ("tenant", "learned", "pending")]
    return {
        "events_per_s": len(traffic) / seconds,
        "state_bytes_per_event": written.total() / len(traffic),
        **{f"state_bytes_per_event_{kind}": size / len(traffic) for kind, size in written.items()},
        "state_bytes_per_tenant": sum(learned) / len(tenants),
        "state_bytes_live": float(sum(last.values())),
    }


if __name__ == "__main__":
    main()
