"""How much is said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.features import ARRIVING, Features


class Length:
    """New characters that users and tools bring with an event. Learns nothing."""

    def fit(self, learn: Features, seed: int) -> None:
        """Nothing."""

    def score(self, events: Features) -> NDArray[np.float64]:
        """Characters (n,)."""
        arriving: NDArray[np.float64] = events.chars[:, ARRIVING].sum(axis=1).astype(np.float64)
        return arriving
