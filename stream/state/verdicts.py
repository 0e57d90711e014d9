"""What verdicts have set for a time: who is judged more strictly, whose flagged content is not kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.control import VerdictEffect
from stream.record import StateChange
from stream.state.identity import key_id, session_id
from stream.state.named import NamedRows
from stream.state.table import TenantKey

_ODD = 0x9E37_79B9_7F4A_7C15
"""Knuth's multiplicative hash: 2^64 over the golden ratio."""
_MASK = (1 << 64) - 1

Reach = Literal["session", "key", "tenant"]


@dataclass(frozen=True, slots=True)
class Target:
    """Whom of a tenant an effect reaches."""

    reach: Reach
    number: int
    """Of the session or key, as state knows it; 0 for the tenant."""


def held_back_by(effect: VerdictEffect) -> Target | None:
    """Whose held-back content an effect is about; None where its scope names nobody that is known."""
    if effect.scope == "tenant" or effect.adopt:
        return Target("tenant", 0)
    if effect.scope == "entity" and effect.key_hash is not None:
        return Target("key", key_id(effect.key_hash))
    if effect.session is not None:
        return Target("session", session_id(effect.session))
    return Target("key", key_id(effect.key_hash)) if effect.key_hash is not None else None


def at_risk(effect: VerdictEffect) -> Target | None:
    """Who is judged more strictly."""
    if effect.key_hash is not None:
        return Target("key", key_id(effect.key_hash))
    return Target("session", session_id(effect.session)) if effect.session is not None else None


class StandingEffect(msgspec.Struct, frozen=True):
    """What the verdicts on a finding have set, as it is stored."""

    effect: VerdictEffect
    kept_out_until_ms: int
    """Core times; what has no effect ended long ago."""
    risk_until_ms: int
    until_ms: int
    """When it need not be known any more that this control has taken effect."""
    v: int = 2


@dataclass(frozen=True, slots=True)
class _Marks:
    """Codes, sorted, each with the core time at which it ends."""

    code: NDArray[np.uint64]
    until_ms: NDArray[np.int64]

    @classmethod
    def of(cls, ends: dict[int, int]) -> "_Marks":
        codes = sorted(ends)
        return cls(np.array(codes, np.uint64), np.array([ends[code] for code in codes], np.int64))

    def hold(self, code: NDArray[np.uint64], core_time_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which events (n) of these codes and times they are about."""
        if len(self.code) == 0:
            return np.zeros(len(code), np.bool_)
        at = np.minimum(np.searchsorted(self.code, code), len(self.code) - 1)
        held: NDArray[np.bool_] = (self.code[at] == code) & (core_time_ms < self.until_ms[at])
        return held


_NONE = _Marks(np.zeros(0, np.uint64), np.zeros(0, np.int64))


class Verdicts:
    """Standing effects of every partition, one a finding, and what they mean for events.

    Events are looked up by a code of partition, tenant and who it is, all at once; where nothing stands nothing is
    looked up.
    """

    def __init__(self) -> None:
        self._rows: NamedRows[StandingEffect] = NamedRows("verdict", StandingEffect)
        self._risk = self._kept_out = _NONE
        self._reaches: set[Reach] = set()
        """Of what stands: of the others nothing is looked up."""
        self._stale = False

    def __bool__(self) -> bool:
        return bool(self._rows)

    def get(self, partition: int, finding_uid: str) -> StandingEffect | None:
        """What stands by verdicts on a finding."""
        return self._rows.get(partition, finding_uid)

    def put(self, partition: int, standing: StandingEffect) -> None:
        """Let an effect stand, in the place of an earlier one of its finding."""
        self._rows.put(partition, standing.effect.finding_uid, standing)
        self._stale = True

    def find(
        self,
        keys: Sequence[TenantKey],
        of_event: NDArray[np.int64],
        session: NDArray[np.uint64],
        key: NDArray[np.uint32],
        core_time_ms: NDArray[np.int64],
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which events (n) are judged more strictly, and of which no flagged content is kept.

        Parameters
        ----------
        keys
            (t,) of the events' tenants.
        of_event
            (n,) each event's place there.
        session, key
            (n,) as state knows them.
        core_time_ms
            (n,) their partitions' time.
        """
        if self._stale:
            self._mark()
        risky, kept_out = np.zeros(len(of_event), np.bool_), np.zeros(len(of_event), np.bool_)
        numbers: tuple[tuple[Reach, NDArray[np.uint64]], ...] = (
            ("session", session),
            ("key", key.astype(np.uint64)),
            ("tenant", np.zeros(len(of_event), np.uint64)),
        )
        for reach, number in numbers:
            if reach not in self._reaches:
                continue
            seeds = np.array([_seed(*tenant, reach) for tenant in keys], np.uint64)[of_event]
            code = seeds + number * np.uint64(_ODD)
            risky |= self._risk.hold(code, core_time_ms)
            kept_out |= self._kept_out.hold(code, core_time_ms)
        return risky, kept_out

    def expire(self, partition: int, core_time_ms: int) -> None:
        """Forget what has ended by now."""
        self._stale |= self._rows.expire(partition, core_time_ms)

    def changes(self) -> list[StateChange]:
        """State rows of what changed since the last call."""
        return self._rows.changes()

    def load(self, partition: int, ids: Sequence[str], value: bytes) -> None:
        """Take a stored row back.

        Raises
        ------
        StateError
            When the value is no standing effect.
        """
        self._rows.load(partition, ids, value)
        self._stale = True

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        self._rows.drop(partition)
        self._stale = True

    def _mark(self) -> None:
        self._stale = False
        risk: dict[int, int] = {}
        kept_out: dict[int, int] = {}
        self._reaches = set()
        for partition, _, standing in self._rows:
            effect = standing.effect
            place = partition, effect.tenant
            risky, held_back = at_risk(effect), held_back_by(effect)
            _extend(risk, place, risky, standing.risk_until_ms)
            _extend(kept_out, place, held_back, standing.kept_out_until_ms)
            self._reaches |= {target.reach for target in (risky, held_back) if target is not None}
        self._risk, self._kept_out = _Marks.of(risk), _Marks.of(kept_out)


def _extend(ends: dict[int, int], place: TenantKey, target: Target | None, until_ms: int) -> None:
    """The latest end of several effects on one target counts."""
    if target is not None:
        code = (_seed(*place, target.reach) + target.number * _ODD) & _MASK
        ends[code] = max(ends.get(code, until_ms), until_ms)


@lru_cache(maxsize=65_536)
def _seed(partition: int, tenant: str, reach: Reach) -> int:
    where = orjson.dumps([partition, tenant, reach])
    return int.from_bytes(blake2b(where, digest_size=8).digest(), "big")
