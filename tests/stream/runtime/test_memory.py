"""Freed memory leaves the process."""

from pathlib import Path

import numpy as np

from stream.runtime.memory import give_back

_PAGE = 4096
_COUNT, _BYTES = 1_500, 64 * 1024
"""Too small for a mapping of their own, 96 MB together."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def test_what_lies_free_between_what_is_in_use_goes_back_to_the_system() -> None:
    taken = [np.ones(_BYTES, np.uint8) for _ in range(_COUNT)]
    # Of every ten one stays, the last of all too: the heap's end cannot move.
    kept = taken[9::10]
    del taken
    before = resident_bytes()
    assert give_back()
    assert before - resident_bytes() > 0.6 * _COUNT * _BYTES
    assert all(array[0] == 1 for array in kept)
