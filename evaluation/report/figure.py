"""Values of replicates -> a figure of the report."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import CLUSTERS_MIN, Interval, median_interval, percentile_interval, share_interval
from evaluation.report.model import Figure
from evaluation.report.part import Part

_DIGITS = 6
_By = Literal["bootstrap", "binomial"]


def ranked(part: Part, values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Figure:
    """Of a ranking: percentiles of `values` (1 + r,); over the sessions `chosen` (n,) of the part.

    Where replicates are perfect, or total failures, percentiles say that nothing could change: there the interval is
    the binomial one.
    """
    n, clusters, sessions = part.counted(chosen)
    interval = percentile_interval(values) if clusters >= CLUSTERS_MIN else None
    if interval is not None and values[0] in (0.0, 1.0) and interval == (values[0], values[0]):
        return _figure(values, share_interval(values, sessions, clusters), n, clusters, "binomial")
    return _figure(values, interval, n, clusters, "bootstrap")


def free(part: Part, values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Figure:
    """Of a difference, a ratio or a mean: percentiles of `values` (1 + r,)."""
    n, clusters, _ = part.counted(chosen)
    interval = percentile_interval(values) if clusters >= CLUSTERS_MIN else None
    return _figure(values, interval, n, clusters, "bootstrap")


def share(part: Part, values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> Figure:
    """Of a share of sessions `chosen` (n,): the binomial interval over what their clusters are worth."""
    n, clusters, sessions = part.counted(chosen)
    return _figure(values, share_interval(values, sessions, clusters), n, clusters, "binomial")


def over_seeds(values: list[float], n: int, clusters: int = 0) -> Figure:
    """Mean of what each seed gives, with the least and the greatest."""
    if not values:
        return Figure(value=None, n=n, clusters=clusters, by="seeds")
    mean = sum(values) / len(values)
    return Figure(
        value=rounded(mean), low=rounded(min(values)), high=rounded(max(values)), n=n, clusters=clusters, by="seeds"
    )


def median(values: NDArray[np.float64]) -> Figure:
    """Median of `values` (n,), each a cluster of its own."""
    n = len(values)
    if not n:
        return Figure(value=None, n=0, clusters=0, by="order")
    low, high = median_interval(values) or (None, None)
    middle = rounded(float(np.median(values)))
    return Figure(value=middle, low=rounded(low), high=rounded(high), n=n, clusters=n, by="order")


def rounded(value: float | None) -> float | None:
    """Six digits, which no figure is good to; None for what is no number.

    >>> rounded(0.123456789), rounded(float("nan")), rounded(1234567.0)
    (0.123457, None, 1234570.0)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


def _figure(values: NDArray[np.float64], interval: Interval | None, n: int, clusters: int, by: _By) -> Figure:
    value = rounded(float(values[0]))
    low, high = (None, None) if value is None or interval is None else interval
    return Figure(value=value, low=rounded(low), high=rounded(high), n=n, clusters=clusters, by=by)
