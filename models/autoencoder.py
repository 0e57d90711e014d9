"""Every tenant's sequence autoencoder, evaluated for all tenants of a micro-batch at once.

Legend: n windows, S events a window, F features, H encoded features, B bottleneck, R rank, T tenants with an adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bank_arrays import ADAPTED, CODE_MAX, GRID, LAYERS, Shape, check_bank


@dataclass(frozen=True, slots=True)
class _Layer:
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    step: np.float32
    """2^-shift."""


class SequenceBank:
    """Reconstruction error of a session's last event, by an autoencoder of its last events.

    0 is an event that fits what came before it as the tenant's events do. One backbone learned from the population
    (encoder of each event, bottleneck over the window, decoder) plus, per tenant, a low-rank adapter on its first and
    its bottleneck layer. Adapters come with releases: the stream runs no gradient and this signal learns nothing in it.

    Arithmetic is exact (`models.bank_arrays.largest_sum`), so a score is the same to the bit in any batch, with numpy
    here and with torch on any device (`models.autoencoder_torch`).

    Parameters
    ----------
    arrays
        As `models.bank_arrays.check_bank` has them.
    at_once
        Windows per step: what 512 need stays in a core's cache (benchmarks/bank.py). No result depends on it.

    References
    ----------
    Malhotra et al. (2016), LSTM-based encoder-decoder for multi-sensor anomaly detection: reconstruction error of a
    window through a bottleneck. Hu et al. (2021), LoRA: low-rank adapters. Jacob et al. (2018): quantised arithmetic.
    """

    name = "sequence"
    scale = "tenant"

    def __init__(self, arrays: Mapping[str, NDArray[np.generic]], *, at_once: int = 512) -> None:
        self._at_once = at_once
        self.shape: Shape = check_bank(arrays)
        self.arrays: dict[str, NDArray[np.generic]] = {name: arrays[name] for name in sorted(arrays)}
        self._layers = {name: _layer(arrays, name) for name in LAYERS}
        # Only the last event is judged: the other steps' part of the expansion serves training.
        last = slice((self.shape.steps - 1) * self.shape.hidden, None)
        whole = self._layers["expand"]
        self._last = _Layer(np.ascontiguousarray(whole.weight[:, last]), whole.bias[last], whole.step)
        # int8 in memory, a million tenants' adapters are 1.3 GB; only the rows in use become float32.
        self._adapters = {
            name: (np.asarray(arrays[f"adapter.{name}.down"]), np.asarray(arrays[f"adapter.{name}.up"]))
            for name in ADAPTED
            if self.shape.tenants
        }
        self._feature_weight = arrays["feature_weight"].astype(np.float32)
        self._total_weight = float(self._feature_weight.sum(dtype=np.float64)) * GRID * GRID

    def score(
        self, windows: NDArray[np.int8], lengths: NDArray[np.integer], rows: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weighted mean squared errors (n,) of the windows' last events, and each feature's part of it (n, F).

        Parameters
        ----------
        windows
            (n, S, F), features in steps of 1/16, the last event last.
        lengths
            (n,), 1 to S: how many of the window's last events are events; what stands before them is not looked at.
        rows
            (n,), each window's adapter, or -1 for none.

        Raises
        ------
        ValueError
            A shape, length or row that the bank does not have.
        """
        check_windows(self.shape, windows, lengths, rows)
        n = len(windows)
        score = np.empty(n, np.float32)
        error = np.empty((n, self.shape.features), np.float32)
        for low in range(0, n, self._at_once):
            part = slice(low, low + self._at_once)
            score[part], error[part] = self._score(windows[part], lengths[part], rows[part])
        return score, error

    def _score(
        self, windows: NDArray[np.int8], lengths: NDArray[np.integer], rows: NDArray[np.integer]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        n, (steps, hidden) = len(windows), (self.shape.steps, self.shape.hidden)
        x = windows.astype(np.float32)
        np.maximum(x, np.float32(-CODE_MAX), out=x)
        outside = np.arange(steps) < steps - lengths[:, None]
        x[outside] = 0
        adapted = np.flatnonzero(rows >= 0)
        # (n, S, F) -> (n, S, H)
        h = self._apply(self._layers["encoder"], x, "encoder", adapted, rows)
        np.maximum(h, np.float32(0), out=h)
        h[outside] = 0
        # (n, S, H) -> (n, 1, S·H) -> (n, 1, B) -> (n, H)
        z = self._apply(self._layers["bottleneck"], h.reshape(n, 1, steps * hidden), "bottleneck", adapted, rows)
        last = np.maximum(_activate(z[:, 0] @ self._last.weight, self._last), np.float32(0))
        # (n, H) -> (n, F)
        decoder = self._layers["decoder"]
        error = x[:, -1] - _activate(last @ decoder.weight, decoder)
        # |error| <= 254 and weights <= 127: a feature's part is an integer below 2^23, a sum of them exact in float64.
        part = error * error * self._feature_weight
        total = part.sum(axis=1, dtype=np.float64)
        return (total / self._total_weight).astype(np.float32), part / np.float32(self._total_weight)

    def _apply(
        self,
        layer: _Layer,
        x: NDArray[np.float32],
        name: str,
        adapted: NDArray[np.intp],
        rows: NDArray[np.integer],
    ) -> NDArray[np.float32]:
        """A layer's output (n, s, fan_out) for `x` (n, s, fan_in), with the adapters of the windows `adapted`."""
        n, s, fan_in = x.shape
        y = (x.reshape(n * s, fan_in) @ layer.weight).reshape(n, s, -1)
        if len(adapted):
            down, up = self._adapters[name]
            row = rows[adapted]
            # (a, s, fan_in) @ (a, fan_in, R) -> (a, s, R) -> (a, s, fan_out), one adapter a window
            low = np.matmul(x if len(adapted) == n else x[adapted], down[row].astype(np.float32))
            y[adapted] += np.matmul(_round(low, layer.step), up[row].astype(np.float32))
        return _activate(y, layer)


def check_windows(
    shape: Shape, windows: NDArray[np.int8], lengths: NDArray[np.integer], rows: NDArray[np.integer]
) -> None:
    """Whether windows fit a bank.

    Raises
    ------
    ValueError
        They do not.
    """
    n = len(windows)
    if windows.dtype != np.int8 or windows.shape != (n, shape.steps, shape.features):
        raise ValueError(
            f"windows must be int8 (n, {shape.steps}, {shape.features}); got {windows.dtype} {windows.shape}."
        )
    if lengths.shape != (n,) or rows.shape != (n,):
        raise ValueError(f"lengths and rows must be ({n},) as there are windows; got {lengths.shape}, {rows.shape}.")
    if n and not 1 <= lengths.min() <= lengths.max() <= shape.steps:
        raise ValueError(f"lengths must be 1 to {shape.steps}; got {lengths.min()} to {lengths.max()}.")
    if n and not -1 <= rows.min() <= rows.max() < shape.tenants:
        raise ValueError(
            f"rows must be -1 or one of the bank's {shape.tenants} adapters; got {rows.min()} to {rows.max()}."
        )


def _layer(arrays: Mapping[str, NDArray[np.generic]], name: str) -> _Layer:
    shift = int(arrays["shifts"].astype(np.int64)[LAYERS.index(name)])
    return _Layer(
        arrays[f"{name}.weight"].astype(np.float32),
        arrays[f"{name}.bias"].astype(np.float32),
        np.float32(2.0**-shift),
    )


def _activate(y: NDArray[np.float32], layer: _Layer) -> NDArray[np.float32]:
    """Sums of products -> activations, in place: bias, then the nearest step (ties to even), within ±127."""
    y += layer.bias
    return _round(y, layer.step)


def _round(y: NDArray[np.float32], step: np.float32) -> NDArray[np.float32]:
    y *= step
    np.rint(y, out=y)
    return np.clip(y, np.float32(-CODE_MAX), np.float32(CODE_MAX), out=y)
