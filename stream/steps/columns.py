"""Events of a batch -> the arrays that scoring takes, with what the state knows of their tenants and sessions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.release import Release
from stream.state.identity import key_id, session_id
from stream.state.schema import KINDS, STAMP
from stream.state.store import State
from stream.state.table import SessionKey, TenantKey
from stream.steps.content import TOOL, Content
from stream.steps.decide import stricter
from stream.steps.rings import follow_release
from stream.steps.score import ScoreInput
from stream.steps.sessions import NewContent, Runs


def tenant_rows(keys: Sequence[SessionKey], state: State, release: Release) -> tuple[NDArray[np.int64], list[str]]:
    """State rows (n) of the events' tenants, all of them ready to be judged by the release in service.

    One that is new starts from the release's warm row, if it has one; one that another release judged follows this one.
    """
    local: dict[TenantKey, int] = {}
    index = np.fromiter((local.setdefault(key[:2], len(local)) for key in keys), np.int64, len(keys))
    names = list(local)
    rows = state.tenants.find(names)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        rows[missing] = state.tenants.create([names[i] for i in missing.tolist()])
        calibration = release.calibration
        state.tenants["location"][rows[missing]] = calibration.prior_location
        state.tenants["scale"][rows[missing]] = calibration.prior_scale
        warm = [(release.warm_rows.get(names[i][1], -1), int(rows[i])) for i in missing.tolist()]
        known = np.array([pair for pair in warm if pair[0] >= 0], np.int64).reshape(-1, 2)
        for name, column in release.warm.items():
            state.tenants[name][known[:, 1]] = column[known[:, 0]]
        state.tenants[STAMP][rows[missing]] = state.stamp
        state.tenants.mark("learned", known[:, 1])
    follow_release(state.tenants, rows, release, state.stamp)
    return rows[index], [names[i][1] for i in index.tolist()]


def score_input(
    runs: Runs,
    new: NewContent,
    contents: Sequence[Content],
    windows: NDArray[np.int8],
    lengths: NDArray[np.int64],
    core_time_ms: NDArray[np.int64],
    tenant: NDArray[np.int64],
    adapter: NDArray[np.int64],
    provenance: NDArray[np.float64],
    covered: NDArray[np.float32],
    keys: Sequence[str | None],
    session_fpr: float,
    state: State,
    dim: int,
) -> ScoreInput:
    """Columns of the events (n), by their runs, and of the segments that their sessions had not shown before."""
    ordinal, opened, session_ordinal = _ordinals(runs, tenant, state)
    heard = np.flatnonzero(new.unseen)
    parts = [contents[i] for i in heard.tolist()]
    counts = np.fromiter((len(part.texts) for part in parts), np.int64, len(parts))
    event = np.repeat(new.event[heard], counts)
    role = np.concatenate([part.roles for part in parts]) if parts else np.zeros(0, np.int8)
    taken = np.where(role == TOOL, np.repeat(covered[heard], counts), np.float32(0)).astype(np.float32)
    owner = np.fromiter((session_id(key[2]) for key in runs.keys), np.uint64, len(runs.keys))[runs.of_event]
    key = np.array([key_id(text) for text in keys], np.uint32)
    operating_point, kept_out = _judgement(session_fpr, runs, tenant, owner, key, core_time_ms, state)
    judged = np.concatenate([part.judged for part in parts]) if parts else np.zeros((0, 1), np.float32)
    judged -= taken[:, None]
    return ScoreInput(
        tenant=tenant,
        core_time_ms=core_time_ms,
        ordinal=ordinal,
        ordinal_before=state.tenants["ordinal"][tenant],
        opened=opened,
        session_ordinal=session_ordinal,
        run=runs.of_event,
        windows=windows,
        lengths=lengths,
        adapter=adapter,
        operating_point=operating_point,
        kept_out=kept_out,
        provenance=provenance,
        segment_event=event,
        segment_role=role,
        segment_judged=judged,
        segment_covered=taken,
        segment_chars=np.concatenate([part.lengths for part in parts]) if parts else np.zeros(0, np.float32),
        segment_vector=np.concatenate([part.vectors for part in parts]) if parts else np.zeros((0, dim), np.int8),
        segment_owner=owner[event],
        segment_key=key[event],
    )


def _judgement(
    session_fpr: float,
    runs: Runs,
    tenant: NDArray[np.int64],
    owner: NDArray[np.uint64],
    key: NDArray[np.uint32],
    core_time_ms: NDArray[np.int64],
    state: State,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Operating points (n), and of which events (n) nothing flagged is kept, as verdicts have it."""
    n = len(tenant)
    points = np.full(n, session_fpr)
    if not state.verdicts:
        return points, np.zeros(n, np.bool_)
    rows, of_event = np.unique(tenant, return_inverse=True)
    tenants = [state.tenants.key(row) for row in rows.tolist()]
    risky, kept_out = state.verdicts.find(tenants, of_event, owner, key, core_time_ms)
    points[risky] = stricter(session_fpr)
    return points, kept_out


def carried_maxima(runs: Runs, state: State) -> NDArray[np.float64]:
    """Signal maxima (k, kinds) that the runs bring from earlier batches, NaN for those that begin here."""
    maxima = np.full((len(runs.keys), len(KINDS)), np.nan)
    goes_on = runs.row >= 0
    maxima[goes_on] = state.session_maxima(runs.row[goes_on])
    return maxima


def _ordinals(
    runs: Runs, tenant: NDArray[np.int64], state: State
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each event (n): its number in its tenant, sessions opened by then, its session's number."""
    opens = (runs.position == 0) & (runs.row[runs.of_event] < 0)
    order = np.argsort(tenant, kind="stable")
    grouped = tenant[order]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]]) if len(order) else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, len(order)])
    running = np.cumsum(opens[order])
    before = np.repeat(running[starts] - opens[order][starts], sizes)
    ordinal, opened = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    ordinal[order] = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    opened[order] = running - before
    ordinal += state.tenants["ordinal"][tenant].astype(np.int64)
    opened += state.tenants["sessions"][tenant].astype(np.int64)
    of_run = state.sessions["session_ordinal"][runs.row].astype(np.int64)
    first = np.flatnonzero(opens)
    of_run[runs.of_event[first]] = opened[first]
    return ordinal, opened, of_run[runs.of_event]
