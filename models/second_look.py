"""What a transformer adds to a segment's role surprise: the log-odds of a regression on its vector."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.wordpiece import TokenBags

_SHAPES = {"weights": np.float64, "constant": np.float64, "share": np.float64, "gate": np.float64, "space": np.uint8}


class Transforms(Protocol):
    """What a second look needs of a transformer."""

    space_id: str

    def embed(self, texts: TokenBags) -> NDArray[np.float32]:
        """Unit rows (n, d) of bags, in input order."""
        ...


class SecondLook:
    """Log-odds that a user or a system prompt said a text rather than a tool, by its vector in `space_id`.

    A vector is summed up by itself, in float64 and in one order, so that equal vectors have equal bits in any batch.

    Parameters
    ----------
    arrays
        ``weights`` float64 (d,); ``constant``, the ``share`` of the log-odds that counts beside role surprise, and the
        ``gate``, the role surprise from which a segment is looked at again (-inf: every one), float64 (); ``space``,
        the space's id in UTF-8, uint8 (n,).
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        _check(arrays)
        self._arrays = dict(arrays)
        self._weights = arrays["weights"]
        self._constant, self._share = float(arrays["constant"]), float(arrays["share"])
        self.gate = float(arrays["gate"])
        self.space_id = arrays["space"].tobytes().decode("utf-8")

    def score(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is added (n,) to the role surprise of texts with these vectors (n, d)."""
        sums = np.multiply(vectors, self._weights, dtype=np.float64).sum(axis=1)
        added: NDArray[np.float32] = (self._share * (sums + self._constant)).astype(np.float32)
        return added

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What a release holds of it."""
        return dict(self._arrays)


class Remembering:
    """A transformer that has read each text once: for training, where the same texts pass many times."""

    def __init__(self, transformer: Transforms) -> None:
        self._transformer = transformer
        self._vectors: dict[bytes, NDArray[np.float32]] = {}
        self.space_id = transformer.space_id

    def embed(self, texts: TokenBags) -> NDArray[np.float32]:
        """Vectors (n, d) of bags."""
        data, offsets = texts.ids.tobytes(), (texts.offsets * texts.ids.itemsize).tolist()
        keys = [data[low:high] for low, high in pairwise(offsets)]
        fresh = {key: row for row, key in enumerate(keys) if key not in self._vectors}
        rows = np.array(list(fresh.values()), np.int64)
        vectors = self._transformer.embed(texts.take(rows))
        self._vectors.update(zip(fresh, vectors, strict=True))
        return np.array([self._vectors[key] for key in keys], np.float32).reshape(len(keys), vectors.shape[1])


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    if arrays.keys() != _SHAPES.keys():
        raise ValueError(f"a second look needs the arrays {sorted(_SHAPES)}; got {sorted(arrays)}.")
    for name, dtype in _SHAPES.items():
        array, dimensions = arrays[name], int(name in ("weights", "space"))
        if array.dtype != dtype or array.ndim != dimensions:
            raise ValueError(
                f"{name} must be {np.dtype(dtype)} of {dimensions} dimensions; got {array.dtype} {array.shape}."
            )
        if name in ("weights", "constant", "share") and not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite.")
    if np.isnan(arrays["gate"]) or arrays["gate"] == np.inf:
        raise ValueError(f"gate must be a number or -inf; got {arrays['gate'].tolist()}.")
