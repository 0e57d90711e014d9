"""How rarely benign values reach as high: an empirical body and an extreme-value tail, in one table."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-300
"""Least p-value: a float64 that is still above 0 when several are multiplied by sizes of a stream."""
FEW = 30
"""Fewer distinct values than this bear no shape parameter."""
XI = (-0.3, 0.5)
"""Range of the tail's shape: beyond it estimates from tens of values are noise."""
_EXCEEDANCES_MIN = 15
_BODY_KNOTS = 64
_APART = 1e-150
"""Values closer than this are one: the slope between them would overflow."""
_PARETO_FROM = 30.0
"""Surprise past the threshold from which no sample says anything: the tail is continued as a Pareto law with xi = 0.5,
so that it tells values apart over twelve orders of magnitude before its p-value reaches the floor."""


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Survival of a benign value, as knots of its negative logarithm ("surprise", in nats).

    Below the 90 % quantile the knots are those of the empirical survival of distinct values, counted with the value
    itself; above it those of a generalised Pareto distribution (GPD). Between knots surprise is linear, and beyond the
    last it goes on as it went before. So scoring is a look-up, products and sums: the same bits in any batch.

    Parameters
    ----------
    x
        (m,) where the knots are, increasing.
    level
        (m,) surprise there, not decreasing, 0 at the first: whatever lies below is certain.

    References
    ----------
    Pickands (1975): excesses over a high threshold are GPD. Hosking and Wallis (1987): probability-weighted moments.
    """

    x: NDArray[np.float64]
    level: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.x.shape != self.level.shape or self.x.ndim != 1 or len(self.x) < 2:
            raise ValueError(f"a tail needs (m,) knots and levels, m >= 2; got {self.x.shape} and {self.level.shape}.")
        if not (np.isfinite(self.x).all() and np.isfinite(self.level).all()):
            raise ValueError("a tail's knots and levels must be finite.")
        if not (np.diff(self.x) > _APART).all():
            raise ValueError(f"a tail's knots must increase, by more than {_APART}.")
        if self.level[0] != 0 or not (np.diff(self.level) >= 0).all() or self.level[-1] <= self.level[-2]:
            raise ValueError("a tail's levels must begin at 0, never decrease, and end rising.")

    @classmethod
    def fit(cls, values: NDArray[np.float64], atom: float | None = None) -> "Tail":
        """The tail of `values` (n,); equal ones count once, NaN not at all.

        Parameters
        ----------
        values
            (n,) of which one at least is finite.
        atom
            A least value that means "nothing": those at or below it count as often as they come, since they are no
            repetitions of one session but sessions in which there was nothing.

        Above the threshold (the 90 % quantile; lower where fewer than 15 values would exceed it) a GPD is fitted by
        probability-weighted moments, its excesses winsorised at ten times the scale that their median implies. A
        negative shape is believed only as far as the sample reaches; from there the tail is exponential, as nothing
        warrants an end point. Fewer than 30 distinct values get an exponential tail above their median, with a scale
        two standard errors above its estimate.

        Raises
        ------
        ValueError
            No value is finite.

        >>> tail = Tail.fit(np.arange(1000.0))
        >>> tail.survival(np.array([-5.0, 500.0, 990.0])).round(3)
        array([1.   , 0.5  , 0.017])
        """
        finite = values[np.isfinite(values)].astype(np.float64)
        if atom is not None and len(finite):
            return cls._above(finite, atom)
        v = np.unique(finite)
        v = v[np.r_[True, np.diff(v) > _APART]] if len(v) else v
        if len(v) == 0:
            raise ValueError(f"a tail needs at least one finite value; got none among {len(values)}.")
        m = len(v)
        exceeding = max(m // 10, min(_EXCEEDANCES_MIN, m // 2)) if m >= FEW else m // 2
        at = m - 1 - exceeding
        xi, scale = _gpd(v[at + 1 :] - v[at]) if m >= FEW else (0.0, _few_scale(v, at))
        body = np.unique(np.linspace(0, at, min(at + 1, _BODY_KNOTS)).astype(np.int64))
        level = np.log((m + 1) / (m + 1 - body))
        step, rise = _tail_knots(xi, scale, np.log(exceeding + 1))
        x, level = np.concatenate([v[body], v[at] + step]), np.concatenate([level, level[-1] + rise])
        # Far from 0 the smallest steps may be lost to rounding.
        apart = np.r_[True, np.diff(x) > _APART]
        return cls(x[apart], level[apart])

    @classmethod
    def _above(cls, values: NDArray[np.float64], atom: float) -> "Tail":
        """Values at the atom are certain; above it the tail of those above, as rare as they are."""
        above = values[values > atom]
        # As in the body: a value counts with itself, so that none above the atom is ever ruled out.
        rare = float(np.log((len(values) + 1) / (len(above) + 1)))
        if len(above) == 0:
            return cls(np.array([atom, atom + 1.0]), np.array([0.0, max(rare, np.log(2.0))]))
        tail = cls.fit(above)
        apart = tail.x > atom + _APART
        return cls(np.r_[atom, tail.x[apart]], np.r_[0.0, tail.level[apart] + rare])

    def surprise(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """-log survival of `x` (n,), at least 0, unbounded; NaN stays NaN."""
        at = np.clip(np.searchsorted(self.x, x, side="right") - 1, 0, len(self.x) - 2)
        low, high = self.level[at], self.level[at + 1]
        run = self.x[at + 1] - self.x[at]
        level = low + np.maximum(x - self.x[at], 0) * ((high - low) / run)
        # Rounding could lift the end of one piece above the beginning of the next.
        surprise: NDArray[np.float64] = np.where(x < self.x[-1], np.minimum(level, high), level)
        return surprise

    def survival(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """P-values of `x` (n,), in (0, 1], never rising with x; NaN stays NaN."""
        return probability(self.surprise(x))


def probability(surprise: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(-surprise), at least `FLOOR`, to 32 bits.

    Libraries and vector widths differ in the last bits of an exponential; they are rounded off.

    >>> probability(np.array([0.0, 1.0, np.inf]))
    array([1.00000000e+000, 3.67879441e-001, 1.00000000e-300])
    """
    p: NDArray[np.float64] = np.maximum(np.exp(-np.ascontiguousarray(surprise)), FLOOR)
    mantissa, exponent = np.frexp(p)
    rounded: NDArray[np.float64] = np.ldexp(np.rint(mantissa * 2.0**32), exponent - 32)
    return np.maximum(rounded, FLOOR)


def _gpd(excess: NDArray[np.float64]) -> tuple[float, float]:
    """Shape xi and scale of sorted `excess` (k,) by probability-weighted moments."""
    k = len(excess)
    excess = np.minimum(excess, 10 * np.median(excess) / np.log(2))
    mean = float(excess.mean())
    weighted = float((excess * (1 - (np.arange(1, k + 1) - 0.35) / k)).mean())
    xi = 2 - mean / (mean - 2 * weighted) if mean > 2 * weighted else XI[1]
    # Estimates plugged in understate how far new values reach; 3/k was found by simulation (docs/decisions/0009).
    xi = float(np.clip(xi + 3 / k, *XI))
    return xi, mean * (1 - xi)


def _few_scale(v: NDArray[np.float64], at: int) -> float:
    """Scale of an exponential tail above `v[at]`, from few sorted values."""
    excess = v[at + 1 :] - v[at]
    if len(excess) == 0:
        return max(1.0, abs(float(v[at])))
    return float(excess.mean()) * (1 + 2 / float(np.sqrt(len(excess))))


def _tail_knots(xi: float, scale: float, trusted: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps beyond the threshold and the surprise added there.

    A quarter of a nat apart, linear pieces stay within xi/128 nats of the GPD, on the side of the larger p-value when
    xi > 0.
    """

    def reach(xi: float, scale: float, rise: NDArray[np.float64]) -> NDArray[np.float64]:
        # Where a GPD's survival is exp(-rise).
        reached: NDArray[np.float64] = scale * (np.expm1(xi * rise) / xi if abs(xi) > 1e-9 else rise)
        return reached

    rise = np.arange(0.25, (min(trusted, _PARETO_FROM) if xi < 0 else _PARETO_FROM) + 0.25, 0.25)
    step = reach(xi, scale, rise)
    local = scale * float(np.exp(xi * rise[-1]))
    if rise[-1] < _PARETO_FROM:
        step = np.append(step, step[-1] + local * (_PARETO_FROM - rise[-1]))
        rise = np.append(rise, _PARETO_FROM)
    beyond = np.arange(0.5, 60.5, 0.5)
    return np.append(step, step[-1] + reach(XI[1], local, beyond)), np.append(rise, rise[-1] + beyond)
