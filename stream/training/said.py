"""What was said in training events, once for each tenant, with who said it and in which folds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.wordpiece import TokenBags
from stream.config import Settings
from stream.steps.content import Embeds, segmented
from stream.steps.decode import decode
from stream.training.events import TrainingEvents

_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """Segments (s) of distinct messages."""

    bags: TokenBags
    role: NDArray[np.int8]
    """(s,) as `stream.steps.content` numbers them."""
    tenant: NDArray[np.int64]
    """(s,)"""
    folds: NDArray[np.int64]
    """(s,) bit f is set where a session of fold f holds the message."""
    vectors: NDArray[np.int8] | None = None
    """(s, d) unit rows times 127; without them no direction is learned."""

    def without(self, fold: int) -> TrainingTexts:
        """What sessions of the other folds hold."""
        return self.taken(self.rows_without(fold))

    def rows_without(self, fold: int) -> NDArray[np.intp]:
        """The segments that sessions of the other folds hold."""
        return np.flatnonzero(self.folds & ~np.int64(1 << fold))

    def taken(self, index: NDArray[np.intp]) -> TrainingTexts:
        """The segments `index`."""
        vectors = None if self.vectors is None else self.vectors[index]
        return TrainingTexts(self.bags.take(index), self.role[index], self.tenant[index], self.folds[index], vectors)


def collect_texts(events: TrainingEvents, embedder: Embeds, settings: Settings) -> TrainingTexts:
    """Segments of all messages of the events that teach, requests and answers alike."""
    seen: dict[tuple[int, str], int] = {}
    folds: list[int] = []
    texts: list[str] = []
    message_of: list[int] = []
    roles: list[NDArray[np.int8]] = []
    tenants: list[int] = []
    fold_of = events.fold.tolist()
    tenant_of = events.session_tenant[events.session].tolist()
    learning = events.learning.tolist()
    for low in range(0, len(learning), _AT_ONCE):
        part = learning[low : low + _AT_ONCE]
        batch, _ = decode([events.records[at] for at in part], settings.core.future_ms)
        for at, head in zip(part, batch.heads, strict=True):
            for message in (*head.messages, *head.output):
                key = (tenant_of[at], message.digest)
                number = seen.get(key)
                if number is None:
                    number = seen[key] = len(folds)
                    folds.append(0)
                    content = segmented(message)
                    texts += content.texts
                    roles.append(content.roles)
                    message_of += [number] * len(content.texts)
                    tenants += [tenant_of[at]] * len(content.texts)
                folds[number] |= 1 << fold_of[at]
    bags = embedder.encode(texts)
    return TrainingTexts(
        bags,
        np.concatenate([np.zeros(0, np.int8), *roles]),
        np.array(tenants, np.int64),
        np.array(folds, np.int64)[np.array(message_of, np.int64)],
        embedder.embed_int8(texts, bags),
    )
