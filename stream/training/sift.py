"""Which words of a labelled session are its attack's, and which unjudged traffic says the same.

An analyst judges a finding, and a finding shows what stood around the attack too: mail that a tool returned with the
one mail that gives orders. Learned as attacks, such words flag whoever reads mail. And what nobody found lies in the
traffic that is taken for benign: there the same orders would take back what the label teaches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams, token_shapes
from stream.steps.content import JUDGED
from stream.training.attack_words import LABELS
from stream.training.pupils import attacks_of

if TYPE_CHECKING:
    from stream.training.attacks import AttackTexts
    from stream.training.said import TrainingTexts
    from stream.training.teaching import HardNegatives

_OWN_DRAWS = 26
"""Beside the seed, so that what is drawn here moves no other draw."""
_FOLDS = 5
_ROUNDS = 2
"""The second is fitted on what the first has left."""
_DRAWS = 3
"""Partitions that are averaged: of what labels show in the demo four seeds keep 159 to 177 by one each, 151 of
them always, and 170 to 172 by three, 162 always."""
COST = 1.0
"""The regression's C, scikit-learn's default: nothing here was tuned by it."""


def sifted(
    attacks: AttackTexts,
    texts: TrainingTexts,
    vocabulary: Sequence[str],
    *,
    seed: int,
    judged: HardNegatives | None = None,
) -> tuple[AttackTexts, TrainingTexts]:
    """The attacks' segments without words that only stood beside them, and the texts without the attacks' words.

    A linear model of n-grams says of each distinct text, held out from its fit, whether it is like what other labels
    show or like the traffic. Of each labelled session what is like the labels is kept, and in any case the likest:
    a new kind of attack is like no other. Segments that no label names are taken as they are.

    Parameters
    ----------
    judged
        What analysts judged benign, and what tools said beside attacks: it stays benign, whatever it is like.

    References
    ----------
    Andrews, Tsochantaridis, Hofmann (2002), Support vector machines for multiple-instance learning: a labelled bag
    holds at least one segment of its class.
    """
    from models.training.attack_classifier import texts_of

    labelled = np.array([source == LABELS for source in attacks.source], np.bool_)
    benign = np.flatnonzero(np.isin(texts.role, JUDGED))
    if not labelled.any() or len(benign) == 0:
        return attacks, texts
    names, said = texts_of(attacks.bags), texts_of(texts.bags)
    harmless = set(texts_of(judged.bags)) if judged is not None else set()
    odds = _odds(attacks, texts, names, [(row, said[row]) for row in benign.tolist()], vocabulary, seed)
    likest: dict[str, float] = defaultdict(lambda: -np.inf)
    for row in np.flatnonzero(labelled).tolist():
        likest[attacks.group[row]] = max(likest[attacks.group[row]], odds[names[row]])
    kept = [
        row
        for row, (name, own) in enumerate(zip(names, labelled.tolist(), strict=True))
        if not own or odds[name] >= min(0.0, likest[attacks.group[row]])
    ]
    words = {names[row] for row in kept if labelled[row] and odds[names[row]] >= 0 and names[row] not in harmless}
    clean = np.fromiter((name not in words for name in said), np.bool_, len(said))
    return attacks_of(attacks, np.array(kept, np.int64)), texts.taken(np.flatnonzero(clean))


def _odds(
    attacks: AttackTexts,
    texts: TrainingTexts,
    names: Sequence[bytes],
    said: Sequence[tuple[int, bytes]],
    vocabulary: Sequence[str],
    seed: int,
) -> dict[bytes, float]:
    """Log-odds of each distinct text of the attacks, by models that have not seen it; both sides weigh the same."""
    from scipy.sparse import vstack

    from models.training.linear import even, fit_logistic, matrix

    grams = NGrams.fit(texts.bags, texts.tenant, token_shapes(vocabulary))
    first = {name: row for row, name in reversed(list(enumerate(names)))}
    # What both sides say is on neither in the fits.
    ordinary = {name: row for row, name in reversed(said) if name not in first}
    own = sorted(first)
    x = vstack(
        [
            matrix(grams.features(attacks.bags.take(_rows(first[name] for name in own)))),
            matrix(grams.features(texts.bags.take(_rows(ordinary[name] for name in sorted(ordinary))))),
        ]
    ).tocsr()
    rng = np.random.default_rng([seed, _OWN_DRAWS])
    positive = np.arange(x.shape[0]) < len(own)
    odds = np.zeros(len(own))
    alike = np.ones(len(own), np.bool_)
    for _ in range(_ROUNDS):
        counted = np.concatenate([alike, np.ones(len(ordinary), np.bool_)])
        total, fits = np.zeros((2, len(own)))
        for _ in range(_DRAWS):
            fold = rng.permutation(x.shape[0]) % _FOLDS
            for number in range(_FOLDS):
                rows = np.flatnonzero((fold != number) & counted)
                sides = positive[rows]
                if sides.all() or not sides.any():
                    continue
                weights, constant = fit_logistic(x[rows], sides, even(sides), cost=COST, seed=seed)
                out = np.flatnonzero((fold == number) & positive)
                total[out] += x[out] @ weights + constant
                fits[out] += 1
        # Where nothing could be fitted, what the round before has said stands.
        odds = np.where(fits > 0, total / np.maximum(fits, 1), odds)
        alike = odds >= 0
    return dict(zip(own, odds.tolist(), strict=True))


def _rows(numbers: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(numbers, np.int64)
