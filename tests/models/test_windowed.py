from itertools import pairwise

import numpy as np

from models.windowed import STRIDE, WINDOW, windows
from models.wordpiece import TokenBags


def test_windows_cover_every_token_and_none_holds_those_of_two_segments() -> None:
    rng = np.random.default_rng(8)
    sizes = np.concatenate([np.arange(3 * WINDOW), rng.integers(0, 70, 40)])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    parts, first = windows(TokenBags(np.arange(offsets[-1]).astype(np.uint16), offsets))
    held = [parts.ids[low:high].tolist() for low, high in pairwise(parts.offsets)]
    for row, (low, high) in enumerate(pairwise(offsets.tolist())):
        own = held[first[row] : first[row + 1]]
        assert sorted({token for window in own for token in window}) == list(range(low, high))
        assert all(window == list(range(low, high))[window[0] - low :][:WINDOW] for window in own if window)
        # The last is a full one too, as far as there are tokens.
        assert {len(window) for window in own} == {min(high - low, WINDOW)}
        assert all(later[0] - earlier[0] <= STRIDE for earlier, later in pairwise(own))
