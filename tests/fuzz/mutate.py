"""Changes inputs as an attacker would: their JSON by structure, their bytes where they are none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

DEPTH_MAX = 40
"""Of structures that are changed; deeper ones are changed as bytes."""
PLACES_MAX = 20_000
_REPEATED_MAX = 4_096
"""Characters of a text that is made 300 times as long: three times over, it would fill the fuzzer's own memory."""
LEAVES = (
    "null", "true", "false", "0", "-0", "-0.0", "-1", "1", "1e999", "-1e999", "1e-999", "1E400", "NaN", "Infinity",
    "-Infinity", "9007199254740993", "9223372036854775808", "-9223372036854775809", "18446744073709551616",
    "1795304819828", "1e308", "0.1e1", '""', '"0"', '"null"', '"{}"', '"[]"', '"[{"', '"data: {}\\n\\n"', "[]", "{}",
    "[[]]", "[null]", '[{}]', '{"":0}', '{"a":{"a":{}}}', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"',
    '"\\ud83d\\ude00"', '"\\u202e\\u2066x\\u200b"', '"\\ufeff"', '"\\u001b[31m"', '"e\\u0301"', '"\\u00e9"',
    '"[EMAIL]"', '"redacted-by-litellm"', '"\\"}],\\"role\\":\\"system\\""', '"tool"', '"function_call"',
    '"tool_result"', '"success"', '"failure"', '"release"', '"exception"', '"verdict"', '"2026-11-28T10:00:00Z"',
    '"0001-01-01T00:00:00"', '"2026-11-28T10:00:00+99:99"',
)  # fmt: skip
NO_LEAVES = ("01", "+1", "1.", ".5", "'a'", "undefined", "True", "1_000", "0x10", '"\\ud80"', '"\\x41"', "")
"""What is no JSON, though some readers take it."""
PIECES = (
    b"\x00", b"\xff", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"\\ud800", b"\\u0000", b"\\", b'"', b"{", b"}", b"[",
    b"]", b",", b":", b"NaN", b"1e999", b"//", b"\n", b"\r\n", b"[" * 70, b'{"a":' * 70, b"9" * 400, b"9" * 5000,
    b"0." + b"1" * 400, b"\x0a\x00", b"\x1f\x8b\x08\x00", b"(\xb5/\xfd",
)  # fmt: skip
KEYS = (
    "", "role", "content", "parts", "type", "text", "tool_calls", "function", "name", "arguments", "id", "messages",
    "response", "choices", "usage", "model", "input", "output", "metadata", "kind", "value", "tenant", "session",
    "__proto__", "\u0000", "e\u0301",
)  # fmt: skip


class Pairs(list[tuple[str, Any]]):
    """An object with its names in order, which may repeat."""


class Leaf(str):
    """The JSON text of a value that holds no other."""

    __slots__ = ()


class Mutator:
    """Makes an input of an input.

    Parameters
    ----------
    seeds
        Inputs that others are grown from; pieces of one go into another.
    is_json
        Whether inputs are JSON.
    """

    def __init__(self, seeds: Sequence[bytes], *, is_json: bool = True) -> None:
        self._seeds = seeds
        self._is_json = is_json
        self._values = [value for seed in seeds if is_json and (value := _parsed(seed)) is not None]

    def mutate(self, data: bytes, size_max: int, random: Random) -> bytes:
        """`data` with one to four changes, at most `size_max` bytes."""
        value = _parsed(data) if self._is_json and random.random() < 0.92 else None
        if value is None and self._is_json and random.random() < 0.6:
            # What is broken once stays broken: begin anew.
            value = _parsed(random.choice(self._seeds))
        if value is None:
            for _ in range(random.randint(1, 4)):
                data = self._bytes(data, random)
            return data[:size_max]
        for _ in range(random.randint(1, 4)):
            value = self._structure(value, random)
        changed = written(value).encode("utf-8", "surrogatepass")
        # Cut off, it would be no JSON any more.
        return changed if len(changed) <= size_max else data[:size_max]

    def fresh(self, size_max: int, random: Random) -> bytes:
        """A seed, changed."""
        return self.mutate(random.choice(self._seeds), size_max, random)

    # -- structure -----------------------------------------------------------------------------------------------------

    def _structure(self, value: Any, random: Random) -> Any:
        places = _places(value)
        holder, index = random.choice(places)
        if len(places) > PLACES_MAX:
            return value
        if holder is None:
            return self._instead(value, random) if random.random() < 0.05 or len(places) == 1 else value
        change: Callable[[Any, int, Random], None] = random.choice(
            (self._replace, self._replace, self._drop, self._repeat, self._rename, self._embed, self._graft, self._nest)
        )
        change(holder, index, random)
        return value

    def _instead(self, value: Any, random: Random) -> Any:
        """What may stand in the place of `value`."""
        chance = random.random()
        if isinstance(value, Leaf) and value[:1] == '"' and chance < 0.5:
            return self._text(value, random)
        if chance < 0.9 or not self._values:
            return Leaf(random.choice(LEAVES if random.random() < 0.97 else NO_LEAVES))
        return _copy(random.choice(_places(random.choice(self._values)))[0] or Pairs())

    def _text(self, leaf: Leaf, random: Random) -> Leaf:
        inner = leaf[1:-1]
        # Cutting may leave half an escape, which is one of the things to try, now and then.
        at = random.choice((0, len(inner), inner.find(" ") + 1, random.randint(0, len(inner))))
        piece = random.choice(LEAVES).strip('"').replace('"', "")
        chance = random.random()
        if chance < 0.1:
            return Leaf('"' + inner * (random.choice((2, 17, 300)) if len(inner) < _REPEATED_MAX else 1) + '"')
        if chance < 0.3:
            return Leaf('"' + inner[:at] + '"')
        return Leaf('"' + inner[:at] + piece + inner[at:] + '"')

    def _replace(self, holder: Any, index: int, random: Random) -> None:
        _put(holder, index, self._instead(_held(holder, index), random))

    def _drop(self, holder: Any, index: int, random: Random) -> None:
        del holder[index]

    def _repeat(self, holder: Any, index: int, random: Random) -> None:
        """The same name or item again, perhaps with another value: readers disagree about which one counts."""
        again = holder[index]
        if isinstance(holder, Pairs) and random.random() < 0.7:
            again = (again[0], self._instead(again[1], random))
        for _ in range(random.choice((1, 1, 1, 40))):
            holder.insert(random.randint(0, len(holder)), _copy(again))

    def _rename(self, holder: Any, index: int, random: Random) -> None:
        if isinstance(holder, Pairs):
            name, value = holder[index]
            other = random.choice((random.choice(KEYS), random.choice(holder)[0], name.upper(), name + "\u0301"))
            holder[index] = (other, value)

    def _embed(self, holder: Any, index: int, random: Random) -> None:
        """JSON becomes a text of JSON, or the other way round."""
        value = _held(holder, index)
        inner = _parsed(json.loads(value).encode("utf-8", "replace")) if _is_text(value) else None
        if inner is not None:
            if random.random() < 0.6 and not isinstance(inner, Leaf):
                inner = Leaf(json.dumps(written(self._structure(inner, random))))
            _put(holder, index, inner)
        else:
            _put(holder, index, Leaf(json.dumps(written(value))))

    def _graft(self, holder: Any, index: int, random: Random) -> None:
        """A piece of another seed."""
        if self._values:
            donor, at = random.choice(_places(random.choice(self._values)))
            _put(holder, index, _copy(_held(donor, at)) if donor is not None else Pairs())

    def _nest(self, holder: Any, index: int, random: Random) -> None:
        value = _held(holder, index)
        for _ in range(random.choice((1, 2, 5, 30))):
            value = [value] if random.random() < 0.5 else Pairs([(random.choice(KEYS), value)])
        _put(holder, index, value)

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def _bytes(self, data: bytes, random: Random) -> bytes:
        at = random.randint(0, len(data))
        end = min(len(data), at + random.choice((0, 1, 1, 2, 8, 60)))
        chance = random.random()
        if chance < 0.35:
            return data[:at] + random.choice(PIECES) + data[end:]
        if chance < 0.6:
            return data[:at] + random.randbytes(random.choice((1, 1, 2, 4, 9))) + data[end:]
        if chance < 0.75:
            return data[:at] + data[end:]
        if chance < 0.85:
            other = random.choice(self._seeds)
            return data[:at] + other[random.randint(0, len(other)) :]
        return data[:at] + data[at:end] * random.choice((2, 3, 200)) + data[end:]


def written(value: Any) -> str:
    """`value` as JSON, as far as its leaves are.

    >>> written(Pairs([("a", Leaf("1")), ("a", [Leaf("NaN")])]))
    '{"a":1,"a":[NaN]}'
    """
    if isinstance(value, Leaf):
        return value
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{written(item)}" for name, item in value) + "}"
    return "[" + ",".join(map(written, value)) + "]"


def _parsed(data: bytes) -> Any:
    """The structure of JSON; None where there is none, or one so deep that walking it would hurt the fuzzer itself."""
    if max(data.count(b"["), data.count(b"{")) > 4_000:
        return None
    try:
        value = _structured(
            json.loads(data, object_pairs_hook=Pairs, parse_float=Leaf, parse_int=Leaf, parse_constant=Leaf), 0
        )
    except (ValueError, RecursionError):
        return None
    return value


def _structured(value: Any, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise ValueError("too deep to be changed by structure")
    if isinstance(value, Pairs):
        return Pairs((name, _structured(item, depth + 1)) for name, item in value)
    if isinstance(value, list):
        return [_structured(item, depth + 1) for item in value]
    return value if isinstance(value, Leaf) else Leaf(json.dumps(value))


def _copy(value: Any) -> Any:
    if isinstance(value, tuple):
        return value[0], _copy(value[1])
    if isinstance(value, Pairs):
        return Pairs((name, _copy(item)) for name, item in value)
    return value if isinstance(value, Leaf) else [_copy(item) for item in value]


def _places(value: Any) -> list[tuple[Any, int]]:
    """Every place in `value`: what holds it, and at which index; the whole is held by nothing."""
    found: list[tuple[Any, int]] = [(None, 0)]
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, Leaf):
            continue
        for index in range(len(holder)):
            found.append((holder, index))
            waiting.append(_held(holder, index))
    return found


def _held(holder: Any, index: int) -> Any:
    return holder[index][1] if isinstance(holder, Pairs) else holder[index]


def _put(holder: Any, index: int, value: Any) -> None:
    holder[index] = (holder[index][0], value) if isinstance(holder, Pairs) else value


def _is_text(value: Any) -> bool:
    if not isinstance(value, Leaf) or value[:1] != '"':
        return False
    try:
        return isinstance(json.loads(value), str)
    except ValueError:
        return False
