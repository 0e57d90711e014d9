"""Segments to hashed n-grams of their tokens: which words stand together, and which function words frame them.

Two blocks of features, each distinct within its segment. Block W holds WordPiece 1- and 2-grams. Block M holds masked
1- to 3-grams: tokens that few tenants use become one of four shapes, so that what is left is how a text is built rather
than what it is about. They are computed once a segment and serve every text model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.wordpiece import TokenBags

VERSION = 1
"""Part of what a model of n-grams depends on: raise it when a text would get other features."""

BITS = 17
BLOCK = 1 << BITS
"""Features of one block; columns from here on are those of block M."""
COLUMNS = 2 * BLOCK
TENANTS_MIN = 8
"""Tenants that must use a token for it to keep its identity in block M."""
SHAPES = ("word", "continuation", "number", "mark")

_AT_ONCE = 512
"""Segments hashed together: their keys stay in the cache while they are sorted, and a key keeps within 32 bits."""
# Odd multipliers with well mixed bits (from splitmix64 and xxHash); the place in an n-gram chooses.
_FIRST, _SECOND, _THIRD, _LAST = (np.uint32(odd) for odd in (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F))
_SHIFT = np.uint32(32 - BITS)
_FOLD = np.uint32(15)


@dataclass(frozen=True, slots=True)
class Features:
    """The features of s segments, those of a segment in ascending order.

    Parameters
    ----------
    columns
        (f,) int32, 0 to `COLUMNS`.
    offsets
        (2s + 1,) int64: block W of segment i has `columns[offsets[2i]:offsets[2i + 1]]`, block M those from there to
        `offsets[2i + 2]`.
    """

    columns: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) // 2

    def counts(self) -> NDArray[np.int64]:
        """Features (s, 2) of each segment and block."""
        return np.diff(self.offsets).reshape(-1, 2)

    def sums(self, weights: NDArray[np.integer]) -> NDArray[np.int64]:
        """Exact sums (s, 2) of the `weights` (COLUMNS,) of each segment's features, by block.

        >>> grams = NGrams(np.arange(3, dtype=np.uint16))
        >>> features = grams.features(TokenBags(np.array([0, 1], np.uint16), np.array([0, 2])))
        >>> features.sums(np.ones(COLUMNS, np.int8))
        array([[3, 3]])
        """
        total = np.zeros(len(self.columns) + 1, np.int64)
        np.cumsum(weights.take(self.columns), dtype=np.int64, out=total[1:])
        return np.diff(total.take(self.offsets)).reshape(-1, 2)

    def linear(self, weights: NDArray[np.integer], units: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum (s,) over both blocks of `sums(weights)` times the block's unit (2,) over the root of its features.

        The sums are exact, and IEEE 754 rounds the rest correctly: one segment has the same bits in any batch.
        """
        parts: NDArray[np.float64] = self.sums(weights) * units / np.sqrt(np.maximum(self.counts(), 1))
        total: NDArray[np.float64] = parts[:, 0] + parts[:, 1]
        return total


class NGrams:
    """Bags of tokens in, features out.

    Parameters
    ----------
    masks
        (V,) uint16: what each token is in block M, itself or V plus its shape's place in `SHAPES`.

    References
    ----------
    Weinberger et al. (2009), feature hashing; Stamatatos (2018), masking topic-related information.
    """

    def __init__(self, masks: NDArray[np.uint16]) -> None:
        if masks.dtype != np.uint16 or masks.ndim != 1 or len(masks) + len(SHAPES) > 1 << 16:
            raise ValueError(f"masks must be uint16 (V,) with V at most 65532; got {masks.dtype} {masks.shape}.")
        if masks.max(initial=0) >= len(masks) + len(SHAPES):
            raise ValueError(f"masks must be below V + {len(SHAPES)} = {len(masks) + len(SHAPES)}; got {masks.max()}.")
        self.masks = masks

    @classmethod
    def fit(
        cls,
        bags: TokenBags,
        tenant: NDArray[np.integer],
        shapes: NDArray[np.uint8],
        *,
        tenants_min: int = TENANTS_MIN,
    ) -> NGrams:
        """N-grams that mask the tokens which fewer than `tenants_min` of the tenants use.

        With few tenants half of them are enough.

        Parameters
        ----------
        bags, tenant
            Segments (s), and whose they are.
        shapes
            (V,), from `token_shapes`.
        """
        size = len(shapes)
        number = np.unique(tenant, return_inverse=True)[1]
        tenants = int(number.max(initial=-1)) + 1
        owner = np.repeat(number, np.diff(bags.offsets)).astype(np.int64)
        used = np.bincount(np.unique(owner * size + bags.ids) % size, minlength=size)
        common = used >= max(1, min(tenants_min, (tenants + 1) // 2))
        return cls(np.where(common, np.arange(size), shapes + np.int64(size)).astype(np.uint16))

    def features(self, bags: TokenBags) -> Features:
        """Features of the segments `bags`."""
        parts = list(self._parts(bags))
        if not parts:
            return Features(np.zeros(0, np.int32), np.zeros(1, np.int64))
        offsets = np.zeros(1 + sum(len(sizes) for _, sizes in parts), np.int64)
        np.cumsum(np.concatenate([sizes for _, sizes in parts]), out=offsets[1:])
        return Features(np.concatenate([columns for columns, _ in parts]), offsets)

    def shares(self, bags: TokenBags, weights: NDArray[np.integer], scales: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each token (t,) adds to a linear model of these features, an n-gram's part shared out among its tokens.

        Every occurrence of an n-gram counts here, where the model counts one.

        Parameters
        ----------
        weights, scales
            (COLUMNS,), and (2,) by block, over the root of the segment's features of the block.
        """
        sizes = np.diff(bags.offsets)
        segment = np.repeat(np.arange(len(sizes)), sizes)
        norms = np.sqrt(np.maximum(self.features(bags).counts(), 1))
        total = np.zeros(len(segment))
        for block, (ids, longest) in enumerate(((bags.ids, 2), (self.masks.take(bags.ids), 3))):
            parts = np.zeros(len(segment))
            for before, hashed in enumerate(_hashes(ids.astype(np.uint32), longest)):
                inside = segment[before:] == segment[: len(segment) - before]
                part = weights.take(hashed.astype(np.int64) + block * BLOCK) * inside / (before + 1)
                for back in range(before + 1):
                    parts[before - back : len(parts) - back] += part
            total += parts * scales[block] / norms[segment, block]
        return total

    def _parts(self, bags: TokenBags) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Columns, and their numbers by segment and block, of so many segments at a time."""
        segments = len(bags.offsets) - 1
        for first in range(0, segments, _AT_ONCE):
            offsets = bags.offsets[first : min(first + _AT_ONCE, segments) + 1]
            ids = bags.ids[offsets[0] : offsets[-1]]
            number = np.arange(len(offsets) - 1, dtype=np.uint32)
            place = np.repeat(number << np.uint32(BITS + 1), np.diff(offsets))
            words = _keys(ids.astype(np.uint32), place, 2)
            masked = _keys(self.masks.take(ids).astype(np.uint32), place + np.uint32(BLOCK), 3)
            keys = np.concatenate([*words, *masked])
            keys.sort()
            new = np.empty(len(keys), np.bool_)
            new[:1] = True
            np.not_equal(keys[1:], keys[:-1], out=new[1:])
            keys = keys[new]
            sizes = np.bincount(keys >> np.uint32(BITS), minlength=2 * (len(offsets) - 1))
            yield (keys & np.uint32(COLUMNS - 1)).astype(np.int32), sizes


def _keys(ids: NDArray[np.uint32], place: NDArray[np.uint32], longest: int) -> Iterator[NDArray[np.uint32]]:
    """Keys of all 1- to `longest`-grams of the tokens `ids` (t,), with the `place` (t,) of their segment and block."""
    for before, hashed in enumerate(_hashes(ids, longest)):
        keys = hashed | place[before:]
        yield keys[place[before:] == place[: len(place) - before]] if before else keys


def _hashes(ids: NDArray[np.uint32], longest: int) -> list[NDArray[np.uint32]]:
    """Hashes, `BITS` bits, of the 1- to `longest`-grams that end at each token, across segments too.

    Those of n tokens begin with the n-th, as no longer ones end before it.
    """
    # The constants keep token 0 from vanishing.
    parts = (ids * _FIRST, ids * _SECOND + _THIRD, ids * _THIRD + _SECOND)
    found = []
    mixed = parts[0]
    for before in range(longest):
        if before:
            mixed = mixed[1:] ^ parts[before][: max(len(ids) - before, 0)]
        hashed = mixed ^ mixed >> _FOLD
        hashed *= _LAST
        hashed >>= _SHIFT
        found.append(hashed)
    return found


def token_shapes(tokens: Sequence[str]) -> NDArray[np.uint8]:
    """The place in `SHAPES` of each of the tokens (V,).

    >>> [SHAPES[shape] for shape in token_shapes(["book", "##s", "2026", "!"])]
    ['word', 'continuation', 'number', 'mark']
    """
    return np.array([_shape(token) for token in tokens], np.uint8)


def _shape(token: str) -> int:
    bare = token.removeprefix("##")
    if bare.isdigit():
        return 2
    if not bare.isalnum():
        return 3
    return int(bare != token)
