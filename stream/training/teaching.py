"""Training texts and labelled attacks -> what a language model says of them, for the classifier that serves.

Calibration stays honest. The students of all folds have one teacher, so it learns as benign only what no fold holds
out: segments that sessions of several folds hold, which every student has been shown anyway. What it is asked about
goes to a fold's student only where that fold does not hold it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import CLASSES
from models.wordpiece import TokenBags
from stream.errors import StateError
from stream.steps.content import JUDGED, TOOL

if TYPE_CHECKING:
    from models.training.teacher import Tuning
    from stream.training.attacks import AttackTexts
    from stream.training.said import TrainingTexts

_NO_FOLD = -1
"""All bits, for what no session holds: no fold holds it out."""
_OWN_DRAWS = 25
"""Beside the seed, so that what is drawn here moves no other draw."""
_COMMON_MIN = 100
"""Segments of several folds below which there is nothing to teach a teacher with."""
_HELD_OUT = 0.1
"""Share of the attacks' sessions that the teacher does not learn from, to be measured on."""
_TOLD_EVERY = 50
_COST = 0.3
"""Of the look at what is like attacks: little, so that it knows no segment by heart."""
_LAST = 20
"""Steps whose loss is told."""


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """Segments (h) that were flagged and judged benign, or a tool's beside an attack; redacted as ingest does."""

    bags: TokenBags
    group: list[str]
    """(h,) sessions."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A language model to be fine-tuned."""

    directory: Path
    """Where it is kept while that lasts: what was killed goes on from there."""
    tuning: Tuning
    attacks_max: int = 2000
    """Distinct segments of attacks that it is asked about."""
    texts_max: int = 4000
    """And of what users and tools said: half of them those that words alone make likest to attacks, as unjudged traffic
    may hold some."""
    splices_max: int = 0
    """And of words of both placed into what tools said: none, as students did not gain by it (decision 25)."""


@dataclass(frozen=True, slots=True)
class Teaching:
    """What a teacher said: shares, 0 to 1, of c classes; nan where it was not asked."""

    texts: NDArray[np.float32]
    """(s, c) of the training texts' segments."""
    attacks: NDArray[np.float32]
    """(a, c) of the attacks' segments."""
    made: TokenBags
    """Segments (m) made of two."""
    made_soft: NDArray[np.float32]
    """(m, c)"""
    made_labels: NDArray[np.bool_]
    """(m, c) of the words that were placed."""
    made_folds: NDArray[np.int64]
    """(m, 2) folds of the sessions that hold what was placed into, and what was placed, as bits."""
    made_of: NDArray[np.int64]
    """(m,) the attack's segment that was placed, -1 for a benign one."""
    also: NDArray[np.float32]
    """(q, c)"""
    unlearnt: NDArray[np.bool_]
    """(a,) attacks' segments of held-out sessions, in words that the teacher has not learnt from."""
    common: NDArray[np.bool_]
    """(s,) segments that it may have learnt from."""
    metrics: dict[str, float] = field(default_factory=dict)
    lineage: dict[str, str | int | float] = field(default_factory=dict)
    """What a manifest names it by."""


def teach(
    texts: TrainingTexts,
    attacks: AttackTexts,
    vocabulary: Sequence[str],
    teacher: Teacher,
    *,
    seed: int,
    hard: HardNegatives | None = None,
    also: TokenBags | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Teaching | None:
    """Fine-tune the teacher and ask it; None where the texts hold too little that no fold holds out.

    Parameters
    ----------
    also
        Segments (q) that no student learns, and that the teacher is asked about all the same.

    Raises
    ------
    StateError
        When the model's files are missing or damaged, or its processes fail.
    """
    # They import torch, which takes seconds.
    from models.embedder import WeightsError
    from models.training.attack_classifier import texts_of
    from models.training.splices import join, splice_tools, take
    from models.training.teacher import TeacherError, tune

    rng = np.random.default_rng([seed, _OWN_DRAWS])
    said = _said(texts)
    names = texts_of(attacks.bags)
    attack_rows = _firsts(names, said.places)
    common = said.rows[said.common]
    if len(common) < _COMMON_MIN or len(attack_rows) == 0:
        progress("too few segments that several folds hold, or no attacks: no teacher")
        return None
    apart = _held_out(attacks.group, attack_rows, rng)
    judged = hard.bags if hard is not None else take(attacks.bags, np.zeros(0, np.int64))
    judged = take(judged, said.nowhere_held_out(texts_of(judged)))

    # What it learns from: two thirds as it was said, one third placed into what tools said.
    lesson = _pile(texts, common, judged, attacks, attack_rows[~apart])
    spliced, _, of = splice_tools(
        lesson.bags, lesson.tool, lesson.sides, lesson.share, teacher.tuning.examples_max // 3, rng
    )
    words = of[:, 1]
    share = np.concatenate([lesson.share, np.zeros(len(words))])
    for side in lesson.sides:
        share[len(side) :][side[words]] = lesson.share[side].sum() / 2 / max(side[words].sum(), 1)

    # What it is asked about.
    every = _pile(texts, said.rows, take(judged, np.zeros(0, np.int64)), attacks, attack_rows)
    made, _, made_of = splice_tools(every.bags, every.tool, every.sides, every.share, teacher.splices_max, rng)
    asked_attacks = _some(attack_rows, teacher.attacks_max, rng, apart)
    likest = _likest(texts, said.rows, attacks, attack_rows, vocabulary, teacher.texts_max // 2, seed)
    asked_texts = _some(said.rows, teacher.texts_max, rng, likest)
    asked = join(join(take(attacks.bags, asked_attacks), take(texts.bags, asked_texts)), made)
    if also is not None:
        asked = join(asked, also)

    def told(step: int, of: int, loss: float) -> None:
        if step % _TOLD_EVERY == 0 or step == of:
            progress(f"the teacher has learnt {step} of {of} steps, loss {loss:.3f}")

    progress(f"fine-tuning the teacher, which then reads {len(asked.offsets) - 1:,} segments")
    try:
        answers = tune(
            join(lesson.bags, spliced),
            np.concatenate([lesson.labels, lesson.labels[words]]),
            share,
            asked,
            vocabulary,
            directory=teacher.directory,
            seed=seed,
            how=teacher.tuning,
            progress=told,
        )
    except WeightsError as error:
        raise StateError(f"trainer.teacher minilm: {error} Or set TIDEGATE_TRAINER__TEACHER=none.") from error
    except TeacherError as error:
        raise StateError(
            f"trainer.teacher minilm: {error}\nRun it again to go on, or set TIDEGATE_TRAINER__TEACHER=none."
        ) from error
    soft = (1 / (1 + np.exp(-answers.logits.astype(np.float64)))).astype(np.float32)
    parts = np.cumsum([len(asked_attacks), len(asked_texts), len(made_of)])
    of_attacks, of_texts, of_made, of_others = np.split(soft, parts)
    held_out = {names[row] for row in attack_rows[apart].tolist()}
    return Teaching(
        texts=_spread(texts_of(texts.bags), texts_of(take(texts.bags, asked_texts)), of_texts),
        attacks=_spread(names, [names[row] for row in asked_attacks.tolist()], of_attacks),
        made=made,
        made_soft=of_made,
        made_labels=every.labels[made_of[:, 1]],
        made_folds=np.concatenate([said.folds, np.full(len(attack_rows), _NO_FOLD)])[made_of],
        made_of=np.concatenate([np.full(len(said.rows), -1), attack_rows])[made_of[:, 1]],
        also=of_others,
        unlearnt=np.fromiter((name in held_out for name in names), np.bool_, len(names)),
        common=_spread(texts_of(texts.bags), texts_of(take(texts.bags, common)), np.ones((len(common), 1)))[:, 0] == 1,
        metrics={"teacher_loss": round(float(np.mean(answers.losses[-_LAST:])), 6)},
        lineage={
            "teacher": "minilm-l6-v2",
            "teacher_sha256": answers.sha256,
            "teacher_examples": answers.examples,
            "teacher_steps": len(answers.losses),
            "teacher_asked": len(asked.offsets) - 1,
        },
    )


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a classifier of known attacks learns beside the segments (s) of the traffic and labelled attacks."""

    teaching: Teaching | None = None
    hard: HardNegatives | None = None


class Lessons:
    """The lesson of every fold's student, without what that fold holds out."""

    def __init__(
        self,
        texts: TrainingTexts,
        teaching: Teaching | None = None,
        hard: HardNegatives | None = None,
    ) -> None:
        self._texts, self._whole = texts, Lesson(teaching, hard)
        self._hard_folds = np.zeros(0, np.int64)
        if hard is not None:
            from models.training.attack_classifier import texts_of

            said = _said(texts)
            self._hard_folds = np.array([said.folds_of(text) for text in texts_of(hard.bags)], np.int64)

    def without(self, fold: int | None) -> Lesson:
        """For segments that sessions of the other folds hold; for all of them for None."""
        if fold is None:
            return self._whole
        rows, whole = self._texts.rows_without(fold), self._whole
        hard, teaching = whole.hard, whole.teaching
        if hard is not None:
            kept = np.flatnonzero(_learnable(self._hard_folds, fold))
            hard = HardNegatives(hard.bags.take(kept), [hard.group[row] for row in kept.tolist()])
        if teaching is not None:
            made = np.flatnonzero(_learnable(teaching.made_folds, fold).all(axis=1))
            teaching = replace(
                teaching,
                texts=teaching.texts[rows],
                made=teaching.made.take(made),
                made_soft=teaching.made_soft[made],
                made_labels=teaching.made_labels[made],
                made_folds=teaching.made_folds[made],
                made_of=teaching.made_of[made],
            )
        return Lesson(teaching, hard)


def _learnable(folds: NDArray[np.int64], without: int) -> NDArray[np.bool_]:
    """Which segments of these `folds` (bits) another fold than `without` holds.

    >>> _learnable(np.array([0b01, 0b10, 0b11, -1]), 0)
    array([False,  True,  True,  True])
    """
    held_elsewhere: NDArray[np.bool_] = (folds & ~np.int64(1 << without)) != 0
    return held_elsewhere


# -- who said what -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """Distinct segments (d) of users and tools."""

    rows: NDArray[np.int64]
    """(d,) the first of each."""
    folds: NDArray[np.int64]
    """(d,) bits of all sessions that hold it."""
    places: dict[bytes, int]
    """Its place by what it says."""

    @property
    def common(self) -> NDArray[np.bool_]:
        """(d,) whether several folds hold it: none holds it out."""
        common: NDArray[np.bool_] = (self.folds & (self.folds - 1)) != 0
        return common

    def folds_of(self, text: bytes) -> int:
        place = self.places.get(text)
        return _NO_FOLD if place is None else int(self.folds[place])

    def nowhere_held_out(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """Which of other `texts` no fold holds out."""
        folds = np.array([self.folds_of(text) for text in texts], np.int64)
        return np.flatnonzero(folds & (folds - 1))


def _said(texts: TrainingTexts) -> _Said:
    from models.training.attack_classifier import texts_of

    names = texts_of(texts.bags)
    rows: list[int] = []
    folds: list[int] = []
    places: dict[bytes, int] = {}
    judged = np.flatnonzero(np.isin(texts.role, JUDGED))
    for row, own in zip(judged.tolist(), texts.folds[judged].tolist(), strict=True):
        name = names[row]
        if not name:
            continue
        place = places.get(name)
        if place is None:
            places[name] = len(rows)
            rows.append(row)
            folds.append(own)
        else:
            folds[place] |= own
    return _Said(np.array(rows, np.int64), np.array(folds, np.int64), places)


@dataclass(frozen=True, slots=True)
class _Pile:
    """Segments (p) of both sides: those of the traffic, hard negatives, attacks."""

    bags: TokenBags
    labels: NDArray[np.bool_]
    """(p, c)"""
    tool: NDArray[np.bool_]
    """(p,) what is placed into."""
    share: NDArray[np.float64]
    """(p,) how often one is drawn beside others of its side."""

    @property
    def sides(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Attacks, and what is benign."""
        attack = np.logical_or.reduce(self.labels, axis=1)
        return attack, ~attack


def _pile(
    texts: TrainingTexts,
    rows: NDArray[np.int64],
    judged: TokenBags,
    attacks: AttackTexts,
    attack_rows: NDArray[np.int64],
) -> _Pile:
    from models.training.splices import join, take

    own = len(judged.offsets) - 1
    count = len(rows) + own
    labels = np.zeros((count + len(attack_rows), len(CLASSES)), np.bool_)
    labels[count:] = attacks.labels[attack_rows]
    tool = np.zeros(len(labels), np.bool_)
    tool[: len(rows)] = texts.role[rows] == TOOL
    # Hard negatives are a source of their own.
    of = np.concatenate([texts.tenant[rows], np.full(own, texts.tenant.max(initial=-1) + 1)])
    sources = np.unique(np.array(attacks.source)[attack_rows], return_inverse=True)[1]
    return _Pile(
        join(join(take(texts.bags, rows), judged), take(attacks.bags, attack_rows)),
        labels,
        tool,
        np.concatenate([_share(of), _share(sources)]),
    )


def _firsts(names: Sequence[bytes], known: Mapping[bytes, int]) -> NDArray[np.int64]:
    """Rows of the first of each text that is not among the `known` ones, nor empty."""
    first: dict[bytes, int] = {}
    for row, name in enumerate(names):
        if name and name not in known:
            first.setdefault(name, row)
    return np.array(list(first.values()), np.int64)


def _held_out(group: Sequence[str], rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which of `rows` are of the sessions that are measured on."""
    groups = np.unique(np.array(group)[rows], return_inverse=True)[1]
    count = int(groups.max(initial=-1)) + 1
    chosen = rng.permutation(count)[: int(_HELD_OUT * count)]
    return np.isin(groups, chosen)


def _share(source: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each segment: a source counts the root of its segments."""
    share: NDArray[np.float64] = 1 / np.sqrt(np.bincount(source)[source])
    return share


def _some(
    rows: NDArray[np.int64], most: int, rng: np.random.Generator, surely: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """At most `most` of the rows, in their order, those that are `surely` wanted first."""
    rank = rng.random(len(rows)) - (0 if surely is None else surely)
    return rows[np.sort(np.argsort(rank, kind="stable")[:most])]


def _likest(
    texts: TrainingTexts,
    rows: NDArray[np.int64],
    attacks: AttackTexts,
    attack_rows: NDArray[np.int64],
    vocabulary: Sequence[str],
    most: int,
    seed: int,
) -> NDArray[np.bool_]:
    """The `most` of `rows` that are likest to attacks by their n-grams: one linear fit, attacks against them all."""
    from models.ngrams import NGrams, token_shapes
    from models.training.linear import fit_logistic, matrix
    from models.training.splices import join, take

    grams = NGrams.fit(texts.bags, texts.tenant, token_shapes(vocabulary))
    x = matrix(grams.features(join(take(texts.bags, rows), take(attacks.bags, attack_rows))))
    positive = np.arange(x.shape[0]) >= len(rows)
    # Both sides weigh the same. An attack that the fit was told is benign is still the likest of what is.
    weight = np.where(positive, 1 / max(len(attack_rows), 1), 1 / len(rows))
    weights, _ = fit_logistic(x, positive, weight, cost=_COST, seed=seed)
    chosen = np.zeros(len(rows), np.bool_)
    chosen[np.argsort(-(x[: len(rows)] @ weights), kind="stable")[:most]] = True
    return chosen


def _spread(names: Sequence[bytes], asked: Sequence[bytes], soft: NDArray[np.floating]) -> NDArray[np.float32]:
    """What was said of texts, for every segment of those texts."""
    place = {name: number for number, name in enumerate(asked)}
    at = np.array([place.get(name, -1) for name in names], np.int64)
    spread = np.full((len(names), soft.shape[1]), np.nan, np.float32)
    spread[at >= 0] = soft[at[at >= 0]]
    return spread
