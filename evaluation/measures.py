"""Measures of a ranking, under many weightings of the same sessions at once.

A bootstrap's replicate is a weighting: how often each session was drawn. So every measure takes weights (n, r) and
gives r values. Legend: a attack sessions, b benign ones, r weightings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
_ROUNDING = 1e-9
"""Of the product of a share and a sum of whole weights."""
EMPTY = np.nan
"""What a measure of nothing is."""


class Reference:
    """Benign sessions that others are ranked against.

    Parameters
    ----------
    scores
        (b,) higher is stranger.
    weights
        (b, r), not negative.
    """

    def __init__(self, scores: NDArray[np.float64], weights: FloatArray) -> None:
        order = np.argsort(scores, kind="stable")
        self._scores = scores[order]
        # (b + 1, r): row i is the weight of the i lowest.
        self._below = np.zeros((len(scores) + 1, weights.shape[1]), weights.dtype)
        np.cumsum(weights[order], axis=0, out=self._below[1:])

    @property
    def total(self) -> FloatArray:
        """Weight (r,) of all."""
        whole: FloatArray = self._below[-1]
        return whole

    def below(self, scores: NDArray[np.float64]) -> FloatArray:
        """Weight (a, r) of benign sessions that score below each of `scores` (a,)."""
        return self._below[np.searchsorted(self._scores, scores, "left")]

    def below_or_at(self, scores: NDArray[np.float64]) -> FloatArray:
        """Weight (a, r) of benign sessions that score no more than each of `scores` (a,)."""
        return self._below[np.searchsorted(self._scores, scores, "right")]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Attack sessions beside a reference; in the order of their scores."""

    weights: FloatArray
    """(a, r)"""
    below: FloatArray
    """(a, r) weight of the reference below each."""
    below_or_at: FloatArray
    """(a, r)"""
    first: NDArray[np.int64]
    """(a,) row of the first attack with the same score."""
    total: FloatArray
    """(r,) weight of the reference."""

    @classmethod
    def of(cls, scores: NDArray[np.float64], weights: FloatArray, reference: Reference) -> Ranked:
        """Rank attack sessions of `scores` (a,) and `weights` (a, r)."""
        order = np.argsort(scores, kind="stable")
        scores, weights = scores[order], weights[order]
        first = np.searchsorted(scores, scores, "left").astype(np.int64)
        return cls(weights, reference.below(scores), reference.below_or_at(scores), first, reference.total)

    def auroc(self) -> NDArray[np.float64]:
        """Chance (r,) that an attack scores above a benign session; a tie is half.

        >>> reference = Reference(np.array([0.0, 1.0, 2.0]), np.ones((3, 1)))
        >>> Ranked.of(np.array([1.0, 3.0]), np.ones((2, 1)), reference).auroc()
        array([0.75])
        """
        halves = _summed(self.weights * (self.below + self.below_or_at))
        return _share(halves / 2, _summed(self.weights) * self.total)

    def average_precision(self) -> NDArray[np.float64]:
        """Precision (r,) at each attack's score, averaged over attacks: steps, no interpolation.

        >>> reference = Reference(np.array([0.0, 2.0]), np.ones((2, 1)))
        >>> Ranked.of(np.array([1.0, 3.0]), np.ones((2, 1)), reference).average_precision().round(3)
        array([0.833])
        """
        if not len(self.weights):
            return np.full(len(self.total), EMPTY)
        upwards = np.zeros((len(self.weights) + 1, len(self.total)), self.weights.dtype)
        np.cumsum(self.weights, axis=0, out=upwards[1:])
        hits = upwards[-1] - upwards[self.first]
        found = hits + (self.total - self.below)
        precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
        known = np.where(self.total > 0, _summed(self.weights), 0.0)
        return _share(_summed(self.weights * precision), known)

    def recall_at(self, false_positives: float) -> NDArray[np.float64]:
        """Share (r,) of attacks found where at most that share of benign sessions is.

        An attack counts when so few benign sessions score as high as it does, or higher: a tie is a false positive,
        nothing is interpolated, and of fewer than 1 / `false_positives` benign sessions none may be found.

        >>> reference = Reference(np.arange(100.0), np.ones((100, 1)))
        >>> Ranked.of(np.array([98.0, 98.5, 99.0, 99.5]), np.ones((4, 1)), reference).recall_at(0.01)
        array([0.75])
        """
        # In whole weights, exact in float32 up to 2^24 sessions.
        found = (self.total - self.below) <= false_positives * self.total.astype(np.float64) + _ROUNDING
        known = np.where(self.total > 0, _summed(self.weights), 0.0)
        return _share(_summed(self.weights * found), known)


def share_of(chosen: NDArray[np.bool_], weights: FloatArray) -> NDArray[np.float64]:
    """Weighted share (r,) of sessions (n,) that are `chosen`.

    >>> share_of(np.array([True, False]), np.array([[1.0, 3.0], [1.0, 1.0]]))
    array([0.5 , 0.75])
    """
    return _share(_summed(weights[chosen]), _summed(weights))


def mean_of(values: NDArray[np.float64], weights: FloatArray) -> NDArray[np.float64]:
    """Weighted mean (r,) of `values` (n,)."""
    return _share(_summed(weights * values[:, None]), _summed(weights))


def precision_of(attacks: FloatArray, benign: FloatArray) -> NDArray[np.float64]:
    """Share (r,) of attacks in what was found: weights (n, r) of attacks and of benign sessions that were."""
    hits = _summed(attacks)
    return _share(hits, hits + _summed(benign))


@dataclass(frozen=True, slots=True)
class Curve:
    """A ranking at all thresholds; (k,) points of each of both curves."""

    precision: NDArray[np.float64]
    """At each of `recalls`: of the highest threshold that finds as much."""
    recall: NDArray[np.float64]
    """At each of `false_positives`, as `Ranked.recall_at`."""


def curve(
    attacks: NDArray[np.float64],
    benign: NDArray[np.float64],
    recalls: NDArray[np.float64],
    false_positives: NDArray[np.float64],
) -> Curve:
    """Precision at `recalls` (k,) and recall at `false_positives` (j,), of scores (a,) and (b,); neither is empty.

    >>> points = curve(np.array([1.0, 3.0]), np.array([0.0, 2.0]), np.array([0.5, 1.0]), np.array([0.0, 0.5]))
    >>> points.precision.round(3), points.recall
    (array([1.   , 0.667]), array([0.5, 1. ]))
    """
    downwards, benign = np.sort(attacks)[::-1], np.sort(benign)
    wanted = np.maximum(np.ceil(recalls * len(attacks) - _ROUNDING).astype(np.int64), 1)
    thresholds = downwards[wanted - 1]
    hits = len(attacks) - np.searchsorted(downwards[::-1], thresholds, "left")
    wrong = len(benign) - np.searchsorted(benign, thresholds, "left")
    as_high = np.sort(len(benign) - np.searchsorted(benign, downwards, "left"))
    found = np.searchsorted(as_high, false_positives * len(benign) + _ROUNDING, "right")
    return Curve(hits / (hits + wrong), found / len(attacks))


def _summed(weights: FloatArray) -> NDArray[np.float64]:
    return np.asarray(weights.sum(axis=0, dtype=np.float64))


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(len(whole), EMPTY)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
