"""Restoring a partition: all of its rows, and only where they are those of the committed offset."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from stream.errors import StateError
from stream.record import Record
from stream.runtime.metrics import Metrics
from stream.runtime.restore import Restorer
from stream.sources.kafka import Place, RangeReader
from stream.state.rows import RowError

Rows = list[tuple[bytes, bytes | None]]


@dataclass
class Stands:
    next_offset: int


@dataclass
class Kept:
    """A core that keeps the rows it is given; the row "cursor" says where it stands."""

    rows: dict[int, Rows] = field(default_factory=dict)

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        self.rows[partition] = list(rows)

    def drop(self, partition: int) -> None:
        self.rows.pop(partition, None)

    def cursor(self, partition: int) -> Stands | None:
        value = dict(self.rows.get(partition, ())).get(b"cursor")
        return None if value is None else Stands(int(value))


class Topics:
    """State topics in memory, read in batches of three."""

    def __init__(self, rows: Mapping[int, Rows]) -> None:
        self._rows = rows
        self.asked: list[Sequence[Place]] = []

    def low(self, place: Place) -> int:
        return 100 if place[0] == "events" else 0

    def ends(self, places: Sequence[Place]) -> dict[Place, int]:
        self.asked.append(places)
        return {place: len(self._rows.get(place[1], ())) for place in places}

    def read(self, place: Place, start: int, end: int, *, waiting: Callable[[], None]) -> Iterator[list[Record]]:
        rows = self._rows[place[1]]
        for at in range(start, end, 3):
            waiting()
            yield [
                Record(place[0], place[1], offset, 0, key, value)
                for offset, (key, value) in enumerate(rows[at : min(at + 3, end)], at)
            ]


def restored(
    rows: Mapping[int, Rows], committed: Mapping[int, int | None], *, exact: bool = True
) -> tuple[Kept, dict[int, int]]:
    core, topics = Kept(), Topics(rows)
    reader = cast(RangeReader, topics)
    restorer = Restorer(core, reader, topics.ends, inputs="events", state="state", exact=exact, metrics=Metrics())
    return core, restorer.restore(committed, lambda: None)


def test_the_last_value_of_a_key_comes_last_and_a_tombstone_is_told() -> None:
    rows: Rows = [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"cursor", b"7"), (b"b", None), (b"c", b"9")]
    core, starts = restored({0: rows}, {0: 7})
    assert dict(core.rows[0]) == {b"a": b"2", b"b": None, b"c": b"9", b"cursor": b"7"}
    assert starts == {0: 7}


def test_a_partition_without_state_and_offset_starts_at_its_first_offset() -> None:
    assert restored({}, {3: None})[1] == {3: 100}


@pytest.mark.parametrize(
    ("cursor", "committed", "message"),
    [
        (b"8", 7, r"has committed offset 7, but the state on state\[0\] is that of offset 8\."),
        (
            b"8",
            None,
            r"has committed no offset, but the state on state\[0\] is that of offset 8\.",
        ),
        (None, 7, r"has committed offset 7, but state\[0\] holds no state\."),
    ],
)
def test_state_and_offset_that_differ_are_exit_5_with_a_remedy(
    cursor: bytes | None, committed: int | None, message: str
) -> None:
    rows: Rows = [] if cursor is None else [(b"cursor", cursor)]
    with pytest.raises(StateError, match=r"^events\[0\]: the group " + message + ".*--output-prefix") as raised:
        restored({0: rows}, {0: committed})
    assert raised.value.exit_code == 5


def test_at_least_once_the_states_cursor_decides() -> None:
    rows: dict[int, Rows] = {0: [(b"cursor", b"8")]}
    assert restored(rows, {0: 7, 1: 5}, exact=False)[1] == {0: 8, 1: 100}


class Refusing(Kept):
    """A core that cannot read the row "b"."""

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        super().restore(partition, rows)
        raise RowError("state row b must be better. Rebuild it.", b"b")


def test_a_row_that_is_refused_is_told_with_the_place_of_its_last_write() -> None:
    topics = Topics({4: [(b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", b"2"), (b"cursor", b"7")]})
    reader = cast(RangeReader, topics)
    restorer = Restorer(Refusing(), reader, topics.ends, inputs="events", state="state", exact=True, metrics=Metrics())
    with pytest.raises(StateError, match=r"^state\[4\]@3: state row b must be better\. Rebuild it\.$") as refused:
        restorer.restore({4: 7}, lambda: None)
    assert refused.value.exit_code == 5
