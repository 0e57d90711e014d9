"""Messages -> segments with vectors and counts, each distinct message once."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.segments import split
from schemas.event_head import MessageHead
from stream.state.schema import TOOL_BUCKETS

SYSTEM, USER, ASSISTANT, TOOL, CALL = range(5)
ROLES = ("system", "user", "assistant", "tool", "call")

_ROLE_CODES = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": TOOL}


class Embeds(Protocol):
    """What the content step needs of an embedder."""

    dim: int

    def embed_int8(self, texts: Sequence[str]) -> NDArray[np.int8]:
        """Unit rows times 127, (n, dim), in input order."""
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
    vectors: NDArray[np.int8]
    """(s, d)."""
    chars: int
    argument_chars: int
    calls: list[str]
    """Names of the tools called."""
    buckets: NDArray[np.int16]
    """(TOOL_BUCKETS,), calls by hashed tool name."""


class ContentReader:
    """Reads messages it has not read lately; a message seen before costs a look-up.

    Parameters
    ----------
    embedder
        Of the release's space.
    cache_max
        Messages kept, least recently used first out.
    """

    def __init__(self, embedder: Embeds, cache_max: int = 20_000) -> None:
        self._embedder = embedder
        self._cache: OrderedDict[str, Content] = OrderedDict()
        self._cache_max = cache_max
        self.hits = 0
        self.misses = 0

    def read(self, messages: Sequence[MessageHead]) -> list[Content]:
        """Contents of `messages`, in their order; all that are new are embedded in one call."""
        cache = self._cache
        found = {message.digest: cache.get(message.digest) for message in messages}
        fresh: dict[str, Content] = {}
        for message in messages:
            if found[message.digest] is None and message.digest not in fresh:
                fresh[message.digest] = _segmented(message)
        self.misses += len(fresh)
        self.hits += len(messages) - len(fresh)
        self._embed(list(fresh.values()))
        for digest, content in found.items():
            if content is None:
                cache[digest] = fresh[digest]
            else:
                cache.move_to_end(digest)
        out = [cache[message.digest] for message in messages]
        while len(cache) > self._cache_max:
            cache.popitem(last=False)
        return out

    def _embed(self, contents: list[Content]) -> None:
        texts = [text for content in contents for text in content.texts]
        vectors = self._embedder.embed_int8(texts) if texts else np.zeros((0, self._embedder.dim), np.int8)
        at = 0
        for content in contents:
            content.vectors = vectors[at : at + len(content.texts)]
            at += len(content.texts)


def _segmented(message: MessageHead) -> Content:
    role = _ROLE_CODES.get(message.role, USER)
    texts: list[str] = []
    roles: list[int] = []
    calls: list[str] = []
    chars = argument_chars = 0
    for part in message.parts:
        if part.type == "reasoning":
            # No part of the digest: who asks for this digest next may have come with other reasoning, or none.
            continue
        if part.type == "tool_call":
            name, arguments = part.name or "", part.arguments or ""
            calls.append(name)
            argument_chars += len(arguments)
            pieces, code = split(f"{name} {arguments}"), CALL
        else:
            text = part.text or part.response or ""
            chars += len(text)
            pieces, code = split(text), TOOL if part.type == "tool_call_response" else role
        texts += pieces
        roles += [code] * len(pieces)
    buckets = np.zeros(TOOL_BUCKETS, np.int16)
    for name in calls:
        buckets[blake2b(name.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % TOOL_BUCKETS] += 1
    return Content(
        role,
        texts,
        np.array(roles, np.int8),
        np.array([len(text) for text in texts], np.float32),
        np.zeros((0, 0), np.int8),
        chars,
        argument_chars,
        calls,
        buckets,
    )
