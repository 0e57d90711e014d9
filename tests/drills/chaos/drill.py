"""One pipeline under one storm, and what the checker says of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.kafka.cluster import LocalCluster
from deploy.processes import free_ports
from tests.drills.chaos.detour import Detour
from tests.drills.chaos.feeder import Feeder
from tests.drills.chaos.lag import LagWatch
from tests.drills.chaos.pipeline import PARTITIONS, RAW_PARTITIONS, Pipeline
from tests.drills.chaos.storm import EXPECTED_S, SESSION_TIMEOUT_S, Done, Storm
from tests.drills.checker import Verdict
from tests.drills.traffic import raw_records, rough

_BROKERS = 3
_FEED_S = 3600.0


Told = Callable[[Done, int, Sequence[int]], None]
"""An act, the records that were sent until then, and those that wait before ingest and before score."""


@dataclass(slots=True)
class Outcome:
    """What a drill under one group protocol left."""

    ingest: Verdict
    score: Verdict
    storm: Storm
    lag: list[tuple[float, list[int]]]
    fenced: int
    seconds: float
    faults: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Flat and named."""
        return {
            "seconds": round(self.seconds, 1),
            "exits_6": self.fenced,
            **{f"acts_{name.replace('-', '_')}": count for name, count in sorted(self.storm.counts.items())},
            **{f"ingest_{name}": value for name, value in self.ingest.figures.items()},
            **{f"score_{name}": value for name, value in self.score.figures.items()},
        }


def drill(release: Path, out: Path, protocol: str, acts: Sequence[str], events: int, seed: int, told: Told) -> Outcome:
    """One pipeline under one storm; what the checker says of it.

    Parameters
    ----------
    protocol
        `kafka.group_protocol`.
    events
        Calls that gateways make; duplicates and poison come on top.
    told
        Told of every act once it is over.
    """
    begun = time.monotonic()
    far_ports = dict(enumerate(free_ports(_BROKERS), 1))
    # A client of KIP-848 takes its session's length from the broker.
    session = {
        "group.consumer.session.timeout.ms": str(int(1000 * SESSION_TIMEOUT_S)),
        "group.consumer.min.session.timeout.ms": "5000",
        "group.consumer.heartbeat.interval.ms": "2000",
        "group.consumer.min.heartbeat.interval.ms": "1000",
    }
    with Detour(far_ports) as detour, LocalCluster(_BROKERS, list(far_ports.values()), session) as cluster:
        detour.lead_to(cluster.far_targets)
        pipeline = Pipeline(
            cluster.bootstrap_servers,
            release,
            out,
            protocol,
            far_servers=",".join(f"127.0.0.1:{port}" for port in far_ports.values()),
            far=frozenset({"score-2"}),
            settings={"TIDEGATE_KAFKA__SESSION_TIMEOUT_MS": str(int(1000 * SESSION_TIMEOUT_S))},
        )
        pipeline.prepare()
        per_second = events / sum(EXPECTED_S[act] for act in acts)
        feeder = Feeder(cluster.bootstrap_servers, pipeline.raw, rough(raw_records(events), seed), per_second)
        lag = LagWatch(
            cluster.bootstrap_servers,
            [
                (pipeline.raw, RAW_PARTITIONS, pipeline.group("ingest")),
                (pipeline.topic("gateway.events"), PARTITIONS, pipeline.group("score")),
            ],
        )
        storm = Storm(pipeline, cluster, detour, seed, lambda done: told(done, feeder.sent, lag.latest))
        try:
            for name in ("ingest-1", "score-1", "score-2"):
                pipeline.start(name, wait=True)
            storm.begun = time.monotonic()
            feeder.start()
            lag.start()
            storm.run(acts)
            feeder.join(_FEED_S)
        finally:
            lag.end()
            pipeline.stop_all()
        ingest, score = pipeline.finish()
    faults = [*pipeline.faults, *ingest.faults, *score.faults]
    faults += [f"{feeder.failed} records were not taken by any broker: the drill is void"] if feeder.failed else []
    return Outcome(ingest, score, storm, lag.samples, pipeline.fenced, time.monotonic() - begun, faults)
