"""Measures under weights, beside scikit-learn's and beside counting."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation.measures import Ranked, Reference, curve, mean_of, precision_of, share_of

REPLICATES = 7


def drawn(seed: int, ties: bool) -> tuple[NDArray[np.float64], ...]:
    """Scores of attacks and of benign sessions, and how often each was drawn."""
    random = np.random.default_rng(seed)
    attacks, benign = random.normal(0.8, 1, 41), random.normal(0, 1, 57)
    if ties:
        attacks, benign = attacks.round(), benign.round()
    weights = random.poisson(1.0, (98, REPLICATES)).astype(np.float64)
    return attacks, benign, weights[:41], weights[41:]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auroc_and_average_precision_are_those_of_scikit_learn_with_sample_weights(seed: int, ties: bool) -> None:
    attacks, benign, of_attacks, of_benign = drawn(seed, ties)
    order = Ranked.of(attacks, of_attacks, Reference(benign, of_benign))
    truth = np.r_[np.ones(len(attacks)), np.zeros(len(benign))]
    scores = np.r_[attacks, benign]
    for replicate in range(REPLICATES):
        weights = np.r_[of_attacks[:, replicate], of_benign[:, replicate]]
        expected = roc_auc_score(truth, scores, sample_weight=weights)
        assert order.auroc()[replicate] == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(truth, scores, sample_weight=weights)
        assert order.average_precision()[replicate] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_recall_is_that_of_the_best_threshold_that_keeps_the_rate(level: float, ties: bool) -> None:
    attacks, benign, of_attacks, of_benign = drawn(5, ties)
    order = Ranked.of(attacks, of_attacks, Reference(benign, of_benign))
    for replicate in range(REPLICATES):
        # By trying every threshold: whoever scores as high is found.
        recalls = [
            of_attacks[attacks >= threshold, replicate].sum() / of_attacks[:, replicate].sum()
            for threshold in np.r_[attacks, np.inf]
            if of_benign[benign >= threshold, replicate].sum() <= level * of_benign[:, replicate].sum() + 1e-9
        ]
        assert order.recall_at(level)[replicate] == pytest.approx(max(recalls), abs=1e-12)


def test_an_attack_that_ties_with_a_benign_session_beyond_the_rate_is_missed() -> None:
    # Of 200 benign sessions two may be found at 1 %. Three share the highest score: none of them may be, nor who ties.
    benign = np.r_[np.zeros(197), np.ones(3)]
    attacks = np.array([0.5, 1.0, 1.5])
    order = Ranked.of(attacks, np.ones((3, 1)), Reference(benign, np.ones((200, 1))))
    assert order.recall_at(0.01)[0] == pytest.approx(1 / 3)
    assert order.recall_at(0.015)[0] == 1.0


def test_of_fewer_than_a_hundred_benign_sessions_none_may_be_found_at_one_per_cent() -> None:
    benign, attacks = np.arange(99.0), np.array([97.5, 98.5])
    order = Ranked.of(attacks, np.ones((2, 1)), Reference(benign, np.ones((99, 1))))
    assert order.recall_at(0.01)[0] == 0.5


def test_a_weight_of_two_is_the_same_session_twice() -> None:
    attacks, benign, of_attacks, of_benign = drawn(1, ties=True)
    once = Ranked.of(attacks, of_attacks[:, :1], Reference(benign, of_benign[:, :1]))
    attacks, benign = (
        np.repeat(scores, weights[:, 0].astype(int)) for scores, weights in ((attacks, of_attacks), (benign, of_benign))
    )
    told = Ranked.of(attacks, np.ones((len(attacks), 1)), Reference(benign, np.ones((len(benign), 1))))
    assert once.auroc() == pytest.approx(told.auroc())
    assert once.average_precision() == pytest.approx(told.average_precision())
    assert once.recall_at(0.05) == pytest.approx(told.recall_at(0.05))


def test_whole_weights_of_single_precision_give_the_same() -> None:
    attacks, benign, of_attacks, of_benign = drawn(2, ties=False)
    exact = Ranked.of(attacks, of_attacks, Reference(benign, of_benign))
    single = Ranked.of(attacks, of_attacks.astype(np.float32), Reference(benign, of_benign.astype(np.float32)))
    assert single.auroc() == pytest.approx(exact.auroc(), abs=1e-6)
    assert single.recall_at(0.05) == pytest.approx(exact.recall_at(0.05), abs=1e-12)


def test_a_measure_of_nothing_is_no_number() -> None:
    nobody, somebody = Reference(np.zeros(0), np.zeros((0, 2))), Reference(np.zeros(3), np.ones((3, 2)))
    for order in (
        Ranked.of(np.ones(2), np.ones((2, 2)), nobody),
        Ranked.of(np.zeros(0), np.zeros((0, 2)), somebody),
        Ranked.of(np.ones(2), np.zeros((2, 2)), somebody),
    ):
        for values in (order.auroc(), order.average_precision(), order.recall_at(0.01)):
            assert np.isnan(values).all()
    assert np.isnan(share_of(np.zeros(0, bool), np.zeros((0, 2)))).all()
    assert np.isnan(precision_of(np.zeros((0, 2)), np.zeros((0, 2)))).all()


def test_means_and_precision_are_weighted() -> None:
    weights = np.array([[1.0, 3.0], [1.0, 1.0]])
    assert mean_of(np.array([2.0, 6.0]), weights).tolist() == [4.0, 3.0]
    assert precision_of(weights, np.array([[2.0, 1.0]])).tolist() == [0.5, 0.8]


def test_the_curve_passes_through_the_points_of_the_measures() -> None:
    attacks, benign, *_ = drawn(3, ties=True)
    recalls, levels = np.array([0.1, 0.5, 1.0]), np.array([0.0, 0.01, 0.05, 0.5, 1.0])
    points = curve(attacks, benign, recalls, levels)
    order = Ranked.of(attacks, np.ones((41, 1)), Reference(benign, np.ones((57, 1))))
    assert points.recall.tolist() == [order.recall_at(level)[0] for level in levels]
    for wanted, precision in zip(recalls, points.precision, strict=True):
        threshold = max(score for score in attacks if (attacks >= score).mean() >= wanted - 1e-9)
        found = np.r_[attacks >= threshold, benign >= threshold]
        assert precision == pytest.approx((attacks >= threshold).sum() / found.sum())
