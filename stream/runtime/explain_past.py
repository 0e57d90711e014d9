"""What tenants have said of late that nothing was found in, to hold beside what was found."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.steps.score import HEARD
from stream.steps.scored import Scored

SEGMENTS_MAX = 50_000
"""Distinct ones that are kept, over all tenants, the latest: 50 MB."""
_UNIT = np.float32(127.0)


@dataclass(frozen=True, slots=True)
class Normal:
    """A segment that a tenant has said before."""

    text: str
    distance: float
    """Cosine distance from it, as novelty measures."""
    event_id: str
    """Of the event that said it last."""


class Past:
    """Segments that users and tools of each tenant have said in events that were not anomalous."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, int, str], tuple[NDArray[np.int8], str, str]] = OrderedDict()

    def hear(self, scored: Scored, until: int | None = None) -> None:
        """Take in what the events of a batch say that is new; with `until` those before that one."""
        given, heads = scored.given, scored.live.heads
        texts = [text for i in np.flatnonzero(scored.new.unseen).tolist() for text in scored.contents[i].texts]
        kept = np.isin(given.segment_role, list(HEARD)) & ~scored.scores.anomalous[given.segment_event]
        if until is not None:
            kept &= given.segment_event < until
        for segment in np.flatnonzero(kept).tolist():
            head = heads[int(given.segment_event[segment])]
            key = head.tenant, int(given.segment_role[segment]), texts[segment]
            self._said[key] = given.segment_vector[segment].copy(), head.event_id, head.session
            self._said.move_to_end(key)
        while len(self._said) > SEGMENTS_MAX:
            self._said.popitem(last=False)

    def nearest(self, tenant: str, session: str, role: int, vector: NDArray[np.int8]) -> Normal | None:
        """What the tenant's users, or its tools, have said in other sessions that is nearest to `vector` (d,).

        Of equals the latest.
        """
        if not vector.any():
            return None
        mine = [
            (key[2], *said) for key, said in self._said.items() if key[:2] == (tenant, role) and said[2] != session
        ][::-1]
        if not mine:
            return None
        near = np.stack([each[1] for each in mine]).astype(np.float32) @ (vector / (_UNIT * _UNIT))
        best = int(near.argmax())
        text, _, event_id, _ = mine[best]
        return Normal(text, max(0.0, 1.0 - float(near[best])), event_id)
