"""What the packaged token tagger learns from: what is written for role surprise, as more wordings and side by side.

It learns nothing of any tenant, so it is the same for all of them and for every fold of a training; what tenants' tools
say is what role surprise learns, and what both say is calibrated with is no part of this (`voices.teaches_tagger`).
"""

from __future__ import annotations

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from models.segments import split
from models.training.token_tagger import Sides
from stream.steps.content import Embeds
from stream.steps.redact import Redactor
from stream.training.lists import languages
from stream.training.voices import teaches_tagger, worded

WORDINGS = 10
"""Framings of each request."""
OTHER_LANGUAGES = 0.5
"""What a segment counts in another language than English, of which the model has read most."""
SEGMENT_TOKENS_MIN = 4
CHATS = (0.0, 0.3)
"""Of users' segments, the share of messages to chat models (`Lists.harmless`), of each of two taggers that are
averaged; requests to agents have the rest."""
FORMULAS = 0.45
"""Of the tools' segments that are placed or read as they are, the share that formulas have; letters, pages and records
have the rest."""


def tagger_lessons(embedder: Embeds, policy: str, *, seed: int, chats: float) -> Sides:
    """All that is written, redacted by `policy` and cut into segments as traffic is; `chats` is one of `CHATS`."""
    redactor, rng = Redactor(policy), np.random.default_rng(seed)
    texts: list[str] = []
    kinds: list[int] = []
    weights: list[float] = []
    for language, lists in languages().items():
        asked = chain.from_iterable(worded(lists, rng, wordings=WORDINGS))
        for kind, said in enumerate((asked, lists.harmless, lists.texts, lists.formulas)):
            parts = [split(redactor.text(text, {})) for text in said if teaches_tagger(text)]
            texts += chain.from_iterable(parts)
            kinds += [kind] * sum(map(len, parts))
            weights += [1.0 if language == "en" else OTHER_LANGUAGES] * sum(map(len, parts))
    bags = embedder.encode(texts)
    long = np.diff(bags.offsets) >= SEGMENT_TOKENS_MIN
    weight, kind_of = np.where(long, weights, 0.0), np.array(kinds)
    requests, messages, pages, formulas = (_share(weight * (kind_of == number)) for number in range(4))
    user = (1 - chats) * requests + chats * messages
    return Sides(bags, user, (1 - FORMULAS) * pages + FORMULAS * formulas, pages)


def _share(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = weight / weight.sum()
    return share
