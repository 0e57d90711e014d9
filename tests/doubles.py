"""Small stand-ins with the interfaces of the real parts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


class WordEmbedder:
    """Texts to unit vectors by their words: each word adds its own pattern of ±1. Texts with common words are near.

    >>> near, far = WordEmbedder().embed_int8(["book a flight", "book a train", "rm -rf"])[[1, 2]].astype(int) @ \
        WordEmbedder().embed_int8(["book a flight"])[0].astype(int)
    >>> bool(near > far)
    True
    """

    space_id = "words-32"
    dim = 32

    def embed_int8(self, texts: Sequence[str]) -> NDArray[np.int8]:
        """Unit rows times 127, (n, 32), in input order."""
        return np.stack([self._vector(text) for text in texts]) if texts else np.zeros((0, self.dim), np.int8)

    def _vector(self, text: str) -> NDArray[np.int8]:
        total = np.zeros(self.dim, np.int64)
        for word in text.split():
            bits = np.frombuffer(blake2b(word.encode(), digest_size=self.dim // 8).digest(), np.uint8)
            total += 2 * np.unpackbits(bits).astype(np.int64) - 1
        norm = np.sqrt(float((total * total).sum()))
        return np.rint(total * (127.0 / norm if norm else 0.0)).astype(np.int8)
