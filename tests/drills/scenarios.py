"""Two small drills on one broker, each made to catch one way of being wrong."""

import random
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from tests.drills.broken.window import OPEN
from tests.drills.chaos.feeder import Feeder
from tests.drills.chaos.pipeline import Pipeline
from tests.drills.checker import Verdict
from tests.drills.traffic import raw_records, rough

WITHIN_S = 240.0
"""Whatever takes longer hangs: a busy machine may stand still for half a minute."""
_WINDOW_S = 1.0
_PATIENT = {"TIDEGATE_KAFKA__TRANSACTION_TIMEOUT_MS": "120000"}
"""A service that stood still for longer is fenced for good; nobody waits for it here, where each succeeds itself."""


def kills_under_load(pipeline: Pipeline, victim: str, events: int, kills: int, seed: int) -> tuple[Verdict, Verdict]:
    """`victim` is killed while `events` records flow; the verdicts on ingest and on score.

    A program that is wrong on purpose says when it is between the two steps that it takes apart, and is killed at a
    random moment of that.
    """
    moments = random.Random(seed)
    pipeline.prepare()
    opened = pipeline.out / "window"
    apart = {OPEN: str(opened), **_PATIENT}
    feeder = Feeder(pipeline.bootstrap_servers, pipeline.raw, rough(raw_records(events), seed), events / (4.0 * kills))
    try:
        for name in ("ingest-1", "score-1"):
            pipeline.start(name, wait=True, settings=apart)
        feeder.start()
        for left in reversed(range(kills)):
            _await(opened)
            time.sleep(moments.uniform(0.0, _WINDOW_S))
            pipeline.kill(victim)
            opened.unlink()
            # The last one is not killed: no window holds it up.
            pipeline.start(victim, wait=True, settings=apart if left else _PATIENT)
        feeder.join(WITHIN_S)
        return pipeline.finish()
    finally:
        pipeline.stop_all()


def _await(opened: Path) -> None:
    """Wait until the window is open."""
    deadline = time.monotonic() + WITHIN_S
    while not opened.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no window has opened within {WITHIN_S:.0f} s")
        time.sleep(0.02)


def open_transaction(pipeline: Pipeline, events: int, seed: int) -> tuple[Verdict, Verdict]:
    """A scorer freezes within a transaction; another one takes over, commits, is killed, and restores.

    What the second one has committed lies behind the transaction that the first one left open. `score-2` of
    `pipeline.modules` is the one that is judged; the first one is `tests.drills.stops_within`.
    """
    pipeline.prepare()
    values = rough(raw_records(2 * events), seed)
    pipeline.modules["score-1"] = "tests.drills.stops_within"
    try:
        feed(pipeline, islice(values, events))
        pipeline.start("score-1", wait=True, settings={"DRILL_STOP_AT": "offsets", "DRILL_STOP_WORK": "2"})
        await_frozen(pipeline, "score-1")
        before = pipeline.committed("score")
        pipeline.start("score-2", wait=True)
        done = settled(lambda: pipeline.committed("score"), above=before)
        pipeline.kill("score-2")
        pipeline.start("score-2", wait=True)
        feed(pipeline, islice(values, events))
        deadline = time.monotonic() + WITHIN_S
        while pipeline.committed("score") <= done and time.monotonic() < deadline:
            pipeline.services["score-2"].check()
            time.sleep(0.1)
        pipeline.kill("score-1")
        del pipeline.modules["score-1"]
        return pipeline.finish()
    finally:
        pipeline.stop_all()


def feed(pipeline: Pipeline, values: Iterable[tuple[bytes, bool]]) -> None:
    """Send records, and let ingest work them off."""
    feeder = Feeder(pipeline.bootstrap_servers, pipeline.raw, values, 1e9)
    feeder.start()
    feeder.join(WITHIN_S)
    pipeline.to_end("ingest-1")


def await_frozen(pipeline: Pipeline, name: str) -> None:
    """Wait until a service has stopped itself within its transaction."""
    stat = Path(f"/proc/{pipeline.services[name].pid}/stat")
    deadline = time.monotonic() + WITHIN_S
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        pipeline.services[name].check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} has not stopped itself within {WITHIN_S:.0f} s")
        time.sleep(0.05)


def settled(read: Callable[[], int], above: int = 0) -> int:
    """A figure once it is above `above` and has not moved for a second."""
    deadline, last, since = time.monotonic() + WITHIN_S, 0, time.monotonic()
    while time.monotonic() < deadline:
        now = read()
        if now != last or now <= above:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 1.0:
            return now
        time.sleep(0.1)
    raise TimeoutError(f"nothing settled within {WITHIN_S:.0f} s; the last figure was {last}")
