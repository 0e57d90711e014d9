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
MANY_COST = 1.0
"""What each e-fold of a message's segments takes from the highest log-odds: of many some hand over by chance."""
MANY_MAX = 64
# To 1e-6, as libraries differ in the last bits of a logarithm.
_COSTS = (np.rint(MANY_COST * np.log(np.arange(1, MANY_MAX + 1)) * 2.0**20) / 2.0**20).astype(np.float32)


class Delegation(WindowedModel):
    """Log-odds that a segment of a request hands over, learnt of written requests (`models.training.delegation`)."""

    name = "delegation"

    def covered(self, bags: TokenBags, message: NDArray[np.integer], ngrams: NGrams) -> NDArray[np.float32]:
        """Log-odds (m,), 0 to `COVERED_MAX`, by which a tool's text may sound like an order after such messages.

        Parameters
        ----------
        bags, message
            Segments (s), and the messages that they are of: every number of 0 to m - 1, in order.
        """
        many = np.bincount(message)
        highest = np.maximum.reduceat(self.score(bags, ngrams), np.cumsum(many) - many) if len(many) else many
        above = (highest - _COSTS[np.minimum(many, MANY_MAX) - 1] - np.float32(FROM)) * np.float32(SLOPE)
        covered: NDArray[np.float32] = np.clip(above, np.float32(0), np.float32(COVERED_MAX)).astype(np.float32)
        return covered
