"""What a partition has besides rows: its time, its place, and its timers."""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from stream.state.dedup import Dedup
from stream.state.schema import NEVER_MS
from stream.state.table import SessionKey

_DAY_MS = 86_400_000


class Allowance(msgspec.Struct):
    """New findings that are left."""

    left: float
    core_ms: int

    def refill(self, daily: float, room: float, core_time_ms: int) -> float:
        """Let in what a day brings, evenly over core time; what is beyond `room` is not kept, but returned."""
        brought = self.after(daily, math.inf, core_time_ms)
        self.left = min(room, brought)
        self.core_ms = max(self.core_ms, core_time_ms)
        return brought - self.left

    def after(self, daily: float, room: float, core_time_ms: int) -> float:
        """What would be left by then; nothing changes."""
        return min(room, self.left + daily * max(0, core_time_ms - self.core_ms) / _DAY_MS)

    def take(self) -> bool:
        """Spend one, if there is one."""
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Cursor(msgspec.Struct, frozen=True):
    """Where a partition stands: written with every transaction, and equal to the group's committed offset."""

    next_offset: int
    core_time_ms: int
    """The largest event time seen, or what a tick brought it to."""
    ingest_time_ms: int
    """Of the last record or tick: from here the next tick measures how much time has passed."""
    next_control: int
    release: str
    config_hash: str
    journal_seq: int
    allowances: dict[str, Allowance] = {}
    given: str = ""
    """The `--release` that the partition was last started with: while it stays, what was promoted since is served."""
    v: int = 4


CURSOR_KEY = b'["cursor"]'


@dataclass(slots=True)
class Partition:
    """One partition's scalars and timers."""

    number: int
    dedup: Dedup
    next_offset: int = 0
    core_time_ms: int = NEVER_MS
    ingest_time_ms: int = 0
    next_control: int = 0
    release: str = ""
    given: str = ""
    config_hash: str = ""
    journal_seq: int = 0
    allowances: dict[str, Allowance] = field(default_factory=dict)
    """What is left of the budget, by whose it is (`stream.steps.decide`)."""
    session_timers: list[tuple[int, SessionKey]] = field(default_factory=list)
    """A heap of (due, session): early ones are looked up again and pushed back, so an event costs no push."""

    def cursor(self) -> Cursor:
        """As it is stored."""
        return Cursor(
            self.next_offset,
            self.core_time_ms,
            self.ingest_time_ms,
            self.next_control,
            self.release,
            self.config_hash,
            self.journal_seq,
            _copied(self.allowances),
            self.given,
        )

    def take(self, cursor: Cursor) -> None:
        """Stand where a stored cursor says."""
        self.next_offset = cursor.next_offset
        self.core_time_ms = cursor.core_time_ms
        self.ingest_time_ms = cursor.ingest_time_ms
        self.next_control = cursor.next_control
        self.release = cursor.release
        self.given = cursor.given
        self.config_hash = cursor.config_hash
        self.journal_seq = cursor.journal_seq
        self.allowances = _copied(cursor.allowances)

    def watch(self, due_ms: int, session: SessionKey) -> None:
        """Look at a session again when core time reaches `due_ms`."""
        heapq.heappush(self.session_timers, (due_ms, session))

    def due_sessions(self, core_time_ms: int) -> list[SessionKey]:
        """Sessions to look at now, each once."""
        out: dict[SessionKey, None] = {}
        while self.session_timers and self.session_timers[0][0] <= core_time_ms:
            out[heapq.heappop(self.session_timers)[1]] = None
        return list(out)


def _copied(allowances: Mapping[str, Allowance]) -> dict[str, Allowance]:
    """What neither a later event nor whoever holds the cursor changes."""
    return {name: Allowance(each.left, each.core_ms) for name, each in allowances.items()}
