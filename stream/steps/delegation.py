"""Whether a session's user has handed its agent over to what texts say, and how much less their orders then say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.state.table import SessionKey, Table
from stream.steps.content import Content
from stream.steps.sessions import NewContent, Runs

_STEPS = 64
"""Log-odds are held in steps of 1/64."""
_CODE_MAX = 32_767
_NAME = "covered"


@dataclass(frozen=True, slots=True)
class Covered:
    """What the requests of sessions cover, n events of k runs."""

    odds: NDArray[np.float32]
    """(n,) log-odds by which a tool's text may sound like an order, by what was asked for up to each event."""
    code: NDArray[np.int16]
    """(k,) the same of each run's session by the end of the batch, in steps."""


def covered(runs: Runs, new: NewContent, contents: Sequence[Content], table: Table[SessionKey]) -> Covered:
    """What users of the events' sessions have asked for up to each event, itself included.

    What was once handed over stays so for the session: agents ask back, and users answer "yes".
    """
    code = np.zeros(len(runs.of_event), np.int64)
    asked = np.fromiter((content.covers for content in contents), np.float64, len(contents))
    np.maximum.at(code, new.event, np.clip(np.rint(asked * _STEPS), 0, _CODE_MAX).astype(np.int64))
    before = np.where(runs.row >= 0, table[_NAME][runs.row], 0).astype(np.int64)
    # Runs stand one after another, each so far above the one before that a running maximum starts anew with it.
    run = runs.of_event[runs.order]
    far = run * (_CODE_MAX + 1)
    code[runs.order] = np.maximum.accumulate(np.maximum(code[runs.order], before[run]) + far) - far
    return Covered((code / _STEPS).astype(np.float32), code[runs.last].astype(np.int16))


def store_covered(table: Table[SessionKey], rows: NDArray[np.int64], code: NDArray[np.int16]) -> None:
    """Write codes (r) to their sessions' state rows (r)."""
    table[_NAME][rows] = code
