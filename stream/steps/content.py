"""Messages -> segments with vectors and counts, each distinct message once."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.provenance import Words, words
from models.segments import split
from models.wordpiece import TokenBags
from models.writings import undone
from schemas.event_head import MessageHead
from stream.state.schema import TOOL_BUCKETS
from stream.steps.redact import Redactor

SYSTEM, USER, ASSISTANT, TOOL, CALL = range(5)
ROLES = ("system", "user", "assistant", "tool", "call")

_ROLE_CODES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL}


EMBEDDED = (USER, TOOL, SYSTEM)
"""Roles whose segments get vectors: the first two are remembered; of system prompts drift tells when they change. What
the model writes is neither judged nor remembered: it is not whom an attack comes from."""
JUDGED = (USER, TOOL)
"""Roles whose segments the text models judge."""
_ENTRY_OVERHEAD = 2_500
"""Bytes of Python objects around a message's arrays and characters (measured with tracemalloc)."""
_WORDS_MAX = 32
"""Words looked at of a segment, which holds few more."""


class Embeds(Protocol):
    """What the content step needs of an embedder."""

    dim: int
    continues: NDArray[np.bool_]
    """(V,) which tokens go on with a word."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """(V,) tokens."""
        ...

    def encode(self, texts: Sequence[str]) -> TokenBags:
        """Tokens of `texts`, by the packaged vocabulary."""
        ...

    def embed_int8(self, texts: Sequence[str], bags: TokenBags) -> NDArray[np.int8]:
        """Unit rows times 127, (n, dim), in input order; `bags` are the texts' tokens."""
        ...


class Judges(Protocol):
    """What the content step needs of a release's text models."""

    @property
    def columns(self) -> int:
        """c, numbers a text."""
        ...

    def score(
        self, bags: TokenBags, vectors: NDArray[np.int8], again: NDArray[np.bool_], message: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Log-odds (n, c) of texts: first that it speaks like no tool, then of each class of known attacks.

        `vectors` (n, dim) are those of `embed_int8`, and `again` (n,) texts that a tool returned: only of them it is a
        surprise to speak like no tool. `message` (n,) numbers the messages that they are of.
        """
        ...

    def covered(self, bags: TokenBags, message: NDArray[np.int64]) -> NDArray[np.float32]:
        """Log-odds (m,) by which tools' texts may sound like orders after users' messages.

        `message` (n,) numbers them from 0, in order.
        """
        ...


@dataclass(slots=True)
class Content:
    """One message, read. Shared by every event that carries it: not to be changed."""

    role: int
    texts: list[str]
    """Segments (s)."""
    roles: NDArray[np.int8]
    """(s,): a tool call's arguments are `CALL`, whoever wrote the message."""
    lengths: NDArray[np.float32]
    """(s,) characters."""
    chars: int
    argument_chars: int
    calls: list[str]
    """Names of the tools called."""
    buckets: NDArray[np.int16]
    """(TOOL_BUCKETS,), calls by hashed tool name."""
    call_digests: list[bytes]
    """Of each call, what names tool and arguments."""
    values: list[str]
    """Segments of the values that tool calls pass, without their names."""
    vectors: NDArray[np.int8] = field(default_factory=lambda: np.zeros((0, 0), np.int8))
    """(s, d), 0 for roles that are not `EMBEDDED`."""
    judged: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(s, c) by the text models, NaN for roles that are not `JUDGED`."""
    words: Words = field(default_factory=lambda: Words(np.zeros((0, 0), np.uint32), np.zeros((0, 0), np.uint8)))
    """(s,) of the segments."""
    asking: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """(s,) of a user's own sentences, which may ask to do what a text says."""
    covers: float = 0.0
    """Log-odds by which tools' texts may sound like orders after it: its user has asked so."""
    asked: Words = field(default_factory=lambda: Words(np.zeros((0, 0), np.uint32), np.zeros((0, 0), np.uint8)))
    """Of `values`."""


class ContentReader:
    """Reads messages it has not read lately; a message seen before costs a look-up.

    Parameters
    ----------
    embedder
        Of the release's space.
    judges
        The release's text models.
    cache_bytes
        Memory that the messages kept may take, least recently used first out: 12,500 of common length by default.
    """

    def __init__(self, embedder: Embeds, judges: Judges, cache_bytes: int = 64 << 20) -> None:
        self._embedder = embedder
        self._judges = judges
        self._cache: OrderedDict[str, Content] = OrderedDict()
        self._cache_bytes = cache_bytes
        self._held_bytes = 0
        self.hits = 0
        self.misses = 0

    def read(self, messages: Sequence[MessageHead]) -> list[Content]:
        """Contents of `messages`, in their order; all that are new are embedded and judged in one call."""
        cache = self._cache
        found = {message.digest: cache.get(message.digest) for message in messages}
        fresh: dict[str, Content] = {}
        for message in messages:
            if found[message.digest] is None and message.digest not in fresh:
                fresh[message.digest] = segmented(message)
        self.misses += len(fresh)
        self.hits += len(messages) - len(fresh)
        self._understand(list(fresh.values()))
        for digest, content in found.items():
            if content is None:
                cache[digest] = fresh[digest]
                self._held_bytes += _size(fresh[digest])
            else:
                cache.move_to_end(digest)
        out = [cache[message.digest] for message in messages]
        while self._held_bytes > self._cache_bytes:
            self._held_bytes -= _size(cache.popitem(last=False)[1])
        return out

    def _understand(self, contents: list[Content]) -> None:
        """Vectors, judgements and words of new contents; the models see all of them at once."""
        if not contents:
            return
        texts = [text for content in contents for text in content.texts]
        role = np.concatenate([content.roles for content in contents])
        bags = self._embedder.encode(texts)
        told = words(bags, self._embedder.continues, _WORDS_MAX)
        vectors = np.zeros((len(texts), self._embedder.dim), np.int8)
        judged = np.full((len(texts), self._judges.columns), np.nan, np.float32)
        seen, heard = np.flatnonzero(np.isin(role, EMBEDDED)), np.flatnonzero(np.isin(role, JUDGED))
        if len(seen):
            vectors[seen] = self._embedder.embed_int8([texts[i] for i in seen.tolist()], bags.take(seen))
        if len(heard):
            message = np.repeat(np.arange(len(contents)), [len(content.texts) for content in contents])[heard]
            judged[heard] = self._judges.score(bags.take(heard), vectors[heard], role[heard] == TOOL, message)
        self._hear_requests(contents, bags)
        values = [text for content in contents for text in content.values]
        asked = words(self._embedder.encode(values), self._embedder.continues, _WORDS_MAX)
        at = value_at = 0
        for content in contents:
            mine_too = slice(at, at + len(content.texts))
            theirs = slice(value_at, value_at + len(content.values))
            # Copies: a view would keep the arrays of all that was read with it for as long as this message is cached.
            content.vectors, content.judged = vectors[mine_too].copy(), judged[mine_too].copy()
            content.words = Words(told.hash[mine_too].copy(), told.weight[mine_too].copy())
            content.asked = Words(asked.hash[theirs].copy(), asked.weight[theirs].copy())
            at, value_at = mine_too.stop, theirs.stop

    def _hear_requests(self, contents: Sequence[Content], bags: TokenBags) -> None:
        """What contents cover, of whose texts, one after another, `bags` are the tokens."""
        rows = np.flatnonzero(np.concatenate([content.asking for content in contents]))
        owner = np.repeat(np.arange(len(contents)), [len(content.asking) for content in contents])[rows]
        asking, message = np.unique(owner, return_inverse=True)
        covered = self._judges.covered(bags.take(rows), message)
        for number, covers in zip(asking.tolist(), covered.tolist(), strict=True):
            contents[number].covers = covers


def _size(content: Content) -> int:
    """Bytes that a message takes while it is kept."""
    words, asked = content.words, content.asked
    arrays = (content.vectors, content.judged, words.hash, words.weight, asked.hash, asked.weight, content.lengths)
    characters = sum(map(len, content.texts)) + sum(map(len, content.values))
    return _ENTRY_OVERHEAD + sum(array.nbytes for array in arrays) + characters


@cache
def _strict() -> Redactor:
    """For what a text hides, whatever the policy is."""
    return Redactor("standard")


def _read(text: str) -> tuple[list[str], list[str]]:
    """Segments of a text, and those of sentences that it hides in other writings.

    What was redacted was the text as it stood: what it hides may hold secrets that nobody could see in it.
    """
    segments = split(text)
    return segments, [piece for hidden in undone(text, segments) for piece in split(_strict().text(hidden, {}))]


def segmented(message: MessageHead) -> Content:
    """What a message says, before any model has seen it."""
    role = _ROLE_CODES.get(message.role, USER)
    texts: list[str] = []
    roles: list[int] = []
    calls: list[str] = []
    digests: list[bytes] = []
    values: list[str] = []
    asking: list[bool] = []
    chars = argument_chars = 0
    for part in message.parts:
        if part.type == "reasoning":
            # No part of the digest: who asks for this digest next may have come with other reasoning, or none.
            continue
        if part.type == "tool_call":
            name, arguments = part.name or "", part.arguments or ""
            calls.append(name)
            argument_chars += len(arguments)
            digests.append(blake2b(f"{name}\x1f{arguments}".encode("utf-8", "surrogatepass"), digest_size=8).digest())
            values += split(_values(arguments))
            pieces, code, asks = split(f"{name} {arguments}"), CALL, 0
        else:
            text = part.text or part.response or ""
            chars += len(text)
            own, hidden = _read(text)
            pieces, code = own + hidden, TOOL if part.type == "tool_call_response" else role
            # What no user writes by hand asks for nothing: other writings, and JSON, such as a record that was cut off.
            asks = len(own) if code == USER and text[:1] not in ("{", "[") else 0
        texts += pieces
        asking += [True] * asks + [False] * (len(pieces) - asks)
        roles += [code] * len(pieces)
    buckets = np.zeros(TOOL_BUCKETS, np.int16)
    for name in calls:
        buckets[blake2b(name.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % TOOL_BUCKETS] += 1
    return Content(
        role=role,
        texts=texts,
        roles=np.array(roles, np.int8),
        lengths=np.array([len(text) for text in texts], np.float32),
        chars=chars,
        argument_chars=argument_chars,
        calls=calls,
        buckets=buckets,
        call_digests=digests,
        values=values,
        asking=np.array(asking, np.bool_),
    )


def _values(arguments: str) -> str:
    """What a call passes, without the names it passes it under, which every call of the tool has.

    >>> _values('{"to": "ann", "lines": [{"item": "tea", "n": 2}], "gift": true}')
    'ann tea 2'
    """
    if arguments[:1] not in ("{", "["):
        return arguments
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    found: list[str] = []
    _collect(value, found)
    return " ".join(found)


def _collect(value: Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found.append(str(value))
