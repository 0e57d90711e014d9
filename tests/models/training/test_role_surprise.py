from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.ngrams import NGrams, token_shapes
from models.role_surprise import RoleSurprise
from models.training.role_surprise import ASSISTANT, Fit, fit_role_surprise
from models.training.splices import join, take
from models.wordpiece import TokenBags
from tests.models.texts import TOKENS, bags_of, traffic

_HOW = Fit(splices=400)
_Data = tuple[TokenBags, NDArray[np.int64], NDArray[np.int64]]


def _data(seed: int = 0) -> _Data:
    texts, roles, owners = traffic(tenants=3, each=60, seed=seed)
    return bags_of(texts), np.array(roles), np.array(owners)


def _grams(data: _Data) -> NGrams:
    return NGrams.fit(data[0], data[2], token_shapes(TOKENS))


def _bytes(arrays: dict[str, NDArray[Any]]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def test_the_same_seed_gives_the_same_bytes_in_any_order_and_repetition() -> None:
    data = _data()
    grams = _grams(data)
    once = fit_role_surprise(*data, grams, seed=3, how=_HOW)
    order = np.random.default_rng(1).permutation(np.concatenate([np.arange(len(data[1])), np.arange(50)]))
    again = fit_role_surprise(take(data[0], order), data[1][order], data[2][order], grams, seed=3, how=_HOW)
    assert _bytes(again) == _bytes(once)
    assert _bytes(fit_role_surprise(*data, grams, seed=4, how=_HOW)) != _bytes(once)


def test_segments_of_other_roles_and_without_tokens_change_nothing() -> None:
    data = _data()
    grams = _grams(data)
    more = join(data[0], bags_of(["book_table city Rome", ""]))
    role, tenant = np.append(data[1], [4, 1]), np.append(data[2], [0, 0])
    assert _bytes(fit_role_surprise(more, role, tenant, grams, seed=1, how=_HOW)) == _bytes(
        fit_role_surprise(*data, grams, seed=1, how=_HOW)
    )


def test_what_models_answer_changes_nothing_as_it_counts_nothing() -> None:
    # Not the regression's C either, which is for weights of mean 1.
    data = _data()
    grams = _grams(data)
    kept = np.flatnonzero(data[1] != ASSISTANT)
    assert 0 < len(kept) < len(data[1])
    fewer = take(data[0], kept), data[1][kept], data[2][kept]
    assert _bytes(fit_role_surprise(*data, grams, seed=1)) == _bytes(fit_role_surprise(*fewer, grams, seed=1))


def test_words_that_only_users_say_weigh_for_the_user() -> None:
    data = _data()
    grams = _grams(data)
    model = RoleSurprise(fit_role_surprise(*data, grams, seed=1, how=_HOW))
    bags = bags_of(["please send me the bill", "currency: EUR, status: delivered"])
    user, tool = model.score(bags, grams)
    assert user > 0 > tool


@pytest.mark.parametrize(("without", "said"), [(1, "a user"), (3, "a tool")])
def test_traffic_without_users_or_tools_is_refused(without: int, said: str) -> None:
    bags, role, tenant = _data()
    rows = np.flatnonzero(role != without)
    with pytest.raises(ValueError, match=f"role surprise needs segments that {said} said; got none in "):
        fit_role_surprise(take(bags, rows), role[rows], tenant[rows], _grams((bags, role, tenant)), seed=1)
