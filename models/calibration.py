"""Signals on one scale: p-values of each kind, and one of all of them.

Legend: n events, k kinds of signal, t tenants, K sessions that a tenant's ring holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.signal import SCALES
from models.tail import Tail, probability

SUBSETS_OF = 4
"""Up to so many kinds, every combination of them has a tail of its own."""
KINDS_MAX = 16
"""A table of all combinations is held."""
_SURPRISE_GRID = 2.0**20
"""Libraries differ in the last bits of a logarithm; surprise is rounded to 1e-6 nats before it is used."""
RAISED_WEIGHT = 50.0
"""Sessions of a tenant's own that weigh as much as the population, where a kind is raised."""
_MAD_TO_SD = 1.4826
"""Standard deviation of a normal law whose median absolute deviation is 1."""
_SCALE_SHARE_MIN = 0.25
"""Of the prior's scale: a tenant whose sessions are all alike is not alarmed by the next one that is not quite."""


def location_scale(
    ring: NDArray[np.floating[Any]],
    counts: NDArray[np.integer[Any]],
    prior_location: ArrayLike,
    prior_scale: ArrayLike,
    prior_weight: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where tenants' session maxima lie, (t,), and how far apart, (t,), shrunk to the population's.

    Median and 1.4826 times the median absolute deviation of a ring's distinct values, m of them, against a prior worth
    `prior_weight` values. Repeating a value changes nothing, and half of the distinct ones must be moved to move a
    median: extremes are winsorised to their rank. No value is ever summed, so a row does not depend on those beside it.

    Parameters
    ----------
    ring
        (t, K), session maxima in any order.
    counts
        (t,), how many of a row's first values hold one; the rest is not looked at.
    prior_location, prior_scale
        The population's, one for all or (t,).
    prior_weight
        Distinct values that weigh as much as the prior.

    Raises
    ------
    ValueError
        A prior that is no scale, or no weight.

    >>> ring = np.array([[3.0, 1.0, 2.0, 2.0], [9.0, 9.0, 9.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> location, scale = location_scale(ring, np.array([4, 3, 0]), 0.0, 1.0, prior_weight=1.0)
    >>> location.tolist(), scale.round(3).tolist()
    ([1.5, 4.5, 0.0], [1.362, 0.5, 1.0])
    """
    location0, scale0 = np.asarray(prior_location, np.float64), np.asarray(prior_scale, np.float64)
    if not prior_weight > 0 or not (np.isfinite(scale0) & (scale0 > 0)).all():
        raise ValueError(
            f"prior_weight and prior_scale must be above 0; got {prior_weight} and {scale0.min(initial=1)}."
        )
    held = np.arange(ring.shape[1]) < np.asarray(counts)[:, None]
    values = np.sort(np.where(held & np.isfinite(ring), ring, np.inf).astype(np.float64), axis=1)
    values[:, 1:][values[:, 1:] == values[:, :-1]] = np.inf
    values.sort(axis=1)
    distinct = np.isfinite(values).sum(axis=1)
    median = _median(values, distinct)
    away = np.where(np.isfinite(values), np.abs(values - median[:, None]), np.inf)
    away.sort(axis=1)
    spread = _MAD_TO_SD * _median(away, distinct)
    share = distinct / (distinct + prior_weight)
    scale = np.maximum(scale0 + share * (spread - scale0), _SCALE_SHARE_MIN * scale0)
    return (
        np.where(distinct > 0, location0 + share * (median - location0), location0),
        np.where(distinct > 0, scale, scale0),
    )


def baseline(
    scale_kind: str,
    ring: NDArray[np.floating[Any]],
    counts: NDArray[np.integer[Any]],
    prior_location: float,
    prior_scale: float,
    prior_weight: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where tenants' session maxima lie, (t,), and how far apart, (t,), as a kind's scale has it.

    Parameters
    ----------
    scale_kind
        One of `models.signal.SCALES`. A raised kind takes of a tenant's past where it lies if that is higher than the
        population's, which weighs `RAISED_WEIGHT` sessions at least, and never how far apart: that of few sessions is
        noise, and makes of a tenant's first strange one the last.
    ring, counts, prior_weight
        As `location_scale` has them.
    """
    t = len(ring)
    if scale_kind == "population":
        return np.full(t, prior_location), np.full(t, prior_scale)
    if scale_kind == "tenant":
        return location_scale(ring, counts, prior_location, prior_scale, prior_weight)
    weight = max(prior_weight, RAISED_WEIGHT)
    location, _ = location_scale(ring, counts, prior_location, prior_scale, weight)
    return np.maximum(location, prior_location), np.full(t, prior_scale)


def _median(values: NDArray[np.float64], counts: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Medians (t,) of the first `counts` values of sorted rows, 0 for none."""
    row = np.arange(len(values))
    if values.shape[1] == 0:
        return np.zeros(len(values))
    low, high = values[row, np.maximum(counts - 1, 0) // 2], values[row, np.minimum(counts // 2, values.shape[1] - 1)]
    middle = np.where(counts % 2 == 0, high, low)
    return np.where(counts > 0, (np.where(counts > 0, low, 0) + np.where(counts > 0, middle, 0)) / 2, 0)


@dataclass(frozen=True, eq=False)
class Calibration:
    """P-values on the scale of sessions: p is the share of benign sessions that reach as high anywhere.

    Kinds combine by a norm of their weighted surprises, -log p: those of one group, which speak of the same thing, by
    the root of their squares, and groups by the fourth root of fourth powers. One kind that is far out speaks for
    itself, several that say so of the same thing together say more, and things that are a little out each say next to
    nothing. What such a norm is worth is measured, not assumed: it has a tail of its own, fitted on the same norms'
    session maxima, for each combination of kinds that may be eligible. Of more than four kinds only some combinations
    are measured, all kinds together among them; any other takes the tail of the smallest measured one that holds it.
    As surprises are not negative, the larger combination's norm is never the smaller, so this errs to larger p-values
    whatever the dependence.

    Parameters
    ----------
    kinds
        Names of the signals, in the order of every (.., k) array.
    scales
        Of each, one of `models.signal.SCALES`.
    prior_location, prior_scale
        (k,) the population's, of session maxima.
    tails
        Of each kind's session maxima, less location, over scale.
    combined
        Bit mask of kinds (bit i is kind i) -> tail of the session maxima of the norm of their surprises.
    weights
        (k,) of the surprises in it.
    limits
        (k,) surprises above which a kind says no more in it; infinite for most. What is bounded so can make other
        evidence weigh more, and however far out it is, is no finding by itself.
    groups
        (k,) numbers, equal for kinds of one group.
    newcomer_nats
        By which all kinds together are less of a surprise in a tenant's first sessions where no model has learned from
        it: p-values are measured on sessions of tenants whose others were learned.

    References
    ----------
    Loughin (2004), A systematic comparison of methods for combining p-values: which one finds most depends on whether
    the evidence lies in one test or in all.
    """

    kinds: tuple[str, ...]
    scales: tuple[str, ...]
    prior_location: NDArray[np.float64]
    prior_scale: NDArray[np.float64]
    tails: tuple[Tail, ...]
    combined: Mapping[int, Tail]
    weights: NDArray[np.float64]
    limits: NDArray[np.float64]
    groups: NDArray[np.int64]
    newcomer_nats: float = 0.0

    def __post_init__(self) -> None:
        k = len(self.kinds)
        if not 1 <= k <= KINDS_MAX or len(set(self.kinds)) < k:
            raise ValueError(f"kinds must be 1 to {KINDS_MAX} different names; got {self.kinds}.")
        if len(self.scales) != k or not set(self.scales) <= set(SCALES):
            raise ValueError(f"scales must be one of {SCALES} for each of {self.kinds}; got {self.scales}.")
        if self.prior_location.shape != (k,) or self.prior_scale.shape != (k,) or len(self.tails) != k:
            raise ValueError(f"prior_location, prior_scale and tails must be ({k},), one for each of {self.kinds}.")
        if self.weights.shape != (k,) or not (np.isfinite(self.weights) & (self.weights > 0)).all():
            raise ValueError(f"weights must be ({k},) and above 0; got {self.weights.tolist()}.")
        if self.limits.shape != (k,) or not (self.limits > 0).all():
            raise ValueError(f"limits must be ({k},) and above 0; got {self.limits.tolist()}.")
        if self.groups.shape != (k,) or self.groups.dtype != np.int64:
            raise ValueError(f"groups must be int64 ({k},); got {self.groups.dtype} {self.groups.shape}.")
        if (
            not np.isfinite(self.prior_location).all()
            or not (np.isfinite(self.prior_scale) & (self.prior_scale > 0)).all()
        ):
            raise ValueError(f"prior_location must be finite and prior_scale above 0; got {self.prior_scale.tolist()}.")
        if not 0 <= self.newcomer_nats < np.inf:
            raise ValueError(f"newcomer_nats must be finite and at least 0; got {self.newcomer_nats}.")
        if (1 << k) - 1 not in self.combined or not all(0 < mask < 1 << k for mask in self.combined):
            raise ValueError(f"combined must hold masks of {k} kinds, and that of all; got {sorted(self.combined)}.")

    @cached_property
    def _measured(self) -> NDArray[np.int64]:
        """(2^k,) of each combination of kinds, the measured one that stands for it."""
        masks = np.array(sorted(self.combined, key=lambda mask: (mask.bit_count(), mask)), np.int64)
        holds = (masks & np.arange(1 << len(self.kinds))[:, None]) == np.arange(1 << len(self.kinds))[:, None]
        chosen: NDArray[np.int64] = masks[holds.argmax(axis=1)]
        return chosen

    def p_values(
        self,
        kind: int,
        x: NDArray[np.float64],
        location: NDArray[np.float64],
        scale: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """P-values (n,) of scores `x` (n,) of one kind, in (0, 1], NaN where `x` is.

        Parameters
        ----------
        kind
            Its place in `kinds`.
        location, scale
            (n,) of the events' tenants; for a kind on the population's scale the priors.
        """
        return self.tails[kind].survival((x - location) / scale)

    def combine(
        self, p: NDArray[np.float64], eligible: NDArray[np.bool_], newcomer: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Norms of surprises (n,), higher is stranger, and their p-values (n,) in (0, 1].

        Parameters
        ----------
        p
            (n, k), NaN or 1 where an event has nothing to be scored by that kind.
        eligible
            (n, k), whether the kind counts for the event's tenant at all. That an event of a session has nothing to
            score is no reason: the tails were measured on sessions with such events, and to judge each event by what it
            happens to have would give a session several tries.
        newcomer
            (n,), whether the event is of the first of a tenant of whom no model has learned; None where none is.

        Raises
        ------
        ValueError
            Arrays that are not (n, k).
        """
        statistic, level = self.surprise(p, eligible, newcomer)
        return statistic, probability(level)

    def leading(self, p: NDArray[np.float64], eligible: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The kind (n,) whose weighted surprise is the largest of each event's (n, k): of equal ones the first."""
        weighted = np.rint(self._surprises(p, eligible) * self.weights * _SURPRISE_GRID)
        largest: NDArray[np.intp] = weighted.argmax(axis=1)
        return largest

    def _surprises(self, p: NDArray[np.float64], eligible: NDArray[np.bool_]) -> NDArray[np.float64]:
        if p.shape != eligible.shape or p.ndim != 2 or p.shape[1] != len(self.kinds):
            raise ValueError(f"p and eligible must be (n, {len(self.kinds)}); got {p.shape} and {eligible.shape}.")
        surprises: NDArray[np.float64] = np.minimum(-np.log(np.where(eligible & ~np.isnan(p), p, 1.0)), self.limits)
        return surprises

    def surprise(
        self, p: NDArray[np.float64], eligible: NDArray[np.bool_], newcomer: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As `combine`, but instead of p-values, which end at a floor, their negative logarithms (n,), unbounded."""
        statistic = combined_surprise(self._surprises(p, eligible), self.weights, self.groups)
        mask = np.zeros(len(p), np.int64)
        for kind in range(len(self.kinds)):
            mask |= eligible[:, kind].astype(np.int64) << kind
        level = np.zeros(len(p))
        measured = np.where(mask > 0, self._measured[mask], 0)
        for combination in np.unique(measured[measured > 0]):
            at = np.flatnonzero(measured == combination)
            level[at] = self.combined[int(combination)].surprise(statistic[at])
        if newcomer is not None:
            level[newcomer] = np.maximum(level[newcomer] - self.newcomer_nats, 0)
        return statistic, level

    def to_arrays(self) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
        """Float64 arrays by name, and what is not an array, for JSON."""
        arrays = {
            "prior_location": self.prior_location,
            "prior_scale": self.prior_scale,
            "weights": self.weights,
            "limits": self.limits,
            "newcomer_nats": np.array([self.newcomer_nats]),
        }
        named = [(f"tail.{kind}", tail) for kind, tail in zip(self.kinds, self.tails, strict=True)]
        named += [(f"combined.{mask}", self.combined[mask]) for mask in sorted(self.combined)]
        for name, tail in named:
            arrays[f"{name}.x"], arrays[f"{name}.level"] = tail.x, tail.level
        return arrays, {
            "kinds": list(self.kinds),
            "scales": list(self.scales),
            "groups": self.groups.tolist(),
            "combined": sorted(self.combined),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], meta: Mapping[str, Any]) -> "Calibration":
        """What `to_arrays` took apart.

        Raises
        ------
        ValueError
            Something is missing, or no calibration.
        """
        if missing := {"kinds", "scales", "groups", "combined"} - meta.keys():
            raise ValueError(f"a calibration's meta needs {sorted(missing)}, which are missing.")

        def array(name: str) -> NDArray[np.float64]:
            if name not in arrays:
                raise ValueError(f"a calibration needs the array {name}, which is missing.")
            if arrays[name].dtype != np.float64:
                raise ValueError(f"{name} must be float64; got {arrays[name].dtype}.")
            return arrays[name].astype(np.float64)

        def tail(name: str) -> Tail:
            try:
                return Tail(array(f"{name}.x"), array(f"{name}.level"))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

        kinds = tuple(str(kind) for kind in meta["kinds"])
        return cls(
            kinds,
            tuple(str(scale) for scale in meta["scales"]),
            array("prior_location"),
            array("prior_scale"),
            tuple(tail(f"tail.{kind}") for kind in kinds),
            {int(mask): tail(f"combined.{mask}") for mask in meta["combined"]},
            array("weights"),
            array("limits"),
            np.array(meta["groups"], np.int64),
            # Releases of before do not tell newcomers from others.
            float(array("newcomer_nats").item()) if "newcomer_nats" in arrays else 0.0,
        )


def combined_surprise(
    surprise: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Norm (n,) of weighted surprises (n, k), to 1e-6 nats: the same bits in any batch and on any machine.

    >>> combined_surprise(np.array([[3.0, 4.0, 5.0]]), np.ones(3), np.array([0, 0, 1])).round(3)
    array([5.946])
    """
    rounded = np.rint(surprise * weights * _SURPRISE_GRID) / _SURPRISE_GRID
    total = np.zeros(len(surprise))
    for group in np.unique(groups):
        together = np.zeros(len(surprise))
        for kind in np.flatnonzero(groups == group):
            together += rounded[:, kind] ** 2
        total += together**2
    norm: NDArray[np.float64] = np.rint(np.sqrt(np.sqrt(total)) * _SURPRISE_GRID) / _SURPRISE_GRID
    return norm
