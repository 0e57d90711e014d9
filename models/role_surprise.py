"""How much a text sounds like a user or a system prompt rather than like what a tool returns.

Learnt from benign traffic alone, where roles are known, so that an instruction hidden in a tool's result stands out
without an attack ever having been seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams
from models.windowed import WindowedModel, begins, windows
from models.wordpiece import TokenBags


@dataclass(frozen=True, slots=True)
class Explanation:
    """What made the scores of s segments of t tokens in all."""

    tokens: NDArray[np.float32]
    """(t,) share of each token of the window that a segment is judged by, 0 outside of it: those of a segment sum to
    its score less the constant, but for features that repeat."""
    begin: NDArray[np.int64]
    """(s,) first token of that window, counted within its segment."""
    end: NDArray[np.int64]
    """(s,) the token after its last."""


class RoleSurprise(WindowedModel):
    """Log-odds that a user or a system prompt, rather than a tool, said what a segment says somewhere."""

    name = "role_surprise"
    scale = "raised"

    def explain(self, bags: TokenBags, ngrams: NGrams) -> Explanation:
        """What in the segments `bags` made their scores: an n-gram's weight is shared out among its tokens."""
        parts, first = windows(bags)
        sizes, many = np.diff(bags.offsets), np.diff(first)
        if len(sizes) == 0:
            return Explanation(np.zeros(0, np.float32), sizes, sizes)
        judged = self._judged(parts, ngrams)
        highest = judged == np.repeat(np.maximum.reduceat(judged, first[:-1]), many)
        # Of equal ones the first.
        chosen = np.minimum.reduceat(np.where(highest, np.arange(len(judged)), len(judged)), first[:-1])
        begin = begins(sizes, many, chosen - first[:-1])
        best = parts.take(chosen)
        end = begin + np.diff(best.offsets)
        tokens = np.zeros(len(bags.ids))
        at = np.arange(len(best.ids)) + np.repeat(bags.offsets[:-1] + begin - best.offsets[:-1], end - begin)
        tokens[at] = ngrams.shares(best, self._weights, self._scales)
        return Explanation(tokens.astype(np.float32), begin, end)
