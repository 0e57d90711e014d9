"""Fine-tuning the adapters of a thousand tenants: all at once, beside one tenant after another.

    python -m benchmarks.adapters

Drawn windows on a random backbone: speed depends on neither. One by one is timed on some of the tenants, spread over
all of them, and extrapolated; their adapters must come out the same to the bit both ways. On a CPU both are given in
seconds of the processor, all threads together, so that what else the machine does is not counted, and in the clock's.
The ratio of the processor's is what batching saves; the clock's is what somebody waits, on `--threads` cores.
"""

import argparse
import os
import time
from typing import NamedTuple

# NumPy's part needs one thread; BLAS reads this when it is loaded. Torch is told its own number.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bank import FEATURES, STEPS, arrays
from models.training.adapters import FitAdapters, fit_adapters

GROUPS = 5


class Taken(NamedTuple):
    """Seconds."""

    processor: float
    clock: float


def so_far() -> Taken:
    """Seconds of this process until now."""
    return Taken(time.process_time(), time.perf_counter())


def traffic(
    rng: np.random.Generator, tenants: int, each: int
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int64]]:
    """Windows of `tenants` tenants, `each` of every one, around a mean of its own; their lengths; their tenants."""
    tenant = np.repeat(np.arange(tenants), each)
    mean = rng.normal(16, 16, (tenants, FEATURES))
    drawn = mean[tenant][:, None] + rng.normal(0, 8, (len(tenant), STEPS, FEATURES))
    return np.clip(np.rint(drawn), -127, 127).astype(np.int8), rng.integers(1, STEPS + 1, len(tenant)), tenant


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=200, help="of each tenant")
    parser.add_argument("--singly", type=int, default=10, help="tenants that are fitted one by one")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for the fit of all at once and one by one")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    backbone = {name: array for name, array in arrays(rng, 1).items() if not name.startswith("adapter.")}
    windows, lengths, tenant = traffic(rng, given.tenants, given.windows)
    group = np.arange(len(windows)) % GROUPS
    how = FitAdapters(device=given.device, threads=given.threads)
    on_cpu = given.device == "cpu" or (given.device == "auto" and not torch.cuda.is_available())

    def fitted(at: NDArray[np.intp], tenants: int) -> tuple[dict[str, NDArray[np.generic]], Taken]:
        begun = so_far()
        rows = np.unique(tenant[at], return_inverse=True)[1]
        adapters = fit_adapters(
            windows[at], lengths[at], rows, backbone, group=group[at], tenants=tenants, seed=1, how=how
        )
        return adapters, Taken(*(now - before for now, before in zip(so_far(), begun, strict=True)))

    # Once for what is loaded and allocated at first use.
    fitted(np.flatnonzero(tenant == 0), 1)
    each: list[Taken] = []
    chosen = np.linspace(0, given.tenants - 1, min(given.singly, given.tenants)).astype(np.int64)
    alone = []
    for row in chosen.tolist():
        adapters, taken = fitted(np.flatnonzero(tenant == row), 1)
        alone.append(adapters)
        each.append(taken)
    together, at_once = fitted(np.arange(len(windows)), given.tenants)
    for row, adapters in zip(chosen.tolist(), alone, strict=True):
        if any(not np.array_equal(adapters[name][0], together[name][row]) for name in together):
            raise SystemExit(f"tenant {row}: its adapter is not the same alone as with all others.")
    adapted = int((together["adapter.encoder.up"].any(axis=(1, 2))).sum())
    print(f"{given.tenants} tenants, {given.windows} windows each, {how.steps} steps; {adapted} keep their adapter")
    print(f"threads {given.threads}; one by one is extrapolated from {len(chosen)} tenants")
    clocks = ("processor", "clock") if on_cpu else ("clock",)
    for name in clocks:
        at_once_s = getattr(at_once, name)
        singly_s = sum(getattr(taken, name) for taken in each) / len(each) * given.tenants
        print(f"{name:10} all at once {at_once_s:8.1f} s {1e3 * at_once_s / given.tenants:9.1f} ms a tenant")
        print(f"{name:10} one by one  {singly_s:8.1f} s {1e3 * singly_s / given.tenants:9.1f} ms a tenant")
        print(f"{name:10} ratio       {singly_s / at_once_s:8.1f}")


if __name__ == "__main__":
    main()
