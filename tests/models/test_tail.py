"""A tail gives every value the share of benign values that reach as high."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.tail import FLOOR, Tail, probability

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]

LAWS: dict[str, Draw] = {
    "exponential": lambda rng, n: rng.exponential(size=n),
    "pareto 2": lambda rng, n: rng.pareto(2, n),
    "pareto 4": lambda rng, n: rng.pareto(4, n),
    "normal": lambda rng, n: rng.normal(size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("nominal", [0.01, 0.05])
def test_observed_rates_are_the_nominal_ones(law: str, nominal: float) -> None:
    # Each of 2,500 fits of 200 values meets one new value, so that the count is binomial: the standard error of the
    # rate is sqrt(nominal (1 - nominal) / 2500). Three of them, and a quarter for what 20 exceedances cannot tell.
    rng = np.random.default_rng(1)
    draw = LAWS[law]
    fits = 2500
    hits = sum(Tail.fit(draw(rng, 200)).survival(draw(rng, 1))[0] <= nominal for _ in range(fits))
    error = (nominal * (1 - nominal) / fits) ** 0.5
    assert abs(hits / fits - nominal) < 3 * error + nominal / 4


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", [10, 20, 29])
def test_few_values_err_to_larger_p_values(law: str, size: int) -> None:
    # Binomial again, one new value a fit. No ten values tell a Pareto law of shape 2, hence the twice.
    rng = np.random.default_rng(2)
    draw = LAWS[law]
    hits = sum(Tail.fit(draw(rng, size)).survival(draw(rng, 1))[0] <= 0.05 for _ in range(1500))
    error = (0.05 * 0.95 / 1500) ** 0.5
    assert hits / 1500 < (2 if law == "pareto 2" else 1) * 0.05 + 3 * error


def test_a_large_sample_finds_the_law_itself() -> None:
    # exp(-x) is the exponential's survival.
    tail = Tail.fit(np.random.default_rng(0).exponential(size=50_000))
    x = np.array([0.1, 1.0, 3.0, 5.0, 7.0])
    assert tail.surprise(x) == pytest.approx(x, abs=0.05, rel=0.05)


samples = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60).map(np.array)


@given(samples, st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=50).map(np.array))
def test_survival_never_rises_and_stays_above_zero(values: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    p = Tail.fit(values).survival(np.sort(x))
    assert (np.diff(p) <= 0).all()
    assert (p > 0).all() and (p <= 1).all()


@pytest.mark.parametrize("law", [*LAWS, "uniform"])
def test_beyond_the_sample_greater_values_stay_apart(law: str) -> None:
    rng = np.random.default_rng(3)
    values = rng.random(400) if law == "uniform" else LAWS[law](rng, 400)
    x = values.max() + np.logspace(-2, 9, 500)
    tail = Tail.fit(values)
    assert (np.diff(tail.survival(x)) < 0).all()
    assert (np.diff(tail.surprise(x)) > 0).all()


def test_no_end_point_is_assumed_of_a_bounded_sample() -> None:
    # Uniform values have xi = -1, whose end point a plain GPD would give p = 0 beyond.
    tail = Tail.fit(np.random.default_rng(0).random(1000))
    assert 1e-6 < tail.survival(np.array([1.05]))[0] < 0.01


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_p_value_does_not_depend_on_its_batch(size: int) -> None:
    rng = np.random.default_rng(4)
    tail = Tail.fit(rng.exponential(size=700))
    x = rng.exponential(3, size=3000)
    whole = tail.survival(x)
    parts = [tail.survival(x[low : low + size]) for low in range(0, 3000, size)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert tail.survival(np.stack([x, x], axis=1)[:, 0]).tobytes() == whole.tobytes()


def test_repetition_does_not_change_a_tail() -> None:
    values = np.random.default_rng(0).random(100)
    once, often = Tail.fit(values), Tail.fit(np.repeat(values, np.arange(100) + 1))
    assert np.array_equal(once.x, often.x) and np.array_equal(once.level, often.level)


def test_one_absurd_value_does_not_take_the_tail_away() -> None:
    values = np.random.default_rng(0).exponential(size=500)
    x = np.array([6.0, 8.0])
    clean, spoilt = Tail.fit(values).survival(x), Tail.fit(np.append(values, 1e6)).survival(x)
    assert (spoilt < 4 * clean).all()


def test_nan_is_left_out_of_a_fit_and_left_alone_in_scoring() -> None:
    values = np.random.default_rng(0).random(100)
    assert np.array_equal(Tail.fit(np.append(values, np.nan)).x, Tail.fit(values).x)
    assert np.isnan(Tail.fit(values).survival(np.array([np.nan]))).all()


def test_infinity_gets_the_least_p_value() -> None:
    assert Tail.fit(np.array([1.0, 2.0])).survival(np.array([np.inf, -np.inf])).tolist() == pytest.approx([FLOOR, 1])


def test_probabilities_are_rounded_where_libraries_differ() -> None:
    s = np.random.default_rng(0).random(1000) * 50
    p = probability(s)
    assert p == pytest.approx(np.exp(-s), rel=2**-31)
    mantissa, _ = np.frexp(p)
    assert (mantissa * 2.0**32 == np.rint(mantissa * 2.0**32)).all()


@pytest.mark.parametrize(
    ("x", "level", "message"),
    [
        ([0.0], [0.0], r"needs \(m,\) knots and levels"),
        ([0.0, 1.0], [0.0, 1.0, 2.0], r"got \(2,\) and \(3,\)"),
        ([0.0, np.nan], [0.0, 1.0], "must be finite"),
        ([0.0, 0.0], [0.0, 1.0], "knots must increase"),
        ([0.0, 1.0], [0.5, 1.0], "levels must begin at 0"),
        ([0.0, 1.0, 2.0], [0.0, 1.0, 0.5], "never decrease"),
        ([0.0, 1.0], [0.0, 0.0], "end rising"),
    ],
)
def test_knots_that_make_no_tail_are_refused(x: list[float], level: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tail(np.array(x), np.array(level))


def test_a_tail_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one finite value; got none among 2"):
        Tail.fit(np.array([np.nan, np.inf]))


def test_nothing_is_certain_and_what_lies_above_is_as_rare_as_it_comes() -> None:
    values = np.r_[np.zeros(900), np.linspace(1.0, 2.0, 100)]
    tail = Tail.fit(values, atom=0.0)
    assert tail.survival(np.array([-1.0, 0.0])).tolist() == [1.0, 1.0]
    # 50 of 1,000 sessions reach the median of those above nothing; without counting nothing it would be half.
    assert tail.survival(np.array([1.5]))[0] == pytest.approx(0.05, rel=0.05)
    assert Tail.fit(values).survival(np.array([1.5]))[0] == pytest.approx(0.5, rel=0.05)


def test_a_tail_of_nothing_but_nothing_leaves_the_first_value_unlikely_and_not_impossible() -> None:
    tail = Tail.fit(np.zeros(99), atom=0.0)
    assert tail.survival(np.array([0.0]))[0] == 1
    assert tail.survival(np.array([1.0]))[0] == pytest.approx(0.01)
