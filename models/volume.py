"""How far a call leaves what its tenant's calls amount to: when, how large, how often, from whom.

Legend: n events, t tenants, J sub-features, G gauges (sizes that have a mean), C counters, H hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SUB_FEATURES = (
    "hour",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "duration",
    "key_calls",
    "key_tokens",
    "argument_growth",
    "errors",
    "key_errors",
    "repeats",
    "new_key",
    "new_user_agent",
    "new_network",
    "origin",
)
HOUR = 0
SIZED = slice(1, 7)
"""Judged by how many standard deviations they lie above the tenant's mean."""
OF_CALL = slice(1, 5)
"""Of these, an event's own: a key's in its window are the others."""
GROWTH, ERRORS, KEY_ERRORS, REPEATS = 7, 8, 9, 10
NEW = slice(11, 14)
ORIGIN = 14
"""Who calls and when: what is new, and the hour, added up as if they had nothing to do with each other."""

TOOLS = 8
"""Hashed tool names, each with its own sizes of arguments."""
GAUGES = (
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "duration",
    "key_calls",
    "key_tokens",
    *(f"arguments_{i}" for i in range(TOOLS)),
)
SIZES = 6
"""The first gauges are those judged by size, in the order of `SIZED`; the rest is the tools'."""
PER_CALL = OF_CALL.stop - OF_CALL.start
"""The first of those are an event's own, the others a key's in its window."""

COUNTERS = (
    "calls",
    "failed",
    "sessions",
    "new_key",
    "new_agent",
    "new_network",
    "first",
    "begun",
    "repeated",
    "gone_on",
)
CALLS, FAILED, SESSIONS, NEW_KEY, NEW_AGENT, NEW_NETWORK, FIRST, BEGUN, REPEATED, GONE_ON = range(len(COUNTERS))
RATES = (
    (FAILED, CALLS),
    (NEW_KEY, SESSIONS),
    (NEW_AGENT, SESSIONS),
    (NEW_NETWORK, SESSIONS),
    (BEGUN, FIRST),
    (GONE_ON, REPEATED),
)
"""What is counted, and out of what: failures of calls, sessions that bring a key (a user agent, a network) that is new,
tool calls that begin to repeat an earlier one, and repetitions that are repeated in turn."""
HOURS = 48
"""Hours of a working day, then those of a weekend's, UTC."""

GRID = 16
"""Logarithms of sizes and CUSUM steps are integers in these parts of one, so that sums are exact in any order."""
_LOG_GRID = 2.0**20
"""Libraries differ in the last bits of a logarithm; a surprise is rounded to 1e-6 nats."""
_DAYS = np.repeat([5 / 168, 2 / 168], 24)
"""Share of a week that an hour is, of those of working days and of weekends."""
_HOUR_BEFORE, _HOUR_AFTER = (np.roll(np.arange(HOURS).reshape(2, 24), by, axis=1).ravel() for by in (1, -1))
"""Places of the neighbours of an hour among those of like days."""

_GROWTH_SLACK = 0.5
"""Standard deviations by which arguments may exceed their tool's mean without growing (Page's reference value for
shifts of one)."""
_GROWTH_STEP = (-2.0, 4.0)
"""One call moves the sum by no more, whatever its size."""
_ERROR_STEP = (-4, 16)
"""In 1/GRID: four calls that succeed forgive one that failed."""
_BELIEVED = 4.0
"""Standard deviations from the mean at which a size is winsorised before it is learned."""
_FREEDOM = 4.0
"""Observations that the population's spread weighs as much as."""
_SPREAD_MIN = 0.25
"""Of the population's spread: a tenant whose calls are all alike is not alarmed by the next that is not quite."""
_HOURS_PRIOR = 12.0
"""Sessions' hours of a tenant's own that weigh as much as not knowing when it works."""
_RATE_PRIOR = 8.0
"""Trials of a tenant's own that weigh as much as the population's rate."""

_NATS, _SIGMAS, _GROWTH_SIGMAS = 4.6, 2.33, 4.0
"""-log 0.01, the normal law's 99 % quantile, and Page's usual limit: what a sub-feature is divided by at the least."""
UNIT_MIN = np.array([_NATS, *[_SIGMAS] * SIZES, _GROWTH_SIGMAS, *[_NATS] * 7])


@dataclass(slots=True)
class Baseline:
    """What tenants' traffic amounts to. Views or copies, as the caller likes."""

    gauges: NDArray[np.float32]
    """(t, G, 3): weight, mean, variance, in 1/GRID of a logarithm."""
    counters: NDArray[np.float32]
    """(t, C), decayed counts."""
    hours: NDArray[np.float32]
    """(t, H), decayed counts of the hours in which sessions had calls."""

    def take(self, rows: Ints) -> "Baseline":
        """A copy of these rows."""
        return Baseline(self.gauges[rows], self.counters[rows], self.hours[rows])


@dataclass(slots=True)
class Normal:
    """What follows from a baseline, the population's share in it included."""

    location: Floats
    """(t, G) where each gauge lies, in 1/GRID of a logarithm."""
    spread: Floats
    """(t, G) how far from it the next value is expected."""
    rate: Floats
    """(t, 6) how often each of `RATES` happens."""
    surprise: Floats
    """(t, 6), -log of them."""
    hour: Floats
    """(t, H) surprise of each hour over that of a tenant that works around the clock, 0 where it is no greater."""


@dataclass(slots=True)
class Lesson:
    """What tenants (t) brought since their last learn point, exact."""

    counts: Ints
    """(t, G) sizes of each gauge."""
    sums: Ints
    """(t, G) of them."""
    squares: Ints
    """(t, G) sums of squares."""
    counters: Ints
    """(t, C)."""
    hours: Ints
    """(t, H)."""


@dataclass(slots=True)
class Observed:
    """Events (n) as they are judged: integers, none of which depends on what was learned but `growth`."""

    hour: Ints
    sizes: Ints
    """(n, SIZES), in 1/GRID of a logarithm, -1 where there is none."""
    growth: Ints
    """(n,) CUSUM of the sizes of arguments, the highest of the event's tools, in 1/GRID standard deviations."""
    errors: Ints
    """(n,) CUSUM of the session's failures, in 1/GRID."""
    key_errors: Ints
    """(n, 2): failures, and calls, of the event's key in its window."""
    repeats: Ints
    """(n,) tool calls in a row that repeat an earlier one."""
    new: NDArray[np.bool_]
    """(n, 3): a key new to the tenant, a user agent and a network new to the key."""

    def take(self, index: Ints) -> "Observed":
        """Some of the events."""
        return Observed(*(getattr(self, field.name)[index] for field in fields(self)))


class Volume:
    """How strange a call's time, size, rate or origin is for its tenant: the strangest of J sub-features speaks.

    Each is in units of what benign sessions rarely exceed, and only more is strange: sizes in standard deviations of
    their logarithm, counts as surprise, -log of the rate at which the tenant's traffic does such a thing, growth as a
    CUSUM. State: `Baseline`, frozen between learn points; a young tenant's is shrunk to the release's population.

    Parameters
    ----------
    arrays
        `gauge_prior` (G, 3): mean, standard deviation within a tenant, observations that weigh as much; `rate_prior`
        (6,), of `RATES`; `unit` (J,); `anyone` (PER_CALL, 2), if a release has it: mean and standard deviation of the
        sizes of any tenant's calls. None: a population that nothing is known of.
    half_life
        Observations after which a weight has halved.
    event_weight
        Of one observation of a size; calls of one session resemble each other, and so several weigh as one.

    Raises
    ------
    ValueError
        Arrays that are not such.

    References
    ----------
    Krichevsky and Trofimov (1981): rates with half a success and half a failure more. Page (1954): CUSUM.
    Murphy (2007), "Conjugate Bayesian analysis of the Gaussian distribution": the predictive spread of few values.
    """

    name = "volume"
    scale = "tenant"

    def __init__(
        self,
        arrays: Mapping[str, NDArray[np.generic]] | None = None,
        half_life: float = 2048.0,
        event_weight: float = 0.25,
    ) -> None:
        arrays = unfitted() if arrays is None else arrays
        self.gauge_prior = _array(arrays, "gauge_prior", (len(GAUGES), 3))
        self.rate_prior = _array(arrays, "rate_prior", (len(RATES),))
        self.unit = _array(arrays, "unit", (len(SUB_FEATURES),))
        self.anyone = _array(arrays, "anyone", (PER_CALL, 2)) if "anyone" in arrays else None
        if not (self.gauge_prior[:, 1:] > 0).all() or not (self.unit > 0).all():
            raise ValueError("gauge_prior's spreads and weights, and unit, must be above 0.")
        if self.anyone is not None and not (self.anyone[:, 1] > 0).all():
            raise ValueError(f"anyone's spreads must be above 0; got {self.anyone[:, 1].tolist()}.")
        if not ((self.rate_prior > 0) & (self.rate_prior < 1)).all():
            raise ValueError(f"rate_prior must lie between 0 and 1; got {self.rate_prior.tolist()}.")
        self.half_life = half_life
        self.event_weight = event_weight

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """What the class is made from."""
        arrays = {"gauge_prior": self.gauge_prior, "rate_prior": self.rate_prior, "unit": self.unit}
        return arrays if self.anyone is None else arrays | {"anyone": self.anyone}

    def empty(self, rows: int) -> Baseline:
        """The baseline of `rows` tenants that have not called yet.

        >>> Volume().empty(2).hours.shape
        (2, 48)
        """
        return Baseline(
            np.zeros((rows, len(GAUGES), 3), np.float32),
            np.zeros((rows, len(COUNTERS)), np.float32),
            np.zeros((rows, HOURS), np.float32),
        )

    def normal(self, baseline: Baseline) -> Normal:
        """What is normal for the tenants, to judge their calls by until they learn again."""
        location, spread = self._gauges(baseline)
        rate = self._rates(baseline)
        return Normal(location, spread, rate, _surprise(rate), self._hours(baseline))

    def typical(self, normal: Normal) -> NDArray[np.float32]:
        """What each sub-feature (t, J) is held against: where sizes lie, how often things happen, else 0."""
        out = np.zeros((len(normal.rate), len(SUB_FEATURES)), np.float32)
        out[:, SIZED] = normal.location[:, :SIZES]
        out[:, [ERRORS, KEY_ERRORS]] = normal.rate[:, :1]
        out[:, REPEATS] = normal.rate[:, 4]
        out[:, NEW] = normal.rate[:, 1:4]
        return out

    def as_anyones(
        self, normal: Normal, rows: Ints, observed: Observed, unfamiliar: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which own sizes (n, PER_CALL) of events are held against any tenant's calls: those that are less strange so.

        How large a tenant's calls are says nothing of calls of another kind.

        Parameters
        ----------
        unfamiliar
            (n,) whether the event's session is unlike its tenant's.
        """
        if self.anyone is None:
            return np.zeros((len(rows), PER_CALL), np.bool_)
        less: NDArray[np.bool_] = self._anyones(observed) < self._own(normal, rows, observed)[:, :PER_CALL]
        return less & (observed.sizes[:, :PER_CALL] >= 0) & unfamiliar[:, None]

    def _own(self, normal: Normal, rows: Ints, observed: Observed) -> Floats:
        out: Floats = (observed.sizes - normal.location[rows, :SIZES]) / normal.spread[rows, :SIZES]
        return out

    def _anyones(self, observed: Observed) -> Floats:
        mean, spread = self.anyone.T if self.anyone is not None else (0.0, 1.0)
        out: Floats = (observed.sizes[:, :PER_CALL] - mean) / spread
        return out

    def _gauges(self, baseline: Baseline) -> tuple[Floats, Floats]:
        mean0, spread0, weight0 = self.gauge_prior.T
        weight, mean, variance = np.moveaxis(baseline.gauges.astype(np.float64), 2, 0)
        total = weight0 + weight
        location = (weight0 * mean0 + weight * mean) / total
        # Of tenants that differ by far more than their own calls do, `weight0` is small: one call tells most.
        off = weight0 * weight / total * (mean - mean0) ** 2
        pooled = (_FREEDOM * spread0**2 + weight * variance + off) / (_FREEDOM + weight)
        return location, np.sqrt(np.maximum(pooled, (_SPREAD_MIN * spread0) ** 2) * (1 + 1 / total))

    def _rates(self, baseline: Baseline) -> Floats:
        """Krichevsky and Trofimov's, shrunk."""
        counted = baseline.counters.astype(np.float64)
        done, tries = counted[:, [a for a, _ in RATES]], counted[:, [b for _, b in RATES]]
        return (done + 0.5 + _RATE_PRIOR * self.rate_prior) / (tries + 1 + _RATE_PRIOR)

    def _hours(self, baseline: Baseline) -> Floats:
        counted = baseline.hours.astype(np.float64)
        smooth = 0.5 * counted + 0.25 * (counted[:, _HOUR_BEFORE] + counted[:, _HOUR_AFTER])
        # A running sum adds one after another: the same bits whatever stands beside a row.
        total = np.cumsum(counted, axis=1)[:, -1:]
        share = (smooth + _HOURS_PRIOR * _DAYS) / (total + _HOURS_PRIOR)
        return np.maximum(_surprise(share) + _rounded(np.log(_DAYS)), 0)

    def score(
        self, normal: Normal, rows: Ints, observed: Observed, as_anyones: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores (n,) of events of tenants `rows` of `normal`, and what they are the largest of: sub-features (n, J).

        Parameters
        ----------
        as_anyones
            (n, PER_CALL) which of the events' own sizes are strange as far as any tenant's calls would be.

        >>> volume = Volume()
        >>> calm = Observed(np.array([3]), np.full((1, 6), -1), *np.zeros((2, 1), int), np.array([[0, 1]]),
        ...                 np.array([0]), np.zeros((1, 3), bool))
        >>> volume.score(volume.normal(volume.empty(1)), np.array([0]), calm, np.zeros((1, 4), bool))[0]
        array([0.], dtype=float32)
        """
        surprise = normal.surprise[rows]
        x = np.empty((len(rows), len(SUB_FEATURES)))
        x[:, HOUR] = normal.hour[rows, observed.hour]
        z = self._own(normal, rows, observed)
        z[:, :PER_CALL] = np.where(as_anyones, self._anyones(observed), z[:, :PER_CALL])
        x[:, SIZED] = np.where(observed.sizes >= 0, np.maximum(z, 0), 0)
        x[:, GROWTH] = observed.growth / GRID
        x[:, ERRORS] = observed.errors / GRID * surprise[:, 0]
        x[:, KEY_ERRORS] = _excess(observed.key_errors, normal.rate[rows, 0])
        run = surprise[:, 4] + (observed.repeats - 1) * surprise[:, 5]
        x[:, REPEATS] = np.where(observed.repeats > 0, run, 0)
        x[:, NEW] = np.where(observed.new, surprise[:, 1:4], 0)
        x[:, ORIGIN] = x[:, HOUR] + x[:, NEW.start] + x[:, NEW.start + 1] + x[:, NEW.start + 2]
        features = (x / self.unit).astype(np.float32)
        return features.max(axis=1, initial=0), features

    def learn(self, baseline: Baseline, lesson: Lesson) -> None:
        """Take `lesson` into `baseline`, row by row, in place."""
        count = lesson.counts.astype(np.float64)
        some = np.maximum(count, 1)
        mean = lesson.sums / some
        variance = np.maximum(lesson.squares / some - mean**2, 0)
        added = count * self.event_weight
        weight, mean0, variance0 = np.moveaxis(baseline.gauges.astype(np.float64), 2, 0)
        # Each observation takes some of what came before with it: a tool that is not called is not forgotten.
        kept = weight * (self.half_life / (self.half_life + count))
        total = kept + added
        share = added / np.maximum(total, 1e-9)
        middle = mean0 + share * (mean - mean0)
        spread = (1 - share) * (variance0 + (mean0 - middle) ** 2) + share * (variance + (mean - middle) ** 2)
        learned = np.stack([total, middle, spread], axis=2)
        baseline.gauges[:] = np.where(count[:, :, None] > 0, learned, baseline.gauges)
        tries = [next((b for a, b in RATES if a == counter), counter) for counter in range(len(COUNTERS))]
        forget = self.half_life / (self.half_life + lesson.counters[:, tries])
        baseline.counters[:] = baseline.counters * forget + lesson.counters
        brought = lesson.hours.sum(axis=1)[:, None]
        baseline.hours[:] = baseline.hours * (self.half_life / (self.half_life + brought)) + lesson.hours


def growth_steps(normal: Normal, rows: Ints, tool: Ints, size: Ints) -> Ints:
    """CUSUM steps (c,) of tool calls, in 1/GRID standard deviations of their tool's arguments.

    Parameters
    ----------
    rows
        (c,) of `normal`.
    tool
        (c,) hashed.
    size
        (c,) of the arguments, in 1/GRID of a logarithm.
    """
    gauge = SIZES + tool
    z = (size - normal.location[rows, gauge]) / normal.spread[rows, gauge] - _GROWTH_SLACK
    return np.rint(np.clip(z, *_GROWTH_STEP) * GRID).astype(np.int64)


def believed(normal: Normal, rows: Ints, gauge: Ints, size: Ints) -> Ints:
    """Sizes (o,) winsorised at what the tenants are known for, so that one burst moves no mean far."""
    location, reach = normal.location[rows, gauge], _BELIEVED * normal.spread[rows, gauge]
    return np.clip(size, np.floor(location - reach).astype(np.int64), np.ceil(location + reach).astype(np.int64))


def unfitted() -> dict[str, NDArray[np.float64]]:
    """Arrays of a population that nothing is known of: any size, rates of one in twenty, the least units."""
    prior = np.tile([6.0 * GRID, 1.5 * GRID, 0.1], (len(GAUGES), 1))
    return {"gauge_prior": prior, "rate_prior": np.full(len(RATES), 0.05), "unit": UNIT_MIN.copy()}


def hour_of(time_ms: Ints) -> Ints:
    """Hour buckets (n,) of times since the epoch, UTC.

    >>> hour_of(np.array([0, 2 * 86_400_000 + 3_600_000]))  # a Thursday's first hour, a Saturday's second
    array([ 0, 25])
    """
    weekend = (time_ms // 86_400_000 + 3) % 7 >= 5
    return np.where(weekend, 24, 0) + time_ms // 3_600_000 % 24


def log_grid(values: NDArray[np.float64]) -> Ints:
    """Sizes (n,) as integer logarithms, in 1/GRID.

    >>> log_grid(np.array([0.0, 1000.0, np.nan]))
    array([  0, 111,  -1])
    """
    known = np.isfinite(values)
    logs = np.log1p(np.clip(np.where(known, values, 0), 0, 1e15))
    return np.where(known, np.rint(logs * GRID), -1).astype(np.int64)


def error_steps(failed: NDArray[np.bool_]) -> Ints:
    """CUSUM steps (n,) of a session's failures, in 1/GRID."""
    return np.where(failed, _ERROR_STEP[1], _ERROR_STEP[0])


def cusum(steps: Ints, group: Ints, carried: Ints) -> Ints:
    """CUSUM (n,) within groups: the sum of the steps so far, never below 0.

    As a scan: a sum less its least value, which for integers is the same as one step after another.

    Parameters
    ----------
    steps
        (n,) in order, a group's together.
    group
        (n,) not decreasing.
    carried
        (n,) the sum that the element's group starts with, the same for all of a group.

    >>> cusum(np.array([5, -9, 2, 2, 1]), np.array([0, 0, 0, 1, 1]), np.array([1, 1, 1, 7, 7]))
    array([ 6,  0,  2,  9, 10])
    """
    if len(steps) == 0:
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    number = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(group)]))
    total = np.cumsum(steps)
    total -= (total[starts] - steps[starts])[number]
    # Each group far below the one before, so that the running least value starts anew.
    deep = number * (2 * (int(np.abs(total).max()) + int(carried.max())) + 1)
    least = np.minimum.accumulate(np.minimum(total, -carried) - deep) + deep
    return total - least


def _surprise(rate: Floats) -> Floats:
    return _rounded(-np.log(rate))


def _rounded(x: Floats) -> Floats:
    return np.rint(x * _LOG_GRID) / _LOG_GRID


def _excess(counted: Ints, rate: Floats) -> Floats:
    """Surprise (n,) of k failures in m calls, (n, 2), where `rate` is normal and k is more.

    m times the Kullback-Leibler divergence, Chernoff's bound on the binomial tail.
    """
    out = np.zeros(len(counted))
    some = np.flatnonzero(counted[:, 0] > rate * counted[:, 1])
    failed, calls, normal = counted[some, 0], counted[some, 1], rate[some]
    share = failed / calls
    rest = np.where(failed < calls, (1 - share) * np.log(np.maximum(1 - share, 1e-12) / (1 - normal)), 0)
    out[some] = _rounded(calls * (share * np.log(share / normal) + rest))
    return out


def _array(arrays: Mapping[str, NDArray[np.generic]], name: str, shape: tuple[int, ...]) -> Floats:
    if name not in arrays or arrays[name].dtype != np.float64 or arrays[name].shape != shape:
        found = f"{arrays[name].dtype} {arrays[name].shape}" if name in arrays else "none"
        raise ValueError(f"{name} must be float64 {shape}; got {found}.")
    array = arrays[name].astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite.")
    return array
