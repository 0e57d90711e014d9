"""Memory that was freed goes back to the system, not only to the allocator."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LIBC = ctypes.CDLL(None)
_TRIM: Callable[[int], int] | None = getattr(_LIBC, "malloc_trim", None)
"""glibc's; other C libraries have none."""


def give_back() -> bool:
    """Return what the allocator holds free; whether there was any.

    What a backlog's batches and a rebalance's state took lies between what lives on, where glibc by itself never
    returns it: of a scorer's 450 MB it was 100. Takes some 10 ms, 70 when there is much, without holding the GIL.
    """
    return _TRIM is not None and _TRIM(0) == 1


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cycles meanwhile: for what makes many objects and no cycle.

    A restore's rows are hundreds of thousands, which the collector looks through again and again: a fifth of its time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
