"""How many records are taken together."""

import pytest

from stream.runtime.plan import TRANSACTION_BYTES_MAX, TRANSACTION_RECORDS_MAX, BatchPlan, TooLarge


@pytest.mark.parametrize("size", [(TRANSACTION_RECORDS_MAX, 1), (1, TRANSACTION_BYTES_MAX)])
def test_an_outcome_of_several_inputs_that_does_not_fit_is_refused_and_half_as_many_are_taken(
    size: tuple[int, int],
) -> None:
    plan = BatchPlan(1_000)
    with pytest.raises(TooLarge, match="600 inputs became"):
        plan.check(600, *size)
    assert plan.records == 300


def test_an_outcome_of_one_input_may_be_of_any_size() -> None:
    plan = BatchPlan(1_000)
    plan.check(1, 5 * TRANSACTION_RECORDS_MAX, 5 * TRANSACTION_BYTES_MAX)
    assert plan.records == 1


def test_a_tick_that_came_of_no_record_may_be_of_any_size() -> None:
    plan = BatchPlan(1_000)
    plan.check(0, 5 * TRANSACTION_RECORDS_MAX, 5 * TRANSACTION_BYTES_MAX)
    assert plan.records == 1_000


def test_it_ends_at_single_inputs() -> None:
    plan = BatchPlan(1_000)
    while plan.records > 1:
        with pytest.raises(TooLarge):
            plan.check(plan.records, 1, TRANSACTION_BYTES_MAX * plan.records)
    plan.check(1, 1, TRANSACTION_BYTES_MAX)


def test_it_aims_at_half_of_what_is_allowed_before_anything_is_refused() -> None:
    plan = BatchPlan(1_000)
    plan.check(1_000, 1_000, int(0.8 * TRANSACTION_BYTES_MAX))
    assert plan.records == pytest.approx(625, abs=1)


def test_it_grows_back_while_full_batches_stay_small() -> None:
    plan = BatchPlan(1_000)
    with pytest.raises(TooLarge):
        plan.check(1_000, 1, TRANSACTION_BYTES_MAX)
    for _ in range(10):
        plan.check(plan.records, 10, 1_000)
    assert plan.records == 1_000


def test_a_small_batch_says_nothing_about_large_ones() -> None:
    plan = BatchPlan(1_000)
    with pytest.raises(TooLarge):
        plan.check(1_000, 1, TRANSACTION_BYTES_MAX)
    plan.check(3, 3, 100)
    assert plan.records == 500
