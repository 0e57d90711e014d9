"""Which offset of a partition may be committed, whatever gaps the log has and in whatever order records are done."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Generic, TypeVar

Place = TypeVar("Place", bound=Hashable)


class Offsets(Generic[Place]):
    """Records that were handed out and are not done, by partition, and how far each partition was read.

    Everything before the first record that is not done may be committed; when all are done, everything that was read,
    markers of transactions and aborted records at the end included. Faust's own account is by gaps between offsets:
    it takes a record that follows a gap for done, and stands still when a partition begins with one.

    >>> offsets = Offsets[str]()
    >>> offsets.hand_out("p", 0), offsets.hand_out("p", 4)
    (None, None)
    >>> offsets.read({"p": 7}), offsets.done("p", 4), offsets.committable("p")
    (None, None, 0)
    >>> offsets.done("p", 0), offsets.committable("p")
    (None, 7)
    """

    def __init__(self) -> None:
        self._open: dict[Place, dict[int, None]] = {}
        self._end: dict[Place, int] = {}

    def hand_out(self, place: Place, offset: int) -> None:
        """A record is given to whoever works on it."""
        self._open.setdefault(place, {})[offset] = None
        self._end[place] = max(self._end.get(place, 0), offset + 1)

    def done(self, place: Place, offset: int) -> None:
        """What a record asked for is done, and will not be lost; one that is not open is ignored."""
        self._open.get(place, {}).pop(offset, None)

    def read(self, ends: Mapping[Place, int]) -> None:
        """Every record before these offsets was handed out, or is none that is ever to be."""
        for place, end in ends.items():
            self._end[place] = max(self._end.get(place, 0), end)

    def forget(self, places: Collection[Place] | None = None) -> None:
        """Partitions, all by default, are read anew from where they were committed."""
        for place in [*self._end] if places is None else places:
            self._open.pop(place, None)
            self._end.pop(place, None)

    def committable(self, place: Place) -> int | None:
        """The offset to go on from after a crash; None when nothing is known of the partition."""
        still_open = self._open.get(place)
        return min(still_open) if still_open else self._end.get(place)

    def places(self) -> list[Place]:
        """Partitions that something is known of."""
        return list(self._end)

    @property
    def open(self) -> int:
        """Records that are not done."""
        return sum(len(offsets) for offsets in self._open.values())
