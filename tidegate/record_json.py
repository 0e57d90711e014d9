"""A gateway's record as JSON of bounded size: cut where it is too large, cleaned where JSON has no form for it.

A record that a sender could make too large, too deep or unencodable would be a call that nobody sees. So it is never
refused for that: texts lose their middle, then lists theirs, then the content goes and the call's facts stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import orjson

TRUNCATED = "litellm_content_truncated"
"""Set in `metadata` of a record that was cut; `schemas.gateways.litellm` reads it as content state `truncated`."""

_OPTIONS = orjson.OPT_NON_STR_KEYS
_DEPTH_MAX = 60
"""Below `ingest.depth_max` (64), so that what was cut here is not refused there."""
_SHORT = 128
"""Characters that a text keeps in any case."""
_HEAD, _TAIL = 8, 56
"""Elements that a long list keeps: the system prompt stands first, what is new in a call stands last."""
_KEY_CHARACTERS = 256
_FACT_BYTES = 256
_FACTS_MAX = 128
_VALUES_MAX = 200_000
"""Values that a record is searched through for something to cut."""
_ATTEMPTS = 4


def encode(record: Mapping[str, Any]) -> bytes | None:
    """`record` as JSON of whatever size; None when JSON has no form for something in it.

    >>> encode({"stream": None, "tags": ("a",)}), encode({"content": chr(0xD800)})
    (b'{"stream":null,"tags":["a"]}', None)
    """
    try:
        return orjson.dumps(record, _plain_object, _OPTIONS)
    except orjson.JSONEncodeError:
        return None


def encode_within(record: Mapping[str, Any], bytes_max: int) -> tuple[bytes, bool] | None:
    """`record` as JSON of at most `bytes_max` bytes, and whether content was cut; None when even its facts do not fit.

    Takes milliseconds for each megabyte, tenths of a second at most: not for a thread that calls wait for.
    """
    for list_max in (None, _HEAD + _TAIL):
        cutter = _Cutter(list_max)
        try:
            plain = cutter.plain(record)
        except _TooManyError:
            continue
        value = orjson.dumps(plain)
        if len(value) <= bytes_max and not cutter.cut:
            return value, False
        if (cut := _with_short_texts(plain, len(value), bytes_max)) is not None:
            return cut, True
    value = orjson.dumps(_marked({**_facts(record), "metadata": _facts(record.get("metadata"))}))
    return (value, True) if len(value) <= bytes_max else None


def _facts(record: Any) -> dict[str, Any]:
    """What `record` holds beside its content: numbers, flags and short texts."""
    if not isinstance(record, Mapping):
        return {}
    cutter = _Cutter(None, _FACT_BYTES)
    items = itertools.islice(record.items(), _FACTS_MAX)
    return {
        str(name)[:_KEY_CHARACTERS]: cutter.plain(held) if isinstance(held, (str, int, float)) else None
        for name, held in items
    }


def _with_short_texts(plain: dict[str, Any], size: int, bytes_max: int) -> bytes | None:
    """`plain` with its longest texts cut to one length, the largest that fits; None when no length does."""
    lengths = sorted(_text_sizes(plain)) or [0]
    budget = bytes_max - 64
    for _ in range(_ATTEMPTS):
        text_max = _level(lengths, budget - (size - sum(lengths)))
        if text_max < _SHORT and text_max < lengths[-1]:
            return None
        value = orjson.dumps(_marked(_Cutter(None, text_max).plain(plain)))
        if len(value) <= bytes_max:
            return value
        # Escapes lie closer together in one part of a text than in another: what was kept may be longer than its share.
        budget -= len(value) - bytes_max + 64
    return None


def _level(lengths: list[int], room: int) -> int:
    """The largest L for which the sum of min(length, L) is at most `room`; lengths ascend.

    >>> _level([10, 100, 1000], 310), _level([10, 10], 5)
    (200, 2)
    """
    left = len(lengths)
    for length in lengths:
        if length * left > room:
            return max(0, room // left)
        room -= length
        left -= 1
    return lengths[-1] if lengths else 0


def _text_sizes(value: Any) -> list[int]:
    """Bytes of each text in `value`, as JSON."""
    sizes: list[int] = []
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if isinstance(held, str):
            sizes.append(len(orjson.dumps(held)))
        elif isinstance(held, dict):
            waiting.extend(held.values())
        elif isinstance(held, list):
            waiting.extend(held)
    return sizes


class _TooManyError(Exception):
    """A record has more values than can be looked at in the time there is."""


class _Cutter:
    """Makes plain copies: dicts with text for keys, lists, texts that UTF-8 can hold, numbers, true, false, null.

    Parameters
    ----------
    list_max
        Longest list and dict that stays whole; None: any.
    text_max
        Longest text, in bytes of JSON, that stays whole; None: any.

    Attributes
    ----------
    cut
        Whether something was left out.
    """

    def __init__(self, list_max: int | None, text_max: int | None = None) -> None:
        self._left = _VALUES_MAX
        self._list_max = list_max
        self._text_max = text_max
        self.cut = False

    def plain(self, value: Any, depth: int = 1) -> Any:
        """`value`, plain and cut; raises `_TooManyError`."""
        self._left -= 1
        if self._left < 0:
            raise _TooManyError
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            return value if -(2**63) <= value < 2**64 else str(value)[:_SHORT] if value.bit_length() < 4_000 else "…"
        if isinstance(value, (Mapping, list, tuple)):
            if depth > _DEPTH_MAX:
                self.cut = True
                return "…"
            return self._mapping(value, depth) if isinstance(value, Mapping) else self._list(list(value), depth)
        try:
            return self.plain(orjson.loads(orjson.dumps(value, _plain_object, _OPTIONS)), depth)
        except orjson.JSONEncodeError:
            return type(value).__name__

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        items = list(value.items())
        if self._list_max is not None and len(items) > self._list_max:
            self.cut = True
            items = items[: self._list_max]
        return {
            _encodable(key if isinstance(key, str) else repr(key))[:_KEY_CHARACTERS]: self.plain(held, depth + 1)
            for key, held in items
        }

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        if self._list_max is not None and len(value) > self._list_max:
            self.cut = True
            value = [*value[:_HEAD], *value[-(self._list_max - _HEAD) :]]
        return [self.plain(held, depth + 1) for held in value]

    def _text(self, value: str) -> str:
        text = _encodable(value)
        if self._text_max is None or len(text) * 6 + 2 <= self._text_max:
            return text
        size = len(orjson.dumps(text))
        if size <= self._text_max:
            return text
        self.cut = True
        keep = max(2, len(text) * (self._text_max - 64) // size)
        return f"{text[: keep // 2]}…[{len(text) - keep} characters left out]…{text[-(keep - keep // 2) :]}"


def _encodable(text: str) -> str:
    """`text` with U+FFFD for each half of a surrogate pair that has lost the other."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _plain_object(value: Any) -> Any:
    """What stands for an object that JSON does not know; orjson makes whatever goes wrong here an error of its own."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def _marked(record: dict[str, Any]) -> dict[str, Any]:
    metadata = record.get("metadata")
    return {**record, "metadata": {**(metadata if isinstance(metadata, dict) else {}), TRUNCATED: True}}
