"""Who says what beside the tenants: requests to agents and what tools return, written for this project.

A tenant's own traffic holds a few hundred requests, all for what its own agents do. A stranger's order in a tool's
result asks for something else, and letters that people write to each other ask for things as well. So role surprise
learns from `written/*.toml` too: requests in many wordings, which users say, and letters, pages and records, which
tools return. None of it is an attack, and evaluation has lists of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np

from models.segments import split
from models.training.role_surprise import TOOL, USER, Beside
from stream.steps.content import Embeds
from stream.steps.redact import Redactor
from stream.training.lists import Lists, languages

WORDINGS = 4
"""Framings of each request, all different where a language has as many."""
REQUESTS_SHARE = 0.05
"""What a segment of a request counts, where each of a tenant's and role's k counts 1/sqrt(k)."""
TEXTS_SHARE = 0.001
"""The same of what tools return: more of it makes orders in any prose look like a tool's."""


def voices(embedder: Embeds, policy: str, *, seed: int) -> Beside:
    """All that is written, as traffic is read: redacted by `policy`, and cut into segments."""
    redactor, rng = Redactor(policy), np.random.default_rng(seed)

    def segments(said: Iterable[str]) -> list[str]:
        return [segment for text in said for segment in split(redactor.text(text, {}))]

    read = languages().values()
    requests = segments(chain.from_iterable(worded(lists, rng) for lists in read))
    texts = segments(chain.from_iterable(lists.texts for lists in read))
    many = [len(requests), len(texts)]
    return Beside(
        embedder.encode([*requests, *texts]),
        np.repeat([USER, TOOL], many),
        np.repeat([REQUESTS_SHARE, TEXTS_SHARE], many),
    )


def worded(lists: Lists, rng: np.random.Generator, wordings: int = WORDINGS) -> Iterator[str]:
    """Every request in so many of the framings."""
    for request in lists.requests:
        for place in rng.permutation(len(lists.framings))[:wordings]:
            other = lists.requests[rng.integers(len(lists.requests))]
            yield lists.framings[place].format(
                request=request, rest=_small(request), other=other, other_rest=_small(other)
            )


def _small(text: str) -> str:
    """With a small first letter; a Turkish dotted one would become two signs.

    >>> _small("Call Ann"), _small("İlaç")
    ('call Ann', 'ilaç')
    """
    return text[:1].replace("İ", "i").lower() + text[1:]
