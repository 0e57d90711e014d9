"""Hashes by which state knows releases, sessions and keys: numbers that arrays can hold."""

from functools import lru_cache
from hashlib import blake2b, sha256

import numpy as np


@lru_cache(maxsize=64)
def stamp_of(release: str) -> np.uint64:
    """A release's name in 64 bits, which no new row has: those say 0."""
    return np.uint64(max(1, int.from_bytes(sha256(release.encode()).digest()[:8], "little")))


def session_id(session: str) -> int:
    """A session's name in 64 bits."""
    return int.from_bytes(blake2b(session.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=65_536)
def key_id(key_hash: str | None) -> int:
    """A key's hash in 32 bits, 0 for none."""
    if key_hash is None:
        return 0
    return max(1, int.from_bytes(blake2b(key_hash.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big"))
