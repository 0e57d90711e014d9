"""When a tenant learns: by the ordinal of its events, so that no batch boundary shows in a result."""

import numpy as np
from numpy.typing import NDArray

_ORDINAL_MAX = 1 << 50


def _points() -> NDArray[np.int64]:
    points = [1, 2, 4, 8, 16, 32]
    while points[-1] < _ORDINAL_MAX:
        points.append(points[-1] + max(32, points[-1] // 64))
    return np.array(points, np.int64)


LEARN_POINTS = _points()
"""1, 2, 4, 8, 16, 32, then L to L + max(32, L // 64): often while young, then at a cost that stays in proportion."""


def waves(ordinal: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """Learn points (n,) between a tenant's event of `ordinal` and the last one of an earlier batch, `before`.

    Events of one wave are scored with what had been learned before it.

    >>> waves(np.array([1, 2, 3, 4, 5]), np.zeros(5, np.int64))
    array([0, 1, 2, 2, 3])
    """
    return np.searchsorted(LEARN_POINTS, ordinal - 1, "right") - np.searchsorted(LEARN_POINTS, before, "right")


def is_learn_point(ordinal: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a tenant learns right after its event of this ordinal (n,)."""
    next_point = LEARN_POINTS[np.searchsorted(LEARN_POINTS, ordinal)]
    return np.equal(next_point, ordinal)
