"""From held-out scores to a release's calibration, and to what tenants start with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.calibration import Calibration, baseline
from models.tail import Tail
from models.training.calibration import fit_population, session_maxima
from stream.state.schema import (
    ATOMS,
    GROUP_OF,
    KINDS,
    REMEMBERED,
    RING,
    SCALE_OF,
    WEIGHTS_WITHOUT_EXAMPLES,
)
from stream.steps.rings import PRIOR_SESSIONS
from stream.training.events import TrainingEvents
from stream.training.examples import Likenesses

LOOK_ALIKES = {"role_surprise": 0.01, "known_attack": 0.1, "tool_known_attack": 0.1}
"""By signal, share of sessions that are taken to hold a written harmless message (docs/decisions/0041, 0042)."""
NEWCOMER_NATS = 1.1
"""Of `models.calibration.Calibration`: a third of the operating point (docs/decisions/0046)."""
WINSORISED = 0.01
"""Share of unlabelled sessions whose height is not believed: it may be attacks that nobody has marked."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of attacks beside the events."""

    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS_WITHOUT_EXAMPLES)
    """Of the signals' surprises."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Of them, above which a signal says no more."""
    look_alikes: Likenesses = field(default_factory=dict)
    """Signals of written harmless messages that were held out. Tenants' traffic may hold none like them, and the first
    to come would be further out than anything: `LOOK_ALIKES` of sessions are taken to hold one."""
    tails: Mapping[str, Tail] = field(default_factory=dict)
    """Of signals whose models stay as they were: they have learned what is held out now."""


@dataclass(frozen=True, slots=True)
class Rings:
    """Tenants' own held-out session maxima (t, kinds, RING), as the tenant table holds them."""

    maxima: NDArray[np.float32]
    counts: NDArray[np.int64]
    """(t, kinds) ever put in."""
    location: NDArray[np.float64]
    scale: NDArray[np.float64]


def calibrate(
    events: TrainingEvents,
    scores: NDArray[np.float64],
    *,
    grace_sessions: int,
    labelled: bool,
    known: Known = Known(),
) -> tuple[Calibration, NDArray[np.float64]]:
    """The calibration of held-out `scores` (n, kinds), and the scores as it took them.

    Tenants without more than `grace_sessions` sessions are left out, as what is found of them is no finding yet, unless
    there are no others. A signal that the input never gave is set to 1 for every session, so that it stays silent until
    a tenant's own past says what is normal.

    Sessions of which nobody said that they are benign are winsorised: in each signal the highest `WINSORISED` of them,
    in units of their tenants' scales, count as if they had ended where those begin. Without attacks among them this
    costs false positives (2.9 % at nominal 1 % where nobody said so of any, with seven signals); with more of them than
    that share it costs findings. Where `labelled`, all are benign.
    """
    scores = _complete(events, scores)
    mature = mature_events(events, grace_sessions)
    fitted = _fit(events, scores, mature, known)
    believed = events.session_believed
    if labelled or (believed is not None and believed.all()):
        return fitted, scores
    doubted = np.ones(len(scores), np.bool_) if believed is None else ~believed[events.session]
    scores = _winsorised(events, scores, mature & doubted, doubted, fitted)
    return _fit(events, scores, mature, known), scores


def rings(events: TrainingEvents, scores: NDArray[np.float64], calibration: Calibration) -> Rings:
    """What tenants start with: the latest of their own sessions' held-out maxima, and what follows from them."""
    t, k = len(events.tenants), len(KINDS)
    maxima = np.zeros((t, k, RING), np.float32)
    counts = np.zeros((t, k), np.int64)
    for kind in REMEMBERED:
        highest = session_maxima(scores[:, kind], events.session)
        scored = np.flatnonzero(np.isfinite(highest))
        scored = scored[np.argsort(events.session_tenant[scored], kind="stable")]
        row = events.session_tenant[scored]
        counts[:, kind] = np.bincount(row, minlength=t)
        rank = np.arange(len(row)) - (np.cumsum(counts[:, kind]) - counts[:, kind])[row]
        latest = rank >= counts[row, kind] - RING
        maxima[row[latest], kind, rank[latest] % RING] = highest[scored[latest]]
    location = np.tile(calibration.prior_location, (t, 1))
    scale = np.tile(calibration.prior_scale, (t, 1))
    for kind in REMEMBERED:
        location[:, kind], scale[:, kind] = baseline(
            calibration.scales[kind],
            maxima[:, kind].astype(np.float64),
            np.minimum(counts[:, kind], RING),
            calibration.prior_location[kind],
            calibration.prior_scale[kind],
            PRIOR_SESSIONS,
        )
    return Rings(maxima, counts, location, scale)


def flagged_share(
    events: TrainingEvents, scores: NDArray[np.float64], calibration: Calibration, own: Rings, session_fpr: float
) -> float:
    """Share of sessions with an event at or beyond the operating point."""
    tenant = events.session_tenant[events.session]
    p = np.ones_like(scores)
    for kind in range(len(KINDS)):
        x = scores[:, kind]
        values = calibration.p_values(kind, x, own.location[tenant, kind], own.scale[tenant, kind])
        p[:, kind] = np.where(np.isnan(x), 1, values)
    combined = calibration.combine(p, np.ones(p.shape, np.bool_))[1]
    least = -session_maxima(-combined, events.session)
    return float((least <= session_fpr).mean())


def _complete(events: TrainingEvents, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = scores.copy()
    missing = ~np.isfinite(scores).any(axis=0)
    _, first = np.unique(events.session, return_index=True)
    scores[np.ix_(first, np.flatnonzero(missing))] = 1
    return scores


def mature_events(events: TrainingEvents, grace_sessions: int) -> NDArray[np.bool_]:
    """Events (n) of tenants whose sessions count."""
    sessions = np.bincount(events.session_tenant, minlength=len(events.tenants))
    enough = sessions > grace_sessions
    if not enough.any():
        enough[:] = True
    return enough[events.session_tenant[events.session]]


def _fit(
    events: TrainingEvents,
    scores: NDArray[np.float64],
    mature: NDArray[np.bool_],
    known: Known,
) -> Calibration:
    session = events.session[mature]
    by_kind = {name: scores[mature, kind] for kind, name in enumerate(KINDS)}
    tenant = events.session_tenant[session]
    return fit_population(
        by_kind,
        tenant,
        session,
        scales=SCALE_OF,
        atoms=ATOMS,
        weights=known.weights,
        limits=known.limits,
        groups=GROUP_OF,
        beside=known.look_alikes,
        beside_shares=LOOK_ALIKES,
        measured=known.tails,
        newcomer_nats=NEWCOMER_NATS,
        ring=RING,
        prior_weight=PRIOR_SESSIONS,
    )


def _winsorised(
    events: TrainingEvents,
    scores: NDArray[np.float64],
    counted: NDArray[np.bool_],
    doubted: NDArray[np.bool_],
    fitted: Calibration,
) -> NDArray[np.float64]:
    """The scores of `doubted` events (n), none higher than the highest but few of those `counted` (n)."""
    own = rings(events, scores, fitted)
    tenant = events.session_tenant[events.session]
    z = (scores - own.location[tenant]) / own.scale[tenant]
    held = scores.copy()
    for kind in range(len(KINDS)):
        maxima = session_maxima(z[counted, kind], events.session[counted])
        finite = maxima[np.isfinite(maxima)]
        if len(finite):
            end = np.quantile(finite, 1 - WINSORISED, method="lower")
            highest = own.location[tenant, kind] + end * own.scale[tenant, kind]
            held[doubted, kind] = np.minimum(scores[:, kind], highest)[doubted]
    return held
