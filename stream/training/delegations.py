"""What tells requests that hand over to a text from others: both as they are written for this project.

Of tenants' own requests nobody knows which hand over, so none of them is learned from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from models.segments import split
from models.wordpiece import TokenBags
from stream.steps.content import Embeds
from stream.steps.redact import Redactor
from stream.training.lists import languages
from stream.training.voices import worded


@dataclass(frozen=True, slots=True)
class Requests:
    """Segments (s) of written requests."""

    bags: TokenBags
    delegating: NDArray[np.bool_]
    """(s,) whether each hands over to a text."""
    weight: NDArray[np.float64]
    """(s,) those that hand over, near misses and all others weigh alike, each kind in all."""


def written_requests(embedder: Embeds, policy: str, *, seed: int) -> Requests:
    """All that is written, redacted by `policy` as traffic is.

    Of a longer text that hands over nobody has marked the sentence that does: only those of one segment are learned.
    """
    redactor, rng = Redactor(policy), np.random.default_rng(seed)
    read = languages().values()

    def cut(texts: Iterable[str]) -> list[list[str]]:
        return [split(redactor.text(text, {})) for text in texts]

    handing = [parts for parts in cut(chain.from_iterable(lists.delegating for lists in read)) if len(parts) == 1]
    near = cut(chain.from_iterable(lists.spelled_out for lists in read))
    asked = chain.from_iterable(worded(lists, rng, 1) for lists in read)
    other = cut(chain(chain.from_iterable(asked), chain.from_iterable(lists.harmless for lists in read)))
    kinds = [list(chain.from_iterable(parts)) for parts in (handing, near, other)]
    many = [len(kind) for kind in kinds]
    return Requests(
        embedder.encode(list(chain.from_iterable(kinds))),
        np.repeat([True, False, False], many),
        np.repeat([1 / max(size, 1) for size in many], many),
    )
