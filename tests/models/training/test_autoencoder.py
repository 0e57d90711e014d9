"""The fit sees the arithmetic that scores, and gives the same bytes again."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from models.autoencoder import SequenceBank
from models.training import autoencoder, quantised
from models.training.autoencoder import Fit, fit
from tests.models.banks import FEATURES, STEPS, cycling_windows

QUICK = Fit(hidden=16, bottleneck=8, epochs=20, steps_min=400)
TINY = Fit(hidden=4, bottleneck=2, epochs=1, steps_min=3)


@pytest.fixture(scope="module")
def bank() -> SequenceBank:
    windows, lengths = cycling_windows(0, 3000)
    return SequenceBank(fit(windows, lengths, seed=1, how=QUICK))


def _score(bank: SequenceBank, windows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return bank.score(windows, lengths, np.full(len(windows), -1))[0]


def test_unseen_normal_events_are_reconstructed(bank: SequenceBank) -> None:
    windows, lengths = cycling_windows(7, 1000)
    # An autoencoder that always answers with the mean is left with the variance.
    last = windows[:, -1] / 16.0
    weight = bank.arrays["feature_weight"].astype(float)
    variance = last.var(axis=0) @ weight / weight.sum()
    assert np.median(_score(bank, windows, lengths)) < 0.2 * variance


def test_events_out_of_order_and_of_odd_size_stand_out(bank: SequenceBank) -> None:
    windows, _ = cycling_windows(7, 2000)
    lengths = np.full(2000, STEPS)
    windows = windows[windows[:, 0].any(axis=1)]
    lengths = lengths[: len(windows)]
    normal = _score(bank, windows, lengths)
    swapped, bloated, mixed = windows.copy(), windows.copy(), windows.copy()
    swapped[:, -1] = swapped[:, -2]
    bloated[:, -1, 5] += 24
    mixed[:, -1, :3] = np.roll(mixed[:, -1, :3], 1, axis=1)
    for strange in (swapped, bloated, mixed):
        assert (_score(bank, strange, lengths) > np.quantile(normal, 0.95)).mean() > 0.8


def test_random_input_cannot_be_copied_through_the_bottleneck(bank: SequenceBank) -> None:
    rng = np.random.default_rng(3)
    noise = np.clip(rng.normal(0, 32, (1000, STEPS, FEATURES)), -127, 127).astype(np.int8)
    weight = bank.arrays["feature_weight"].astype(float)
    energy = (noise[:, -1] / 16.0) ** 2 @ weight / weight.sum()
    assert np.median(_score(bank, noise, np.full(1000, STEPS)) / energy) > 0.3


def test_the_fit_computes_what_the_bank_computes() -> None:
    windows, lengths = cycling_windows(0, 400)
    x = torch.from_numpy(windows.astype(np.float32) / 16)
    network = autoencoder._Network(x.numpy(), QUICK, torch.Generator().manual_seed(5))
    with torch.inference_mode():
        decoded = network(x, quantised.valid_steps(torch.from_numpy(lengths), STEPS))[:, -1].numpy()
    arrays = network.export() | {"feature_weight": np.ones(FEATURES, np.int8)}
    _, error = SequenceBank(arrays).score(windows, lengths, np.full(400, -1))
    assert np.array_equal(error, ((windows[:, -1] / np.float32(16) - decoded) ** 2) / np.float32(FEATURES))


_DIGEST = """
import hashlib
from models.training.autoencoder import Fit, fit
from tests.models.banks import cycling_windows
arrays = fit(*cycling_windows(0, 800), seed=4, how=Fit(hidden=16, bottleneck=8, epochs=3, steps_min=20), tenants=2)
digest = hashlib.sha256()
for name in sorted(arrays):
    digest.update(name.encode() + str(arrays[name].shape).encode() + arrays[name].tobytes())
print(digest.hexdigest())
"""


def test_same_input_and_seed_give_the_same_bytes_in_two_processes() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].strip()) == hashlib.sha256().digest_size * 2


def test_the_order_of_the_windows_does_not_matter() -> None:
    windows, lengths = cycling_windows(0, 300)
    order = np.random.default_rng(0).permutation(300)
    first, second = fit(windows, lengths, seed=1, how=TINY), fit(windows[order], lengths[order], seed=1, how=TINY)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_another_seed_gives_another_bank() -> None:
    windows, lengths = cycling_windows(0, 300)
    first, second = (fit(windows, lengths, seed=seed, how=TINY) for seed in (1, 2))
    assert not np.array_equal(first["encoder.weight"], second["encoder.weight"])


def test_the_optimiser_is_torchs_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimiser, reference = quantised.Adam([ours]), torch.optim.Adam([theirs], 0.05)
    for _ in range(20):
        for parameter in (ours, theirs):
            parameter.grad = None
            (parameter**4).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step(0.05)
        reference.step()
    assert torch.allclose(ours, theirs, rtol=1e-5)


def test_repetition_weighs_by_its_root() -> None:
    windows, lengths = cycling_windows(0, 2)
    x, length, weight = autoencoder._distinct(np.repeat(windows, [1, 9], axis=0), np.repeat(lengths, [1, 9]))
    assert sorted(weight.tolist()) == [1, 3]
    assert (len(x), len(length)) == (2, 2)


def test_what_stands_before_a_windows_first_event_is_not_learned() -> None:
    windows = np.zeros((2, STEPS, FEATURES), np.int8)
    windows[1, 0] = 5
    x, _, weight = autoencoder._distinct(windows, np.array([1, 1]))
    assert (len(x), weight.tolist()) == (1, [np.sqrt(np.float32(2))])


def test_adapters_of_tenants_start_at_zero() -> None:
    windows, lengths = cycling_windows(0, 50)
    arrays = fit(windows, lengths, seed=1, how=TINY, tenants=3)
    assert not any(arrays[name].any() for name in arrays if name.startswith("adapter."))
    assert SequenceBank(arrays).shape.tenants == 3
    assert not any(name.startswith("adapter.") for name in fit(windows, lengths, seed=1, how=TINY))


def test_progress_is_told_after_each_epoch() -> None:
    told: list[tuple[int, int, float]] = []
    windows, lengths = cycling_windows(0, 300)
    how = Fit(hidden=4, bottleneck=2, epochs=3, steps_min=0)
    fit(windows, lengths, seed=1, how=how, progress=lambda *args: told.append(args))
    assert [(epoch, epochs) for epoch, epochs, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert all(loss > 0 for *_, loss in told)


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        windows, lengths = cycling_windows(0, 10)
        fit(windows, lengths, seed=1, how=TINY)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("windows", "lengths", "message"),
    [
        (np.zeros((0, STEPS, FEATURES), np.int8), np.zeros(0, int), "windows must be int8"),
        (np.zeros((1, STEPS, FEATURES)), np.ones(1, int), "windows must be int8 .* got float64"),
        (np.zeros((1, STEPS, FEATURES), np.int8), np.zeros(1, int), r"lengths must be \(1,\), each 1 to 4"),
    ],
)
def test_input_that_is_no_windows_is_refused(windows: np.ndarray, lengths: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(windows, lengths, seed=1)


def test_little_traffic_takes_the_least_number_of_steps_and_no_more() -> None:
    # An epoch of 4 windows is one step, so 40 steps are 40 epochs.
    windows, lengths = cycling_windows(0, 4)
    told: list[int] = []
    how = Fit(hidden=4, bottleneck=2, epochs=1, steps_min=40)
    fit(windows, lengths, seed=1, how=how, progress=lambda epoch, epochs, loss: told.append(epochs))
    assert set(told) == {40}
