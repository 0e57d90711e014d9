"""From events to their sessions: what every system says of a session is said by its strangest event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.events import Events
from evaluation.systems.system import Judged


def judged_by_strangest(
    events: Events,
    score: NDArray[np.float64],
    p: NDArray[np.float64],
    nominal: float,
    signal: Sequence[str],
    seconds: float,
    shown: Sequence[str] = (),
    alone_ms: Sequence[float] = (),
) -> Judged:
    """What is said of sessions (s), by what is said of their events (n).

    A session without events is as ordinary as can be.

    Parameters
    ----------
    score
        (n,) higher is stranger.
    p
        (n,) never rising with `score`.
    nominal
        The operating point: at or below it an event is flagged.
    signal
        (n,) what said so; empty for a system without parts.
    shown
        (n,) what would be shown of each; empty for a system that shows nothing.
    alone_ms
        What some events took, each by itself.

    Examples
    --------
    >>> from evaluation.events import Events
    >>> events = Events([], np.array([0, 0, 1]), np.array([0, 1, 0]), ["a", "b"], [])
    >>> said = judged_by_strangest(events, np.array([1.0, 3.0, 2.0]), np.array([0.5, 0.01, 0.2]), 0.01, [], 0.1)
    >>> said.score.tolist(), said.p.tolist(), said.first_turn.tolist()
    ([3.0, 2.0], [0.01, 0.2], [1, -1])
    """
    sessions = len(events.sessions)
    least = float(score.min(initial=0.0))
    # The last of equal ones in descending order is the first event: whoever is as strange first counts.
    order = np.lexsort((np.arange(len(score))[::-1], score))
    strangest = np.full(sessions, -1, np.int64)
    strangest[events.session[order]] = order
    some = strangest >= 0
    first_turn = np.full(sessions, -1, np.int64)
    flagged = np.flatnonzero(p <= nominal)[::-1]
    first_turn[events.session[flagged]] = events.turn[flagged]
    return Judged(
        score=np.where(some, score[strangest], least) if len(score) else np.zeros(sessions),
        p=np.where(some, p[strangest], 1.0) if len(p) else np.ones(sessions),
        first_turn=first_turn,
        signal=[signal[at] if at >= 0 and signal else "" for at in strangest.tolist()],
        seconds=seconds,
        shown=[shown[at] if at >= 0 else "" for at in strangest.tolist()] if shown else (),
        alone_ms=alone_ms,
    )
