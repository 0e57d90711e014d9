"""The arrays that a bank of sequence autoencoders is made of, and the rules that make its arithmetic exact."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 16
"""Activations are integers times 1/16: features in, every layer's output, the reconstruction."""
CODE_MAX = 127
"""Largest integer that stands for an activation (7.9375) or a weight."""
EXACT_MAX = 2**24
"""Float32 holds every integer up to here: sums that stay below it are not rounded."""
SHIFTS = (6, 7)
"""A weight is its int8 code times 2^-shift: at most 1.98 in steps of 1/64, or 0.99 in steps of 1/128."""
LAYERS = ("encoder", "bottleneck", "expand", "decoder")
ADAPTED = ("encoder", "bottleneck")
"""Layers that a tenant's adapter adds to."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a bank."""

    features: int
    """F, of an event."""
    steps: int
    """S, events in a window."""
    hidden: int
    """H, of an encoded event."""
    bottleneck: int
    """B, through which a window passes."""
    rank: int
    """R, of the adapters; 0 without any."""
    tenants: int
    """T, adapters."""


def check_bank(arrays: Mapping[str, NDArray[np.generic]]) -> Shape:
    """The sizes of a bank made of `arrays`.

    Parameters
    ----------
    arrays
        ``<layer>.weight`` int8 (fan_in, fan_out) and ``<layer>.bias`` int32 (fan_out,) for `encoder` (F, H),
        `bottleneck` (S·H, B), `expand` (B, S·H) and `decoder` (H, F); ``shifts`` int8 (4,), one of `SHIFTS` a layer in
        the order of `LAYERS`; ``feature_weight`` int8 (F,), 0 to 127. A bias counts in 2^-shift of an activation's
        step. With adapters also ``adapter.<layer>.down`` int8 (T, fan_in, R) and ``adapter.<layer>.up`` int8
        (T, R, fan_out) for `encoder` and `bottleneck`, on their layer's grid.

    Raises
    ------
    ValueError
        An array is missing, unknown, of the wrong type or shape, or so large that a sum could be rounded. The message
        names the array, the rule and what came.
    """
    _check_names(arrays)
    features, hidden = _matrix(arrays, "encoder.weight")
    flat, bottleneck = _matrix(arrays, "bottleneck.weight")
    if hidden == 0 or flat % hidden or flat == 0:
        raise ValueError(
            f"bottleneck.weight must have S times {hidden} rows, as encoder.weight has columns; got {flat}."
        )
    steps = flat // hidden
    for name, fan in (("expand", (bottleneck, flat)), ("decoder", (hidden, features))):
        _expect(arrays, f"{name}.weight", np.int8, fan)
    for name in LAYERS:
        _expect(arrays, f"{name}.bias", np.int32, (arrays[f"{name}.weight"].shape[1],))
    _expect(arrays, "shifts", np.int8, (len(LAYERS),))
    if not np.isin(arrays["shifts"], SHIFTS).all():
        raise ValueError(f"shifts must be of {SHIFTS}; got {arrays['shifts'].tolist()}.")
    _expect(arrays, "feature_weight", np.int8, (features,))
    weight = arrays["feature_weight"].astype(np.int64)
    if weight.min() < 0 or weight.sum() < 1:
        raise ValueError(f"feature_weight must be 0 to {CODE_MAX} and not all 0; got {weight.tolist()}.")
    rank = tenants = 0
    if "adapter.encoder.down" in arrays:
        down = arrays["adapter.encoder.down"]
        if down.ndim != 3:
            raise ValueError(f"adapter.encoder.down must be (T, fan_in, R); got shape {down.shape}.")
        tenants, _, rank = down.shape
        for name in ADAPTED:
            fan_in, fan_out = arrays[f"{name}.weight"].shape
            _expect(arrays, f"adapter.{name}.down", np.int8, (tenants, fan_in, rank))
            _expect(arrays, f"adapter.{name}.up", np.int8, (tenants, rank, fan_out))
    _check_exact(arrays)
    return Shape(features, steps, hidden, bottleneck, rank, tenants)


def largest_sum(arrays: Mapping[str, NDArray[np.generic]], layer: str) -> int:
    """Bound of every partial sum of a layer's product, in whatever order and with whatever adapter it is added up.

    Activations and weights are integers a and w with |a| <= 127. A product is an integer, and so is each partial sum,
    of magnitude at most fan_in · 127 · max|w| + max|bias|; the adapter adds R · 127 · max|up|. Below 2^24 float32 holds
    all of them, so no addition rounds, fused or not, and order, blocking, threads and library cannot show. What follows
    is exact or correctly rounded by IEEE 754: a product with a power of two, rint, min, max. The inputs have 7 bits, so
    that they also pass unchanged through TF32.
    """
    weight = arrays[f"{layer}.weight"]
    bound = int(weight.shape[0]) * CODE_MAX * _peak(weight) + _peak(arrays[f"{layer}.bias"])
    up = arrays.get(f"adapter.{layer}.up")
    if up is not None:
        bound += int(up.shape[1]) * CODE_MAX * _peak(up)
    return bound


def _check_exact(arrays: Mapping[str, NDArray[np.generic]]) -> None:
    for name, array in arrays.items():
        if array.dtype == np.int8 and array.size and array.astype(np.int16).min() < -CODE_MAX:
            raise ValueError(f"{name} must lie within ±{CODE_MAX}, so that the grid is symmetric; got -128.")
    sums = {layer: largest_sum(arrays, layer) for layer in LAYERS}
    for layer in ADAPTED:
        down = arrays.get(f"adapter.{layer}.down")
        if down is not None:
            sums[f"adapter.{layer}.down"] = down.shape[1] * CODE_MAX * _peak(down)
    for name, bound in sums.items():
        if bound >= EXACT_MAX:
            raise ValueError(
                f"{name}: fan_in * {CODE_MAX} * max|weight| + max|bias| must be below 2^24, or float32 would round; "
                f"got {bound}."
            )


def _check_names(arrays: Mapping[str, NDArray[np.generic]]) -> None:
    base = {f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")} | {"shifts", "feature_weight"}
    adapters = {f"adapter.{layer}.{part}" for layer in ADAPTED for part in ("down", "up")}
    missing = base - arrays.keys()
    if adapters & arrays.keys():
        missing |= adapters - arrays.keys()
    if missing:
        raise ValueError(f"a sequence bank needs the arrays {sorted(missing)}, which are missing.")
    if unknown := arrays.keys() - base - adapters:
        raise ValueError(f"a sequence bank has no arrays {sorted(unknown)}; it has {sorted(base | adapters)}.")


def _matrix(arrays: Mapping[str, NDArray[np.generic]], name: str) -> tuple[int, int]:
    array = arrays[name]
    if array.dtype != np.int8 or array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must be int8 (fan_in, fan_out), not empty; got {array.dtype} {array.shape}.")
    return array.shape[0], array.shape[1]


def _expect(
    arrays: Mapping[str, NDArray[np.generic]], name: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> None:
    array = arrays[name]
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} must be {np.dtype(dtype)} {shape}; got {array.dtype} {array.shape}.")


def _peak(array: NDArray[np.generic]) -> int:
    """Largest magnitude in an integer array, 0 if it is empty."""
    return int(np.abs(array.astype(np.int64)).max(initial=0))
