"""Whether a user's request hands the agent over to what a text says: do what is on my list, pay the bill in the mail.

Where it does, an order in a tool's result is what the user has asked for.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams
from models.windowed import WindowedModel
from models.wordpiece import TokenBags

FROM = -1.5
"""Log-odds above which a request hands over a little: what it is learnt against are near misses, which are rare."""
SLOPE = 2.0
"""What each of the log-odds above counts."""
COVERED_MAX = 2.0
"""What a request may cover at most: some order, and not whichever a stranger places there."""


class Delegation(WindowedModel):
    """Log-odds that a segment of a request hands over, learnt of written requests (`models.training.delegation`)."""

    name = "delegation"

    def covered(self, bags: TokenBags, ngrams: NGrams) -> NDArray[np.float32]:
        """Log-odds (s,), 0 to `COVERED_MAX`, by which a tool's text may sound like an order after such segments."""
        above = (self.score(bags, ngrams) - np.float32(FROM)) * np.float32(SLOPE)
        covered: NDArray[np.float32] = np.clip(above, np.float32(0), np.float32(COVERED_MAX))
        return covered
