"""How far a segment lies from what its tenant has heard that role say."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 127
"""An int8 unit vector's length: similarities are integers in ±SCALE²."""

_TILES_AT_ONCE = 256
"""Memory gathered per step: 256 tiles of 64 slots of 256 float32 are 16 MiB."""


@dataclass(slots=True)
class Memory:
    """What tenants remember: arrays over rows (t), slots (m), dimensions (d). Views or copies, as the caller likes."""

    vectors: NDArray[np.int8]
    """(t, m, d), unit rows times 127."""
    roles: NDArray[np.int8]
    """(t, m), -1 where the slot is empty."""
    weights: NDArray[np.float32]
    """(t, m), how often, and how lately, the slot was the nearest."""
    owners: NDArray[np.uint64]
    """(t, m), hash of the session that brought the slot's vector."""
    keys: NDArray[np.uint32]
    """(t, m), hash of the API key that it was brought with, 0 where there was none."""
    used: NDArray[np.int32]
    """(t,), slots filled; they fill in order."""

    def take(self, rows: NDArray[np.int64]) -> "Memory":
        """A copy of these rows."""
        return Memory(*(getattr(self, name)[rows] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Lesson:
    """Segments (n) to be learned, in the order of their events."""

    tenant: NDArray[np.int64]
    """(n,), index into the memory rows given beside it."""
    role: NDArray[np.int8]
    """(n,)."""
    slot: NDArray[np.int16]
    """(n,), the slot that it was close to when scored, or -1."""
    vector: NDArray[np.int8]
    """(n, d), unit rows times 127."""
    owner: NDArray[np.uint64]
    """(n,), hash of the session."""
    key: NDArray[np.uint32]
    """(n,), hash of the API key, 0 for none."""


class Novelty:
    """Distance of segments from the nearest thing that the same role has said to the same tenant.

    0 is word for word, 1 unrelated. It is evidence of "off topic", never by itself of an attack. State: `Memory`,
    `slots` vectors a tenant; it never grows.

    Parameters
    ----------
    slots
        m, vectors a tenant remembers.
    dim
        d, the embedder's output size.
    near
        Cosine from which a segment is a repetition: it strengthens a slot and takes none.
    half_life
        Events of a tenant after which a slot's weight has halved.
    admitted_max
        Vectors that one learn point takes in, so that a burst cannot wash a memory out.
    owner_share
        Largest share of the slots that one session may hold; a key that of two of the tenant's keys, or as much.

    References
    ----------
    Breunig et al. (2000), LOF, and Ramaswamy et al. (2000): distance to the nearest neighbour as outlier score.
    Vectors are int8 and products are summed in float32, where every partial sum below 2^24 is exact: with d = 256,
    127² · 256 < 2^22. So a score does not depend on what else is in the batch.
    """

    name = "novelty"
    scale = "tenant"

    def __init__(
        self,
        slots: int = 60,
        dim: int = 256,
        near: float = 0.9,
        half_life: float = 2048.0,
        admitted_max: int = 16,
        owner_share: float = 0.05,
    ) -> None:
        self.slots = slots
        self.dim = dim
        self.near = round(near * SCALE * SCALE)
        self.half_life = half_life
        self.admitted_max = admitted_max
        self.owned_max = max(1, int(owner_share * slots))

    def empty(self, rows: int) -> Memory:
        """Memory of `rows` tenants that have heard nothing.

        >>> Novelty(slots=2, dim=4).empty(3).vectors.shape
        (3, 2, 4)
        """
        return Memory(
            np.zeros((rows, self.slots, self.dim), np.int8),
            np.full((rows, self.slots), -1, np.int8),
            np.zeros((rows, self.slots), np.float32),
            np.zeros((rows, self.slots), np.uint64),
            np.zeros((rows, self.slots), np.uint32),
            np.zeros(rows, np.int32),
        )

    def score(
        self, memory: Memory, rows: NDArray[np.int64], role: NDArray[np.int8], x: NDArray[np.int8]
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Distances (n,) in [0, 2] of `x` (n, d) from memory row `rows[i]`, and the nearest slot, -1 unless near.

        1 where the tenant has never heard the role.

        >>> novelty = Novelty(slots=2, dim=2)
        >>> memory = novelty.empty(1)
        >>> memory.vectors[0, 0], memory.roles[0, 0], memory.used[0] = [127, 0], 1, 1
        >>> novelty.score(memory, np.array([0, 0]), np.array([1, 1], np.int8), np.array([[127, 0], [0, 127]], np.int8))
        (array([0., 1.], dtype=float32), array([ 0, -1], dtype=int16))
        """
        n = len(rows)
        best = np.zeros(n, np.float32)
        slot = np.full(n, -1, np.int16)
        if n == 0:
            return best, slot
        order = np.argsort(rows, kind="stable")
        tenants, starts, counts = np.unique(rows[order], return_index=True, return_counts=True)
        # Any width gives the same bits; the mean keeps padding low for one busy tenant and for a thousand quiet ones.
        width = int(np.clip(1 << int(np.ceil(np.log2(n / len(tenants)))), 1, 64))
        tiles_of = -(-counts // width)
        tile_tenant = np.repeat(np.arange(len(tenants)), tiles_of)
        tile_first = np.cumsum(tiles_of) - tiles_of
        at = np.arange(n) - np.repeat(starts, counts)
        tile = np.repeat(tile_first, counts) + at // width
        lane = at % width
        for low in range(0, len(tile_tenant), _TILES_AT_ONCE):
            high = min(low + _TILES_AT_ONCE, len(tile_tenant))
            first, last = np.searchsorted(tile, [low, high])
            picked = order[first:last]
            here, column = tile[first:last] - low, lane[first:last]
            block = np.zeros((high - low, width, self.dim), np.float32)
            block[here, column] = x[picked]
            kept = tenants[tile_tenant[low:high]]
            used = int(memory.used[kept].max(initial=0))
            if used == 0:
                continue
            remembered = memory.vectors[kept, :used].astype(np.float32)  # (tiles, slots in use, d)
            dots = np.matmul(block, remembered.transpose(0, 2, 1))[here, column]
            same = memory.roles[kept, :used][here] == role[picked, None]
            dots[~same] = -np.inf
            nearest = dots.argmax(axis=1)
            found = dots[np.arange(len(picked)), nearest]
            best[picked] = np.where(np.isfinite(found), found, 0)
            slot[picked] = np.where(found >= self.near, nearest, -1)
        return np.float32(1) - best / np.float32(SCALE * SCALE), slot

    def learn(self, memory: Memory, lesson: Lesson, events: NDArray[np.int64], mature: NDArray[np.bool_]) -> None:
        """Take `lesson` into `memory`, in place.

        Repetitions strengthen their slot; of what is new, `admitted_max` vectors a tenant at most, none like
        another, replace the weakest slots.

        Parameters
        ----------
        memory
            One row for each tenant that has reached its learn point.
        lesson
            What their events brought since the last one.
        events
            (t,) events since the last learn point, for forgetting.
        mature
            (t,) whether the tenant has had sessions enough for `owner_share` to be kept.
        """
        memory.weights *= (self.half_life / (self.half_life + events)).astype(np.float32)[:, None]
        repeated = lesson.slot >= 0
        np.add.at(memory.weights, (lesson.tenant[repeated], lesson.slot[repeated]), np.float32(1))
        new = self._distinct(lesson, np.flatnonzero(~repeated & lesson.vector.any(axis=1)))
        new = self._within_share(memory, lesson, new, mature)
        if len(new) == 0:
            return
        tenant = lesson.tenant[new]
        rank = _rank_within(tenant)
        new, tenant, rank = (
            new[rank < self.admitted_max],
            tenant[rank < self.admitted_max],
            rank[rank < self.admitted_max],
        )
        # Empty slots first, in order, then the weakest; a stable sort breaks ties by slot.
        weakest = np.argsort(np.where(memory.roles < 0, np.float32(-1), memory.weights), axis=1, kind="stable")
        slot = weakest[tenant, rank]
        memory.vectors[tenant, slot] = lesson.vector[new]
        memory.roles[tenant, slot] = lesson.role[new]
        memory.weights[tenant, slot] = 1
        memory.owners[tenant, slot] = lesson.owner[new]
        memory.keys[tenant, slot] = lesson.key[new]
        memory.used[:] = (memory.roles >= 0).sum(axis=1)

    def _distinct(self, lesson: Lesson, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of each tenant's latest candidates, those that no earlier one resembles."""
        if len(candidates) == 0:
            return candidates
        width = 4 * self.admitted_max
        order = candidates[np.argsort(lesson.tenant[candidates], kind="stable")]
        tenant = lesson.tenant[order]
        from_end = _rank_within(tenant[::-1])[::-1]
        order, tenant = order[from_end < width], tenant[from_end < width]
        rank = _rank_within(tenant)
        rows, row = np.unique(tenant, return_inverse=True)
        block = np.zeros((len(rows), width, self.dim), np.float32)
        block[row, rank] = lesson.vector[order]
        roles = np.full((len(rows), width), -2, np.int8)
        roles[row, rank] = lesson.role[order]
        alike = np.matmul(block, block.transpose(0, 2, 1)) >= self.near
        alike &= roles[:, :, None] == roles[:, None, :]
        earlier = np.tril(np.ones((width, width), bool), -1)
        kept: NDArray[np.int64] = order[~(alike & earlier).any(axis=2)[row, rank]]
        return kept

    def _within_share(
        self, memory: Memory, lesson: Lesson, new: NDArray[np.int64], mature: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Without what would give one session, or one of many keys, more than its share of a memory."""
        if len(new) == 0:
            return new
        filled = memory.roles >= 0
        tenant = lesson.tenant[new]
        within = _held(memory.owners, filled, tenant, lesson.owner[new]) < self.owned_max
        new = new[within | ~mature[tenant]]
        tenant, key = lesson.tenant[new], lesson.key[new]
        most = np.maximum(self.owned_max, 2 * self.slots // np.maximum(_distinct_keys(memory, lesson), 1))
        within = (_held(memory.keys, filled, tenant, key) < most[tenant]) | (key == 0)
        kept: NDArray[np.int64] = new[within | ~mature[tenant]]
        return kept


def _held(
    owners: NDArray[Any], filled: NDArray[np.bool_], tenant: NDArray[np.int64], owner: NDArray[Any]
) -> NDArray[np.int64]:
    """Slots (n,) that each newcomer's owner holds when it comes, those before it taken in."""
    if len(tenant) == 0:
        return np.zeros(0, np.int64)
    _, group = np.unique(np.stack([tenant.astype(np.uint64), owner.astype(np.uint64)]), axis=1, return_inverse=True)
    held = ((owners[tenant] == owner[:, None]) & filled[tenant]).sum(axis=1)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(tenant), np.int64)
    rank[order] = _rank_within(group[order])
    total: NDArray[np.int64] = held + rank
    return total


def _distinct_keys(memory: Memory, lesson: Lesson) -> NDArray[np.int64]:
    """Different API keys (t,) behind what tenants remember and are being taught."""
    rows, slots = memory.keys.shape
    tenant = np.concatenate([np.repeat(np.arange(rows), slots), lesson.tenant])
    key = np.concatenate([memory.keys.ravel(), lesson.key])
    pairs = np.unique(tenant[key > 0].astype(np.uint64) << np.uint64(32) | key[key > 0])
    counts: NDArray[np.int64] = np.bincount((pairs >> np.uint64(32)).astype(np.int64), minlength=rows)
    return counts


def _rank_within(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position (n,) of each element among the equal ones before it, where equal ones stand together.

    >>> _rank_within(np.array([4, 4, 7, 7, 7]))
    array([0, 1, 0, 1, 2])
    """
    if len(groups) == 0:
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
