"""Sessions that nobody judged and that speak like those that analysts confirmed as attacks: they teach nothing.

A campaign of which analysts were shown half lies with its other half in the traffic that is taken for benign. Learned
there, its words are a tool's and a user's; calibrated on, what it is found by is ordinary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams, token_shapes
from models.wordpiece import TokenBags
from stream.config import Settings
from stream.steps.content import JUDGED, Embeds, segmented
from stream.steps.decode import decode
from stream.steps.likeness import MANY_COST, MANY_MAX
from stream.training.attacks import AttackTexts
from stream.training.events import FOLDS, TrainingEvents

SHARE_MAX = 0.1
"""Of all sessions: where more than that are attacks, nobody can say what is normal."""
TENANT_SHARE_MAX = 0.5
"""Of a tenant's sessions: whoever talks of attacks all day still has a normal."""
_COST = 1.0
_AT_ONCE = 2000


def without_suspects(
    events: TrainingEvents,
    attacks: AttackTexts,
    embedder: Embeds,
    settings: Settings,
    *,
    confirmed: int,
    seed: int,
) -> TrainingEvents:
    """The events less the sessions that are likest to labelled attacks: as many as are confirmed, at most.

    A linear model of n-grams learns the labels' segments against those of the traffic, and judges those of the folds
    that it has not seen; what sessions of several folds say is everybody's, and on neither side. How many attacks hide
    is not known: as many as were found is what a detector that finds half of them leaves. Where none do, ordinary
    sessions are lost to the training, and the gate's held-out traffic, of which nothing is left out, tells what comes
    of it.

    Parameters
    ----------
    confirmed
        Sessions of the same days that are labelled as attacks.
    """
    if not confirmed:
        return events
    likeness = _likeness(events, _said(events, settings), attacks, embedder, seed)
    may = np.isfinite(likeness)
    if events.session_believed is not None:
        may &= ~events.session_believed
    order = np.argsort(-likeness, kind="stable")
    order = order[may[order]]
    tenant = events.session_tenant[order]
    by_tenant = np.argsort(tenant, kind="stable")
    place = np.empty(len(order), np.int64)
    place[by_tenant] = np.arange(len(order)) - np.searchsorted(tenant[by_tenant], tenant[by_tenant])
    most = (np.bincount(events.session_tenant) * TENANT_SHARE_MAX).astype(np.int64)
    alike = np.zeros(len(may), np.bool_)
    alike[order[place < most[tenant]][: min(confirmed, int(len(may) * SHARE_MAX))]] = True
    return events.without(alike)


@dataclass(frozen=True, slots=True)
class _Said:
    """Distinct texts (d), and which sessions users and tools said them in, as pairs (p)."""

    texts: list[str]
    text: NDArray[np.int64]
    """(p,)"""
    session: NDArray[np.int64]
    """(p,)"""


def _said(events: TrainingEvents, settings: Settings) -> _Said:
    """What users and tools say in sessions that teach."""
    read: dict[str, list[int]] = {}
    numbers: dict[str, int] = {}
    pairs: set[tuple[int, int]] = set()
    learning = events.learning.tolist()
    for low in range(0, len(learning), _AT_ONCE):
        part = learning[low : low + _AT_ONCE]
        batch, _ = decode([events.records[at] for at in part], settings.core.future_ms)
        for session, head in zip(events.session[part].tolist(), batch.heads, strict=True):
            for message in head.messages:
                if message.digest not in read:
                    content = segmented(message)
                    judged = np.isin(content.roles, JUDGED).tolist()
                    texts = [text for text, own in zip(content.texts, judged, strict=True) if own]
                    read[message.digest] = [numbers.setdefault(text, len(numbers)) for text in texts]
                pairs.update((session, number) for number in read[message.digest])
    both = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return _Said(list(numbers), both[:, 1], both[:, 0])


def _likeness(
    events: TrainingEvents, said: _Said, attacks: AttackTexts, embedder: Embeds, seed: int
) -> NDArray[np.float64]:
    """The log-odds (s,) of a session's likest segment, less what many of them cost; -inf where nothing is known."""
    folds, owner = np.zeros((2, len(said.texts)), np.int64)
    np.bitwise_or.at(folds, said.text, 1 << events.session_fold[said.session])
    owner[said.text[::-1]] = events.session_tenant[said.session[::-1]]
    odds = _odds(embedder.encode(said.texts), owner, folds, attacks.bags, embedder.vocabulary, seed)
    known = np.isfinite(odds[said.text])
    session, value = said.session[known], odds[said.text[known]]
    likest = np.full(len(events.session_tenant), -np.inf)
    np.maximum.at(likest, session, value)
    many = np.clip(np.bincount(session, minlength=len(likest)), 1, MANY_MAX)
    return likest - MANY_COST * np.log(many)


def _odds(
    bags: TokenBags,
    tenant: NDArray[np.int64],
    folds: NDArray[np.int64],
    attacking: TokenBags,
    vocabulary: Sequence[str],
    seed: int,
) -> NDArray[np.float64]:
    """Log-odds (d,) of texts of being an attack's, by fits without their fold; -inf of what several folds say."""
    from scipy.sparse import vstack

    from models.training.linear import fit_logistic, matrix

    grams = NGrams.fit(bags, tenant, token_shapes(vocabulary))
    x = vstack([matrix(grams.features(attacking)), matrix(grams.features(bags))]).tocsr()
    attacks = len(attacking.offsets) - 1
    positive = np.arange(x.shape[0]) < attacks
    odds = np.full(len(folds), -np.inf)
    own = (folds & (folds - 1)) == 0
    for number in range(FOLDS):
        out = own & (folds == 1 << number)
        rows = np.flatnonzero(np.concatenate([np.ones(attacks, np.bool_), own & ~out]))
        sides = positive[rows]
        if not out.any() or sides.all() or not sides.any():
            continue
        weight = np.where(sides, 1 / sides.sum(), 1 / (~sides).sum())
        weights, constant = fit_logistic(x[rows], sides, weight, cost=_COST, seed=seed)
        odds[out] = x[attacks + np.flatnonzero(out)] @ weights + constant
    return odds
