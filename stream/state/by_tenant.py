"""What lies between a tenant's events and its memory: columns in order, each element some tenant's, and their rows."""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import DTypeLike, NDArray

from stream.errors import StateError


@dataclass(slots=True)
class ByTenant:
    """Columns (n), in order within each tenant; a subclass adds its own."""

    row: NDArray[np.int64]
    """(n,) the tenant's state row."""

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """Some of them."""
        return type(self)(*(getattr(self, column.name)[index] for column in fields(self)))

    def joined(self, other: Self) -> Self:
        """These, then the others."""
        return self.concatenated([self, other])

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """All parts, one after another."""
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))


def latest(row: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Of elements (n) in order, those that are among the last `most` of their row.

    >>> latest(np.array([4, 7, 4, 4]), 2)
    array([False,  True,  True,  True])
    """
    if len(row) == 0:
        return np.zeros(0, np.bool_)
    order = np.argsort(row, kind="stable")
    grouped = row[order]
    ends = np.r_[np.flatnonzero(grouped[1:] != grouped[:-1]) + 1, len(row)]
    after = np.repeat(ends, np.diff(np.r_[0, ends])) - np.arange(len(row))
    kept = np.empty(len(row), np.bool_)
    kept[order] = after <= most
    return kept


def earliest(row: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """Of elements (n) in order, those that are among the first `most` of their row.

    >>> earliest(np.array([4, 7, 4, 4]), 2)
    array([ True,  True,  True, False])
    """
    return latest(row[::-1], most)[::-1]


def encode_arrays(version: int, **arrays: NDArray[Any]) -> bytes:
    """Arrays as a state row's value, JSON with base64."""
    packed = {name: binascii.b2a_base64(a.tobytes(), newline=False).decode("ascii") for name, a in arrays.items()}
    return orjson.dumps({**packed, "v": version}, option=orjson.OPT_SORT_KEYS)


def decode_arrays(
    value: bytes, version: int, where: str, **layouts: tuple[DTypeLike, tuple[int, ...]]
) -> dict[str, NDArray[Any]]:
    """The arrays of a state row's value, each of its (dtype, shape).

    Raises
    ------
    StateError
        When the value is not such a row of this version.
    """
    try:
        stored = orjson.loads(value)
        arrays = {
            name: np.frombuffer(binascii.a2b_base64(stored[name]), dtype).reshape(shape)
            for name, (dtype, shape) in layouts.items()
        }
        found = stored["v"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"{where} cannot be read: {error}. Rebuild the partition's state, see docs/runbook.md."
        ) from error
    if found != version:
        raise StateError(
            f"{where} must have version {version}; got {found!r}. Rebuild the partition's state, see docs/runbook.md."
        )
    return arrays
