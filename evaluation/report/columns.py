"""`sessions.jsonl` as columns: read once, and no object a row."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from evaluation.row import Row

SESSIONS = "sessions.jsonl"
_AT_ONCE = 20_000
_KNOWN = {None: -1, False: 0, True: 1}


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of names, as numbers."""

    codes: NDArray[np.int32]
    """(n,) rows of `names`; -1 where there is none."""
    names: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def is_one(self, name: str) -> NDArray[np.bool_]:
        """Rows (n,) that say `name`."""
        return np.equal(self.codes, self.names.index(name) if name in self.names else -2)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Coded:
        """Those of `rows`."""
        return Coded(self.codes[rows], self.names)


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns (n,) of the rows, in their order; see `Row` for what each means."""

    protocol: Coded
    seed: NDArray[np.int64]
    system: Coded
    tenant: Coded
    session: Coded
    family: Coded
    task: Coded
    label: Coded
    score: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    first_finding_turn: NDArray[np.int64]
    """-1 where there is none."""
    p: NDArray[np.float64]
    obeyed: NDArray[np.int8]
    """-1 where it is not known."""
    signal: Coded
    events: NDArray[np.int64]
    marked: NDArray[np.int8]
    """-1 where it is not known."""
    slices: Mapping[str, Coded] = field(default_factory=dict)
    """By the slice's name, in the order of names."""

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Rows:
        """Columns of `rows`."""
        reading = _Reading()
        every = iter(rows)
        while some := list(itertools.islice(every, _AT_ONCE)):
            reading.add(some)
        return reading.done()

    @classmethod
    def read(cls, path: Path) -> Rows:
        """Columns of a `sessions.jsonl`.

        Raises
        ------
        OSError
            When it cannot be read.
        ValueError
            When a line is no row.
        """
        return cls.of(_lines(path))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """Those of `rows`."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        taken: dict[str, Any] = {name: c.take(rows) if isinstance(c, Coded) else c[rows] for name, c in columns.items()}
        return Rows(**taken, slices={name: column.take(rows) for name, column in self.slices.items()})


_COLUMNS = tuple(name for name in Rows.__dataclass_fields__ if name != "slices")


def _lines(path: Path) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(Row)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(
                    f"{path}:{number} must be a row of an evaluation; {error}. Run the evaluation again."
                ) from None
            yield row


class _Names:
    """Names met so far, and the codes of the rows."""

    def __init__(self) -> None:
        self.code_of: dict[str, int] = {}
        self.parts: list[NDArray[np.int32]] = []
        self.rows = 0

    def add(self, names: Iterable[str]) -> None:
        codes = self.code_of
        self._keep([codes.setdefault(name, len(codes)) for name in names])

    def add_at(self, first: int, at: list[int], names: list[str]) -> None:
        """Names of rows `first + at`; the others between have none."""
        self._keep([-1] * (first - self.rows))
        codes = self.code_of
        part = np.full(max(at, default=-1) + 1, -1, np.int32)
        part[at] = [codes.setdefault(name, len(codes)) for name in names]
        self._keep(part)

    def _keep(self, codes: list[int] | NDArray[np.int32]) -> None:
        self.parts.append(np.asarray(codes, np.int32))
        self.rows += len(codes)

    def done(self, rows: int) -> Coded:
        """With names in their order, so that a code does not tell which row came first."""
        self._keep([-1] * (rows - self.rows))
        names = sorted(self.code_of)
        place = np.full(len(names) + 1, -1, np.int32)
        for code, name in enumerate(names):
            place[self.code_of[name]] = code
        codes = np.concatenate(self.parts) if self.parts else np.zeros(0, np.int32)
        # What is -1 takes the last place, which is -1.
        return Coded(place[codes], names)


class _Reading:
    """Columns as they grow."""

    def __init__(self) -> None:
        coded = ("protocol", "system", "tenant", "session", "family", "task", "label", "signal")
        self.names = {name: _Names() for name in coded}
        self.numbers: dict[str, list[NDArray[np.generic]]] = {
            name: [] for name in ("seed", "score", "flagged", "first_finding_turn", "p", "obeyed", "events", "marked")
        }
        self.slices: dict[str, _Names] = {}
        self.rows = 0

    def add(self, rows: list[Row]) -> None:
        for name, names in self.names.items():
            names.add([getattr(row, name) for row in rows])
        turns = [-1 if row.first_finding_turn is None else row.first_finding_turn for row in rows]
        for name, values in (
            ("seed", np.array([row.seed for row in rows], np.int64)),
            ("score", np.array([row.score for row in rows], np.float64)),
            ("flagged", np.array([row.flagged for row in rows], np.bool_)),
            ("first_finding_turn", np.array(turns, np.int64)),
            ("p", np.array([row.p for row in rows], np.float64)),
            ("obeyed", np.array([_KNOWN[row.obeyed] for row in rows], np.int8)),
            ("events", np.array([row.events for row in rows], np.int64)),
            ("marked", np.array([_KNOWN[row.marked] for row in rows], np.int8)),
        ):
            self.numbers[name].append(values)
        sliced: dict[str, tuple[list[int], list[str]]] = {}
        for at, row in enumerate(rows):
            for name, value in row.slices.items():
                places, values_of = sliced.setdefault(name, ([], []))
                places.append(at)
                values_of.append(value)
        for name, (places, values_of) in sliced.items():
            self.slices.setdefault(name, _Names()).add_at(self.rows, places, values_of)
        self.rows += len(rows)

    def done(self) -> Rows:
        def numbers(name: str, kind: type[np.generic]) -> NDArray[np.generic]:
            parts = self.numbers[name]
            return np.concatenate(parts) if parts else np.zeros(0, kind)

        coded = {name: names.done(self.rows) for name, names in self.names.items()}
        kinds = {"seed": np.int64, "score": np.float64, "flagged": np.bool_, "first_finding_turn": np.int64}
        kinds |= {"p": np.float64, "obeyed": np.int8, "events": np.int64, "marked": np.int8}
        found = {name: numbers(name, kind) for name, kind in kinds.items()}
        slices = {name: self.slices[name].done(self.rows) for name in sorted(self.slices)}
        return Rows(**coded, **found, slices=slices)  # type: ignore[arg-type]
