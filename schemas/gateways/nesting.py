"""How deep JSON nests, told without reading it: what would hurt a decoder never reaches one."""

from __future__ import annotations

import numpy as np

from schemas.gateways.call import Unreadable

EMBEDDED_DEPTH_MAX = 64
"""Of JSON in a text of a record: as deep as `ingest.depth_max` lets the record itself nest by default."""

_DEPTH_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def depth_beyond(value: bytes, depth_max: int) -> int:
    """How deep `value` nests when that is more than `depth_max`, else 0.

    >>> depth_beyond(b'[[["]]]]"]]]', 2), depth_beyond(b'[[["]]]]"]]]', 3)
    (3, 0)
    """
    if value.count(b"{") + value.count(b"[") <= depth_max or _nesting(value) <= depth_max:
        return 0
    # Brackets in strings nest nothing: undo escapes, then every second piece between quotes lies in a string.
    bare = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = _nesting(b"".join(bare.split(b'"')[::2]))
    return depth if depth > depth_max else 0


def embedded(text: str) -> bytes:
    """The JSON in a text of a record, as bytes.

    Raises
    ------
    Unreadable
        `too_deep`.
    """
    value = text.encode()
    if depth := depth_beyond(value, EMBEDDED_DEPTH_MAX):
        raise Unreadable("too_deep", f"JSON in a text must nest at most {EMBEDDED_DEPTH_MAX} deep; got {depth}")
    return value


def _nesting(text: bytes) -> int:
    """How deep all brackets of `text` nest, those in strings too.

    Brackets closed in a string can hide as many that are open; decoders have a limit of their own for what is hidden.
    """
    steps = np.frombuffer(text.translate(_DEPTH_STEPS, _NOT_BRACKETS), np.int8)
    return int(steps.cumsum(dtype=np.int64).max()) if len(steps) else 0
