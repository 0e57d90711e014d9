"""JSON that Python's encoder writes and strict decoders refuse, made strict.

Gateways written in Python log `NaN`, numbers beyond 64 bits or floats, and halves of surrogate pairs that clients sent.
A record must not escape being scored by holding one of them.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

import msgspec
import orjson

from schemas.gateways.call import Unreadable
from schemas.gateways.nesting import depth_beyond
from schemas.undecodable import UNDECODABLE

_INT64 = 1 << 63
_DEPTH_MAX = 200
"""Below what orjson writes (254)."""
_OUT_OF_RANGE = "out of range"
"""In msgspec's words for a number beyond a float, or of more than 4,300 digits, in a field that may hold anything."""
_T = TypeVar("_T")


def repair(value: bytes) -> bytes:
    r"""`value` as JSON that any decoder reads: `NaN` and infinite numbers are null, lone surrogates U+FFFD.

    >>> repair(b'{"a": NaN, "b": "\\ud800", "c": 1e999}').decode()
    '{"a":null,"b":"�","c":null}'

    Raises
    ------
    Unreadable
        `undecodable` when it is no JSON all the same, `too_deep` when Python cannot nest as far.
    """
    try:
        text = json.dumps(
            json.loads(value, parse_constant=_nothing, parse_float=_finite, parse_int=_integer),
            ensure_ascii=False,
            separators=(",", ":"),
        )
    except RecursionError as error:
        raise Unreadable("too_deep", "the record nests deeper than can be read") from error
    except ValueError as error:
        raise Unreadable("undecodable", f"the record must be JSON in UTF-8: {_place(error)}") from error
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def loads(raw: bytes) -> Any:
    """The value of the JSON `raw`, repaired when it has to be; raises as `repair`, `too_deep` before Python has to."""
    if depth := depth_beyond(raw, _DEPTH_MAX):
        raise Unreadable("too_deep", f"JSON must nest at most {_DEPTH_MAX} deep to be read; got {depth}")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return orjson.loads(repair(raw))


def decode(decoder: msgspec.json.Decoder[_T], value: bytes, what: str) -> _T:
    """What `decoder` makes of `value`, repaired when it has to be.

    Raises
    ------
    Unreadable
        As `repair` does; `schema` when `value` is not a `what`.
    """
    try:
        try:
            return decoder.decode(value)
        except msgspec.ValidationError as error:
            if _OUT_OF_RANGE not in str(error):
                raise
            return decoder.decode(repair(value))
        except UNDECODABLE:
            return decoder.decode(repair(value))
    except msgspec.ValidationError as error:
        raise Unreadable("schema", f"{error}: not a {what}") from error
    except RecursionError as error:
        raise Unreadable("too_deep", "the record nests deeper than can be read") from error


def _nothing(_: str) -> None:
    return None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _integer(text: str) -> int | float | None:
    if len(text) < 19:
        return int(text)
    if len(text) > 400:
        return None
    value = int(text)
    return value if -_INT64 <= value < _INT64 else _finite(text)


def _place(error: ValueError) -> str:
    """What is wrong, without the content that some errors quote."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return f"{error.reason} at byte {error.start}"
    return type(error).__name__
