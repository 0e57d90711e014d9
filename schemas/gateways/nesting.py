"""How deep JSON nests and how much it holds, told without reading it: what would hurt a decoder never reaches one."""

from __future__ import annotations

import numpy as np

from schemas.gateways.call import Unreadable

EMBEDDED_DEPTH_MAX = 64
"""Of JSON in a text of a record: as deep as `ingest.depth_max` lets the record itself nest by default."""

VALUES_MAX = 1 << 19
"""JSON values in a record. Read, each takes up to 350 bytes of memory (measured): 8 MiB of `{},` would take a gigabyte.
Embeddings, the largest arrays that gateways log, have 16 bytes and more a number, and so never as many in 8 MiB."""
CALLS_MAX = 10_000
"""Calls in a record: their events go into one transaction."""

_DEPTH_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def depth_beyond(value: bytes, depth_max: int) -> int:
    """How deep `value` nests when that is more than `depth_max`, else 0.

    >>> depth_beyond(b'[[["]]]]"]]]', 2), depth_beyond(b'[[["]]]]"]]]', 3)
    (3, 0)
    """
    if value.count(b"{") + value.count(b"[") <= depth_max or _nesting(value) <= depth_max:
        return 0
    # Brackets in strings nest nothing: every second piece between quotes lies in a string.
    depth = _nesting(b"".join(_without_escapes(value).split(b'"')[::2]))
    return depth if depth > depth_max else 0


def values_beyond(value: bytes, values_max: int) -> int:
    """About how many values `value` holds when that is more than `values_max`, else 0: its commas and brackets.

    >>> values_beyond(b'[1,2,[{}],",,,,"]', 5), values_beyond(b'[1,2,[{}],",,,,"]', 6)
    (6, 0)
    """
    if value.count(b",") + value.count(b"{") + value.count(b"[") <= values_max:
        return 0
    held = np.frombuffer(_without_escapes(value), np.uint8)
    outside = np.bitwise_xor.accumulate((held == ord('"')).view(np.uint8)) == 0
    count = int((((held == ord(",")) | (held == ord("{")) | (held == ord("["))) & outside).sum())
    return count if count > values_max else 0


def embedded(text: str) -> bytes:
    """The JSON in a text of a record, as bytes.

    Raises
    ------
    Unreadable
        `too_deep`, or `oversized` when it holds too many values.
    """
    value = text.encode()
    if count := values_beyond(value, VALUES_MAX):
        raise Unreadable("oversized", f"JSON in a text must hold at most {VALUES_MAX} values; got {count}")
    if depth := depth_beyond(value, EMBEDDED_DEPTH_MAX):
        raise Unreadable("too_deep", f"JSON in a text must nest at most {EMBEDDED_DEPTH_MAX} deep; got {depth}")
    return value


def _without_escapes(value: bytes) -> bytes:
    """What is left has no quotes but those that begin and end a string."""
    return value.replace(b"\\\\", b"").replace(b'\\"', b"")


def _nesting(text: bytes) -> int:
    """How deep all brackets of `text` nest, those in strings too.

    Brackets closed in a string can hide as many that are open; decoders have a limit of their own for what is hidden.
    """
    steps = np.frombuffer(text.translate(_DEPTH_STEPS, _NOT_BRACKETS), np.int8)
    return int(steps.cumsum(dtype=np.int64).max()) if len(steps) else 0
