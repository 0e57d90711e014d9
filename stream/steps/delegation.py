"""Whether a session's user has handed its agent over to what texts say, and how much less their orders then say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.delegation import COVERED_MAX
from stream.state.table import SessionKey, Table
from stream.steps.content import Content
from stream.steps.sessions import NewContent, Runs, running_highest

_STEPS = 64
"""Log-odds are held in steps of 1/64."""
_CODE_MAX = round(COVERED_MAX * _STEPS)
_NAME = "covered"


@dataclass(frozen=True, slots=True)
class Covered:
    """What the requests of sessions cover, m new messages of k runs."""

    odds: NDArray[np.float32]
    """(m,) log-odds by which a tool's text may sound like an order, by what was asked for before it or in it."""
    code: NDArray[np.int16]
    """(k,) the same of each run's session by the end of the batch, in steps."""


def covered(
    runs: Runs, new: NewContent, contents: Sequence[Content], table: Table[SessionKey], *, known: bool = True
) -> Covered:
    """What users of the events' sessions have asked for up to each new message.

    What was once handed over stays so for the session: agents ask back, and users answer "yes".

    Parameters
    ----------
    known
        Whether the release in service tells what is handed over. Where it does not, nothing is: neither what another
        one has told of the session counts, nor is it kept.
    """
    k = len(runs.keys)
    if not known:
        return Covered(np.zeros(len(new.event), np.float32), np.zeros(k, np.int16))
    run = runs.of_event[new.event]
    asked = np.fromiter((content.covers for content in contents), np.float64, len(contents))
    code = np.clip(np.rint(asked * _STEPS), 0, _CODE_MAX)
    before = np.where(runs.row >= 0, table[_NAME][runs.row], 0).clip(0, _CODE_MAX).astype(np.float64)
    code = running_highest(code, run, before[run]).astype(np.int64)
    after = before.copy()
    np.maximum.at(after, run, code)
    return Covered((code / _STEPS).astype(np.float32), after.astype(np.int16))


def store_covered(table: Table[SessionKey], rows: NDArray[np.int64], code: NDArray[np.int16]) -> None:
    """Write codes (r) to their sessions' state rows (r)."""
    table[_NAME][rows] = code
