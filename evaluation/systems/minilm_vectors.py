"""Messages as MiniLM reads them: a transformer, which costs a hundred times what the static embedder does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.features import Features

_CHARACTERS = 2048
"""More than the 256 tokens that it reads of a text."""
REMEMBERED = 300
"""Messages of a tenant that are remembered: what is learned is read too."""


class MiniLMVectors:
    """Reads each distinct text once, its first 256 tokens.

    Parameters
    ----------
    embed
        Texts (m) to unit rows (m, d): `models.minilm.MiniLM.embed`.
    """

    def __init__(self, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> None:
        self._embed = embed
        self._read: dict[str, NDArray[np.float32]] = {}

    def forget(self) -> None:
        """Know no text any more."""
        self._read = {}

    def __call__(self, features: Features, texts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Unit rows (r, d) of the distinct texts `texts` (r,)."""
        asked = [features.texts[text][:_CHARACTERS] for text in texts.tolist()]
        fresh = [text for text in dict.fromkeys(asked) if text not in self._read]
        self._read |= dict(zip(fresh, self._embed(fresh), strict=True)) if fresh else {}
        return np.stack([self._read[text] for text in asked])
