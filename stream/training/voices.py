"""Who says what beside the tenants: requests to agents and what tools return, written for this project.

A tenant's own traffic holds a few hundred requests, all for what its own agents do. A stranger's order in a tool's
result asks for something else, and letters that people write to each other ask for things as well. So role surprise
learns from `written/*.toml` too: requests in many wordings, which users say, and letters, pages, records and formulas,
which tools return. None of it is an attack, and evaluation has lists of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from models.segments import split
from models.text_models import TextModels
from models.training.role_surprise import TOOL, USER, Beside
from models.wordpiece import TokenBags
from stream.steps.content import Embeds
from stream.steps.redact import Redactor
from stream.training.events import FOLDS
from stream.training.lists import Lists, languages

WORDINGS = 4
"""Framings of each request, all different where a language has as many."""
REQUESTS_SHARE = 0.2
"""What a segment of a request counts, where each of a tenant's and role's k counts 1/sqrt(k)."""
TEXTS_SHARE = 0.001
"""The same of what tools return: more of it makes orders in any prose look like a tool's."""
FORMULAS_SHARE = 0.01
"""The same of formulas, with which nobody gives an order."""


@dataclass(frozen=True, slots=True)
class Voices:
    """Segments (s) of what is written."""

    bags: TokenBags
    role: NDArray[np.int64]
    """(s,) `USER` or `TOOL`."""
    share: NDArray[np.float64]
    """(s,) what each counts."""
    message: NDArray[np.int64]
    """(s,) messages; what is held out is held out whole."""
    tagged: NDArray[np.bool_]
    """(s,) whether the packaged tagger has learned from the message."""

    def without(self, fold: int | None) -> Beside:
        """What that fold does not hold out: of what tools return one in `FOLDS`, of requests none; for None all."""
        rows = np.flatnonzero(~self._held_out(fold) if fold is not None else np.ones(len(self.role), np.bool_))
        return Beside(self.bags.take(rows), self.role[rows], self.share[rows])

    def surprises(self, models: TextModels, fold: int) -> NDArray[np.float64]:
        """How much like a user's each message (m,) is that the fold holds out; of none without role surprise.

        With a tagger only of messages that it has not learned either.
        """
        held_out = self._held_out(fold)
        rows = np.flatnonzero(held_out if models.tagger is None else held_out & ~self.tagged)
        if models.role_surprise is None or len(rows) == 0:
            return np.zeros(0)
        message = np.unique(self.message[rows], return_inverse=True)[1]
        highest = np.full(int(message.max()) + 1, -np.inf)
        np.maximum.at(highest, message, models.surprise(self.bags.take(rows)))
        return highest

    def _held_out(self, fold: int) -> NDArray[np.bool_]:
        held_out: NDArray[np.bool_] = (self.role == TOOL) & (self.message % FOLDS == fold)
        return held_out


def voices(embedder: Embeds, policy: str, *, seed: int) -> Voices:
    """All that is written, as traffic is read: redacted by `policy`, and cut into segments."""
    redactor, rng = Redactor(policy), np.random.default_rng(seed)
    read = languages().values()
    requests = list(chain.from_iterable(chain.from_iterable(worded(lists, rng) for lists in read)))
    texts = [text for lists in read for text in lists.texts]
    formulas = [text for lists in read for text in lists.formulas]
    said = [split(redactor.text(text, {})) for text in (*requests, *texts, *formulas)]
    many = np.array([len(segments) for segments in said])
    kinds = [len(requests), len(texts), len(formulas)]
    return Voices(
        embedder.encode(list(chain.from_iterable(said))),
        np.repeat(np.repeat([USER, TOOL, TOOL], kinds), many),
        np.repeat(np.repeat([REQUESTS_SHARE, TEXTS_SHARE, FORMULAS_SHARE], kinds), many),
        np.repeat(np.arange(len(said)), many),
        np.repeat([teaches_tagger(text) for text in (*requests, *texts, *formulas)], many),
    )


def teaches_tagger(text: str) -> bool:
    """Whether the packaged tagger learns from what is written: of five texts one is kept, to calibrate with."""
    return crc32(text.encode()) % FOLDS != 0


def worded(lists: Lists, rng: np.random.Generator, wordings: int = WORDINGS) -> Iterator[list[str]]:
    """Every request in so many of the framings."""
    for request in lists.requests:
        others = [lists.requests[at] for at in rng.integers(len(lists.requests), size=wordings)]
        chosen = rng.permutation(len(lists.framings))[:wordings].tolist()
        yield [
            lists.framings[place].format(request=request, rest=_small(request), other=other, other_rest=_small(other))
            for place, other in zip(chosen, others, strict=False)
        ]


def _small(text: str) -> str:
    """With a small first letter; a Turkish dotted one would become two signs.

    >>> _small("Call Ann"), _small("İlaç")
    ('call Ann', 'ilaç')
    """
    return text[:1].replace("İ", "i").lower() + text[1:]
