"""Who has not been heard of for so long that a partition forgets them, so that its state does not grow for ever.

It is looked at where the partition's time enters another day: what is forgotten then depends on the order of its events
alone, and one scan a day costs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.batch import EventBatch
from stream.config import LearningSettings
from stream.record import StateChange
from stream.state.partition import Partition
from stream.state.schema import NEVER_MS
from stream.state.store import State
from stream.state.volume import KEY_COLUMNS

DAY_MS = 86_400_000
_DAY_S = DAY_MS // 1000


class Forgetting:
    """Forgets tenants and API keys by their partition's time.

    A tenant was last heard of when the latest of its keys called; calls without a key count as one.
    """

    def __init__(self, state: State, settings: LearningSettings) -> None:
        self._state = state
        self._tenants_s = int(settings.forget_tenants_days * _DAY_S)
        self._keys_s = int(settings.forget_keys_days * _DAY_S)

    def next_day(self, batch: EventBatch) -> int | None:
        """The first event of a batch that takes its partition into another day; None where none does."""
        days = batch.event_time_ms // DAY_MS
        latest, firsts = int(days.max(initial=NEVER_MS)), []
        for number in np.unique(batch.partition).tolist():
            mine = np.flatnonzero(batch.partition == number)
            day = self._day(number, int(days[mine[0]]))
            if day < latest:
                firsts += mine[days[mine] > day][:1].tolist()
        return min(firsts, default=None)

    def begin_day(self, held: Partition, core_time_ms: int) -> list[StateChange]:
        """Forget who is due when a partition's time enters the day of `core_time_ms`: tombstones of their waiting rows.

        Others follow with the next `State.changes`. Nothing happens within a day.
        """
        day = core_time_ms // DAY_MS
        if day <= self._day(held.number, day):
            return []
        held.core_time_ms = day * DAY_MS
        return self._forget(held.number, day * _DAY_S)

    def _day(self, partition: int, first: int) -> int:
        """The day that a partition is in, `first` where it has none yet."""
        held = self._state.partitions.get(partition)
        return first if held is None or held.core_time_ms == NEVER_MS else held.core_time_ms // DAY_MS

    def _forget(self, partition: int, now_s: int) -> list[StateChange]:
        state = self._state
        rows = state.tenants.rows(partition)
        seen = np.where(state.tenants["volume_key"][rows] != 0, state.tenants["volume_key_seen"][rows], 0)
        # (r, KEYS) -> (r,)
        heard = seen.max(axis=1, initial=0).astype(np.int64)
        gone = heard + self._tenants_s <= now_s
        old = (seen > 0) & (seen + np.int64(self._keys_s) <= now_s) & (seen < heard[:, None]) & ~gone[:, None]
        self._forget_keys(rows, old)
        return state.forget_tenants(partition, rows[gone]) if gone.any() else []

    def _forget_keys(self, rows: NDArray[np.int64], old: NDArray[np.bool_]) -> None:
        """Free slots (r, KEYS): those in use move to the front, in their order."""
        some = np.flatnonzero(old.any(axis=1))
        if len(some) == 0:
            return
        rows, old, tenants = rows[some], old[some], self._state.tenants
        order = np.argsort(old, axis=1, kind="stable")
        freed = np.take_along_axis(old, order, axis=1)
        for column in KEY_COLUMNS:
            values = tenants[column.name][rows]
            index = order.reshape(*order.shape, *(1 for _ in column.shape[1:]))
            values = np.take_along_axis(values, index, axis=1)
            values[freed] = 0
            tenants[column.name][rows] = values
        tenants.mark("volume", rows)
