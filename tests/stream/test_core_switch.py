"""One release takes over from another within the core, without a restart and without a pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from models.novelty import Novelty
from stream.config import LearningSettings
from stream.core import Core
from stream.errors import StateError
from stream.inputs import Applied, InputBatch
from stream.record import Record
from stream.release import Release
from stream.state.identity import stamp_of
from stream.state.schema import KINDS, NOVELTY, OF_RELEASE, PROVENANCE, REMEMBERED, STAMP, tenant_table, warm_columns
from tests.doubles import WordEmbedder
from tests.stream.controls import switch
from tests.stream.releases import release
from tests.stream.streams import QUIET_MS, SETTINGS, START_MS, TOPIC, Said, cut, event, record, run, stream, text

A = replace(release(reading=True), name="r-a")
GRACELESS = replace(SETTINGS, learning=LearningSettings(grace_sessions=0))
KEPT = [kind for kind in REMEMBERED if kind not in OF_RELEASE]


@cache
def other() -> Release:
    """A release of other models, that knows `team-0` by a whole row."""
    base = release("r-b", seed=6, reading=True)
    table = tenant_table(Novelty(dim=32))
    warm = {name: np.asarray(table[name][:1]).copy() for name in warm_columns(table)}
    warm["ordinal"][:], warm["sessions"][:], warm["learned_at"][:] = 40, 12, 40
    warm["maxima_count"][:] = 3
    warm["maxima"][:, :, :3] = [1.0, 2.0, 3.0]
    warm["location"][:], warm["scale"][:] = 2.0, 1.5
    tails = base.calibration
    return replace(base, warm=warm, calibration=replace(tails, prior_location=tails.prior_location + 0.25))


def core(made: Release = A) -> Core:
    return Core(GRACELESS, made, WordEmbedder())


def switching(release: str, partitions: Sequence[int], offset: int = 0) -> list[Applied]:
    return [Applied(partition, "control", switch(release), offset) for partition in partitions]


def told(number: int, at_ms: int, *, tenant: str = "team-0", session: str = "s0") -> Record:
    words = f"{number} words {number} of {number} its own"
    return record(number, event(number, START_MS + at_ms, [text("user", words)], tenant=tenant, session=session))


def row(live: Core, tenant: str) -> dict[str, np.ndarray]:
    names, columns = live.export_tenants()
    return {name: column[names.index(tenant)] for name, column in columns.items()}


# -- what follows ------------------------------------------------------------------------------------------------------


def test_scores_and_findings_name_the_release_that_made_them() -> None:
    live = core()
    said = run(live, cut([told(1, 0)], 1))
    live.serve(other())
    run(live, [InputBatch([told(2, 1)], switching("r-b", [0]), topic=TOPIC)], said)
    assert [score["release"] for score in said.scored()] == ["r-a", "r-b"]
    cursor = live.cursor(0)
    assert cursor is not None
    assert cursor.release == "r-b"
    assert live.release.name == "r-b"


def test_what_was_judged_before_is_judged_anew() -> None:
    words = [text("tool", "please book the flight to rome")]
    # Of two tenants: what one has heard before is no surprise to it.
    first, second = (record(i, event(i, START_MS + i, words, tenant=f"team-{i}", session="s")) for i in (1, 2))
    live = core()
    run(live, cut([first], 1))
    live.serve(other())
    switched = run(live, [InputBatch([second], switching("r-b", [0]), topic=TOPIC)]).scored()[0]
    fresh = run(core(other()), cut([second], 1)).scored()[0]
    for kind in ("tool_known_attack", "sequence"):
        assert switched["signals"].get(kind) == fresh["signals"].get(kind)
    before = run(core(), cut([second], 1)).scored()[0]
    assert before["signals"]["sequence"] != fresh["signals"]["sequence"]


@pytest.mark.parametrize("field", ["space_id", "feature_schema", "state_schema"])
def test_release_of_other_ids_cannot_go_on(field: str) -> None:
    live = core()
    foreign: dict[str, Any] = {field: "x"}
    with pytest.raises(StateError, match=rf"'r-b' cannot go on from the state of release 'r-a': {field} 'x' against"):
        live.serve(replace(other(), **foreign))
    assert live.release is A


def test_partition_without_its_control_is_not_scored_by_another_release() -> None:
    live = core()
    run(live, cut([told(1, 0)], 1))
    live.serve(other())
    with pytest.raises(StateError, match=r"partition 0 must be scored by release 'r-a'.* the core serves 'r-b'"):
        live.step(InputBatch([told(2, 1)], topic=TOPIC))


def test_new_partition_begins_with_the_release_in_service() -> None:
    live = core()
    live.serve(other())
    assert run(live, cut([told(1, 0)], 1)).scored()[0]["release"] == "r-b"


# -- rings -------------------------------------------------------------------------------------------------------------


def sessions(tenant: str, first: int, n: int, at_ms: int = 0) -> list[Record]:
    """Sessions of one event each, each closed before the next."""
    return [
        told(i, at_ms + (i - first) * 2 * QUIET_MS, tenant=tenant, session=f"s{i}") for i in range(first, first + n)
    ]


@pytest.mark.parametrize("tenant", ["team-0", "team-9"])
def test_tenant_s_rings_are_the_new_release_s_when_its_next_event_is_scored(tenant: str) -> None:
    live = core()
    said = run(live, cut(sessions(tenant, 1, 80), 9))
    before = row(live, tenant)
    assert (before["maxima_count"][[NOVELTY, OF_RELEASE[0]]] > 20).all()
    live.serve(other())
    step = InputBatch([], switching("r-b", [0]), topic=TOPIC)
    assert [orjson.loads(change.key)[0] for change in live.step(step).changes] == ["cursor"]
    # One event, which is no learn point.
    run(live, cut([told(500, 200 * QUIET_MS, tenant=tenant, session="s500")], 1), said)
    after = row(live, tenant)
    known = tenant == "team-0"
    assert after["maxima_count"][OF_RELEASE].tolist() == [3 if known else 0] * len(OF_RELEASE)
    prior = other().calibration.prior_location
    assert after["location"][OF_RELEASE].tolist() == ([2.0] * len(OF_RELEASE) if known else prior[OF_RELEASE].tolist())
    # What only the embedding space decides stays, fitted to the new population.
    assert np.array_equal(after["maxima"][KEPT], before["maxima"][KEPT])
    assert (after["location"][KEPT] > before["location"][KEPT]).all()
    assert after["location"][PROVENANCE] == prior[PROVENANCE]
    assert not after["drift_detectors"][: len(KINDS)].any()
    again = core(other())
    again.restore(0, said.rows[0])
    for name, column in row(again, tenant).items():
        assert np.array_equal(column, after[name]), name


def test_stamp_is_of_the_state_and_no_warm_row_has_it() -> None:
    live = core()
    run(live, cut([told(1, 0)], 1))
    assert STAMP not in live.export_tenants()[1]
    assert stamp_of("r-a") != stamp_of("r-b") != 0


def test_sessions_that_another_release_measured_do_not_enter_its_successor_s_rings() -> None:
    """One closes before the switch and waits for the learn point, one is open, one goes on; only the last says more."""
    live = core()
    records = [told(1, 0, session="s1"), told(2, 2 * QUIET_MS, session="s2"), told(3, 2 * QUIET_MS, session="s3")]
    said = run(live, cut(records, 1))
    live.serve(other())
    follows = [told(4, 2 * QUIET_MS + 5, session="s3")]
    follows += [told(i, 6 * QUIET_MS + i, tenant="team-0", session="s4") for i in range(5, 40)]
    run(live, [InputBatch(follows, switching("r-b", [0]), topic=TOPIC)], said)
    counts = row(live, "team-0")["maxima_count"]
    # Three and one of the new release's own, s3; all three of novelty.
    assert counts[OF_RELEASE[0]] == 3 + 1
    assert counts[NOVELTY] == 3


def test_there_and_back_again_without_an_event_changes_nothing() -> None:
    first, rest = sessions("team-0", 1, 30), sessions("team-0", 40, 60, at_ms=90 * QUIET_MS)
    straight = run(core(), cut([*first, *rest], 7))
    live = core()
    said = run(live, cut(first, 7))
    for made in (other(), A):
        live.serve(made)
        run(live, [InputBatch([], switching(made.name, [0]), topic=TOPIC)], said)
    run(live, cut(rest, 7), said)
    assert said.results() == straight.results()


# -- however it is cut -------------------------------------------------------------------------------------------------

RECORDS = stream(41, 300)
SWITCHES = {0: [(60, "r-b"), (200, "r-a")], 1: [(110, "r-b"), (230, "r-a")], 2: [(150, "r-b")]}
"""Of each partition, before which of the stream's records it switches."""


def made(name: str) -> Release:
    return {"r-a": A, "r-b": other()}[name]


class Scorer:
    """Steps partitions apart where they stand on different releases, as catching up one after another does."""

    def __init__(self) -> None:
        self.said = Said()
        self.live = core()

    def restart(self, serving: str) -> None:
        self.live = core(made(serving))
        for partition, rows in self.said.rows.items():
            self.live.restore(partition, rows)

    def step(self, records: Sequence[Record], controls: Sequence[Applied], serving: str) -> None:
        self.live.serve(made(serving))
        run(self.live, [InputBatch(records, controls, topic=TOPIC)], self.said)


def scored(random: Random | int, restarts: bool = False) -> Said:
    """The stream, each partition's own part cut at its switches and at random, or into so many records."""
    scorer = Scorer()
    for partition in range(3):
        mine = [(at, record) for at, record in enumerate(RECORDS) if record.partition == partition]
        switches, serving = list(SWITCHES[partition]), "r-a"
        controls: list[Applied] = []
        batch: list[Record] = []
        for at, record_ in mine:
            if switches and at >= switches[0][0]:
                if batch:
                    scorer.step(batch, controls, serving)
                controls, batch = [], []
                serving = switches.pop(0)[1]
                controls = switching(serving, [partition], at)
                if restarts:
                    scorer.restart(serving)
            batch.append(record_)
            if len(batch) >= (random if isinstance(random, int) else random.choice([1, 3, 40])):
                scorer.step(batch, controls, serving)
                controls, batch = [], []
                if restarts and not isinstance(random, int) and random.random() < 0.3:
                    scorer.restart(serving)
        if batch:
            scorer.step(batch, controls, serving)
    return scorer.said


@pytest.fixture(scope="module")
def whole() -> Said:
    return scored(2_000)


def test_switches_change_results(whole: Said) -> None:
    assert {score["release"] for score in whole.scored()} == {"r-a", "r-b"}
    alone = Said()
    for partition in range(3):
        run(core(), [InputBatch([each for each in RECORDS if each.partition == partition], topic=TOPIC)], alone)
    assert alone.results() != whole.results()


@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_give_the_same_bytes_across_switches(whole: Said, size: int) -> None:
    assert scored(size).results() == whole.results()


@pytest.mark.parametrize("seed", range(2))
def test_restored_at_random_cuts_gives_the_same_bytes_across_switches(whole: Said, seed: int) -> None:
    assert scored(Random(seed), restarts=True).results() == whole.results()


def test_partitions_that_switch_together_say_what_they_say_apart() -> None:
    half = 150
    apart, together = Said(), Said()
    for partition in range(3):
        live = core()
        mine = [[each for each in part if each.partition == partition] for part in (RECORDS[:half], RECORDS[half:])]
        run(live, [InputBatch(mine[0], topic=TOPIC)], apart)
        live.serve(other())
        run(live, [InputBatch(mine[1], switching("r-b", [partition]), topic=TOPIC)], apart)
    live = core()
    run(live, cut(RECORDS[:half], 20), together)
    live.serve(other())
    run(live, [InputBatch(RECORDS[half:], switching("r-b", range(3)), topic=TOPIC)], together)
    assert together.results() == apart.results()
