"""Chance that depends on names alone: the same draw on every machine, whatever was drawn before."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from hashlib import blake2b
from typing import TypeVar

Item = TypeVar("Item")


def drawn(*names: object) -> random.Random:
    """A generator of its own for `names`.

    >>> drawn("a", 1).random() == drawn("a", 1).random() != drawn("a", 2).random()
    True
    """
    return random.Random(rank(*names))


def rank(*names: object) -> int:
    """64 bits that `names` are ordered by.

    >>> rank("a", 1) == rank("a", 1) != rank("a1")
    True
    """
    said = "\x1f".join(map(str, names)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(said, digest_size=8).digest(), "big")


def spread(
    items: Iterable[Item], most: int, group: Callable[[Item], Hashable], order: Callable[[Item], int]
) -> list[Item]:
    """At most `most` of `items`, of as many groups as there can be: the first of each by `order`, then the second.

    >>> spread(["a1", "a2", "a3", "b1"], 2, lambda item: item[0], lambda item: int(item[1]))
    ['a1', 'b1']
    """
    members: dict[Hashable, list[Item]] = {}
    for item in items:
        members.setdefault(group(item), []).append(item)
    turns = [(turn, order(item), item) for own in members.values() for turn, item in enumerate(sorted(own, key=order))]
    return [item for _, _, item in sorted(turns, key=lambda each: each[:2])][:most]


def pick(items: Sequence[Item], *names: object) -> Item:
    """One of `items`, which must not be empty."""
    return items[rank(*names) % len(items)]
