"""How large a tenant's calls are says nothing of calls in sessions that are unlike its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.volume import OF_CALL, PER_CALL, SIZED, SUB_FEATURES, Volume
from stream.config import LearningSettings
from stream.core import Core
from stream.inputs import Outcome
from stream.release import Release
from stream.state.schema import KINDS, NOVELTY, SEQUENCE
from stream.steps.score import UNFAMILIAR
from stream.steps.scored import Scored
from stream.steps.volume_words import explain
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, cut, run, stream

RECORDS = stream(seed=9, n=600)
_READING = release(reading=True)
FORGIVING = replace(
    _READING,
    # The bank has learned nothing, so that the course of all sessions is about as strange: some of it is to be more.
    calibration=replace(
        _READING.calibration,
        prior_location=_READING.calibration.prior_location - np.where(np.arange(len(KINDS)) == SEQUENCE, 4.5, 0.0),
    ),
)
STRICT = replace(FORGIVING, volume=Volume())


def scored(made: Release, size: int = 50) -> list[Scored]:
    seen: list[Scored] = []

    def watch(each: Scored, _: Outcome) -> None:
        seen.append(each)

    settings = replace(SETTINGS, learning=LearningSettings(grace_sessions=0, quarantine_days=0.0))
    run(Core(settings, made, WordEmbedder(), watch=watch), cut(RECORDS, size))
    return seen


def by_event(seen: list[Scored]) -> dict[tuple[int, int], tuple[NDArray[np.float32], bool]]:
    """Sub-features of each event, by partition and offset, and whether its sizes were held against any tenant's."""
    return {
        (int(partition), int(offset)): (volume, bool(unfamiliar))
        for each in seen
        for partition, offset, volume, unfamiliar in zip(
            each.live.partition, each.live.offset, each.scores.volume, each.calls.unfamiliar, strict=True
        )
    }


def test_sizes_are_less_strange_in_sessions_unlike_the_tenants_and_in_no_others() -> None:
    forgiving, strict = by_event(scored(FORGIVING)), by_event(scored(STRICT))
    assert not any(unfamiliar for _, unfamiliar in strict.values())
    less = 0
    for at, (volume, unfamiliar) in forgiving.items():
        if unfamiliar:
            assert (volume[OF_CALL] <= strict[at][0][OF_CALL]).all()
            less += int((volume[OF_CALL] < strict[at][0][OF_CALL]).any())
            volume, before = (np.delete(of, np.r_[OF_CALL]) for of in (volume, strict[at][0]))
        else:
            before = strict[at][0]
        assert np.array_equal(volume, before), "all else is as it was"
    assert less > 5
    assert sum(unfamiliar for _, unfamiliar in forgiving.values()) < len(forgiving) / 2


@pytest.mark.parametrize("size", [1, 7, len(RECORDS)])
def test_batches_of_any_size_agree_on_what_is_unlike(size: int) -> None:
    one, other = by_event(scored(FORGIVING)), by_event(scored(FORGIVING, size))
    assert one.keys() == other.keys()
    for at, (volume, unfamiliar) in one.items():
        assert unfamiliar == other[at][1]
        assert np.array_equal(volume, other[at][0])


def test_a_session_is_unlike_its_tenants_from_the_event_on_that_says_so() -> None:
    seen = scored(FORGIVING, len(RECORDS))[0]
    strange = seen.scores.p[:, [NOVELTY, SEQUENCE]] <= UNFAMILIAR
    run_ = seen.given.run
    says = strange[:, 0] | strange[:, 1]
    assert (strange.sum(axis=0) > 3).all(), "by what is said, and by the course"
    assert seen.calls.unfamiliar[says].all()
    later = np.flatnonzero(seen.calls.unfamiliar & ~says)
    assert len(later)
    for at in later:
        assert says[:at][run_[:at] == run_[at]].any(), "nothing is excused by what was said after it"


@pytest.mark.parametrize("column", range(SIZED.stop - SIZED.start))
def test_a_finding_says_of_a_size_whose_calls_it_is_much_for(column: int) -> None:
    calls = scored(FORGIVING, len(RECORDS))[0].calls
    features = np.zeros(len(SUB_FEATURES), np.float32)
    features[SIZED.start + column] = 1
    excused = calls.as_anyones[:, column] if column < PER_CALL else np.zeros(len(calls.unfamiliar), np.bool_)
    assert excused.any() == (column in (0, 1, 3)), "the stream tells no costs"
    assert calls.unfamiliar.any()
    for at in range(len(excused)):
        said = explain(calls, at, features)[0][1]
        assert ("much for any tenant's call; the session is unlike this tenant's" in said) == excused[at]
        assert ("normally about" in said) != excused[at]


def test_events_of_sessions_unlike_their_tenants_are_counted() -> None:
    settings = replace(SETTINGS, learning=LearningSettings(grace_sessions=0, quarantine_days=0.0))
    counts = run(Core(settings, FORGIVING, WordEmbedder()), cut(RECORDS, 50)).counts
    assert counts["unfamiliar"] == sum(unfamiliar for _, unfamiliar in by_event(scored(FORGIVING)).values())
    assert counts["unfamiliar"] > 0
