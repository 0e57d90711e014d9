"""Fit a calibration on sessions held out from every other fit.

Legend: n events, s sessions, k kinds of signal, K sessions that a tenant's ring holds.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.calibration import SUBSETS_OF, Calibration, baseline, combined_surprise
from models.tail import Tail

RING = 64
"""Session maxima that a tenant keeps."""
PRIOR_SESSIONS = 20.0
"""Sessions of a tenant's own that weigh as much as the population."""
_OWN_MIN = 5
"""Distinct session maxima from which a tenant helps to say how tenants are."""


def fit_population(
    scores: Mapping[str, NDArray[np.float64]],
    tenants: NDArray[np.integer],
    sessions: NDArray[np.integer],
    *,
    scales: Mapping[str, str] | None = None,
    atoms: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    limits: Mapping[str, float] | None = None,
    groups: Mapping[str, str] | None = None,
    beside: Mapping[str, NDArray[np.float64]] | None = None,
    beside_shares: Mapping[str, float] | None = None,
    measured: Mapping[str, Tail] | None = None,
    newcomer_nats: float = 0.0,
    ring: int = RING,
    prior_weight: float = PRIOR_SESSIONS,
) -> Calibration:
    """The calibration of benign events (n) that no signal was fitted on.

    1. Each kind's location and scale over tenants: medians of the tenants' own. 2. Each session's maximum, less the
    location and over the scale that its tenant's *other* sessions give: pooled, their tail. 3. Each event's surprise by
    kind, the norm of every combination of kinds; the norms' session maxima, their tail. That the maxima of several
    kinds fall on one event or on several, and that many events have nothing to score, is thereby measured.

    Parameters
    ----------
    scores
        By kind, (n,), NaN where an event has nothing to score. One event a session is allowed: its maxima.
    tenants, sessions
        (n,), numbers; a session has one tenant.
    scales
        By kind, one of `models.signal.SCALES`; "tenant" by default.
    atoms
        By kind on the population's scale: the least value, which means that there is nothing (`Tail.fit`).
    weights
        By kind, of its surprise among the others'; 1 where it is not named.
    limits
        By kind, the surprise above which it says no more; none where it is not named.
    groups
        By kind, the name of what it speaks of; a kind that is not named is a group of its own.
    beside, beside_shares
        By kind, session maxima that the events hold none of, for its own tail alone: on the population's scale. As many
        values of their distribution are added as make up that share of the sessions that have the kind.
    measured
        By kind, a tail that is taken as it is.
    newcomer_nats
        As the calibration has it: known from elsewhere, as these tenants were all learned from.
    ring, prior_weight
        As scoring has them.

    Raises
    ------
    ValueError
        A kind without a finite score, or columns of different lengths.
    """
    kinds = tuple(scores)
    scale_of = dict.fromkeys(kinds, "tenant") | dict(scales or {})
    if not kinds or any(len(scores[kind]) != len(tenants) for kind in kinds) or len(sessions) != len(tenants):
        raise ValueError(f"scores, tenants and sessions must be (n,) with n = {len(tenants)}, of one kind at least.")
    session = _numbered(sessions)
    tenant = np.zeros(int(session.max(initial=-1)) + 1, np.int64)
    tenant[session] = tenants
    k = len(kinds)
    prior_location, prior_scale = np.zeros(k), np.ones(k)
    limit = np.array([(limits or {}).get(kind, np.inf) for kind in kinds])
    surprise = np.zeros((len(session), k))
    tails = []
    for kind, name in enumerate(kinds):
        maxima = session_maxima(scores[name], session)
        if not np.isfinite(maxima).any():
            raise ValueError(f"{name} needs a finite score to be calibrated by; got none in {len(session)} events.")
        shared = scale_of[name] != "tenant"
        atom = (atoms or {}).get(name)
        if atom is not None:
            prior_location[kind], prior_scale[kind] = atom, 1.0
        else:
            prior_location[kind], prior_scale[kind] = _prior(maxima, np.zeros_like(tenant) if shared else tenant)
        location, scale = baseline(
            scale_of[name], *_others(maxima, tenant, ring), prior_location[kind], prior_scale[kind], prior_weight
        )
        share = (beside_shares or {}).get(name, 0.0)
        others = _quantiles((beside or {}).get(name, np.zeros(0)), int(np.isfinite(maxima).sum()), share)
        z = np.concatenate([(maxima - location) / scale, (others - prior_location[kind]) / prior_scale[kind]])
        tail = (measured or {}).get(name) or Tail.fit(z, None if atom is None else 0.0)
        tails.append(tail)
        own = tail.surprise((scores[name] - location[session]) / scale[session])
        surprise[:, kind] = np.minimum(own, limit[kind])
    weight = np.array([(weights or {}).get(kind, 1.0) for kind in kinds])
    of_kind = [(groups or {}).get(kind, f"of {kind} alone") for kind in kinds]
    group = np.array([of_kind.index(name) for name in of_kind], np.int64)
    combined = {
        mask: Tail.fit(_combined_maxima(surprise, weight, group, session, mask))
        for mask in _measured_masks(k, list(scale_of.values()))
    }
    return Calibration(
        kinds,
        tuple(scale_of[kind] for kind in kinds),
        prior_location,
        prior_scale,
        tuple(tails),
        combined,
        weight,
        limit,
        group,
        newcomer_nats,
    )


def session_maxima(values: NDArray[np.float64], session: NDArray[np.integer]) -> NDArray[np.float64]:
    """Largest of the `values` (n,) of each session (s,), NaN where it has none.

    >>> session_maxima(np.array([1.0, 3.0, np.nan]), np.array([0, 0, 1]))
    array([ 3., nan])
    """
    maxima = np.full(int(session.max(initial=-1)) + 1, np.nan)
    np.fmax.at(maxima, session, values)
    return maxima


def _quantiles(values: NDArray[np.float64], sessions: int, share: float) -> NDArray[np.float64]:
    """So many of the distribution of `values` that they are this `share` of themselves and the sessions.

    >>> _quantiles(np.arange(11.0), 36, 0.1)
    array([1.25, 3.75, 6.25, 8.75])
    """
    count = round(sessions * share / (1 - share)) if len(values) else 0
    return np.quantile(values, (np.arange(count) + 0.5) / count) if count else np.zeros(0)


def _numbered(sessions: NDArray[np.integer]) -> NDArray[np.int64]:
    """Sessions numbered from 0 by first appearance."""
    _, first, inverse = np.unique(sessions, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first, kind="stable"), kind="stable")[inverse].astype(np.int64)


def _prior(maxima: NDArray[np.float64], tenant: NDArray[np.int64]) -> tuple[float, float]:
    """Medians over tenants of their location and of their scale; over all sessions if no tenant has enough."""
    own = [np.unique(maxima[(tenant == number) & np.isfinite(maxima)]) for number in np.unique(tenant)]
    own = [values for values in own if len(values) >= _OWN_MIN] or [np.unique(maxima[np.isfinite(maxima)])]
    medians = [float(np.median(values)) for values in own]
    spreads = [1.4826 * float(np.median(np.abs(values - np.median(values)))) for values in own]
    location, scale = float(np.median(medians)), float(np.median(spreads))
    return location, scale if scale > 0 else max(1e-6, 0.1 * abs(location))


def _others(
    maxima: NDArray[np.float64], tenant: NDArray[np.int64], ring: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each session (s,) a ring (s, K) of the others of its tenant, those before it first, and how many they are."""
    held = np.full((len(maxima), ring), np.nan)
    counts = np.zeros(len(maxima), np.int64)
    for number in np.unique(tenant):
        own = np.flatnonzero((tenant == number) & np.isfinite(maxima))
        width = min(len(own) - 1, ring)
        everyone = np.flatnonzero(tenant == number)
        if len(own) == 0:
            continue
        # Position of each session among the scored ones; one without a score is before none of them.
        at = np.searchsorted(own, everyone)
        before = (at[:, None] - 1 - np.arange(max(width, 0))) % len(own)
        held[everyone, : max(width, 0)] = maxima[own[before]]
        counts[everyone] = max(width, 0)
    return held, counts


def _measured_masks(k: int, scales: list[str]) -> list[int]:
    """Combinations of kinds that get a tail.

    All of up to four kinds; of more, all together, those that are not on the tenant's scale (which decide before it
    has a past), each alone, and all but one.
    """
    everything = (1 << k) - 1
    if k <= SUBSETS_OF:
        return list(range(1, everything + 1))
    masks = {everything} | {1 << kind for kind in range(k)} | {everything ^ (1 << kind) for kind in range(k)}
    population = sum(1 << kind for kind in range(k) if scales[kind] != "tenant")
    return sorted(masks | ({population} - {0}))


def _combined_maxima(
    surprise: NDArray[np.float64],
    weights: NDArray[np.float64],
    groups: NDArray[np.int64],
    session: NDArray[np.int64],
    mask: int,
) -> NDArray[np.float64]:
    """Session maxima (s,) of the norm of the surprises of the kinds in `mask`, NaN where a session has none of them."""
    chosen = [kind for kind in range(surprise.shape[1]) if mask >> kind & 1]
    norm = combined_surprise(np.nan_to_num(surprise[:, chosen]), weights[chosen], groups[chosen])
    return session_maxima(np.where(np.isnan(surprise[:, chosen]).all(axis=1), np.nan, norm), session)
