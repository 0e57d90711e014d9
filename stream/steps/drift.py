"""Events -> windows of a tenant's traffic, one a learn point, and what has moved in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, shake_128

import numpy as np
from numpy.typing import NDArray

from models.drift import DIMENSIONS, GRID, OWN, PARTS, UNIT, Drift, Drifts, Watch, Windows
from models.volume import log_grid
from stream.batch import EventBatch
from stream.state.table import Table, TenantKey
from stream.steps.content import SYSTEM, USER
from stream.steps.volume import ToolCalls

FROM_ORDINAL = 256
"""Events of a tenant before its windows count: until then it learns at every turn, and everything about it moves."""
_SURPRISE_MAX = 20.0
_PARTS = {name: at for at, name in enumerate(PARTS)}
_BEGINS = dict(zip(PARTS, np.cumsum([0, *PARTS.values()]).tolist(), strict=False))
_ROLES = {"topic": USER, "prompt": SYSTEM}


@dataclass(slots=True)
class Moved:
    """What has moved of a tenant's traffic."""

    tenant: int
    """State row."""
    event: int
    """Of the batch, the one that completed the window."""
    metric: str
    before: float
    """Mean of the windows until now: of logarithms, nats, shares; of compositions, the distance from the slow mean."""
    after: float
    """The last window's."""
    statistic: float
    """Page's, over the threshold: above 1."""


@dataclass(slots=True)
class DriftInput:
    """Events (n) of a batch, in integers that are added up in any order."""

    tenant: NDArray[np.int64]
    """(n,) state rows."""
    sizes: NDArray[np.int64]
    """(n, S), in 1/GRID, -1 where there is none; signals' surprise once it is known."""
    part_counts: NDArray[np.int64]
    """(n, P)."""
    parts: NDArray[np.int64]
    """(n, D)."""
    untaken: NDArray[np.bool_]
    """(n,) events that no learn point has taken."""


class DriftStep:
    """Adds up each tenant's window and looks at it when the tenant learns.

    Parameters
    ----------
    signals
        The other signals, in the order of their p-values.
    """

    def __init__(self, signals: Sequence[str]) -> None:
        self.model = Drift(signals)
        self._signals = len(signals)

    def observe(
        self,
        live: EventBatch,
        tenant: NDArray[np.int64],
        calls: ToolCalls,
        segment_event: NDArray[np.int64],
        segment_role: NDArray[np.int8],
        segment_vector: NDArray[np.int8],
    ) -> DriftInput:
        """What can be said of the events (n) without their p-values.

        Parameters
        ----------
        tenant
            (n,) state rows.
        calls
            Tool calls of the responses.
        segment_event, segment_role, segment_vector
            (s,), (s,), (s, d) what the sessions had not shown before.
        """
        n, k = len(live), self._signals
        sizes = np.full((n, k + len(OWN)), -1, np.int64)
        made = np.bincount(calls.event, minlength=n)
        known = (live.prompt_tokens, live.completion_tokens, live.cost_usd * 1e6, live.duration_ms)
        for at, values in enumerate(known):
            sizes[:, k + at] = log_grid(values)
        sizes[:, k + 4] = GRID * made
        sizes[:, k + 5] = GRID * np.bincount(segment_event[segment_role == SYSTEM], minlength=n)
        sizes[:, k + 6] = GRID * live.failed
        part_counts, parts = np.zeros((n, len(PARTS)), np.int64), np.zeros((n, DIMENSIONS), np.int64)
        for name, role in _ROLES.items():
            mine = np.flatnonzero(segment_role == role)
            event, projected = segment_event[mine], _projected(segment_vector[mine], PARTS[name])
            np.add.at(part_counts[:, _PARTS[name]], event, 1)
            np.add.at(parts[:, _BEGINS[name] : _BEGINS[name] + PARTS[name]], event, projected)
        models = [_bucket(head.model_served or head.model_requested or "", PARTS["models"]) for head in live.heads]
        part_counts[:, _PARTS["models"]] = 1
        parts[np.arange(n), _BEGINS["models"] + np.array(models, np.int64)] = UNIT
        part_counts[:, _PARTS["tools"]] = made
        np.add.at(parts, (calls.event, _BEGINS["tools"] + calls.tool), UNIT)
        return DriftInput(tenant, sizes, part_counts, parts, np.ones(n, np.bool_))

    def hear(self, given: DriftInput, here: NDArray[np.int64], p: NDArray[np.float64]) -> None:
        """Take the p-values (m, k) of the events `here`, a wave, NaN where a signal has nothing to say."""
        with np.errstate(invalid="ignore"):
            surprise = np.rint(np.minimum(-np.log(p), _SURPRISE_MAX) * GRID)
        given.sizes[here, : self._signals] = np.where(np.isnan(p), -1, surprise).astype(np.int64)

    def learn(
        self, given: DriftInput, due: NDArray[np.int64], ordinal: NDArray[np.int64], tenants: Table[TenantKey]
    ) -> list[Moved]:
        """End the windows of the tenants of the events `due`, one each: what has moved, by event, then metric.

        Parameters
        ----------
        ordinal
            (n,) of all events in their tenants.
        """
        due = due[np.argsort(given.tenant[due], kind="stable")]
        rows = given.tenant[due]
        until = np.full(int(given.tenant.max()) + 1, -1, np.int64)
        until[rows] = due
        windows = self._gathered(given, given.untaken & (np.arange(len(given.tenant)) <= until[given.tenant]), rows)
        for column, sums in _columns(windows).items():
            sums += tenants[column][rows]
            tenants[column][rows] = 0
        # The learn point that reaches this ordinal ends the last window that does not count.
        old = np.flatnonzero(ordinal[due] > FROM_ORDINAL)
        rows, due = rows[old], due[old]
        watch = Watch(tenants["drift_slow"][rows], tenants["drift_detectors"][rows])
        foreign = tenants["drift_version"][rows] != self.model.version
        watch.slow[foreign], watch.detectors[foreign] = 0, 0
        drifts = self.model.take(watch, windows.take(old))
        tenants["drift_slow"][rows] = watch.slow
        tenants["drift_detectors"][rows] = watch.detectors
        tenants["drift_version"][rows] = self.model.version
        return self._moved(drifts, rows, due)

    def store(self, given: DriftInput, tenants: Table[TenantKey]) -> NDArray[np.int64]:
        """Keep what no window has taken; the tenants (rows) whose live columns changed, to be marked."""
        changed = np.unique(given.tenant)
        windows = self._gathered(given, given.untaken, changed)
        given.untaken[:] = False
        for column, sums in _columns(windows).items():
            tenants[column][changed] += sums.astype(np.int32)
        return changed

    def _gathered(self, given: DriftInput, chosen: NDArray[np.bool_], rows: NDArray[np.int64]) -> Windows:
        """Take the `chosen` events (n,), all of the tenants `rows` (t, sorted): their sums."""
        events = np.flatnonzero(chosen)
        row = np.searchsorted(rows, given.tenant[events])
        sizes = given.sizes[events]
        known = sizes >= 0
        columns = (known.astype(np.int64), np.where(known, sizes, 0), given.part_counts[events], given.parts[events])
        sums = []
        for column in columns:
            total = np.zeros((len(rows), column.shape[1]), np.int64)
            np.add.at(total, row, column)
            sums.append(total)
        given.untaken &= ~chosen
        return Windows(*sums)

    def _moved(self, drifts: Drifts, rows: NDArray[np.int64], due: NDArray[np.int64]) -> list[Moved]:
        order = np.lexsort((drifts.metric, due[drifts.row]))
        return [
            Moved(
                int(rows[drifts.row[i]]),
                int(due[drifts.row[i]]),
                self.model.metrics[int(drifts.metric[i])],
                float(drifts.before[i]),
                float(drifts.after[i]),
                float(drifts.statistic[i]) / self.model.threshold,
            )
            for i in order.tolist()
        ]


def _columns(windows: Windows) -> dict[str, NDArray[np.int64]]:
    """Live columns, each with its field."""
    return {
        "drift_counts": windows.counts,
        "drift_sums": windows.sums,
        "drift_part_counts": windows.part_counts,
        "drift_parts": windows.parts,
    }


def _projected(x: NDArray[np.int8], width: int) -> NDArray[np.int64]:
    """Rows (s, d) in `width` dimensions, each the signed sum of its own share of the d; lengths are kept on average."""
    dim = x.shape[1]
    share = -(-dim // width)
    wide = np.zeros((len(x), width * share), np.int64)
    wide[:, :dim] = x * _signs(dim)
    out: NDArray[np.int64] = wide.reshape(len(x), width, share).sum(axis=2)
    return out


@lru_cache(maxsize=8)
def _signs(dim: int) -> NDArray[np.int64]:
    """(d,), of a fixed random projection."""
    bits = np.frombuffer(shake_128(b"drift").digest(dim // 8 + 1), np.uint8)
    return 2 * np.unpackbits(bits)[:dim].astype(np.int64) - 1


@lru_cache(maxsize=4096)
def _bucket(name: str, buckets: int) -> int:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=2).digest()[0] % buckets
