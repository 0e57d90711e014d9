"""SIGKILL inside a transaction, and the seconds to the next commit: by the same instance, and by another one.

    python -m tests.drills.recovery [--tenants 10000]

A scorer freezes itself once everything but the commit is with the broker, offsets included, and is killed there.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from confluent_kafka import ConsumerGroupState
from confluent_kafka.admin import AdminClient

from deploy.kafka.local import LocalKafka
from tests.drills.chaos.pipeline import PARTITIONS, Pipeline
from tests.drills.scenarios import WITHIN_S, await_frozen, feed, settled
from tests.drills.traffic import many_tenants, raw_records

SESSION_TIMEOUT_S, TRANSACTION_TIMEOUT_S, INTERVAL_S = 10.0, 10.0, 10.0
"""Of the group, of the producer, and of the broker's look for transactions that are too old."""
SAME_S, ANOTHER_S, SAME_WITH_STATE_S = 5.0, SESSION_TIMEOUT_S + TRANSACTION_TIMEOUT_S + 5.0, 15.0
"""What must not be exceeded."""
_EVENTS, _CALLS = 3_000, 6


def same_instance(pipeline: Pipeline, before: Iterable[bytes], then: Iterable[bytes]) -> float:
    """Seconds from the kill of the only scorer to the next commit, by the one that is started in its place.

    Parameters
    ----------
    before
        Raw records that are scored before: they make the state that is restored.
    then
        Raw records during which it is killed.
    """
    pipeline.prepare()
    feed(pipeline, ((value, False) for value in before))
    pipeline.to_end("score-1")
    feed(pipeline, ((value, False) for value in then))
    _start_stopping(pipeline)
    await_frozen(pipeline, "score-1")
    committed = pipeline.committed("score")
    pipeline.kill("score-1")
    begun = time.monotonic()
    pipeline.start("score-1")
    _await_commit(pipeline, committed)
    seconds = time.monotonic() - begun
    pipeline.stop_all()
    return seconds


def another_instance(pipeline: Pipeline, before: Iterable[bytes], then: Iterable[bytes]) -> float:
    """Seconds from the kill of a scorer to the next commit on its partitions, by one that runs beside it."""
    pipeline.prepare()
    feed(pipeline, ((value, False) for value in before))
    pipeline.to_end("score-1")
    pipeline.start("score-2", wait=True)
    _start_stopping(pipeline)
    _await_shared(pipeline)
    feed(pipeline, ((value, False) for value in then))
    await_frozen(pipeline, "score-1")
    committed = settled(lambda: pipeline.committed("score"))
    pipeline.kill("score-1")
    begun = time.monotonic()
    _await_commit(pipeline, committed)
    seconds = time.monotonic() - begun
    pipeline.stop_all()
    return seconds


def measure(bootstrap_servers: str, release: Path, out: Path, tenants: int, times: int) -> dict[str, float]:
    """All three, flat and named: the medians and the worst of `times`."""
    settings = {
        "TIDEGATE_KAFKA__SESSION_TIMEOUT_MS": str(int(1000 * SESSION_TIMEOUT_S)),
        "TIDEGATE_KAFKA__TRANSACTION_TIMEOUT_MS": str(int(1000 * TRANSACTION_TIMEOUT_S)),
    }

    def fresh() -> Pipeline:
        return Pipeline(bootstrap_servers, release, out, settings=settings)

    def sample() -> tuple[list[bytes], list[bytes]]:
        values = list(raw_records(2 * _EVENTS))
        return values[:_EVENTS], values[_EVENTS:]

    many = list(many_tenants(tenants, _CALLS))
    taken = {
        "same_instance": [same_instance(fresh(), *sample()) for _ in range(times)],
        "another_instance": [another_instance(fresh(), *sample()) for _ in range(times)],
        f"same_instance_{tenants}_tenants": [same_instance(fresh(), many, sample()[1]) for _ in range(times)],
    }
    return {
        f"recovery_{name}_s{which}": round(number(seconds), 2)
        for name, seconds in taken.items()
        for which, number in (("", statistics.median), ("_max", max))
    }


def late(figures: Mapping[str, float]) -> list[str]:
    """What took longer than it may.

    >>> late({"recovery_same_instance_s_max": 5.2, "recovery_same_instance_10000_tenants_s_max": 5.2})
    ['recovery_same_instance_s_max: 5.2 s, at most 5 s']
    """
    bounds = {"recovery_same_instance_s_max": SAME_S, "recovery_another_instance_s_max": ANOTHER_S}
    return [
        f"{name}: {seconds} s, at most {bound:g} s"
        for name, seconds in figures.items()
        if name.endswith("_max") and seconds > (bound := bounds.get(name, SAME_WITH_STATE_S))
    ]


def _start_stopping(pipeline: Pipeline) -> None:
    pipeline.modules["score-1"] = "tests.drills.stops_within"
    pipeline.start("score-1", wait=True, settings={"DRILL_STOP_AT": "commit", "DRILL_STOP_WORK": "2"})
    del pipeline.modules["score-1"]


def _await_shared(pipeline: Pipeline) -> None:
    """Wait until the two scorers have shared the partitions out."""
    admin, group = AdminClient({"bootstrap.servers": pipeline.bootstrap_servers}), pipeline.group("score")
    deadline = time.monotonic() + WITHIN_S
    while True:
        told = admin.describe_consumer_groups([group])[group].result(WITHIN_S)
        held = [len(member.assignment.topic_partitions) for member in told.members]
        if told.state is ConsumerGroupState.STABLE and sorted(held) == [PARTITIONS // 2, PARTITIONS - PARTITIONS // 2]:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"two scorers have not shared out {PARTITIONS} partitions within {WITHIN_S:.0f} s")
        time.sleep(0.1)


def _await_commit(pipeline: Pipeline, committed: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while pipeline.committed("score") <= committed:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing was committed within {WITHIN_S:.0f} s")
        time.sleep(0.02)


def main() -> int:
    """Print the figures, and write them to --out; exit code 4 where one is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, default=Path("out/demo/release"))
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/recovery"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with LocalKafka() as kafka:
        figures = measure(kafka.bootstrap_servers, given.release, given.out, given.tenants, given.times)
    (given.out / "summary.json").write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    print(json.dumps(figures, indent=2, sort_keys=True))
    return 4 if late(figures) else 0


if __name__ == "__main__":
    sys.exit(main())
