"""Linear models of a text's n-grams, read a window at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.ngrams import COLUMNS, NGrams
from models.wordpiece import TokenBags

WINDOW = 16
"""Tokens in a row that are judged together: what surrounds an instruction would dilute it."""
STRIDE = 8
"""From one window to the next."""

_ARRAYS = {"weights": (np.int8, (COLUMNS,)), "scales": (np.float64, (2,)), "constant": (np.float64, ())}


class WindowedModel:
    """Log-odds of what a text says somewhere: a logistic regression on the n-grams of its windows.

    Every `WINDOW` tokens in a row, `STRIDE` apart; a segment has the largest. Nothing squashes it. Weights are whole
    numbers and their sums exact; what follows is rounded correctly by IEEE 754, so that a score has the same bits in
    any batch.

    Parameters
    ----------
    arrays
        ``weights`` int8 (COLUMNS,) in units of ``scales`` float64 (2,), by block, and ``constant`` float64 ().

    References
    ----------
    Wang and Manning (2012), Baselines and bigrams.
    """

    name: str

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        check(arrays, self.name)
        self._arrays = dict(arrays)
        self._weights = arrays["weights"]
        self._scales = arrays["scales"]
        self._constant = float(arrays["constant"])

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The model of a release.

        Raises
        ------
        ValueError
            Where an array is missing, unknown, or not of the type and shape it must have.
        """
        return cls(arrays)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What a release holds of the model."""
        return dict(self._arrays)

    def score(self, bags: TokenBags, ngrams: NGrams) -> NDArray[np.float32]:
        """Log-odds (s,) of the segments `bags`, with the release's n-grams.

        A segment without tokens has the constant.
        """
        parts, first = windows(bags)
        if len(first) == 1:
            return np.zeros(0, np.float32)
        return np.maximum.reduceat(self._judged(parts, ngrams), first[:-1])

    def _judged(self, parts: TokenBags, ngrams: NGrams) -> NDArray[np.float32]:
        logits = ngrams.features(parts).linear(self._weights, self._scales) + self._constant
        return logits.astype(np.float32)


def check(arrays: Mapping[str, NDArray[Any]], name: str) -> None:
    """Refuse arrays that are not those of the windowed model `name`, with a ValueError that names the array."""
    if arrays.keys() != _ARRAYS.keys():
        raise ValueError(f"{name.replace('_', ' ')} needs the arrays {sorted(_ARRAYS)}; got {sorted(arrays)}.")
    for which, (dtype, shape) in _ARRAYS.items():
        array = arrays[which]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{which} must be {np.dtype(dtype)} {shape}; got {array.dtype} {array.shape}.")
        if array.dtype == np.float64 and not np.isfinite(array).all():
            raise ValueError(f"{which} must be finite; got {array.tolist()}.")


def windows(bags: TokenBags) -> tuple[TokenBags, NDArray[np.int64]]:
    """Every `WINDOW` tokens in a row of each segment, `STRIDE` apart and the last ones; short segments whole.

    Returns
    -------
    windows, first
        (w) windows, those of a segment together and in order; (s + 1,) where each segment's begin.

    >>> parts, first = windows(TokenBags(np.arange(23, dtype=np.uint16), np.array([0, 20, 20, 23])))
    >>> [parts.ids[low:high][[0, -1]].tolist() for low, high in zip(parts.offsets, parts.offsets[1:]) if low < high]
    [[0, 15], [4, 19], [20, 22]]
    >>> first.tolist()
    [0, 2, 3, 4]
    """
    sizes = np.diff(bags.offsets)
    many = 1 + np.maximum(sizes - WINDOW + STRIDE - 1, 0) // STRIDE
    first = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(many, out=first[1:])
    segment = np.repeat(np.arange(len(sizes)), many)
    begin = begins(sizes[segment], many[segment], np.arange(len(segment)) - first[segment])
    length = np.minimum(sizes, WINDOW)[segment]
    offsets = np.zeros(len(segment) + 1, np.int64)
    np.cumsum(length, out=offsets[1:])
    at = np.arange(offsets[-1]) + np.repeat(bags.offsets[:-1][segment] + begin - offsets[:-1], length)
    return TokenBags(bags.ids[at], offsets), first


def begins(sizes: NDArray[np.int64], many: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the `number`-th of `many` windows begins in segments of so many tokens."""
    return np.where(number == many - 1, np.maximum(sizes - WINDOW, 0), STRIDE * number)
