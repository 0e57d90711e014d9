"""The core gives the same bytes however its inputs are cut."""

from __future__ import annotations

from random import Random

import orjson
import pytest

from stream.core import Core
from stream.inputs import FLAGS, InputBatch
from stream.state.schema import KINDS
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, TOPIC, Said, cut, run, stream

# Runs over thousands of events: traced, they take far longer, and smaller tests cover the same code.
pytestmark = pytest.mark.no_cover


def core() -> Core:
    return Core(SETTINGS, release(), WordEmbedder())


def restored(said: Said) -> Core:
    """A core as a restart finds it: whatever was written, and nothing else."""
    fresh = core()
    for partition, rows in said.rows.items():
        fresh.restore(partition, rows)
    return fresh


LARGE = stream(seed=1, n=2_100)


@pytest.fixture(scope="module")
def whole() -> Said:
    """What the large stream comes to in one batch."""
    return run(core(), cut(LARGE, len(LARGE)))


def test_the_large_stream_holds_every_decision_that_tests_look_for(whole: Said) -> None:
    decisions = {"none", "finding", "warmup", "duplicate"}
    rare = {f"rare_{kind}" for kind in KINDS}
    assert {name for name, count in whole.counts.items() if count} - rare == {*decisions, *FLAGS}
    assert {finding["activity_id"] for finding in whole.found()} == {1, 2, 3}
    for flag in ("late", "clamped"):
        assert {score[flag] for score in whole.scored()} == {True, False}
    assert whole.dead_letters


@pytest.mark.parametrize("size", [1, 7, 333, 2_000])
def test_batches_of_any_size_give_the_same_bytes(whole: Said, size: int) -> None:
    assert run(core(), cut(LARGE, size)).results() == whole.results()


def test_partitions_one_after_another_give_the_same_bytes_as_mixed(whole: Said) -> None:
    ordered = sorted(LARGE, key=lambda record: record.partition)
    assert run(core(), cut(ordered, 500)).results() == whole.results()


def test_partitions_taken_by_cores_of_their_own_give_the_same_bytes(whole: Said) -> None:
    said = Said()
    for partition in range(3):
        run(core(), cut([record for record in LARGE if record.partition == partition], 211), said)
    assert said.results() == whole.results()


def test_restored_before_every_record_gives_the_same_bytes() -> None:
    records = stream(seed=2, n=150)
    straight = run(core(), cut(records, len(records)))
    said = Said()
    for record in records:
        run(restored(said), [InputBatch([record], topic=TOPIC)], said)
    assert said.results() == straight.results()


def test_restored_at_any_one_cut_gives_the_same_bytes() -> None:
    records = stream(seed=3, n=120)
    straight = run(core(), cut(records, len(records)))
    for at in range(1, len(records)):
        said = run(core(), [InputBatch(records[:at], topic=TOPIC)])
        run(restored(said), [InputBatch(records[at:], topic=TOPIC)], said)
        assert said.results() == straight.results(), f"cut before record {at}"


@pytest.mark.parametrize("seed", range(3))
def test_restored_at_random_cuts_of_a_large_stream_gives_the_same_bytes(whole: Said, seed: int) -> None:
    random = Random(seed)
    said, live = Said(), core()
    for batch in cut(LARGE, (random.choice([1, 5, 50, 300]) for _ in LARGE)):
        if random.random() < 0.5:
            live = restored(said)
        run(live, [batch], said)
    assert said.results() == whole.results()


def test_a_partition_restored_beside_others_that_go_on_gives_the_same_bytes(whole: Said) -> None:
    said, live = Said(), core()
    for number, batch in enumerate(cut(LARGE, 100)):
        partition = number % 3
        live.restore(partition, said.rows.get(partition, []))
        run(live, [batch], said)
    assert said.results() == whole.results()


def test_compacted_rows_restore_what_all_rows_do(whole: Said) -> None:
    half = len(LARGE) // 2
    said = run(core(), cut(LARGE[:half], 100))
    for partition, rows in said.rows.items():
        latest = dict(rows)
        said.rows[partition] = [(key, value) for key, value in latest.items() if value is not None]
    run(restored(said), cut(LARGE[half:], 100), said)
    assert said.results() == whole.results()


def test_what_is_restored_reads_back_as_it_was_written() -> None:
    """A cursor a partition, equal to the live one's."""
    said = run(live := core(), cut(LARGE, 200))
    again = restored(said)
    assert [again.cursor(p) for p in range(3)] == [live.cursor(p) for p in range(3)]
    assert all(again.cursor(p) is not None for p in range(3))


def test_scores_are_one_for_each_event_in_its_order(whole: Said) -> None:
    dead = {(partition, offset) for partition, offset, _ in whole.dead_letters}
    scored = [(score["partition"], score["offset"]) for score in whole.scored()]
    read = [(record.partition, record.offset) for record in LARGE]
    assert scored == sorted(set(read) - dead)


def test_another_release_or_operating_point_gives_other_bytes(whole: Said) -> None:
    other = Core(SETTINGS, release(seed=6), WordEmbedder())
    assert run(other, cut(LARGE, 500)).results() != whole.results()


def test_a_core_that_does_not_learn_writes_no_memory() -> None:
    still = Core(SETTINGS, release(), WordEmbedder(), learning=False)
    said = run(still, cut(stream(seed=4, n=300), 50))
    written = {tuple(orjson.loads(key)[:2]) for rows in said.rows.values() for key, _ in rows}
    # team-0 comes with a warm row.
    assert ("tenant", "team-1") in written
    assert ("learned", "team-1") not in written
    assert ("learned", "team-0") in written
