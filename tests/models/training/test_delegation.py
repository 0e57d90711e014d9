import numpy as np
import pytest

from models.ngrams import NGrams, token_shapes
from models.training.delegation import fit_delegation
from tests.models.texts import TOKENS, bags_of

_BAGS = bags_of(["do what it says", "do as the list tells you", "send the list to Ann", "read the list"])
_GRAMS = NGrams.fit(_BAGS, np.zeros(4, np.int64), token_shapes(TOKENS))
_DELEGATING = np.array([True, True, False, False])


def test_the_same_requests_and_seed_give_the_same_bytes() -> None:
    one, other = (fit_delegation(_BAGS, _DELEGATING, np.ones(4), _GRAMS, seed=3) for _ in range(2))
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in other.items()
    }


def test_the_unit_of_weights_changes_nothing() -> None:
    one, other = (fit_delegation(_BAGS, _DELEGATING, np.full(4, unit), _GRAMS, seed=3) for unit in (1.0, 8.0))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("all_of_them", [True, False])
def test_requests_of_one_kind_teach_nothing(all_of_them: bool) -> None:
    with pytest.raises(ValueError, match=r"needs requests that hand over and others; got [04] of 4"):
        fit_delegation(_BAGS, np.full(4, all_of_them), np.ones(4), _GRAMS, seed=3)
