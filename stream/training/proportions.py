"""Shares of counted things: how far off they may be, and what chance makes of them.

References
----------
Wilson (1927). Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on
paired data, method 10.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]


def wilson(hits: int, of: int, chance: float) -> Interval:
    """Wilson's score interval of a share, which misses it with probability `chance`; (0, 1) of nothing.

    >>> [round(end, 4) for end in wilson(15, 148, 0.05)]
    [0.0624, 0.1605]
    """
    if not of:
        return 0.0, 1.0
    z = _z(chance)
    share = hits / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    # At the ends rounding would leave a little below 0 or above 1.
    low = 0.0 if hits == 0 else max(0.0, (middle - half) / scale)
    high = 1.0 if hits == of else min(1.0, (middle + half) / scale)
    return low, high


def paired_interval(before: NDArray[np.bool_], after: NDArray[np.bool_], chance: float) -> Interval:
    """Newcombe's interval (method 10) of by how much the share of `after` (n,) is above that of `before` (n,).

    Airway hyper-responsiveness before and after transplantation (Bentur et al., 2009):

    >>> before = np.array([1] * 2 + [0] * 7 + [0] * 12, bool)
    >>> after = np.array([1, 0] + [1] * 7 + [0] * 12, bool)
    >>> [round(end, 3) for end in paired_interval(before, after, 0.05)]
    [0.026, 0.507]
    """
    n = len(before)
    if not n:
        return -1.0, 1.0
    both, won = int((before & after).sum()), int((~before & after).sum())
    lost, neither = int((before & ~after).sum()), int((~before & ~after).sum())
    p_after, p_before = (both + won) / n, (both + lost) / n
    low_after, high_after = wilson(both + won, n, chance)
    low_before, high_before = wilson(both + lost, n, chance)
    phi = _phi(both, won, lost, neither)
    difference = p_after - p_before
    down, up = p_after - low_after, high_before - p_before
    below = math.sqrt(max(0.0, down * down - 2 * phi * down * up + up * up))
    up, down = high_after - p_after, p_before - low_before
    above = math.sqrt(max(0.0, up * up - 2 * phi * up * down + down * down))
    return max(-1.0, difference - below), min(1.0, difference + above)


def _phi(both: int, won: int, lost: int, neither: int) -> float:
    """How the two go together, with Newcombe's correction for continuity where it is positive."""
    margins = (both + won) * (lost + neither) * (both + lost) * (won + neither)
    if not margins:
        return 0.0
    product = float(both * neither - won * lost)
    if product > 0:
        product = max(product - (both + won + lost + neither) / 2, 0.0)
    return product / math.sqrt(margins)


def at_least(hits: int, of: int, share: float) -> float:
    """Probability of `hits` or more among `of`, each with probability `share`.

    >>> round(at_least(2, 20, 0.02), 4)
    0.0599
    """
    # A slow import, and one that only the gate needs.
    from scipy import stats

    return float(stats.binom.sf(hits - 1, of, min(share, 1.0)))


def most_by_chance(of: int, share: float, chance: float) -> int:
    """The most of `of` that are no more than `share` beyond chance: so many or more have a probability above `chance`.

    >>> most_by_chance(400, 0.01, 0.05), round(at_least(8, 400, 0.01), 3), round(at_least(9, 400, 0.01), 3)
    (8, 0.05, 0.021)
    """
    if not of:
        return 0
    from scipy import stats

    return max(0, int(stats.binom.isf(chance, of, min(share, 1.0))))


def _z(chance: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - chance / 2)
