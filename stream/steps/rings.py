"""What tenants' session maxima say: learned at learn points, begun anew where another release or an analyst says so."""

import numpy as np
from numpy.typing import NDArray

from models.calibration import Calibration, baseline
from stream.release import Release
from stream.state.identity import stamp_of
from stream.state.pending import Closings
from stream.state.schema import KINDS, OF_RELEASE, REMEMBERED, RING, SEQUENCE, STAMP, VOLUME
from stream.state.table import Table, TenantKey

PRIOR_SESSIONS = 20.0
"""Sessions of a tenant's own that weigh as much as the release's population."""
ADOPTED_SESSIONS = 16
"""Of a tenant whose new normal is adopted, the latest, which that normal is taken from."""
_RINGS = ("location", "scale", "maxima", "maxima_count")


def learn_sessions(
    tenants: Table[TenantKey],
    rows: NDArray[np.int64],
    closed: Closings,
    calibration: Calibration,
    stamp: np.uint64,
) -> None:
    """Put closed sessions' maxima into the rings of tenants `rows` and fit location and scale anew.

    What the models of another release than that of `stamp` measured is left out.
    """
    foreign = np.flatnonzero(closed.stamp != stamp)
    if len(foreign):
        closed.maxima[foreign[:, None], OF_RELEASE] = np.nan
    order = np.argsort(closed.row, kind="stable")
    for kind in REMEMBERED:
        picked = order[np.isfinite(closed.maxima[order, kind])]
        row = closed.row[picked]
        starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]]) if len(row) else np.zeros(0, np.int64)
        rank = np.arange(len(row)) - np.repeat(starts, np.diff(np.r_[starts, len(row)]))
        at = tenants["maxima_count"][row, kind] + rank
        # Numpy keeps the last of several writes to one place, as a ring should.
        tenants["maxima"][row, kind, at % RING] = closed.maxima[picked, kind]
        np.add.at(tenants["maxima_count"], (row, kind), 1)
        _fit(tenants, rows, kind, calibration)


def follow_release(
    tenants: Table[TenantKey], rows: NDArray[np.int64], release: Release, stamp: np.uint64
) -> NDArray[np.int64]:
    """Let tenants `rows`, each named once, be judged by this release from their next event on; those that were not.

    Of kinds that a release's models measure, the rings are those of its warm row, and empty where it does not know the
    tenant; the others stay and are fitted to its population. Drift of all signals' surprise starts anew, as p-values of
    two releases do not compare.
    """
    rows = rows[tenants[STAMP][rows] != stamp]
    if len(rows) == 0:
        return rows
    warm = np.array([release.warm_rows.get(tenants.key(row)[1], -1) for row in rows.tolist()], np.int64)
    tenants["maxima_count"][rows[:, None], OF_RELEASE] = 0
    tenants["maxima"][rows[:, None], OF_RELEASE] = 0
    for kind in REMEMBERED:
        _fit(tenants, rows, kind, release.calibration)
    population = [kind for kind in range(len(KINDS)) if kind not in REMEMBERED]
    tenants["location"][rows[:, None], population] = release.calibration.prior_location[population]
    tenants["scale"][rows[:, None], population] = release.calibration.prior_scale[population]
    known = np.flatnonzero(warm >= 0)
    for name in _RINGS:
        if name in release.warm:
            values = release.warm[name][warm[known]]
            tenants[name][rows[known][:, None], OF_RELEASE] = values[:, OF_RELEASE]
    tenants["drift_detectors"][rows, : len(KINDS)] = 0
    tenants["drift_counts"][rows, : len(KINDS)] = 0
    tenants["drift_sums"][rows, : len(KINDS)] = 0
    tenants[STAMP][rows] = stamp
    tenants.mark("learned", rows)
    tenants.mark("drift", rows)
    return rows


def adopt(tenants: Table[TenantKey], rows: NDArray[np.int64], release: Release) -> None:
    """Let what tenants `rows` do now be their normal.

    Drift starts anew, windows and detectors. Of sessions' courses only the latest `ADOPTED_SESSIONS` count, and of
    sizes nothing that came before: both the sizes of calls and how strange sessions' sizes were, which was measured
    against them. What is counted and when is kept: who calls, from where, at what hours.
    """
    follow_release(tenants, rows, release, stamp_of(release.name))
    for name in ("drift_slow", "drift_detectors", "drift_counts", "drift_sums", "drift_part_counts", "drift_parts"):
        tenants[name][rows] = 0
    tenants["volume_gauges"][rows] = 0
    tenants["maxima_count"][rows, VOLUME] = 0
    tenants["maxima"][rows, VOLUME] = 0
    count = tenants["maxima_count"][rows, SEQUENCE]
    kept = np.minimum(count, ADOPTED_SESSIONS)
    at = (count - kept)[:, None] + np.arange(ADOPTED_SESSIONS)
    latest = np.take_along_axis(tenants["maxima"][rows, SEQUENCE], at % RING, axis=1)
    tenants["maxima"][rows, SEQUENCE] = 0
    tenants["maxima"][rows, SEQUENCE, :ADOPTED_SESSIONS] = np.where(
        np.arange(ADOPTED_SESSIONS) < kept[:, None], latest, 0
    )
    tenants["maxima_count"][rows, SEQUENCE] = kept
    for kind in (SEQUENCE, VOLUME):
        _fit(tenants, rows, kind, release.calibration)
    tenants.mark("learned", rows)
    tenants.mark("drift", rows)


def _fit(tenants: Table[TenantKey], rows: NDArray[np.int64], kind: int, calibration: Calibration) -> None:
    tenants["location"][rows, kind], tenants["scale"][rows, kind] = baseline(
        calibration.scales[kind],
        tenants["maxima"][rows, kind].astype(np.float64),
        np.minimum(tenants["maxima_count"][rows, kind], RING),
        calibration.prior_location[kind],
        calibration.prior_scale[kind],
        PRIOR_SESSIONS,
    )
