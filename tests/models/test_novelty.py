"""What a memory takes in, and from whom."""

import numpy as np
import pytest
from numpy.typing import NDArray

from models.novelty import Lesson, Memory, Novelty

DIM = 32
NOVELTY = Novelty(slots=60, dim=DIM, admitted_max=60)


def _apart(n: int, seed: int = 0) -> NDArray[np.int8]:
    """Vectors (n, DIM) of which no two are near: their signs are drawn."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n, DIM))
    vectors: NDArray[np.int8] = np.rint(127 * signs / np.sqrt(DIM)).astype(np.int8)
    return vectors


def _taught(
    memory: Memory, owners: list[int], keys: list[int], *, mature: bool = True, seed: int = 0, tenant: int = 0
) -> Memory:
    """`memory` after one learn point at which as many new vectors came with these sessions and keys."""
    n = len(owners)
    NOVELTY.learn(
        memory,
        Lesson(
            np.full(n, tenant),
            np.zeros(n, np.int8),
            np.full(n, -1, np.int16),
            _apart(n, seed),
            np.array(owners, np.uint64),
            np.array(keys, np.uint32),
        ),
        np.full(len(memory.used), 1),
        np.full(len(memory.used), mature),
    )
    return memory


def _held(memory: Memory, keys: list[int], tenant: int = 0) -> list[int]:
    return [int((memory.keys[tenant] == key).sum()) for key in keys]


def test_a_session_holds_no_more_than_its_share_of_the_slots() -> None:
    # 5 % of 60 slots.
    memory = _taught(NOVELTY.empty(1), [7] * 20, [0] * 20)
    assert memory.used.tolist() == [NOVELTY.owned_max] == [3]


@pytest.mark.parametrize(("keys", "most"), [(1, 60), (2, 59), (4, 30), (10, 12), (30, 4), (40, 3), (50, 3)])
def test_a_key_holds_twice_its_part_of_the_slots_or_what_a_session_may(keys: int, most: int) -> None:
    """max(5 %, 2 / keys) of 60 slots. Of one key and of two that is all there is, less what the other holds."""
    others = list(range(2, keys + 1))
    memory = _taught(NOVELTY.empty(1), list(range(60 + len(others))), [*others, *[1] * 60])
    assert _held(memory, [1]) == [most]
    assert _held(memory, others) == [1] * len(others)


def test_what_a_key_holds_already_counts() -> None:
    memory = _taught(NOVELTY.empty(1), list(range(10)), list(range(1, 11)))
    for number in range(1, 6):
        memory = _taught(memory, [100 * number + i for i in range(10)], [1] * 10, seed=number)
    # Ten keys: 2 / 10 of 60 slots.
    assert _held(memory, [1]) == [12]


def test_events_without_a_key_share_nothing() -> None:
    memory = _taught(NOVELTY.empty(1), list(range(50)), [0] * 40 + list(range(1, 11)))
    assert _held(memory, [0])[0] - (60 - int(memory.used[0])) == 40


def test_a_tenant_that_is_young_is_taught_by_whoever_there_is() -> None:
    memory = _taught(NOVELTY.empty(1), list(range(50)), [1] * 40 + list(range(2, 12)), mature=False)
    assert _held(memory, [1]) == [40]


def test_keys_of_one_tenant_do_not_count_for_another() -> None:
    memory = NOVELTY.empty(2)
    memory = _taught(memory, list(range(30)), list(range(1, 31)), tenant=0)
    memory = _taught(memory, list(range(40)), [1] * 40, tenant=1, seed=1)
    assert _held(memory, [1], tenant=1) == [40]
    assert _held(memory, [1], tenant=0) == [1]
