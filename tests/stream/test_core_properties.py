"""Any stream, cut anywhere, with any crash: the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stream.core import Core
from stream.inputs import Applied, InputBatch
from stream.record import Record
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import GAPS_MS, QUIET_MS, SETTINGS, START_MS, TOPIC, WHATS, Happening, Said, Writer

# Runs over thousands of events: traced, they take far longer, and smaller tests cover the same code.
pytestmark = pytest.mark.no_cover

HAPPENINGS = st.builds(
    Happening,
    partition=st.integers(0, 1),
    tenant=st.integers(0, 1),
    session=st.integers(0, 2),
    gap_ms=st.sampled_from(GAPS_MS),
    what=st.sampled_from(WHATS),
)


@dataclass(frozen=True, slots=True)
class Tick:
    """Time that passes in a partition before what comes next in the stream."""

    partition: int
    core_time_ms: int


TICKS = st.builds(Tick, st.integers(0, 1), st.integers(0, 40).map(lambda turns: START_MS + turns * QUIET_MS // 3))


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a batch ends, and whether the process dies there."""

    after: int
    crash: bool


CUTS = st.lists(st.builds(Cut, st.integers(1, 9), st.booleans()), max_size=30)


def core() -> Core:
    return Core(SETTINGS, release(reading=True), WordEmbedder())


class Shell:
    """Runs a stream, with ticks before the offsets at which they came, cut as it is told to."""

    def __init__(self) -> None:
        self.said = Said()
        self._core = core()
        self._next: dict[int, int] = {}
        self._batch: list[Record] = []

    def run(self, stream: Sequence[Record | Tick], cuts: Sequence[Cut]) -> Said:
        turns = iter(cuts)
        turn = next(turns, None)
        taken = 0
        for happening in stream:
            if isinstance(happening, Tick):
                self._flush()
                control = Applied(happening.partition, "tick", {"core_time_ms": happening.core_time_ms})
                self.said.take(self._core.step(InputBatch([], [control], topic=TOPIC)))
                continue
            self._batch.append(happening)
            taken += 1
            if turn is not None and taken >= turn.after:
                self._flush()
                if turn.crash:
                    self._crash()
                turn, taken = next(turns, None), 0
        self._flush()
        return self.said

    def _flush(self) -> None:
        if self._batch:
            self.said.take(self._core.step(InputBatch(self._batch, topic=TOPIC)))
            self._batch = []

    def _crash(self) -> None:
        self._core = core()
        for partition, rows in self.said.rows.items():
            self._core.restore(partition, rows)


def written(happenings: Sequence[Happening | Tick]) -> list[Record | Tick]:
    """The stream as records, the same ones whenever it is written."""
    writer = Writer(Random(3))
    return [happening if isinstance(happening, Tick) else writer.write(happening) for happening in happenings]


EVERY_RECORD = [Cut(1, crash=True)] * 50


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(HAPPENINGS, HAPPENINGS, HAPPENINGS, TICKS), min_size=2, max_size=40), CUTS)
@example([Happening(0, 1, 0, gap, "turn") for gap in GAPS_MS] * 2, EVERY_RECORD)
@example([Happening(0, 1, i % 2, QUIET_MS - 1, what) for i, what in enumerate(WHATS * 2)], EVERY_RECORD)
def test_any_stream_gives_the_same_bytes_however_it_is_cut_and_restored(
    happenings: list[Happening | Tick], cuts: list[Cut]
) -> None:
    stream = written(happenings)
    assert Shell().run(stream, cuts).results() == Shell().run(stream, []).results()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(HAPPENINGS, min_size=2, max_size=40), st.randoms(use_true_random=False))
def test_any_mixture_of_partitions_gives_the_same_bytes(happenings: list[Happening], random: Random) -> None:
    stream = [record for record in written(happenings) if isinstance(record, Record)]
    partitions = [[record for record in stream if record.partition == number] for number in range(2)]
    order = [0] * len(partitions[0]) + [1] * len(partitions[1])
    random.shuffle(order)
    feeds = [iter(partition) for partition in partitions]
    mixed = [next(feeds[number]) for number in order]
    apart = Shell().run([*partitions[1], *partitions[0]], [])
    assert Shell().run(mixed, [Cut(5, crash=False)] * 9).results() == apart.results()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(HAPPENINGS, min_size=2, max_size=40))
def test_any_stream_has_one_score_an_event_and_findings_that_open_update_and_close_in_order(
    happenings: list[Happening],
) -> None:
    stream = written(happenings)
    said = Shell().run([*stream, Tick(0, START_MS + 10**9), Tick(1, START_MS + 10**9)], [])
    assert len(said.scored()) + len(said.dead_letters) == len(stream)
    scored = {score["finding_uid"] for score in said.scored() if score["decision"] == "finding"}
    revisions: dict[str, list[tuple[int, int]]] = {}
    for finding in said.found():
        told = (finding["metadata"]["sequence"], finding["activity_id"])
        revisions.setdefault(finding["finding_info"]["uid"], []).append(told)
    assert revisions.keys() == scored
    for told_of_one in revisions.values():
        assert [revision for revision, _ in told_of_one] == list(range(1, len(told_of_one) + 1))
        assert [activity for _, activity in told_of_one] == [1, *[2] * (len(told_of_one) - 2), 3]
