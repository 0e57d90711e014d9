"""Which way attackers' messages lie among embeddings: what n-grams do not know of words they have not been shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class AttackDirection:
    """Log-odds, or a share of them, that a text is of an attack, linear in its vector.

    Codes and vectors are whole numbers, whose products float64 adds up without rounding: one text has the same bits in
    any batch and on any machine.

    Parameters
    ----------
    arrays
        ``codes`` int16 (d,) in one ``unit`` float64 (), and the ``constant`` float64 ().
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        _check(arrays)
        self._arrays = dict(arrays)
        self._codes = arrays["codes"].astype(np.float64)
        self._unit, self._constant = float(arrays["unit"]), float(arrays["constant"])
        self.dim = len(self._codes)
        """d, of the vectors that it scores."""

    def score(self, vectors: NDArray[np.int8]) -> NDArray[np.float32]:
        """Log-odds (n,) of texts with these vectors (n, d), unit rows times 127."""
        sums: NDArray[np.float64] = vectors.astype(np.float64) @ self._codes
        return (sums * self._unit + self._constant).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What a release holds of it."""
        return dict(self._arrays)


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    kinds = {"codes": (np.int16, 1), "unit": (np.float64, 0), "constant": (np.float64, 0)}
    if arrays.keys() != kinds.keys():
        raise ValueError(f"an attack direction needs the arrays {sorted(kinds)}; got {sorted(arrays)}.")
    for name, (dtype, dimensions) in kinds.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim != dimensions:
            raise ValueError(
                f"{name} must be {np.dtype(dtype)} of {dimensions} dimensions; got {array.dtype} {array.shape}."
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite; got {array.tolist()}.")
