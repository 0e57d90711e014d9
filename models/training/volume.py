"""Fit what the volume signal knows of a population: how tenants are, and what their sessions rarely exceed."""

import numpy as np
from numpy.typing import NDArray

from models.volume import GAUGES, PER_CALL, RATES, SIZES, SUB_FEATURES, UNIT_MIN, Baseline, Volume, unfitted

RARE = 0.01
"""Share of benign sessions whose highest sub-feature may exceed its unit."""
_LOADS, _BUSIER = ("key_calls", "key_tokens"), 1.5
"""The days to come are busier at times than those that were learned from: the unit of a key's load is so many times
what benign sessions rarely exceeded."""
_WEIGHT_MIN = 5.0
"""Weight from which a tenant helps to say how tenants are: 20 calls."""
_APART = 6.0
"""Spreads within a tenant beyond which its mean says no more of what any tenant's calls are like."""
_TRIES_MIN = 5.0
_TENANTS_MIN = 3
"""Fewer say nothing of how much tenants differ."""
_PRIOR_WEIGHT = (0.02, 5.0)
_SPREAD_MIN = 2.0
"""In steps of the gauges' grid: no population is so alike that an eighth of a logarithm were strange."""


def fit_volume(learned: Baseline, features: NDArray[np.float32], session: NDArray[np.integer]) -> Volume:
    """A volume signal for tenants like these.

    Parameters
    ----------
    learned
        What tenants (t) have learned in the stream from benign events, whatever the release was.
    features
        (n, J) sub-features of benign events, times the units of the model that gave them; those of young tenants had
        better be left out.
    session
        (n,) number of each event's session.
    """
    return fit_units(fit_priors(learned), features, session)


def fit_priors(learned: Baseline) -> Volume:
    """Where tenants' gauges lie, how far a tenant's own values lie apart, and how often tenants do what is counted.

    A prior weighs as many observations as the spread within tenants is larger than that between them, squared: a
    tenant's own first values count for much where tenants differ. Sizes of any tenant's calls have the mean of theirs,
    and both variances; what too few report has the prior's.
    """
    arrays = unfitted()
    anyone: dict[int, tuple[float, float]] = {}
    gauges = learned.gauges.astype(np.float64)
    for gauge in range(len(GAUGES)):
        # Tool names are hashed anew for every tenant, so that all of the tools' buckets are alike.
        own = gauges[:, SIZES:] if gauge >= SIZES else gauges[:, gauge : gauge + 1]
        known = own[:, :, 0] >= _WEIGHT_MIN
        if known.any(axis=1).sum() < _TENANTS_MIN:
            continue
        own = own[known]
        location = float(np.median(own[:, 1]))
        spread = max(float(np.sqrt(np.median(own[:, 2]))), _SPREAD_MIN)
        between = 1.4826 * float(np.median(np.abs(own[:, 1] - location)))
        weight = float(np.clip((spread / max(between, 1e-9)) ** 2, *_PRIOR_WEIGHT))
        arrays["gauge_prior"][gauge] = location, spread, weight
        if gauge < PER_CALL:
            # A median would leave out the few tenants that are not like most; one that is unlike any widens no more.
            means = np.clip(own[:, 1], location - _APART * spread, location + _APART * spread)
            anyone[gauge] = float(means.mean()), float(np.hypot(spread, means.std()))
    counters = learned.counters.astype(np.float64)
    for rate, (done, tries) in enumerate(RATES):
        known = counters[:, tries] >= _TRIES_MIN
        if known.sum() >= _TENANTS_MIN:
            own = (counters[known, done] + 0.5) / (counters[known, tries] + 1)
            arrays["rate_prior"][rate] = np.clip(own.mean(), 1e-4, 0.5)
    if anyone:
        prior = arrays["gauge_prior"][:, :2]
        arrays["anyone"] = np.array([anyone.get(gauge, tuple(prior[gauge])) for gauge in range(PER_CALL)])
    return Volume(arrays)


def fit_units(model: Volume, features: NDArray[np.float32], session: NDArray[np.integer]) -> Volume:
    """The model with units that one benign session in `1 / RARE` exceeds, and never less than a surprise of 1 %.

    Those of a key's load are larger.

    Parameters
    ----------
    features
        (n, J), times the units of the model that gave them.
    session
        (n,).
    """
    unit = UNIT_MIN.copy()
    if len(features):
        _, number = np.unique(session, return_inverse=True)
        highest = np.zeros((int(number.max()) + 1, len(SUB_FEATURES)))
        np.maximum.at(highest, number, features.astype(np.float64))
        unit = np.maximum(unit, np.quantile(highest, 1 - RARE, axis=0, method="higher"))
        unit[[SUB_FEATURES.index(name) for name in _LOADS]] *= _BUSIER
    return Volume(model.to_arrays() | {"unit": unit})
