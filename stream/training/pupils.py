"""How well a teacher and its student know attacks that neither has learnt from, beside a student without teacher.

Measured on attacks of sessions that the teacher was kept from, against what sessions of one fold alone hold. Students
are fitted for it without either, and without what is written: a release's classifier knows more than they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.ngrams import NGrams, token_shapes
from stream.steps.content import JUDGED
from stream.training.attacks import AttackTexts
from stream.training.events import FOLDS
from stream.training.said import TrainingTexts
from stream.training.teaching import Lesson, Lessons, Teaching
from stream.training.texts import classifier

RATES = (0.01, 0.05)
"""Shares of benign segments above which an attack's is found."""


def measured(
    texts: TrainingTexts, attacks: AttackTexts, teaching: Teaching, tokens: Sequence[str], seed: int
) -> dict[str, float]:
    """AUROC and recall at `RATES`: `teacher_...`, `teacher_student_...` and `teacher_untaught_...`.

    Nothing where the teacher was asked about too little of either side.
    """
    asked = np.isfinite(teaching.texts).all(axis=1) & np.isin(texts.role, JUDGED) & ~teaching.common
    counts = [int((asked & (texts.folds == 1 << fold)).sum()) for fold in range(FOLDS)]
    fold = int(np.argmax(counts))
    benign = np.flatnonzero(asked & (texts.folds == 1 << fold))
    attacking = np.flatnonzero(teaching.unlearnt & np.isfinite(teaching.attacks).all(axis=1))
    if len(benign) == 0 or len(attacking) == 0:
        return {}
    odds = {"teacher": (teaching.texts[benign].max(axis=1), teaching.attacks[attacking].max(axis=1))}
    part = texts.without(fold)
    shown = np.flatnonzero(~teaching.unlearnt)
    lesson = Lessons(texts, teaching).without(fold)
    if lesson.teaching is not None:
        lesson = Lesson(_unlearning(lesson.teaching, shown))
    grams = NGrams.fit(part.bags, part.tenant, token_shapes(tokens))
    sides = [grams.features(texts.bags.take(benign)), grams.features(attacks.bags.take(attacking))]
    rest = attacks_of(attacks, shown)
    for name, own in (("teacher_student", lesson), ("teacher_untaught", Lesson())):
        student = classifier(part, rest, grams, seed, own)
        odds[name] = (student.score(sides[0]).max(axis=1), student.score(sides[1]).max(axis=1))
    return {
        f"{name}_{figure}": round(value, 6)
        for name, (ordinary, attack) in odds.items()
        for figure, value in figures(ordinary, attack).items()
    }


def figures(benign: NDArray[np.floating], attacking: NDArray[np.floating]) -> dict[str, float]:
    """AUROC, and the recall at each of `RATES`, of scores of both sides.

    >>> figures(np.arange(100.0), np.array([98.5, 200.0]))
    {'auroc': 0.995, 'recall_at_0.01': 1.0, 'recall_at_0.05': 1.0}
    """
    order = np.sort(benign)
    below = np.searchsorted(order, attacking, "left") + np.searchsorted(order, attacking, "right")
    auroc = {"auroc": float(below.mean() / 2 / len(benign))}
    return auroc | {f"recall_at_{rate}": float((attacking > np.quantile(benign, 1 - rate)).mean()) for rate in RATES}


def attacks_of(attacks: AttackTexts, rows: NDArray[np.integer]) -> AttackTexts:
    """The segments `rows`."""
    return AttackTexts(
        attacks.bags.take(rows),
        attacks.labels[rows],
        [attacks.source[row] for row in rows.tolist()],
        [attacks.group[row] for row in rows.tolist()],
    )


def _unlearning(teaching: Teaching, shown: NDArray[np.integer]) -> Teaching:
    """What was said of the attacks `shown`, and of splices with no words of others."""
    place = np.full(len(teaching.attacks) + 1, -1, np.int64)
    place[shown] = np.arange(len(shown))
    # The last place stands for benign words, -1.
    kept = np.flatnonzero((teaching.made_of < 0) | (place[teaching.made_of] >= 0))
    return replace(
        teaching,
        attacks=teaching.attacks[shown],
        made=teaching.made.take(kept),
        made_soft=teaching.made_soft[kept],
        made_labels=teaching.made_labels[kept],
        made_folds=teaching.made_folds[kept],
        made_of=place[teaching.made_of[kept]],
        unlearnt=teaching.unlearnt[shown],
    )
