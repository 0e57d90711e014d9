"""What the product got most wrong: attacks that look most benign to it, benign sessions that look least so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evaluation.report.figure import rounded
from evaluation.report.model import Case, Screen
from evaluation.report.part import Part, View

SHOWN = 20
_EACH_MAX = 4
"""Misses of one family, or false positives of one conversation: the next would say the same again."""
EXCERPT_CHARS = 600

Excerpts = Mapping[tuple[str, str], str]
"""By tenant and session."""


def screen(view: View, excerpts: Excerpts) -> Screen:
    """The worst errors of one system."""
    part = view.part
    families = part.rows.family.codes.astype(np.int64)
    missed = part.attack & ~part.rows.flagged & view.own
    wrong = part.benign & part.rows.flagged & view.own
    return Screen(
        misses=_cases(part, missed, part.rows.score, families, excerpts),
        false_positives=_cases(part, wrong, -part.rows.score, part.cluster, excerpts),
    )


def _cases(
    part: Part,
    chosen: NDArray[np.bool_],
    order: NDArray[np.float64],
    alike: NDArray[np.int64],
    excerpts: Excerpts,
) -> list[Case]:
    """The first rows of `chosen` (n,) by `order` (n,): a session once, and few that are `alike` (n,)."""
    rows = np.flatnonzero(chosen)
    # Scores of sessions that are wrong in the same way are often equal: then by name, so that no run differs.
    rows = rows[np.lexsort((part.rows.seed[rows], part.session[rows], order[rows]))]
    found: list[Case] = []
    sessions, kinds = set[int](), Counter[int]()
    for row in rows.tolist():
        session, kind = int(part.session[row]), int(alike[row])
        if session in sessions or kinds[kind] >= _EACH_MAX:
            continue
        sessions.add(session)
        kinds[kind] += 1
        found.append(_case(part, row, excerpts))
        if len(found) == SHOWN:
            break
    return found


def _case(part: Part, row: int, excerpts: Excerpts) -> Case:
    rows = part.rows
    tenant, session = rows.tenant.names[rows.tenant.codes[row]], rows.session.names[rows.session.codes[row]]
    turn = int(rows.first_finding_turn[row])
    return Case(
        tenant=tenant,
        session=session,
        seed=int(rows.seed[row]),
        family=rows.family.names[rows.family.codes[row]],
        score=rounded(float(rows.score[row])) or 0.0,
        p=rounded(float(rows.p[row])) or 0.0,
        flagged=bool(rows.flagged[row]),
        signal=rows.signal.names[rows.signal.codes[row]],
        turn=turn if turn >= 0 else None,
        turns=int(rows.events[row]),
        excerpt=excerpts.get((tenant, session), "")[:EXCERPT_CHARS],
    )
