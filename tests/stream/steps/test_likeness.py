"""An event's likeness to known attacks."""

from __future__ import annotations

import numpy as np
import pytest

from stream.state.schema import KINDS, KNOWN_ATTACK, TOOL_KNOWN_ATTACK
from stream.steps.likeness import LIKEST, MANY_COST, RELIABLE_CHARS, likest


def value(odds: list[float], chars: float = 100.0) -> float:
    """The signal of one event of these segments."""
    return float(values(odds, [0] * len(odds), [KNOWN_ATTACK] * len(odds), chars)[0, KNOWN_ATTACK])


def values(odds: list[float], event: list[int], signal: list[int], chars: float = 100.0) -> np.ndarray:
    x = np.full((max(event) + 1, len(KINDS)), np.nan)
    long = np.full(len(odds), chars, np.float32)
    likest(x, np.array(event), np.array(signal), np.array(odds, np.float32), long)
    return x


def test_one_segment_counts_by_its_place_among_four_and_by_its_length() -> None:
    first = LIKEST[0] / sum(LIKEST)
    assert value([3.0]) == pytest.approx(3 * first)
    assert value([3.0], float(RELIABLE_CHARS) / 2) == pytest.approx(1.5 * first)
    assert value([-3.0]) == 0


def test_several_segments_that_say_so_count_more_than_one() -> None:
    four = value([6.0] * 4)
    # All four places are filled; each has paid for being one of four.
    assert four == pytest.approx(6 - MANY_COST * np.log(4), abs=1e-5)
    assert four > value([6.0])


def test_the_likest_of_many_is_no_surprise_and_padding_hides_only_so_much() -> None:
    ordinary = [-9.0]
    assert value([2.0, *ordinary * 60]) == 0 < value([2.0])
    assert value([6.0, *ordinary * 63]) == value([6.0, *ordinary * 5000]) > 0


def test_events_and_signals_do_not_count_for_each_other() -> None:
    both = values([4.0, 5.0, 1.0], [0, 1, 0], [KNOWN_ATTACK, KNOWN_ATTACK, TOOL_KNOWN_ATTACK])
    assert both[0, KNOWN_ATTACK] == value([4.0]) and both[1, KNOWN_ATTACK] == value([5.0])
    assert both[0, TOOL_KNOWN_ATTACK] == value([1.0])
    assert np.isnan(both[1, TOOL_KNOWN_ATTACK]) and np.isnan(both[:, 0]).all()


def test_no_segments_change_nothing() -> None:
    x = np.full((2, len(KINDS)), np.nan)
    likest(x, *(np.zeros(0, np.int64),) * 2, *(np.zeros(0, np.float32),) * 2)
    assert np.isnan(x).all()
