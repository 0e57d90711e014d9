"""Kill ingest and score at random moments while traffic flows, then ask the checker.

`python -m tests.drills.kill_drill` is the long form; `tests/kafka/test_kill_drill.py` runs a short one.
"""

import argparse
import json
import os
import random
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient

from deploy.kafka.local import LocalKafka
from sample.records import TRAIN
from tests.drills.checker import Verdict, check_ingest, check_scores
from tests.drills.traffic import raw_records
from tidegate.demo.process import Service, environment, run

PARTITIONS = 4
_SECONDS_A_KILL = 6.0
_READY_S, _END_S, _COMMIT_S = 60.0, 600.0, 30.0


@dataclass(slots=True)
class Drill:
    """A pipeline under fire.

    Parameters
    ----------
    bootstrap_servers
        A broker to run it on; topics get a prefix of their own.
    release
        What to score with.
    out
        Where logs and the replay go.
    seed
        Of the moments and victims.
    modules
        Service -> its program: a broken variant, to see that the checker notices.
    victims
        Which services are killed.
    """

    bootstrap_servers: str
    release: Path
    out: Path
    seed: int
    modules: dict[str, str] = field(default_factory=dict)
    victims: tuple[str, ...] = ("ingest", "score")
    prefix: str = field(default_factory=lambda: f"drill-{uuid.uuid4().hex[:8]}.")
    _admin: AdminClient | None = None
    recoveries_s: dict[str, list[float]] = field(default_factory=lambda: {"ingest": [], "score": []})

    def run(self, events: int, kills: int) -> tuple[Verdict, Verdict]:
        """Stream `events` through, kill `kills` times, let both services finish; what the checker says of each."""
        self.out.mkdir(parents=True, exist_ok=True)
        run(["topics", "create", "--source-topic", f"{self.prefix}raw"], self._environment(), self.out / "topics.log")
        feeding = threading.Thread(target=self._feed, args=(events, kills * _SECONDS_A_KILL), daemon=True)
        moments = random.Random(self.seed)
        services = {name: self._start(name) for name in ("ingest", "score")}
        try:
            for service in services.values():
                service.ready(_READY_S)
            feeding.start()
            for number in range(kills):
                time.sleep(moments.uniform(0.2, 1.5))
                victim = self.victims[number % len(self.victims)]
                services[victim].kill()
                services[victim].__exit__(None, None, None)
                services[victim] = self._restarted(victim)
                print(f"kill {number + 1}/{kills}: {victim}, commits again after {self.recoveries_s[victim][-1]:.1f} s")
            feeding.join()
        finally:
            for service in services.values():
                service.__exit__(None, None, None)
        for name in ("ingest", "score"):
            with self._start(name, "--until-end") as service:
                service.wait(_END_S)
        self._replay()
        return (
            check_ingest(self.bootstrap_servers, f"{self.prefix}raw", self._topic("gateway.events")),
            check_scores(
                self.bootstrap_servers,
                self._topic("gateway.events"),
                self._topic("anomaly.scores"),
                self._topic("anomaly.findings"),
                self.out / "replay",
            ),
        )

    def _start(self, name: str, *more: str) -> Service:
        own = {
            "ingest": ["--source-topic", f"{self.prefix}raw", "--format", "litellm"],
            "score": ["--release", str(self.release)],
        }[name]
        group = ["--group-id", f"{self.prefix}{name}", "--instance-id", "one"]
        module = self.modules.get(name, "tidegate.cli")
        return Service([name, *own, *group, *more], self._environment(), self.out / f"{name}.log", module)

    def _restarted(self, name: str) -> Service:
        """Start a killed service again, and note how long it takes to its next commit."""
        before = self._committed(name)
        begun = time.monotonic()
        service = self._start(name)
        while self._committed(name) <= before and time.monotonic() - begun < _COMMIT_S:
            service.check()
            time.sleep(0.05)
        self.recoveries_s[name].append(time.monotonic() - begun)
        return service

    def _committed(self, name: str) -> int:
        """Sum of the group's committed offsets."""
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        asked = ConsumerGroupTopicPartitions(f"{self.prefix}{name}")
        answer = next(iter(self._admin.list_consumer_group_offsets([asked]).values())).result()
        return sum(max(place.offset, 0) for place in answer.topic_partitions or [])

    def _feed(self, events: int, seconds: float) -> None:
        """Send the traffic evenly, so that there is work whenever a service comes back."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5})
        begun = time.monotonic()
        for number, value in enumerate(raw_records(events)):
            producer.produce(f"{self.prefix}raw", value, partition=0)
            if number % 50 == 0:
                producer.poll(0)
                time.sleep(max(0.0, begun + seconds * number / events - time.monotonic()))
        producer.flush()

    def _replay(self) -> None:
        arguments = ["replay", "--topic", self._topic("gateway.events"), "--journal", "topic"]
        arguments += ["--release", str(self.release), "--out", str(self.out / "replay")]
        run(arguments, self._environment(), self.out / "replay.log")

    def _topic(self, name: str) -> str:
        return f"{self.prefix}genai.{name}.v1"

    def _environment(self) -> dict[str, str]:
        return environment(
            KAFKA_BOOTSTRAP_SERVERS=self.bootstrap_servers,
            TIDEGATE_TOPICS__PREFIX=self.prefix,
            TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
            TIDEGATE_BATCH__RECORDS_MAX="500",
        )


def main() -> int:
    """The long form: CHAOS_SEED, CHAOS_KILLS and CHAOS_EVENTS set its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/chaos"))
    parser.add_argument("--release", type=Path, help="a release directory; trained from the sample when missing")
    given = parser.parse_args()
    size = {name: int(os.environ.get(f"CHAOS_{name.upper()}", default)) for name, default in _SIZE.items()}
    given.out.mkdir(parents=True, exist_ok=True)
    release = given.release or given.out / "release"
    if given.release is None:
        train = ["train", "--input", str(TRAIN), "--format", "corpus", "--seed", "7", "--out", str(release)]
        run(train, environment(), given.out / "train.log")
    with LocalKafka() as kafka:
        drill = Drill(kafka.bootstrap_servers, release, given.out, size["seed"])
        begun = time.monotonic()
        verdicts = drill.run(size["events"], size["kills"])
    summary = {
        **size,
        "seconds": round(time.monotonic() - begun, 1),
        **{f"{name}_recovery_s_max": round(max(s, default=0.0), 2) for name, s in drill.recoveries_s.items()},
        **{f"ingest_{name}": value for name, value in verdicts[0].figures.items()},
        **{f"score_{name}": value for name, value in verdicts[1].figures.items()},
        "faults": [*verdicts[0].faults, *verdicts[1].faults],
    }
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    print(json.dumps(summary, indent=2, sort_keys=True))
    return 4 if summary["faults"] else 0


_SIZE = {"seed": "1", "kills": "20", "events": "20000"}

if __name__ == "__main__":
    sys.exit(main())
