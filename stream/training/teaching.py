"""Training texts and labelled attacks -> what a language model says of them, for the classifier that serves.

Calibration stays honest. The students of all folds have one teacher, so it learns as benign only what no fold holds
out: segments that sessions of several folds hold, which every student has been shown anyway. What it is asked about
goes to a fold's student only where that fold does not hold it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    from stream.training.texts import TrainingTexts

_EVERYWHERE = -1
"""Folds of what is in no session: none holds it out."""
_COMMON_MIN = 100
"""Segments of several folds below which there is nothing to teach a teacher with."""
_HELD_OUT = 0.1
"""Share of the attacks' sessions that the teacher does not learn from, to be measured on."""
_TOLD_EVERY = 50


@dataclass(frozen=True, slots=True)
class HardNegatives:
    """Segments (h) that were flagged and judged benign, redacted as ingest does."""

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
    benign_max: int = 2500
    """And of the traffic."""
    splices_max: int = 2500
    """And of words of both placed into what tools said."""


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
    """(m,) bit f is set where fold f alone does not hold any part of it."""
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
    progress: Callable[[str], None] = lambda _: None,
) -> Teaching | None:
    """Fine-tune the teacher and ask it; None where the texts hold too little that no fold holds out.

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

    rng = np.random.default_rng([seed, 25])
    said = _said(texts, texts_of(texts.bags))
    names = texts_of(attacks.bags)
    attack_row = _firsts(names, {name for name in said.places if name} | {b""})
    common = said.rows[said.common]
    if len(common) < _COMMON_MIN or len(attack_row) == 0:
        progress("too little that several folds hold: no teacher")
        return None
    measured = _held_out(attacks.group, attack_row, rng)

    # What it learns from: rows of one pile, so that splices can be made of them.
    learnt_attacks = attack_row[~measured]
    extra = hard.bags if hard is not None else take(attacks.bags, np.zeros(0, np.int64))
    unheld = said.nowhere_else(texts_of(extra))
    extra = take(extra, unheld)
    pile = join(join(take(texts.bags, common), extra), take(attacks.bags, learnt_attacks))
    benign = len(common) + len(unheld)
    is_attack = np.arange(len(pile.offsets) - 1) >= benign
    tool = np.zeros(len(is_attack), np.bool_)
    tool[: len(common)] = texts.role[common] == TOOL
    labels = np.zeros((len(is_attack), len(CLASSES)), np.bool_)
    labels[benign:] = attacks.labels[learnt_attacks]
    share = np.concatenate(
        [
            _share(texts.tenant[common]),
            np.full(len(unheld), _share(texts.tenant[common]).max()),
            _share(np.unique(np.array(attacks.source)[learnt_attacks], return_inverse=True)[1]),
        ]
    )
    half = teacher.tuning.examples_max // 2
    spliced, of = splice_tools(pile, tool, (is_attack, ~is_attack), share, half, rng)
    words = of[:, 1]
    each = np.concatenate([share, np.full(len(words), _mean_share(share, is_attack, half))])

    # What it is asked about.
    asked_attacks = _some(attack_row, teacher.attacks_max, rng, measured)
    asked_benign = said.rows[_some(np.arange(len(said.rows)), teacher.benign_max, rng)]
    every = join(take(texts.bags, said.rows), take(attacks.bags, attack_row))
    host = np.concatenate([texts.role[said.rows] == TOOL, np.zeros(len(attack_row), np.bool_)])
    attacking = np.arange(len(host)) >= len(said.rows)
    shares = np.concatenate(
        [
            _share(texts.tenant[said.rows]),
            _share(np.unique(np.array(attacks.source)[attack_row], return_inverse=True)[1]),
        ]
    )
    made, made_of = splice_tools(every, host, (attacking, ~attacking), shares, teacher.splices_max, rng)
    folds = np.concatenate([said.folds, np.full(len(attack_row), _EVERYWHERE)])
    label = np.concatenate([np.zeros((len(said.rows), len(CLASSES)), np.bool_), attacks.labels[attack_row]])
    asked = join(join(take(attacks.bags, asked_attacks), take(texts.bags, asked_benign)), made)

    def told(step: int, of: int, loss: float) -> None:
        if step % _TOLD_EVERY == 0 or step == of:
            progress(f"the teacher has learnt {step} of {of} steps; loss {loss:.3f}")

    progress(f"fine-tuning the teacher, which then reads {len(asked.offsets) - 1:,} segments")
    try:
        answers = tune(
            join(pile, spliced),
            np.concatenate([labels, labels[words]]),
            each,
            asked,
            vocabulary,
            directory=teacher.directory,
            seed=seed,
            how=teacher.tuning,
            progress=told,
        )
    except WeightsError as error:
        raise StateError(f"trainer.teacher: {error} Or set TIDEGATE_TRAINER__TEACHER=none.") from error
    except TeacherError as error:
        raise StateError(f"trainer.teacher: {error} Run it again to go on, or set TIDEGATE_TRAINER__TEACHER=none.") from error
    soft = (1 / (1 + np.exp(-answers.logits.astype(np.float64)))).astype(np.float32)
    of_attacks, of_benign, of_made = np.split(soft, [len(asked_attacks), len(asked_attacks) + len(asked_benign)])
    unlearnt = np.isin(asked_attacks, attack_row[measured])
    return Teaching(
        texts=_spread(texts_of(texts.bags), texts_of(take(texts.bags, asked_benign)), of_benign),
        attacks=_spread(names, [names[row] for row in asked_attacks.tolist()], of_attacks),
        made=made,
        made_soft=of_made,
        made_labels=label[made_of[:, 1]],
        made_folds=_either_held(folds[made_of[:, 0]], folds[made_of[:, 1]]),
        metrics=_measured(answers.losses, of_attacks[unlearnt], of_benign[~said.is_common(asked_benign)]),
        lineage={
            "teacher": "minilm-l6-v2",
            "teacher_sha256": answers.sha256,
            "teacher_examples": answers.examples,
            "teacher_steps": len(answers.losses),
            "teacher_asked": len(asked.offsets) - 1,
        },
    )


def known_hard(hard: HardNegatives, texts: TrainingTexts) -> NDArray[np.int64]:
    """Folds (h,) of the sessions that hold each hard negative, as bits; all bits where no session does."""
    from models.training.attack_classifier import texts_of

    said = _said(texts, texts_of(texts.bags))
    return np.array([said.folds_of(text) for text in texts_of(hard.bags)], np.int64)


def learnable(folds: NDArray[np.int64], without: int | None) -> NDArray[np.bool_]:
    """Whether segments of these `folds` (bits) may be learnt where fold `without` is held out."""
    return np.ones(len(folds), np.bool_) if without is None else (folds & ~np.int64(1 << without)) != 0


def mined(odds: NDArray[np.float32], texts: TrainingTexts, most: int) -> NDArray[np.bool_]:
    """Which segments (s,) of users and tools are likest to attacks: `most` distinct ones, by `odds` (s,).

    Of traffic that nobody has judged these may be attacks that nobody has seen: mine what was judged benign.
    """
    from models.training.attack_classifier import texts_of

    names = texts_of(texts.bags)
    rows = np.flatnonzero(np.isin(texts.role, JUDGED) & ~np.isnan(odds))
    likest: set[bytes] = set()
    for row in rows[np.argsort(-odds[rows], kind="stable")].tolist():
        if len(likest) >= most:
            break
        likest.add(names[row])
    return np.isin(texts.role, JUDGED) & np.fromiter((name in likest for name in names), np.bool_, len(names))


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

    def is_common(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of segments by their rows, some of `rows`."""
        return np.isin(rows, self.rows[self.common])

    def folds_of(self, text: bytes) -> int:
        place = self.places.get(text)
        return _EVERYWHERE if place is None else int(self.folds[place])

    def nowhere_else(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """Which of other `texts` no fold holds out."""
        folds = np.array([self.folds_of(text) for text in texts], np.int64)
        return np.flatnonzero(folds & (folds - 1))


def _said(texts: TrainingTexts, names: Sequence[bytes]) -> _Said:
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


def _firsts(names: Sequence[bytes], known: set[bytes]) -> NDArray[np.int64]:
    """Rows of the first of each name that is not `known`."""
    first: dict[bytes, int] = {}
    for row, name in enumerate(names):
        if name not in known:
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
    share: NDArray[np.float64] = 1 / np.sqrt(np.bincount(source)[source]) if len(source) else np.zeros(0)
    return share


def _mean_share(share: NDArray[np.float64], attack: NDArray[np.bool_], splices: int) -> float:
    """With which as many splices are drawn as there are other segments."""
    return float(share[attack].sum() / max(splices // 2, 1))


def _some(
    rows: NDArray[np.int64], most: int, rng: np.random.Generator, surely: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """At most `most` of the rows, in their order, those that are `surely` wanted first."""
    rank = rng.random(len(rows)) - (0 if surely is None else surely)
    return rows[np.sort(np.argsort(rank, kind="stable")[:most])]


def _spread(names: Sequence[bytes], asked: Sequence[bytes], soft: NDArray[np.float32]) -> NDArray[np.float32]:
    """What was said of texts, for every segment of those texts."""
    place = {name: number for number, name in enumerate(asked)}
    at = np.array([place.get(name, -1) for name in names], np.int64)
    spread = np.full((len(names), soft.shape[1]), np.nan, np.float32)
    spread[at >= 0] = soft[at[at >= 0]]
    return spread


def _either_held(host: NDArray[np.int64], donor: NDArray[np.int64]) -> NDArray[np.int64]:
    """Folds of a splice: held out where its host or its donor is, so that of two folds alone either takes it away."""
    raise NotImplementedError


def _measured(losses: Sequence[float], attacks: NDArray[np.float32], benign: NDArray[np.float32]) -> dict[str, float]:
    """Of attacks' sessions and of benign segments that the teacher has not learnt from."""
    metrics = {"teacher_loss": float(np.mean(losses[-20:]))} if losses else {}
    if len(attacks) and len(benign):
        likest, ordinary = attacks.max(axis=1), benign.max(axis=1)
        for share in (0.01, 0.05):
            metrics[f"teacher_recall_at_{share}"] = float((likest > np.quantile(ordinary, 1 - share)).mean())
    return {name: round(value, 6) for name, value in metrics.items()}
