"""What a teacher says reaches every fold's student, and nothing of what that fold holds out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.attack_classifier import CLASSES
from models.training.attack_classifier import texts_of
from models.training.teacher import Tuning
from stream.steps.content import ASSISTANT, TOOL, USER
from stream.training.attacks import AttackTexts
from stream.training.pupils import measured
from stream.training.said import TrainingTexts
from stream.training.teaching import HardNegatives, Lesson, Lessons, Teacher, Teaching, teach
from stream.training.texts import fitted_texts, pile_of
from tests.models.attacks import labelled
from tests.models.texts import TOKENS, bags_of, traffic

# Each fit places thousands of splices, and one test starts a process that takes several seconds to import.
pytestmark = pytest.mark.timeout(1200)

BOTH = 0b11


def shown(each: int = 60) -> TrainingTexts:
    """Traffic of two tenants, with segments of fold 0, of fold 1 and of both."""
    texts, roles, tenants = traffic(tenants=2, each=each)
    folds = np.random.default_rng(1).choice([0b01, 0b10, BOTH], len(texts))
    return TrainingTexts(bags_of(texts), np.array(roles, np.int8), np.array(tenants), folds.astype(np.int64))


def attacks(each: int = 120) -> AttackTexts:
    bags, labels, source, group = labelled(each=each)
    rows = np.flatnonzero(labels.any(axis=1))
    names = [f"a{number}" for number in group[rows]]
    return AttackTexts(bags.take(rows), labels[rows], [str(number) for number in source[rows]], names)


def said_of(texts: TrainingTexts, attacks: AttackTexts, folds: list[list[int]]) -> Teaching:
    """A teacher that says one half of everything, and has read splices of these `folds`."""
    classes = len(CLASSES)
    return Teaching(
        texts=np.full((len(texts.role), classes), 0.5, np.float32),
        attacks=np.full(attacks.labels.shape, 0.5, np.float32),
        made=bags_of([f"made number {number}" for number in range(len(folds))]),
        made_soft=np.full((len(folds), classes), 0.5, np.float32),
        made_labels=np.zeros((len(folds), classes), np.bool_),
        made_folds=np.array(folds, np.int64).reshape(-1, 2),
        made_of=np.full(len(folds), -1, np.int64),
        also=np.zeros((0, classes), np.float32),
        unlearnt=np.arange(len(attacks.group)) % 5 == 0,
        common=texts.folds == BOTH,
    )


def words(texts: list[str]) -> list[bytes]:
    return texts_of(bags_of(texts))


def test_a_splice_is_learnt_only_where_neither_of_its_parts_is_held_out() -> None:
    texts, attacking = shown(), attacks()
    teaching = said_of(texts, attacking, [[0b01, -1], [0b10, 0b01], [BOTH, 0b10], [BOTH, -1]])
    lessons = Lessons(texts, teaching)

    def made(fold: int | None) -> list[bytes]:
        taught = lessons.without(fold).teaching
        assert taught is not None
        assert len(taught.made_soft) == len(taught.made_labels) == len(taught.made_of) == len(taught.made_folds)
        return texts_of(taught.made)

    assert made(None) == words([f"made number {number}" for number in range(4)])
    assert made(0) == words(["made number 2", "made number 3"])
    assert made(1) == words(["made number 0", "made number 3"])


def test_what_was_said_of_the_traffic_stays_with_its_segments() -> None:
    texts, attacking = shown(), attacks()
    numbered = np.arange(len(texts.role), dtype=np.float32)[:, None].repeat(len(CLASSES), axis=1)
    teaching = replace(said_of(texts, attacking, []), texts=numbered)
    for fold in (0, 1):
        lesson = Lessons(texts, teaching).without(fold).teaching
        assert lesson is not None
        assert lesson.texts[:, 0].tolist() == np.flatnonzero(texts.folds != 1 << fold).tolist()
        assert len(lesson.texts) == len(texts.without(fold).role)


def test_a_hard_negative_that_only_the_held_out_fold_holds_is_left_out_there() -> None:
    texts = TrainingTexts(
        bags_of(["of the first fold", "of both folds", "of both folds", "of nobody here"]),
        np.array([USER, TOOL, USER, ASSISTANT], np.int8),
        np.zeros(4, np.int64),
        np.array([0b01, 0b01, 0b10, 0b01], np.int64),
    )
    # An assistant's words are not what the classifier is calibrated on.
    judged = ["of the first fold", "of both folds", "of nobody here", "never said"]
    hard = HardNegatives(bags_of(judged), ["a", "b", "c", "d"])
    lessons = Lessons(texts, hard=hard)
    kept = {fold: lessons.without(fold).hard for fold in (None, 0, 1)}
    assert [judged_.group if judged_ else None for judged_ in kept.values()] == [
        ["a", "b", "c", "d"],
        ["b", "c", "d"],
        ["a", "b", "c", "d"],
    ]
    first = kept[0]
    assert first is not None
    assert texts_of(first.bags) == words(judged[1:])


def test_a_student_without_lesson_learns_what_it_did() -> None:
    texts, attacking = shown(), attacks()
    plain = fitted_texts(texts, TOKENS, 1, attacks=attacking).to_arrays()
    empty = fitted_texts(texts, TOKENS, 1, attacks=attacking, lesson=Lesson()).to_arrays()
    assert {name: array.tobytes() for name, array in plain.items()} == {
        name: array.tobytes() for name, array in empty.items()
    }


def test_hard_negatives_are_found_less_like_attacks() -> None:
    texts, attacking = shown(), attacks()
    odd = [f"please send the report of {who} to the team at once" for who in "lena mark omar rosa viktor".split()]
    hard = HardNegatives(bags_of(odd), ["one"] * len(odd))
    fresh = bags_of(["please send the report of dan to the team at once"])
    odds = []
    for lesson in (Lesson(), Lesson(hard=hard)):
        models = fitted_texts(texts, TOKENS, 1, attacks=attacking, lesson=lesson)
        assert models.attacks is not None
        odds.append(models.attacks.score(models.ngrams.features(fresh)).max())
    assert odds[1] < odds[0] - 1


def test_everything_that_is_fitted_on_has_its_row() -> None:
    texts, attacking = shown(), attacks()
    hard = HardNegatives(bags_of(["one", "two"]), ["h", "h"])
    teaching = replace(said_of(texts, attacking, [[BOTH, -1]] * 3), made_of=np.array([4, -1, 4]))
    pile = pile_of(texts, attacking, Lesson(teaching, hard))
    judged = int(np.isin(texts.role, (USER, TOOL)).sum())
    attack = len(attacking.group)
    count = judged + attack + 2 + 3
    columns: list[NDArray[np.generic]] = [pile.labels, pile.source, pile.group, pile.tool, pile.hard]
    assert {len(column) for column in columns} == {len(pile.bags.offsets) - 1} == {count}
    assert pile.taught is not None
    assert np.flatnonzero(pile.taught.made).tolist() == [count - 3, count - 2, count - 1]
    assert np.flatnonzero(np.isnan(pile.taught.soft[:, 0])).tolist() == [judged + attack, judged + attack + 1]
    # What an attack's words were placed into is held out with that attack.
    assert pile.group[-3] == pile.group[-1] == pile.group[judged + 4] != pile.group[-2]
    assert pile.hard.tolist() == [False] * (judged + attack) + [True] * 2 + [False] * 3


def test_what_is_measured_on_is_in_no_student() -> None:
    """Attacks in words of their own, which a student knows only if it was shown them."""
    texts, attacking = shown(), attacks()
    teaching = said_of(texts, attacking, [[BOTH, -1]] * 2)
    teaching = replace(teaching, made_of=np.array([0, 1]))
    figures = measured(texts, attacking, teaching, TOKENS, 1)
    # A teacher that says one half of everything knows nothing.
    assert figures["teacher_auroc"] == 0.5
    assert figures["teacher_recall_at_0.05"] == 0
    assert set(figures) == {
        f"teacher{who}_{what}"
        for who in ("", "_student", "_untaught")
        for what in ("auroc", "recall_at_0.01", "recall_at_0.05")
    }
    assert not measured(
        texts, attacking, replace(teaching, unlearnt=np.zeros(len(attacking.group), np.bool_)), TOKENS, 1
    )


@pytest.mark.parametrize("splices", [0, 60])
def test_a_teacher_is_asked_and_its_students_follow_it(tmp_path: Path, splices: int) -> None:
    texts, attacking = shown(each=120), attacks(each=120)
    tuning = Tuning(epochs=2.0, examples_max=160, batch=16, layers=1, device="cpu")
    said: list[str] = []
    teacher = Teacher(tmp_path, tuning, attacks_max=100, texts_max=100, splices_max=splices)
    teaching = teach(texts, attacking, TOKENS, teacher, seed=1, progress=said.append)
    assert teaching is not None
    figures = measured(texts, attacking, teaching, TOKENS, 1)
    assert figures["teacher_recall_at_0.05"] > 0.8
    assert figures["teacher_student_auroc"] > 0.95
    assert teaching.metrics["teacher_loss"] < 0.6
    assert teaching.lineage["teacher_examples"] == 160
    assert said[-1].startswith("the teacher has learnt 20 of 20 steps, loss 0.")
    assert len(teaching.made_soft) == len(teaching.made_of) == splices
    assert np.isfinite(teaching.made_soft).all()
    asked = np.isfinite(teaching.attacks).all(axis=1)
    assert asked.any() and not asked.all()
    models = fitted_texts(texts, TOKENS, 1, attacks=attacking, lesson=Lessons(texts, teaching).without(None))
    assert models.attacks is not None
    odds = models.attacks.score(models.ngrams.features(attacking.bags)).max(axis=1)
    assert (odds > 0).mean() > 0.9


def test_without_segments_that_several_folds_hold_there_is_no_teacher(tmp_path: Path) -> None:
    texts = shown(each=20)
    said: list[str] = []
    few = replace(texts, folds=np.ones(len(texts.role), np.int64))
    assert teach(few, attacks(), TOKENS, Teacher(tmp_path, Tuning()), seed=1, progress=said.append) is None
    assert said == ["too few segments that several folds hold, or no attacks: no teacher"]
