"""Which way attacks lie: a product of whole numbers, the same in any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.attack_direction import AttackDirection

ARRAYS: dict[str, NDArray[Any]] = {
    "codes": np.array([300, -2, 0], np.int16),
    "unit": np.array(0.5),
    "constant": np.array(-1.0),
}


def test_a_text_scores_by_its_vector() -> None:
    vectors = np.array([[1, 0, 0], [0, 100, 5], [0, 0, 0]], np.int8)
    # 300 x .5 - 1, -2 x 100 x .5 - 1, and the constant alone.
    assert AttackDirection(ARRAYS).score(vectors).tolist() == [149.0, -101.0, -1.0]


def test_a_text_has_the_same_bits_in_any_batch() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.integers(-127, 128, (500, 256)).astype(np.int8)
    codes = rng.integers(-32767, 32768, 256).astype(np.int16)
    model = AttackDirection({"codes": codes, "unit": np.array(1e-7), "constant": np.array(0.3)})
    alone = np.concatenate([model.score(vectors[at : at + 1]) for at in range(500)])
    assert alone.tobytes() == model.score(vectors).tobytes()
    assert model.score(vectors[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"codes": np.zeros(3)}, "codes must be int16 of 1 dimensions; got float64"),
        ({"unit": np.array(np.nan)}, "unit must be finite"),
        ({"more": np.zeros(1)}, "an attack direction needs the arrays"),
    ],
)
def test_arrays_of_nothing_like_it_are_refused(changed: dict[str, NDArray[Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AttackDirection(ARRAYS | changed)


def test_what_was_taken_apart_comes_back() -> None:
    vectors = np.array([[3, -7, 90]], np.int8)
    model = AttackDirection(ARRAYS)
    assert AttackDirection(model.to_arrays()).score(vectors).tolist() == model.score(vectors).tolist() != [0.0]
