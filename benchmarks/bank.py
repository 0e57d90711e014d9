"""The sequence bank: a micro-batch of many tenants in one call, beside a call for each tenant, and on torch.

    python -m benchmarks.bank

Random weights, as speed does not depend on them; eight events of 24 features a window. Medians on one thread. Scores of
all ways are compared bit for bit first.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

# One thread is what is measured; BLAS reads this when it is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.autoencoder_torch import TorchSequenceBank

STEPS, FEATURES, HIDDEN, BOTTLENECK, RANK = 8, 24, 32, 24, 4
Score = Callable[[], NDArray[np.float32]]


def arrays(rng: np.random.Generator, tenants: int) -> dict[str, NDArray[np.generic]]:
    """A bank of `tenants` adapters."""
    flat = STEPS * HIDDEN
    fans = {
        "encoder": (FEATURES, HIDDEN),
        "bottleneck": (flat, BOTTLENECK),
        "expand": (BOTTLENECK, flat),
        "decoder": (HIDDEN, FEATURES),
    }
    bank: dict[str, NDArray[np.generic]] = {
        "shifts": np.full(4, 7, np.int8),
        "feature_weight": rng.integers(1, 128, FEATURES).astype(np.int8),
    }
    for layer, fan in fans.items():
        bank[f"{layer}.weight"] = rng.integers(-40, 41, fan).astype(np.int8)
        bank[f"{layer}.bias"] = rng.integers(-3000, 3001, fan[1]).astype(np.int32)
    for layer in ("encoder", "bottleneck"):
        fan_in, fan_out = fans[layer]
        bank[f"adapter.{layer}.down"] = rng.integers(-40, 41, (tenants, fan_in, RANK)).astype(np.int8)
        bank[f"adapter.{layer}.up"] = rng.integers(-40, 41, (tenants, RANK, fan_out)).astype(np.int8)
    return bank


def milliseconds(score: Score, repetitions: int) -> float:
    """Median time of a call."""
    score()
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        score()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def _scores(
    bank: SequenceBank | TorchSequenceBank,
    windows: NDArray[np.int8],
    lengths: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    return bank.score(windows, lengths, rows)[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--device", action="append", help="a torch device to compare with; default: cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    n = given.windows
    held = arrays(rng, given.tenants)
    bank = SequenceBank(held)
    windows = rng.integers(-127, 128, (n, STEPS, FEATURES)).astype(np.int8)
    lengths = rng.integers(1, STEPS + 1, n)
    rows = rng.permutation(n) % given.tenants
    of_tenant = [np.flatnonzero(rows == row) for row in range(given.tenants)]

    one_call = partial(_scores, bank, windows, lengths, rows)

    def call_a_tenant() -> NDArray[np.float32]:
        score = np.empty(n, np.float32)
        for at in of_tenant:
            score[at] = bank.score(windows[at], lengths[at], rows[at])[0]
        return score

    ways: dict[str, Score] = {"one call": one_call, "a call for each tenant": call_a_tenant}
    for device in given.device or ["cpu"]:
        ways[f"one call, torch {device}"] = partial(_scores, TorchSequenceBank(held, device), windows, lengths, rows)
    expected = one_call()
    for name, score in ways.items():
        if score().tobytes() != expected.tobytes():
            raise SystemExit(f"{name}: scores differ from those of one call with numpy.")
    print(f"{n} windows of {given.tenants} tenants, scores equal to the bit; adapters {adapter_bytes(held)} bytes each")
    for name, score in ways.items():
        report(name, milliseconds(score, given.repetitions), n)
    nobody = partial(_scores, bank, windows, lengths, np.full(n, -1))
    report("one call, no adapters", milliseconds(nobody, given.repetitions), n)
    for at_once in (64, 256, 512, 2048):
        other = SequenceBank(held, at_once=at_once)
        report(
            f"one call, {at_once} windows a step",
            milliseconds(partial(_scores, other, windows, lengths, rows), given.repetitions),
            n,
        )


def adapter_bytes(bank: dict[str, NDArray[np.generic]]) -> int:
    """Of one tenant."""
    return sum(array[0].nbytes for name, array in bank.items() if name.startswith("adapter."))


def report(name: str, taken_ms: float, n: int) -> None:
    """A line of the table."""
    print(f"{name:32s} {taken_ms:9.2f} ms {1000 * n / taken_ms:12,.0f} events/s")


if __name__ == "__main__":
    main()
