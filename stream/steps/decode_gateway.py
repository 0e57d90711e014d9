"""Gateway records into calls and messages; a message seen before costs one look-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import orjson

from schemas.digest import plain_digest
from schemas.event import ContentState, Role
from schemas.gateways.call import GatewayCall, GatewayFormat, ParseMessage, Read, Unreadable
from schemas.gateways.nesting import CALLS_MAX, VALUES_MAX, depth_beyond, values_beyond
from stream.errors import DecodeError
from stream.steps.redact import Counts, Redactor

_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_ENTRY_OVERHEAD = 300
"""Bytes of Python objects around an entry's key and JSON (measured with tracemalloc)."""
_KEEP_MAX = 1 << 18
"""Bytes of the largest message that is remembered."""


class ReadyMessage(msgspec.Struct, frozen=True, gc=False):
    """A message redacted, digested and written."""

    json: bytes
    """`schemas.event.Message`, keys sorted."""
    digest: str
    role: Role
    counts: tuple[tuple[str, int], ...]
    """What redaction replaced in it."""
    content: ContentState
    empty: bool


class _Generations:
    """Messages of one dialect: a young generation, and the one before it."""

    __slots__ = ("_half", "old", "young", "young_bytes")

    def __init__(self, bytes_max: int) -> None:
        self._half = bytes_max // 2
        self.young: dict[bytes, ReadyMessage] = {}
        self.old: dict[bytes, ReadyMessage] = {}
        self.young_bytes = 0

    def keep(self, raw: bytes, message: ReadyMessage) -> None:
        """Remember `message`; forget the old generation when the young one is full."""
        size = len(raw) + len(message.json) + _ENTRY_OVERHEAD
        if size > _KEEP_MAX:
            return
        if self.young_bytes + size > self._half:
            self.old, self.young, self.young_bytes = self.young, {}, 0
        self.young[raw] = message
        self.young_bytes += size


class MessageCache:
    """Messages by the bytes that a gateway wrote them in.

    Gateways send the whole history with every call. There are two generations of entries, each at most half of
    `bytes_max`: when the young one is full it becomes the old one, and what nobody asks for until that happens again is
    forgotten. What is remembered never changes a result.

    Parameters
    ----------
    redactor
        Applied to every message once.
    bytes_max
        Memory that the entries of one dialect may take.
    """

    def __init__(self, redactor: Redactor, bytes_max: int = 64 << 20) -> None:
        self._redactor = redactor
        self._bytes_max = bytes_max
        # The same bytes may mean another message in another dialect.
        self._dialects: dict[ParseMessage, _Generations] = {}
        self.misses = 0
        """Messages that had to be read since the start."""

    @property
    def entries(self) -> int:
        """Messages that are remembered."""
        return sum(len(held.young) + len(held.old) for held in self._dialects.values())

    def ready(self, raws: list[bytes], parse: ParseMessage) -> list[ReadyMessage]:
        """The messages `raws`, in order; `parse` reads those that were not seen before.

        Raises
        ------
        Unreadable
            As `parse` does.
        """
        held = self._dialects.get(parse)
        if held is None:
            held = self._dialects[parse] = _Generations(self._bytes_max)
        found = []
        for raw in raws:
            message = held.young.get(raw)
            if message is None:
                message = held.old.get(raw)
                if message is None:
                    self.misses += 1
                    message = self._read(raw, parse)
                held.keep(raw, message)
            found.append(message)
        return found

    def _read(self, raw: bytes, parse: ParseMessage) -> ReadyMessage:
        message = parse(raw)
        counts: Counts = {}
        parts = [self._redacted(part, counts) for part in message.parts]
        digest = plain_digest(message.role, parts)
        json = orjson.dumps({"digest": digest, "parts": parts, "role": message.role}, option=orjson.OPT_SORT_KEYS)
        return ReadyMessage(
            bytes(memoryview(json)),  # orjson's own bytes keep the room that they were written in: 8 KiB at least
            digest,
            message.role,
            tuple(counts.items()),
            message.content,
            not parts,
        )

    def _redacted(self, part: dict[str, str], counts: Counts) -> dict[str, str]:
        redactor = self._redactor
        for name in ("text", "response", "uri"):
            if name in part:
                part[name] = redactor.text(part[name], counts)
        if "arguments" in part:
            part["arguments"] = redactor.arguments(part["arguments"], counts)
        if "name" in part and part["type"] in ("file", "blob", "uri"):
            part["name"] = redactor.text(part["name"], counts)
        return part


def check_structure(value: bytes, depth_max: int) -> None:
    """Refuse JSON that nests deeper than `depth_max`, or holds more than can be read in little memory.

    Raises
    ------
    DecodeError
        `too_deep` or `oversized`.
    """
    if depth := depth_beyond(value, depth_max):
        raise DecodeError("too_deep", f"the record must nest at most {depth_max} deep (ingest.depth_max); got {depth}")
    if count := values_beyond(value, VALUES_MAX):
        raise DecodeError("oversized", f"the record must hold at most {VALUES_MAX} JSON values; got {count}")


@dataclass(slots=True)
class Decoded:
    """What is in a record: each call with the bytes that it was read from, and what is no call."""

    calls: list[tuple[bytes, GatewayCall]] = field(default_factory=list)
    unreadable: list[DecodeError] = field(default_factory=list)
    """Parts of the record that no call can be made of; they take nothing from the others."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Traffic that is no call of a model, by what it is."""

    def add(self, raw: bytes, parts: Sequence[Read]) -> None:
        """Sort what was read from `raw`."""
        for part in parts:
            if isinstance(part, GatewayCall):
                self.calls.append((raw if part.raw is None else part.raw, part))
            elif isinstance(part, Unreadable):
                self.unreadable.append(DecodeError(part.reason, str(part)))
            else:
                self.skipped[part.what] = self.skipped.get(part.what, 0) + part.count


def decode_record(value: bytes, format: GatewayFormat, depth_max: int) -> Decoded:
    """What is in a record; an array holds several records, and one of them that cannot be read is told apart.

    Raises
    ------
    DecodeError
        When all of it cannot be read, with the reason of `Unreadable`; `schema` for an array of nothing, since no
        record goes without a trace.
    """
    decoded = Decoded()
    try:
        if format.is_binary(value):
            decoded.add(value, format.decode(value))
            return decoded
        check_structure(value, depth_max)
        # Decoders skip what they do not need without looking at its encoding.
        if not value.isascii():
            value.decode()
        if value[:1] == b"{" or (trimmed := value.strip())[:1] != b"[":
            decoded.add(value, format.decode(value))
            return decoded
        items = [bytes(item) for item in _RAWS.decode(trimmed)]
    except Unreadable as error:
        raise DecodeError(error.reason, str(error)) from error
    except UnicodeDecodeError as error:
        raise DecodeError("undecodable", f"the record must be UTF-8: {error.reason} at byte {error.start}") from error
    except msgspec.DecodeError as error:
        raise DecodeError("undecodable", f"the record must be JSON: {error}") from error
    if not items:
        raise DecodeError("schema", "the record's array must hold at least one record; got none")
    if len(items) > CALLS_MAX:
        raise DecodeError("oversized", f"the record must hold at most {CALLS_MAX} calls; got {len(items)}")
    for item in items:
        try:
            decoded.add(item, format.decode(item))
        except Unreadable as error:
            decoded.unreadable.append(DecodeError(error.reason, str(error)))
    return decoded
