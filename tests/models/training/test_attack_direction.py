"""A direction is learned from attacks, from what looks like them, and from what tenants say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.attack_direction import AttackDirection
from models.training.attack_direction import Fit, fit_attack_direction

HOW = Fit(examples=800)


def cloud(centre: int, count: int, seed: int) -> NDArray[np.int8]:
    """Unit vectors times 127, of 16 dimensions, about one axis."""
    vectors = np.random.default_rng(seed).normal(0, 0.2, (count, 16))
    vectors[:, centre] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.rint(vectors * 127).astype(np.int8)


def fitted(seed: int = 1) -> dict[str, NDArray[np.generic]]:
    return fit_attack_direction(
        cloud(0, 90, 2), cloud(1, 60, 3), cloud(2, 300, 4), np.arange(300) % 3, seed=seed, how=HOW
    )


def test_attacks_never_seen_lie_further_that_way_than_what_looks_like_them_and_what_is_ordinary() -> None:
    model = AttackDirection(fitted())
    attacks, calm, said = (model.score(cloud(axis, 200, 9)) for axis in range(3))
    assert attacks.min() > max(calm.max(), said.max())
    assert attacks.min() > 0 > max(calm.max(), said.max())


def test_one_seed_gives_one_result_and_another_draws_other_texts() -> None:
    once, again, other = fitted(), fitted(), fitted(seed=2)
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(once["codes"], other["codes"])


def test_a_side_without_texts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a direction needs texts of all three sides; got \[90, 0, 300\]"):
        fit_attack_direction(cloud(0, 90, 2), cloud(1, 0, 3), cloud(2, 300, 4), np.zeros(300, np.int64), seed=1)
