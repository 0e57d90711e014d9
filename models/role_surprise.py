"""How much a text sounds like a user or a system prompt rather than like what a tool returns.

Learnt from benign traffic alone, where roles are known, so that an instruction hidden in a tool's result stands out
without an attack ever having been seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.ngrams import COLUMNS, Features, NGrams
from models.wordpiece import TokenBags

BIGRAM_BITS = 18
WINDOW = 16
"""Tokens in a row whose likelihood ratio counts: what surrounds an instruction would dilute it."""
STEPS = 16
"""Steps of a nat in the likelihood ratio."""

_SCORING = {
    "weights": (np.int8, (COLUMNS,)),
    "scales": (np.float64, (2,)),
    "constant": (np.float64, ()),
    "bigrams": (np.int8, (1 << BIGRAM_BITS,)),
    "ratio_share": (np.float64, ()),
}
_COUNTS = {"counts.user": np.uint32, "counts.tool": np.uint32, "counts.keys": np.uint32, "counts.bigrams": np.uint32}
_SHARE_STEPS = 1024
_FIRST, _SECOND, _LAST = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0x27D4EB2F)
_FOLD = np.uint32(15)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What made the scores of s segments of t tokens in all."""

    tokens: NDArray[np.float32]
    """(t,) share of each token: those of a segment sum to its score less the constant, but for features that repeat."""
    begin: NDArray[np.int64]
    """(s,) first token, counted within its segment, of the `WINDOW` tokens in a row with the largest shares."""
    end: NDArray[np.int64]
    """(s,) the token after the last of them."""


class RoleSurprise:
    """Log-odds that a segment was said by a user or a system prompt rather than by a tool.

    The sum of a logistic regression on n-grams and of a share of a bigram log-likelihood ratio of user to tool, taken
    over the 16 tokens in a row where it is largest. Nothing squashes it. Weights are whole numbers and their sums
    exact; what follows is rounded correctly by IEEE 754, so that a score has the same bits in any batch.

    Parameters
    ----------
    arrays
        ``weights`` int8 (COLUMNS,) in units of ``scales`` float64 (2,), by block; ``constant`` float64 (). The ratio's
        ``unigrams`` int16 (V,), ``contexts`` int16 (V + 1,) and ``bigrams`` int8 (2^18,), in sixteenths of a nat, and
        its ``ratio_share`` float64 (). For a later training only: ``counts.user`` and ``counts.tool`` uint32 (V,),
        ``counts.keys`` uint32 (n,) and ``counts.bigrams`` uint32 (2, n), by user and by tool.

    References
    ----------
    Wang and Manning (2012), Baselines and bigrams; MacKay and Peto (1995), a hierarchical Dirichlet language model.
    """

    name = "role_surprise"
    scale = "raised"

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        check(arrays)
        self._arrays = dict(arrays)
        self._weights = arrays["weights"]
        self._scales = arrays["scales"]
        self._constant = float(arrays["constant"])
        self._unigrams = arrays["unigrams"]
        self._contexts = arrays["contexts"]
        self._bigrams = arrays["bigrams"]
        self._share = float(arrays["ratio_share"]) / STEPS

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> RoleSurprise:
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

    def score(self, bags: TokenBags, features: Features) -> NDArray[np.float32]:
        """Log-odds (s,) of the segments `bags`, whose `features` come from the release's n-grams.

        A segment without tokens has the constant.
        """
        logits = features.linear(self._weights, self._scales) + self._constant
        logits += self._share * best_window(self._ratios(bags), bags.offsets, WINDOW)
        return logits.astype(np.float32)

    def explain(self, bags: TokenBags, ngrams: NGrams) -> Explanation:
        """What in the segments `bags` made their scores: an n-gram's weight is shared out among its tokens."""
        shares = ngrams.shares(bags, self._weights, self._scales)
        shares += self._share * self._ratios(bags)
        # Whole numbers, because sums over a batch must not depend on what it holds.
        begin, end = best_span(np.rint(shares * _SHARE_STEPS).astype(np.int64), bags.offsets, WINDOW)
        return Explanation(shares.astype(np.float32), begin, end)

    def _ratios(self, bags: TokenBags) -> NDArray[np.int64]:
        """Log-likelihood ratio of each token (t,) after the one before it, in steps."""
        before = tokens_before(bags)
        ratios = self._bigrams.take(hashed_bigrams(before, bags.ids)).astype(np.int64)
        ratios += self._unigrams.take(bags.ids)
        ratios += self._contexts.take(before)
        return ratios


def check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays that are not those of a `RoleSurprise`, with a ValueError that names the array."""
    expected = set(_SCORING) | {"unigrams", "contexts"} | set(_COUNTS)
    if arrays.keys() != expected:
        raise ValueError(f"role surprise needs the arrays {sorted(expected)}; got {sorted(arrays)}.")
    size = arrays["unigrams"].size
    shapes = {
        **_SCORING,
        "unigrams": (np.int16, (size,)),
        "contexts": (np.int16, (size + 1,)),
        "counts.user": (np.uint32, (size,)),
        "counts.tool": (np.uint32, (size,)),
        "counts.keys": (np.uint32, (arrays["counts.keys"].size,)),
        "counts.bigrams": (np.uint32, (2, arrays["counts.keys"].size)),
    }
    for name, (dtype, shape) in shapes.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} must be {np.dtype(dtype)} {shape}; got {array.dtype} {array.shape}.")
        if array.dtype == np.float64 and not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite; got {array.tolist()}.")


def tokens_before(bags: TokenBags) -> NDArray[np.int64]:
    """For each token (t,) one more than the id of the token before it, 0 where a segment begins.

    >>> tokens_before(TokenBags(np.array([5, 6, 5], np.uint16), np.array([0, 2, 3]))).tolist()
    [0, 6, 0]
    """
    before = np.zeros(len(bags.ids), np.int64)
    before[1:] = bags.ids[:-1]
    before[1:] += 1
    begins = bags.offsets[:-1]
    before[begins[begins < len(before)]] = 0
    return before


def hashed_bigrams(before: NDArray[np.integer], ids: NDArray[np.integer]) -> NDArray[np.int64]:
    """Hashes (t,), `BIGRAM_BITS` bits, of tokens and what `tokens_before` says stands before them."""
    hashed = ids.astype(np.uint32) * _FIRST + before.astype(np.uint32) * _SECOND
    hashed ^= hashed >> _FOLD
    hashed *= _LAST
    hashed >>= np.uint32(32 - BIGRAM_BITS)
    return hashed.astype(np.int64)


def best_window(values: NDArray[np.int64], offsets: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Largest sum (s,) of `width` `values` in a row within each segment, or of fewer from its beginning on; 0 for none.

    >>> best_window(np.array([1, -5, 2, 2, 7]), np.array([0, 4, 4, 5]), 2).tolist()
    [4, 0, 7]
    """
    filled = offsets[1:] > offsets[:-1]
    best = np.zeros(len(filled), np.int64)
    if len(values):
        best[filled] = np.maximum.reduceat(_window_sums(values, offsets, width), offsets[:-1][filled])
    return best


def best_span(
    values: NDArray[np.int64], offsets: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where in its segment the first window of `best_window` begins and ends (s,), (s,); both 0 for no values.

    >>> best_span(np.array([1, -5, 2, 2, 7]), np.array([0, 4, 4, 5]), 2)
    (array([2, 0, 0]), array([4, 0, 1]))
    """
    sizes = np.diff(offsets)
    at = np.arange(len(values)) - np.repeat(offsets[:-1], sizes)
    best = np.repeat(best_window(values, offsets, width), sizes)
    last = np.where(_window_sums(values, offsets, width) == best, at, len(values))
    end = np.zeros(len(sizes), np.int64)
    if len(values):
        end[sizes > 0] = np.minimum.reduceat(last, offsets[:-1][sizes > 0]) + 1
    return np.maximum(end - width, 0), end


def _window_sums(values: NDArray[np.int64], offsets: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Sum (t,) of the `width` values that end with each, of those in its segment."""
    total = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=total[1:])
    begin = np.repeat(offsets[:-1], np.diff(offsets))
    np.maximum(begin, np.arange(1 - width, len(values) + 1 - width), out=begin)
    return total[1:] - total.take(begin)
