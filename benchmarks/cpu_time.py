"""What a call costs a thread."""

import statistics
import time
from collections.abc import Callable


def median_us(run: Callable[[], object], units: int, repetitions: int) -> float:
    """Median CPU time of this thread per unit, µs."""
    times = []
    for _ in range(repetitions):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return statistics.median(times) / units * 1e6
