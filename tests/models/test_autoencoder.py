"""The bank scores all tenants at once, exactly."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.autoencoder_torch import TorchSequenceBank
from models.bank_arrays import EXACT_MAX, LAYERS, check_bank, largest_sum
from tests.models.banks import BOTTLENECK, FEATURES, HIDDEN, RANK, STEPS, random_bank, random_windows

TENANTS = 40


def _by_fractions(
    arrays: dict[str, NDArray[np.generic]], window: NDArray[np.int8], length: int, row: int
) -> tuple[np.float32, list[Fraction]]:
    """One window's score in rational arithmetic, event by event and sum by sum."""

    def dense(layer: str, x: list[Fraction], adapter: bool) -> list[Fraction]:
        shift = Fraction(1, 2 ** int(arrays["shifts"][LAYERS.index(layer)]))
        weight, bias = arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]

        def product(x: list[Fraction], w: NDArray[np.generic]) -> list[Fraction]:
            return [sum((a * int(b) for a, b in zip(x, column, strict=True)), Fraction(0)) * shift for column in w.T]

        y = [a + Fraction(int(b), 16) * shift for a, b in zip(product(x, weight), bias, strict=True)]
        if adapter and row >= 0:
            low = [snap(v) for v in product(x, arrays[f"adapter.{layer}.down"][row])]
            y = [a + b for a, b in zip(y, product(low, arrays[f"adapter.{layer}.up"][row]), strict=True)]
        return [snap(v) for v in y]

    def snap(v: Fraction) -> Fraction:
        return Fraction(max(-127, min(127, round(v * 16))), 16)

    def relu(x: list[Fraction]) -> list[Fraction]:
        return [max(Fraction(0), v) for v in x]

    flat: list[Fraction] = []
    events = [[Fraction(max(-127, int(v)), 16) for v in event] for event in window]
    for position, event in enumerate(events):
        inside = position >= STEPS - length
        flat += relu(dense("encoder", event, True)) if inside else [Fraction(0)] * HIDDEN
    hidden = relu(dense("expand", dense("bottleneck", flat, True), False))[-HIDDEN:]
    decoded = dense("decoder", hidden, False)
    weight = [int(w) for w in arrays["feature_weight"]]
    parts = [w * (a - b) ** 2 / sum(weight) for w, a, b in zip(weight, events[-1], decoded, strict=True)]
    return np.float32(float(sum(parts))), parts


def test_scores_are_those_of_rational_arithmetic() -> None:
    arrays = random_bank(0, TENANTS)
    windows, lengths = random_windows(1, 12)
    rows = np.array([-1, 0, 1, 39, -1, 5, 5, 5, 17, -1, 2, 3])
    score, error = SequenceBank(arrays).score(windows, lengths, rows)
    for i in range(len(windows)):
        expected, parts = _by_fractions(arrays, windows[i], int(lengths[i]), int(rows[i]))
        assert score[i] == expected
        assert error[i] == pytest.approx([float(p) for p in parts], rel=1e-6)


def test_feature_errors_add_up_to_the_score() -> None:
    windows, lengths = random_windows(1, 300)
    score, error = SequenceBank(random_bank(0)).score(windows, lengths, np.full(300, -1))
    assert error.sum(axis=1) == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_score_does_not_depend_on_its_batch(size: int) -> None:
    bank = SequenceBank(random_bank(0, TENANTS))
    windows, lengths = random_windows(1, 1200)
    rows = np.random.default_rng(2).integers(-1, TENANTS, 1200)
    score, error = bank.score(windows, lengths, rows)
    order = np.random.default_rng(3).permutation(1200)
    for low in range(0, 1200, size):
        at = order[low : low + size]
        part, part_error = bank.score(windows[at], lengths[at], rows[at])
        assert part.tobytes() == score[at].tobytes()
        assert part_error.tobytes() == error[at].tobytes()


def _check_device(device: str) -> None:
    arrays = random_bank(0, TENANTS)
    windows, lengths = random_windows(1, 700)
    rows = np.random.default_rng(2).integers(-1, TENANTS, 700)
    for tenants in (rows, np.full(700, -1), np.abs(rows)):
        expected = SequenceBank(arrays).score(windows, lengths, tenants)
        found = TorchSequenceBank(arrays, device).score(windows, lengths, tenants)
        assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]


def test_torch_gives_the_bits_of_numpy() -> None:
    _check_device("cpu")


@pytest.mark.gpu
def test_cuda_gives_the_bits_of_numpy() -> None:
    _check_device("cuda")


def test_a_zero_adapter_is_no_adapter() -> None:
    arrays = random_bank(0, 3)
    for name in [name for name in arrays if name.endswith(".up")]:
        arrays[name] = np.zeros_like(arrays[name])
    windows, lengths = random_windows(1, 50)
    bank = SequenceBank(arrays)
    assert np.array_equal(
        bank.score(windows, lengths, np.full(50, 2))[0], bank.score(windows, lengths, np.full(50, -1))[0]
    )


def test_an_adapter_changes_its_tenants_scores_alone() -> None:
    arrays = random_bank(0, 2)
    windows, lengths = random_windows(1, 50)
    rows = np.arange(50) % 2
    before = SequenceBank(arrays).score(windows, lengths, rows)[0]
    arrays["adapter.encoder.up"] = arrays["adapter.encoder.up"].copy()
    arrays["adapter.encoder.up"][1] *= -1
    after = SequenceBank(arrays).score(windows, lengths, rows)[0]
    assert np.array_equal(before[rows == 0], after[rows == 0])
    assert (before[rows == 1] != after[rows == 1]).mean() > 0.9


def test_what_stands_before_a_windows_first_event_is_not_looked_at() -> None:
    windows, lengths = random_windows(1, 200)
    masked = windows.copy()
    masked[np.arange(STEPS) < STEPS - lengths[:, None]] = 77
    bank = SequenceBank(random_bank(0, 3))
    rows = np.arange(200) % 4 - 1
    assert np.array_equal(bank.score(masked, lengths, rows)[0], bank.score(windows, lengths, rows)[0])


def test_scoring_changes_neither_bank_nor_input() -> None:
    arrays = random_bank(0, 3)
    windows, lengths = random_windows(1, 20)
    rows = np.arange(20) % 4 - 1
    bank = SequenceBank(arrays)
    before = [a.tobytes() for a in (*bank.arrays.values(), windows, lengths, rows)]
    bank.score(windows, lengths, rows)
    assert [a.tobytes() for a in (*bank.arrays.values(), windows, lengths, rows)] == before


def test_no_windows_give_no_scores() -> None:
    windows, lengths = random_windows(1, 0)
    score, error = SequenceBank(random_bank(0)).score(windows, lengths, np.zeros(0, np.int64))
    assert (score.shape, error.shape) == ((0,), (0, FEATURES))


def test_the_bound_of_sums_is_that_of_the_worst_input() -> None:
    arrays = random_bank(0, 2)
    up = np.abs(arrays["adapter.encoder.up"].astype(int)).max()
    worst = FEATURES * 127 * np.abs(arrays["encoder.weight"].astype(int)).max() + RANK * 127 * up
    assert largest_sum(arrays, "encoder") == worst + np.abs(arrays["encoder.bias"]).max()


def _broken(name: str, value: NDArray[np.generic] | None) -> dict[str, NDArray[np.generic]]:
    arrays = random_bank(0, 2)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("decoder.bias", None, r"needs the arrays \['decoder.bias'\]"),
        ("adapter.encoder.up", None, r"needs the arrays \['adapter.encoder.up'\]"),
        ("surplus", np.zeros(1), r"has no arrays \['surplus'\]"),
        ("encoder.weight", np.zeros((FEATURES, HIDDEN)), r"encoder.weight must be int8 .*; got float64 \(10, 12\)"),
        ("encoder.weight", np.zeros(3, np.int8), r"encoder.weight must be int8 \(fan_in, fan_out\)"),
        ("bottleneck.weight", np.zeros((7, 5), np.int8), "bottleneck.weight must have S times 12 rows.*got 7"),
        ("expand.weight", np.zeros((4, 48), np.int8), r"expand.weight must be int8 \(5, 48\); got int8 \(4, 48\)"),
        ("encoder.bias", np.zeros(HIDDEN, np.int16), r"encoder.bias must be int32 \(12,\); got int16"),
        ("shifts", np.array([6, 6, 6, 8], np.int8), r"shifts must be of \(6, 7\); got \[6, 6, 6, 8\]"),
        ("feature_weight", np.zeros(FEATURES, np.int8), "feature_weight must be 0 to 127 and not all 0"),
        ("feature_weight", np.full(FEATURES, -1, np.int8), "feature_weight must be 0 to 127"),
        ("adapter.encoder.down", np.zeros(4, np.int8), r"adapter.encoder.down must be \(T, fan_in, R\)"),
        ("adapter.encoder.up", np.zeros((2, 3, 12), np.int8), r"adapter.encoder.up must be int8 \(2, 2, 12\)"),
        ("decoder.weight", np.full((HIDDEN, FEATURES), -128, np.int8), "decoder.weight must lie within ±127"),
        ("decoder.bias", np.full(FEATURES, EXACT_MAX, np.int32), r"decoder: fan_in \* 127 .* below 2\^24"),
    ],
)
def test_arrays_that_make_no_bank_are_refused(name: str, value: NDArray[np.generic] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceBank(_broken(name, value))


def test_layers_whose_sums_could_be_rounded_are_refused() -> None:
    arrays = random_bank(0)
    steps = 100
    arrays["bottleneck.weight"] = np.full((steps * HIDDEN, BOTTLENECK), 127, np.int8)
    arrays["expand.weight"] = np.zeros((BOTTLENECK, steps * HIDDEN), np.int8)
    arrays["expand.bias"] = np.zeros(steps * HIDDEN, np.int32)
    with pytest.raises(ValueError, match=r"bottleneck: .* must be below 2\^24"):
        check_bank(arrays)


@pytest.mark.parametrize(
    ("windows", "lengths", "rows", "message"),
    [
        (np.zeros((2, STEPS, FEATURES), np.int16), [1, 1], [-1, -1], r"windows must be int8 \(n, 4, 10\); got int16"),
        (np.zeros((2, STEPS, 9), np.int8), [1, 1], [-1, -1], r"got int8 \(2, 4, 9\)"),
        (np.zeros((2, STEPS, FEATURES), np.int8), [1], [-1, -1], r"lengths and rows must be \(2,\)"),
        (np.zeros((2, STEPS, FEATURES), np.int8), [0, 1], [-1, -1], "lengths must be 1 to 4; got 0 to 1"),
        (np.zeros((2, STEPS, FEATURES), np.int8), [1, 1], [-1, 3], "one of the bank's 3 adapters; got -1 to 3"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    windows: NDArray[np.int8], lengths: list[int], rows: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceBank(random_bank(0, 3)).score(windows, np.array(lengths), np.array(rows))


def test_the_scoring_path_imports_no_torch() -> None:
    check = """
import sys
import models.autoencoder, models.calibration, models.signal
print(sorted({"torch", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
