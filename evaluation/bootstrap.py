"""How far a figure would move if other conversations had been drawn: a bootstrap that draws clusters, and seeds.

Sessions of one task are one conversation told again, and the same task is met in several seeds: so a replicate draws
tasks, once for all seeds, and every row of a task with it. Drawn anew within each seed, the same tasks would count as
others in every seed, and five seeds would look like five corpora. Seeds are drawn as well, for all else that a split
decides.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
REPLICATES = 500
CLUSTERS_MIN = 2
"""With fewer nothing is known of how far a figure moves."""
_VALID_MIN = 0.5
"""Share of replicates in which a figure must exist, to have an interval: of a rare family some have none."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Draws:
    """How often replicates drew each cluster and each seed; column 0 is the data as they are."""

    clusters: NDArray[np.float32]
    """(c, 1 + r)"""
    seeds: NDArray[np.float32]
    """(s, 1 + r)"""

    @classmethod
    def make(cls, clusters: int, seeds: int, replicates: int, name: str) -> Draws:
        """Draws of `clusters` and `seeds`, with replacement, as many as there are.

        Parameters
        ----------
        name
            Decides the random numbers: one name, one result.
        """
        random = np.random.default_rng(zlib.crc32(name.encode()))
        return cls(_draw(random, clusters, replicates), _draw(random, seeds, replicates))

    def over_seeds(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean (1 + r,) over the drawn seeds of `values` (s, 1 + r), of those that are known; NaN where none is."""
        known = ~np.isnan(values)
        weights = self.seeds * known
        total = weights.sum(axis=0)
        out = np.full(values.shape[1], np.nan)
        np.divide((weights * np.where(known, values, 0.0)).sum(axis=0), total, out=out, where=total > 0)
        return out


def _draw(random: np.random.Generator, of: int, replicates: int) -> NDArray[np.float32]:
    out = np.ones((of, 1 + replicates), np.float32)
    for replicate in range(1, 1 + replicates):
        out[:, replicate] = np.bincount(random.integers(of, size=of), minlength=of)
    return out


def percentile_interval(values: NDArray[np.float64]) -> Interval | None:
    """The middle 95 % of replicates, `values` (1 + r,) without the first; None where too few are known."""
    replicates = values[1:][~np.isnan(values[1:])]
    if not len(values[1:]) or len(replicates) < _VALID_MIN * len(values[1:]):
        return None
    low, high = np.quantile(replicates, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def share_interval(values: NDArray[np.float64], sessions: int, clusters: int) -> Interval | None:
    """Exact binomial interval of a share, over as many sessions as the clusters are worth (Korn and Graubard, 1998).

    Percentiles of replicates have no upper end where nothing was flagged, and too low a one where little was. So the
    replicates give the variance, that the number of independent sessions which would vary as much, and Clopper and
    Pearson's interval is taken of those. Where no replicate varies, each cluster is worth one session.

    Parameters
    ----------
    values
        (1 + r,) the share, then its replicates.
    sessions
        Distinct ones that it is a share of: they are worth no more than that.

    References
    ----------
    Korn and Graubard (1998), Confidence intervals for proportions with small expected number of positive counts.

    >>> still = np.zeros(501)
    >>> [round(end, 4) for end in share_interval(still, 400, 100)]  # 1 - 0.025^(1/100)
    [0.0, 0.0362]
    """
    from scipy import stats

    share = float(values[0])
    replicates = values[1:][~np.isnan(values[1:])]
    if clusters < CLUSTERS_MIN or not len(replicates) or np.isnan(share):
        return None
    variance = float(np.mean((replicates - share) ** 2))
    worth = float(clusters)
    if variance > 0 and 0 < share < 1:
        worth = min(share * (1 - share) / variance, float(sessions))
    hits, tail = share * worth, (1 - LEVEL) / 2
    low = 0.0 if hits <= 0 else float(stats.beta.ppf(tail, hits, worth - hits + 1))
    high = 1.0 if hits >= worth else float(stats.beta.ppf(1 - tail, hits + 1, worth - hits))
    return low, high


def median_interval(values: NDArray[np.float64]) -> Interval | None:
    """Interval of the median of `values` (n,) by its order statistics; None of fewer than six, which have none.

    >>> median_interval(np.arange(1.0, 11.0))  # of ten the second and the ninth: 97.9 %
    (2.0, 9.0)
    """
    from scipy import stats

    at = int(stats.binom.ppf((1 - LEVEL) / 2, len(values), 0.5))
    if not at:
        return None
    ordered = np.sort(values)
    return float(ordered[at - 1]), float(ordered[-at])
