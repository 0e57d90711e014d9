"""What a transformer adds is learned of who spoke, once for all folds, and not of the fold that is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.second_look import Remembering, SecondLook
from models.training.second_look import SYSTEM, TOOL, USER, Fit, Looked, fit_second_look, look
from models.training.splices import Splicing, take
from models.wordpiece import TokenBags
from tests.doubles import WORDS, Counts

HOW = Fit(segments_max=40, examples_max=200, splices=60, splicing=Splicing(shortest=3, longest=6, total_max=20))


def traffic() -> tuple[TokenBags, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Segments of 8 words, tools' from the first half of all words, others' from the second; roles, tenants, folds."""
    rng = np.random.default_rng(0)
    role = np.tile([SYSTEM, USER, TOOL], 40)
    low = np.where(role == TOOL, 0, WORDS // 2)
    ids = (low[:, None] + rng.integers(0, WORDS // 2, (len(role), 8))).astype(np.uint16)
    bags = TokenBags(ids.reshape(-1), np.arange(len(role) + 1) * 8)
    return bags, role, np.arange(len(role)) % 5, 1 << (np.arange(len(role)) % 3)


def fitted(looked: Looked, without: int | None = None) -> SecondLook:
    return SecondLook(fit_second_look(looked, without, gate=2.0, space_id="counts", how=HOW))


def bytes_of(second: SecondLook) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in second.to_arrays().items()}


def test_what_speaks_like_a_user_gains_and_what_speaks_like_a_tool_loses() -> None:
    bags, role, tenant, folds = traffic()
    added = fitted(look(bags, role, tenant, folds, Counts(), seed=1, how=HOW)).score(Counts().embed(bags))
    assert added[role != TOOL].min() > added[role == TOOL].max()


def test_the_order_of_segments_changes_nothing() -> None:
    bags, role, tenant, folds = traffic()
    order = np.random.default_rng(3).permutation(len(role))
    once = look(bags, role, tenant, folds, Counts(), seed=1, how=HOW)
    shuffled = look(take(bags, order), role[order], tenant[order], folds[order], Counts(), seed=1, how=HOW)
    assert bytes_of(fitted(once)) == bytes_of(fitted(shuffled))


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_what_only_the_held_out_fold_holds_leaves_no_trace(fold: int) -> None:
    looked = look(*traffic(), Counts(), seed=1, how=HOW)
    own = (looked.folds == 1 << fold).any(axis=1)
    # Of plain segments a third; of splices those too that are made of only one that it holds.
    assert 0 < own.sum() < len(own)
    other = replace(looked, vectors=np.where(own[:, None], -looked.vectors, looked.vectors))
    assert bytes_of(fitted(other, fold)) == bytes_of(fitted(looked, fold))
    assert bytes_of(fitted(other)) != bytes_of(fitted(looked))


def test_a_text_of_two_folds_is_learned_from_without_either() -> None:
    bags, role, tenant, folds = traffic()
    looked = look(bags, role, tenant, np.full(len(folds), 0b11), Counts(), seed=1, how=HOW)
    assert bytes_of(fitted(looked, 0)) == bytes_of(fitted(looked, 1)) == bytes_of(fitted(looked))


def test_where_nobody_but_tools_speaks_nothing_is_added() -> None:
    bags, role, tenant, folds = traffic()
    tools = np.flatnonzero(role == TOOL)
    looked = look(take(bags, tools), role[tools], tenant[tools], folds[tools], Counts(), seed=1, how=HOW)
    assert not fitted(looked).score(Counts().embed(bags)).any()


def test_a_text_is_read_once_however_often_it_passes() -> None:
    bags = traffic()[0]
    counts = Counts()
    remembering = Remembering(counts)
    first = remembering.embed(take(bags, np.array([0, 1, 0])))
    second = remembering.embed(take(bags, np.array([1, 2])))
    assert counts.read == 3
    assert first.tobytes() == Counts().embed(take(bags, np.array([0, 1, 0]))).tobytes()
    assert second.tobytes() == Counts().embed(take(bags, np.array([1, 2]))).tobytes()
