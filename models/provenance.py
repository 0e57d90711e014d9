"""Whether what a model asks its tools to do was told to it by a tool, in words that nobody else used.

Legend: k sessions, n calls, s texts, w words of a text, m passages a session remembers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.wordpiece import TokenBags

WORDS = 12
"""Words kept of a passage: those that say most."""
PASSAGES = 8
"""m, passages a session remembers, the latest."""
SAID_BITS = 2048
"""Bits of a session's set of words that its user and its operator wrote."""
ROLE_STEPS = 64
"""A passage's log-odds are held in steps of 1/64."""
ROLE_MAX = 32_767
_COMMON_IDS = 3000
"""Ids of BERT's vocabulary below this are marks, single letters and the most frequent words: they say nothing."""
_WEIGHT_MAX = 4
_HALF = 2.0
"""Weight of copied words at which half of a passage's log-odds count."""


@dataclass(frozen=True, slots=True)
class Words:
    """Distinct words (s, w) of texts, the heaviest first, 0 where a text has fewer."""

    hash: NDArray[np.uint32]
    weight: NDArray[np.uint8]


@dataclass(slots=True)
class Told:
    """What sessions (k) have heard."""

    hash: NDArray[np.uint32]
    """(k, m, w) words of passages that sound like orders, 0 where there is none."""
    weight: NDArray[np.uint8]
    """(k, m, w)"""
    role: NDArray[np.int16]
    """(k, m) log-odds that a passage is no tool's, in steps of 1/64."""
    count: NDArray[np.int64]
    """(k,) passages ever; number i lies in place i modulo m."""
    said: NDArray[np.uint8]
    """(k, `SAID_BITS` / 8) the set of words that users and operators wrote, one bit a word."""


def words(bags: TokenBags, continues: NDArray[np.bool_], most: int = WORDS) -> Words:
    """The words of s texts, by their tokens; what every text holds is left out.

    A word is a token and its continuations; it weighs 1 and one more for each continuation, up to 4. Words that one
    token of the most frequent ones spells weigh nothing.

    Parameters
    ----------
    continues
        (V,) whether a token continues a word.
    most
        w, words kept of a text.

    >>> bags = TokenBags(np.array([5000, 1010, 5001, 5002, 5000], np.uint16), np.array([0, 5]))
    >>> words(bags, np.arange(6000) == 5002, most=3).weight
    array([[2, 1, 0]], dtype=uint8)
    """
    texts = len(bags.offsets) - 1
    out = Words(np.zeros((texts, most), np.uint32), np.zeros((texts, most), np.uint8))
    ids = bags.ids.astype(np.uint32)
    if len(ids) == 0:
        return out
    text = np.repeat(np.arange(texts), np.diff(bags.offsets))
    begins = ~continues[bags.ids]
    begins |= np.r_[True, text[1:] != text[:-1]]
    start = np.flatnonzero(begins)
    place = np.arange(len(ids)) - start[np.cumsum(begins) - 1]
    # A polynomial modulo 2^32: integers wrap alike everywhere.
    power = np.uint32(0x9E3779B1) ** np.minimum(place, 31).astype(np.uint32)
    value = _mixed(np.add.reduceat((ids + np.uint32(1)) * power, start, dtype=np.uint32))
    pieces = np.diff(np.r_[start, len(ids)])
    weight = np.minimum(pieces, _WEIGHT_MAX)
    weight[(pieces == 1) & (ids[start] < _COMMON_IDS)] = 0
    told = np.flatnonzero(weight > 0)
    if len(told) == 0:
        return out
    owner, value, weight = text[start[told]], value[told], weight[told]
    # Each word of a text once: where it stands first.
    order = np.lexsort((value, owner))
    fresh = np.r_[True, (owner[order][1:] != owner[order][:-1]) | (value[order][1:] != value[order][:-1])]
    once = np.sort(order[fresh])
    owner, value, weight = owner[once], value[once], weight[once]
    order = np.lexsort((np.arange(len(owner)), -weight, owner))
    owner, value, weight = owner[order], value[order], weight[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = rank < most
    out.hash[owner[kept], rank[kept]] = value[kept]
    out.weight[owner[kept], rank[kept]] = weight[kept]
    return out


def _mixed(value: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Bits spread out, never 0, which stands for no word."""
    value = value ^ (value >> np.uint32(16))
    value = value * np.uint32(0x85EBCA6B)
    value = value ^ (value >> np.uint32(13))
    return np.maximum(value, np.uint32(1))


class Provenance:
    """Log-odds of the passage from a tool's result whose words a tool call repeats, by how much of it is repeated.

    0 is a call that repeats nothing, or only what its user or operator wrote as well. A passage counts by how much it
    sounds like an order (`models.role_surprise`): carrying data from one tool to the next is what agents are for.
    State: `Told`, of fixed size a session.

    References
    ----------
    Denning (1976), A lattice model of secure information flow: what comes from an untrusted source taints what is made
    of it. Here flow is inferred from words, since the model between is opaque.
    """

    name = "provenance"
    scale = "population"

    def empty(self, rows: int) -> Told:
        """What `rows` sessions have heard before they begin."""
        return Told(
            np.zeros((rows, PASSAGES, WORDS), np.uint32),
            np.zeros((rows, PASSAGES, WORDS), np.uint8),
            np.zeros((rows, PASSAGES), np.int16),
            np.zeros(rows, np.int64),
            np.zeros((rows, SAID_BITS // 8), np.uint8),
        )

    def score(self, told: Told, rows: NDArray[np.int64], asked: Words) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores (n,) of calls with words `asked` (n, w') in sessions `rows` (n,), and the passage's place, or -1."""
        heard = told.hash[rows]  # (n, m, w)
        copied = np.zeros(heard.shape, np.bool_)
        for column in range(asked.hash.shape[1]):
            copied |= heard == asked.hash[:, column, None, None]
        copied &= heard != 0
        copied &= ~_is_said(told.said, rows, heard)
        weight = (told.weight[rows] * copied).sum(axis=2, dtype=np.int64)  # (n, m)
        share = weight / (weight + _HALF)
        value = np.maximum(told.role[rows], 0) / ROLE_STEPS * share
        best = value.argmax(axis=1)
        score = value[np.arange(len(rows)), best].astype(np.float32)
        return score, np.where(score > 0, best, -1)

    def say(self, told: Told, rows: NDArray[np.int64], hashes: NDArray[np.uint32]) -> None:
        """Take words (n,) that users or operators of sessions `rows` (n,) wrote into their sets."""
        bit = hashes % np.uint32(SAID_BITS)
        np.bitwise_or.at(told.said, (rows, bit >> 3), (np.uint8(1) << (bit & 7).astype(np.uint8)))

    def tell(self, told: Told, rows: NDArray[np.int64], passages: Words, role: NDArray[np.float32]) -> None:
        """Take passages (n,) of tools' results with their log-odds (n,), sessions together, each's in order."""
        if len(rows) == 0:
            return
        starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
        rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
        place = (told.count[rows] + rank) % PASSAGES
        # Of more than m passages the last to come stay: numpy keeps the last of several writes to one place.
        told.hash[rows, place] = passages.hash
        told.weight[rows, place] = passages.weight
        told.role[rows, place] = np.clip(np.rint(role * ROLE_STEPS), -ROLE_MAX, ROLE_MAX).astype(np.int16)
        np.add.at(told.count, rows, 1)


def _is_said(said: NDArray[np.uint8], rows: NDArray[np.int64], heard: NDArray[np.uint32]) -> NDArray[np.bool_]:
    bit = heard % np.uint32(SAID_BITS)
    held: NDArray[np.uint8] = said[rows[:, None, None], bit >> 3] >> (bit & 7).astype(np.uint8)
    known: NDArray[np.bool_] = (held & np.uint8(1)).astype(np.bool_)
    return known
