"""`make chaos`: three brokers, two to four scorers, and everything dies; then the checker.

CHAOS_SEED, CHAOS_KILLS, CHAOS_EVENTS and CHAOS_PROTOCOL (classic, consumer, or both) set its size.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.kafka.cluster import LocalCluster
from deploy.processes import free_ports
from sample.records import TRAIN
from tests.drills.chaos.detour import Detour
from tests.drills.chaos.feeder import Feeder
from tests.drills.chaos.lag import LagWatch
from tests.drills.chaos.pipeline import PARTITIONS, RAW_PARTITIONS, Pipeline
from tests.drills.chaos.report import write_report
from tests.drills.chaos.storm import EXPECTED_S, SESSION_TIMEOUT_S, Done, Storm, planned
from tests.drills.checker import Verdict
from tests.drills.traffic import raw_records, rough
from tidegate.demo.process import environment, run

_BROKERS = 3
_SIZE = {"seed": "1", "kills": "30", "events": "200000"}
_CONSUMER_SHARE = 4
"""Under `consumer` the drill is so many times smaller: a killed static member waits out its session every time."""
_FEED_S = 3600.0


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


def drill(
    release: Path, out: Path, protocol: str, acts: Sequence[str], events: int, seed: int, view: "View"
) -> Outcome:
    """One pipeline under one storm; what the checker says of it."""
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
        storm = Storm(pipeline, cluster, detour, seed, lambda done: view.act(done, feeder.sent, lag))
        try:
            for name in ("ingest-1", "score-1", "score-2"):
                pipeline.start(name, wait=True)
            storm.begun = time.monotonic()
            feeder.start()
            lag.start()
            storm.run(acts)
            view.say("the storm is over; letting both services finish")
            feeder.join(_FEED_S)
        finally:
            lag.end()
            pipeline.stop_all()
        ingest, score = pipeline.finish()
    faults = [*pipeline.faults, *ingest.faults, *score.faults]
    faults += [f"{feeder.failed} records were not taken by any broker: the drill is void"] if feeder.failed else []
    return Outcome(ingest, score, storm, lag.samples, pipeline.fenced, time.monotonic() - begun, faults)


class View:
    """The drill on screen: a bar and a line an act; without a terminal the lines alone."""

    def __init__(self, acts: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("acts"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=acts)
        self._progress.start()

    def act(self, done: Done, sent: int, lag: LagWatch) -> None:
        """One more."""
        waiting = lag.samples[-1][1] if lag.samples else [0, 0]
        self.say(f"{done.at_s:6.0f} s  {done.act:<24}{done.what:<44}{done.seconds:5.1f} s  waiting {waiting}")
        self._progress.update(self._task, advance=1, description=f"{sent:,} records sent")

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False)

    def close(self) -> None:
        """The bar stays as it is."""
        self._progress.stop()


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/chaos"))
    parser.add_argument("--release", type=Path, help="a release directory; trained from the sample when missing")
    given = parser.parse_args()
    seed, kills, events = (int(os.environ.get(f"CHAOS_{name.upper()}", default)) for name, default in _SIZE.items())
    wanted = os.environ.get("CHAOS_PROTOCOL", "both")
    if wanted not in ("classic", "consumer", "both"):
        parser.error(f"CHAOS_PROTOCOL must be classic, consumer or both; got {wanted!r}.")
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    release = given.release or given.out / "release"
    if given.release is None:
        print("training a release from the sample")
        train = ["train", "--input", str(TRAIN), "--format", "corpus", "--seed", "7", "--out", str(release)]
        run(train, environment(), given.out / "train.log")
    outcomes: dict[str, Outcome] = {}
    begun = time.monotonic()
    for protocol in ("classic", "consumer") if wanted == "both" else (wanted,):
        share = _CONSUMER_SHARE if protocol == "consumer" and wanted == "both" else 1
        acts = planned(max(1, kills // share), max(1, kills // share * 4 // 5), seed)
        view = View(len(acts))
        view.say(
            f"{protocol}: {events // share:,} events, {len(acts)} acts, seed {seed}; logs in {given.out / protocol}"
        )
        try:
            outcomes[protocol] = drill(release, given.out / protocol, protocol, acts, events // share, seed, view)
        finally:
            view.close()
    summary = {
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
        **{
            f"{protocol}_{name}": value for protocol, each in outcomes.items() for name, value in each.figures().items()
        },
        "faults": [f"{protocol}: {fault}" for protocol, each in outcomes.items() for fault in each.faults],
    }
    (given.out / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    page = write_report(given.out, {name: (each.storm.done, each.lag) for name, each in outcomes.items()}, summary)
    print(json.dumps(summary, indent=2, sort_keys=True))
    print(f"{'FAULTS' if summary['faults'] else 'sound'}: {page}")
    return 4 if summary["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
