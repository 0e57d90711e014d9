"""Sessions that nobody judged and that speak like those that analysts confirmed as attacks: they teach nothing.

A campaign of which analysts were shown half lies with its other half in the traffic that is taken for benign. Learned
there, its words are a tool's and a user's; calibrated on, what it is found by is ordinary.

Legend: s sessions, d distinct texts, a segments of labelled attacks, p pairs of session and text.
"""

from __future__ import annotations

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
from stream.training.sift import COST

SHARE_MAX = 0.1
"""Of the sessions that nobody judged: where more than that are attacks, nobody can say what is normal."""
TENANT_SHARE_MAX = 0.5
"""Of a tenant's: whoever talks of attacks all day still has a normal."""
LEAST_LIKE = 0.1
"""Share of the confirmed sessions that may be less like the others than a suspect that is liker to traffic."""
_AT_ONCE = 2000


def without_suspects(
    events: TrainingEvents, labelled: AttackTexts, embedder: Embeds, settings: Settings, *, seed: int
) -> TrainingEvents:
    """The events less the sessions that are likest to labelled attacks: no more than these are.

    A linear model of n-grams learns the labels' segments against what users and tools say in the traffic, and judges
    what it has not seen: sessions without their fold, attacks without a fifth of the labelled sessions, and what
    several folds say, which is on neither side of any fit. How many attacks hide is not known: as many as were found
    is what a detector that finds half of them leaves. Held-out traffic, of which nothing is left out, tells the gate
    what comes of it.

    Parameters
    ----------
    labelled
        What labels show; the sessions of its groups are those confirmed.
    """
    judged = np.zeros(len(events.session_tenant), np.bool_)
    for known, meaning in ((events.session_believed, True), (events.session_learns, False)):
        if known is not None:
            judged |= known == meaning
    said = _said(events, settings)
    # One attack alone tells nothing of how alike others would be.
    if len(set(labelled.group)) < 2 or len(said.texts) == 0:
        return events
    likeness, confirmed = _likenesses(events, said, labelled, embedder, seed)
    # Liker to attacks than to traffic; and where many of the confirmed are not either, as like as most of those.
    least = min(0.0, float(np.quantile(confirmed, LEAST_LIKE)))
    may = ~judged & np.isfinite(likeness) & (likeness >= least)
    order = np.argsort(-likeness, kind="stable")
    order = order[may[order]]
    tenant, unjudged = events.session_tenant[order], events.session_tenant[~judged]
    most = (np.bincount(unjudged, minlength=len(events.tenants)) * TENANT_SHARE_MAX).astype(np.int64)
    order = order[_rank_within(tenant) < most[tenant]]
    alike = np.zeros(len(judged), np.bool_)
    alike[order[: min(len(confirmed), int(len(unjudged) * SHARE_MAX))]] = True
    teaches = ~alike if events.session_learns is None else ~alike & events.session_learns
    # What is left must still be two parts, or nothing can be calibrated.
    return events.without(alike) if len(np.unique(events.session_fold[teaches])) > 1 else events


@dataclass(frozen=True, slots=True)
class _Said:
    """Distinct texts (d), and which sessions users and tools said them in."""

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


def _likenesses(
    events: TrainingEvents, said: _Said, labelled: AttackTexts, embedder: Embeds, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How like an attack each session (s,) is, and each labelled one."""
    folds, owner = np.zeros((2, len(said.texts)), np.int64)
    np.bitwise_or.at(folds, said.text, 1 << events.session_fold[said.session])
    owner[said.text[::-1]] = events.session_tenant[said.session[::-1]]
    groups, group = np.unique(labelled.group, return_inverse=True)
    bags = embedder.encode(said.texts)
    grams = NGrams.fit(bags, owner, token_shapes(embedder.vocabulary))
    text_odds, attack_odds = _odds(grams, bags, folds, labelled.bags, group % FOLDS, seed)
    return (
        _likest(said.session, text_odds[said.text], len(events.session_tenant)),
        _likest(group, attack_odds, len(groups)),
    )


def _likest(session: NDArray[np.int64], odds: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The largest of the log-odds of each session's segments, less what there being many costs (decision 42)."""
    likest = np.full(count, -np.inf)
    np.maximum.at(likest, session, odds)
    many = np.clip(np.bincount(session, minlength=count), 1, MANY_MAX)
    return likest - MANY_COST * np.log(many)


def _odds(
    grams: NGrams,
    bags: TokenBags,
    folds: NDArray[np.int64],
    attacks: TokenBags,
    attack_fold: NDArray[np.int64],
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-odds of texts (d,) and of segments (a,) of being an attack's, by fits that have not seen them.

    Parameters
    ----------
    folds
        (d,) bit f is set where a session of fold f says it. What several say is judged by all fits together.
    """
    from scipy.sparse import vstack

    from models.training.linear import even, fit_logistic, matrix

    attacking, ordinary = matrix(grams.features(attacks)), matrix(grams.features(bags))
    text_odds, attack_odds = np.full(len(folds), -np.inf), np.full(len(attack_fold), -np.inf)
    own = (folds & (folds - 1)) == 0
    shared: list[NDArray[np.float64]] = []
    for number in range(FOLDS):
        out, attack_out = own & (folds == 1 << number), attack_fold == number
        rows, attack_rows = np.flatnonzero(own & ~out), np.flatnonzero(~attack_out)
        if len(rows) == 0:
            continue
        positive = np.arange(len(attack_rows) + len(rows)) < len(attack_rows)
        x = vstack([attacking[attack_rows], ordinary[rows]]).tocsr()
        weights, constant = fit_logistic(x, positive, even(positive), cost=COST, seed=seed)
        text_odds[out] = ordinary[np.flatnonzero(out)] @ weights + constant
        attack_odds[attack_out] = attacking[np.flatnonzero(attack_out)] @ weights + constant
        shared.append(ordinary[np.flatnonzero(~own)] @ weights + constant)
    if shared:
        text_odds[~own] = np.mean(shared, axis=0)
    return text_odds, attack_odds


def _rank_within(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same group stand before each.

    >>> _rank_within(np.array([7, 5, 7, 7, 5])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return rank
