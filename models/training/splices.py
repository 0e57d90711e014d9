"""Segments made of two: a few words of one placed into another, as an injected instruction is.

Legend: s segments, t their tokens, n splices.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.wordpiece import TokenBags


@dataclass(frozen=True, slots=True)
class Splicing:
    """How long."""

    shortest: int = 8
    """Tokens that are placed into another segment, at least."""
    longest: int = 44
    total_max: int = 60
    """Tokens kept around them: the segments that are scored are hardly longer."""


def splice(
    bags: TokenBags,
    hosts: NDArray[np.integer],
    donors: NDArray[np.integer],
    rng: np.random.Generator,
    how: Splicing = Splicing(),
) -> tuple[TokenBags, NDArray[np.bool_]]:
    """`n` segments: some tokens in a row of segment `donors[i]` placed somewhere into segment `hosts[i]`.

    A donor shorter than what is drawn is taken whole. Beside them, (t,) which of their tokens are placed.

    >>> bags = TokenBags(np.array([1, 2, 7, 8, 9], np.uint16), np.array([0, 2, 5]))
    >>> spliced, placed = splice(bags, np.array([0, 0]), np.array([1, 1]), np.random.default_rng(1), Splicing(2, 3, 5))
    >>> [spliced.ids[low:high].tolist() for low, high in zip(spliced.offsets, spliced.offsets[1:])]
    [[1, 2, 8, 9], [7, 8, 9, 1, 2]]
    >>> placed.astype(int).tolist()
    [0, 0, 1, 1, 1, 1, 1, 0, 0]
    """
    sizes = np.diff(bags.offsets)
    host, donor = sizes[hosts], sizes[donors]
    length = np.minimum(rng.integers(how.shortest, how.longest + 1, len(hosts)), donor)
    begin = rng.integers(0, donor - length + 1)
    place = rng.integers(0, host + 1)
    total = host + length
    kept = np.minimum(total, how.total_max)
    # What is cut away lies around the placed words, as far as there is anything around them.
    low = np.clip(place - rng.integers(0, np.maximum(how.total_max - length, 0) + 1), 0, total - kept)
    offsets = np.zeros(len(hosts) + 1, np.int64)
    np.cumsum(kept, out=offsets[1:])
    at = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - low, kept)
    into = at - np.repeat(place, kept)
    many = np.repeat(length, kept)
    inside = (into >= 0) & (into < many)
    from_host = np.repeat(bags.offsets[hosts], kept) + at - np.where(into >= many, many, 0)
    from_donor = np.repeat(bags.offsets[donors] + begin, kept) + into
    return TokenBags(bags.ids[np.where(inside, from_donor, from_host)], offsets), inside


def splice_tools(
    bags: TokenBags,
    tool: NDArray[np.bool_],
    placed: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    share: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
    how: Splicing = Splicing(),
) -> tuple[TokenBags, NDArray[np.bool_], NDArray[np.int64]]:
    """`count` splices, each of words placed into a segment that a tool said.

    Parameters
    ----------
    tool
        (s,) what is placed into.
    placed
        (s,) and (s,) what the first half takes its words from, and the second; without a long enough segment of either,
        or one of `tool`, there are no splices.
    share
        (s,) how often a segment is drawn, beside others of its side.

    Returns
    -------
    splices, placed, made_of
        `n` segments; (t,) which of their tokens were placed; (n, 2) the segment that each was placed into, and the one
        that it was taken from.
    """
    long = np.diff(bags.offsets) >= how.shortest
    half = count // 2
    drawn = []
    for pool, size in ((tool, 2 * half), (placed[0] & long, half), (placed[1] & long, half)):
        rows = np.flatnonzero(pool)
        if len(rows) == 0:
            return take(bags, rows), np.zeros(0, np.bool_), np.zeros((0, 2), np.int64)
        drawn.append(rng.choice(rows, size, p=share[rows] / share[rows].sum()))
    hosts, donors = drawn[0], np.concatenate(drawn[1:])
    return *splice(bags, hosts, donors, rng, how), np.stack([hosts, donors], axis=1)


def take(bags: TokenBags, rows: NDArray[np.integer]) -> TokenBags:
    """The segments `rows` of `bags`, in that order.

    >>> take(TokenBags(np.array([1, 2, 7], np.uint16), np.array([0, 2, 3])), np.array([1, 0, 1])).ids
    array([7, 1, 2, 7], dtype=uint16)
    """
    sizes = np.diff(bags.offsets)[rows]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    at = np.arange(offsets[-1]) + np.repeat(bags.offsets[rows] - offsets[:-1], sizes)
    return TokenBags(bags.ids[at], offsets)


def join(one: TokenBags, other: TokenBags) -> TokenBags:
    """The segments of both."""
    offsets = np.concatenate([one.offsets, other.offsets[1:] + one.offsets[-1]])
    return TokenBags(np.concatenate([one.ids, other.ids]), offsets)
