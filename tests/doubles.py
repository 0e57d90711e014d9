"""Small stand-ins with the interfaces of the real parts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from models.wordpiece import TokenBags

WORDS = 32


class WordEmbedder:
    """Texts to unit vectors by their words: each word adds its own pattern of ±1. Texts with common words are near.

    >>> book, near, far = WordEmbedder().embed_int8(["book a flight", "book a train", "rm -rf"]).astype(int)
    >>> near, far = near @ book, far @ book
    >>> bool(near > far)
    True
    """

    space_id = "words-32"
    dim = 32
    continues = np.zeros(1 << 15, np.bool_)
    vocabulary = tuple(f"t{i}" for i in range(1 << 15))

    def encode(self, texts: Sequence[str]) -> TokenBags:
        """A token a word, by its hash."""
        ids = [[_token(word) for word in text.split()] for text in texts]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(bag) for bag in ids], dtype=np.int64)])
        return TokenBags(np.array([token for bag in ids for token in bag], np.uint16), offsets)

    def embed_int8(self, texts: Sequence[str], bags: TokenBags | None = None) -> NDArray[np.int8]:
        """Unit rows times 127, (n, 32), in input order."""
        return np.stack([self._vector(text) for text in texts]) if texts else np.zeros((0, self.dim), np.int8)

    def _vector(self, text: str) -> NDArray[np.int8]:
        total = np.zeros(self.dim, np.int64)
        for word in text.split():
            bits = np.frombuffer(blake2b(word.encode(), digest_size=self.dim // 8).digest(), np.uint8)
            total += 2 * np.unpackbits(bits).astype(np.int64) - 1
        norm = np.sqrt(float((total * total).sum()))
        return np.rint(total * (127.0 / norm if norm else 0.0)).astype(np.int8)


def _token(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=2).digest(), "big") >> 1


class Counts:
    """A transformer's stand-in: a text's direction is how often it has words of each of `WORDS` kinds."""

    space_id = "counts"

    def __init__(self) -> None:
        self.read = 0

    def embed(self, texts: TokenBags) -> NDArray[np.float32]:
        """Unit rows (n, `WORDS`)."""
        n = len(texts.offsets) - 1
        self.read += n
        rows = np.zeros((n, WORDS), np.float32)
        np.add.at(rows, (np.repeat(np.arange(n), np.diff(texts.offsets)), texts.ids % WORDS), 1)
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit
