"""Fit the population backbone of the sequence bank, in the arithmetic that scores (`models.training.quantised`).

Legend: n distinct windows, b a batch of them, S events a window, F features, H encoded features, B bottleneck.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, cos, pi

import numpy as np
import torch
from numpy.typing import NDArray

from models.bank_arrays import ADAPTED, CODE_MAX, GRID, LAYERS, check_bank
from models.training.quantised import Adam, snap, threads_of_torch, valid_steps

_SHIFT = 7
"""Weights within ±0.99 in steps of 1/128: fan-ins of 24 to 256 call for small ones."""
_BIAS_MAX = 8.0
_FLOOR = 1 / GRID
"""Spread that a residual has from rounding alone; it bounds a feature's weight."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How to fit."""

    hidden: int = 32
    bottleneck: int = 24
    rank: int = 4
    epochs: int = 30
    steps_min: int = 800
    """Small inputs are gone through more often, until there were so many steps."""
    batch: int = 256
    learning_rate: float = 1e-2
    last_event: float = 8.0
    """The last event's weight in the loss beside each earlier one's: it is the one that is judged."""
    denoising: float = 0.2
    """Share of the last event's features that a batch blanks, so that they are inferred rather than copied."""
    threads: int = 1
    """Of torch: with the seed they decide the bytes."""


def fit(
    windows: NDArray[np.int8],
    lengths: NDArray[np.integer],
    *,
    seed: int,
    how: Fit = Fit(),
    tenants: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Arrays of a bank (`models.bank_arrays.check_bank`) whose autoencoder reconstructs `windows`.

    The same windows in whatever order, seed and number of threads give the same bytes on one machine. A window that
    occurs c times weighs √c, and residuals beyond one unit pull linearly (Huber), so that neither repetition nor a few
    strange windows in unlabelled input lead the fit.

    Parameters
    ----------
    windows
        (n, S, F), features in steps of 1/16, the last event last.
    lengths
        (n,), 1 to S.
    seed
        Of initial weights, order and blanking.
    tenants
        T, zero adapters to add.
    progress
        Called after each epoch with its number from 1, how many there are, and the loss.

    Raises
    ------
    ValueError
        No window, or lengths that are not theirs.
    """
    if windows.dtype != np.int8 or windows.ndim != 3 or len(windows) == 0:
        raise ValueError(f"windows must be int8 (n, S, F) with n > 0; got {windows.dtype} {windows.shape}.")
    if lengths.shape != (len(windows),) or lengths.min() < 1 or lengths.max() > windows.shape[1]:
        raise ValueError(f"lengths must be ({len(windows)},), each 1 to {windows.shape[1]}; got shape {lengths.shape}.")
    x, length, weight = _distinct(windows, lengths)
    with threads_of_torch(how.threads):
        network = _Network(x, how, torch.Generator().manual_seed(seed))
        steps = torch.from_numpy(length)
        _train(network, torch.from_numpy(x), steps, torch.from_numpy(weight), seed, how, progress)
        arrays = network.export()
        arrays["feature_weight"] = _feature_weight(network, torch.from_numpy(x), steps, weight)
    if tenants:
        for layer in ADAPTED:
            fan_in, fan_out = arrays[f"{layer}.weight"].shape
            arrays[f"adapter.{layer}.down"] = np.zeros((tenants, fan_in, how.rank), np.int8)
            arrays[f"adapter.{layer}.up"] = np.zeros((tenants, how.rank, fan_out), np.int8)
    check_bank(arrays)
    return arrays


class _Network(torch.nn.Module):
    """The bank's layers with latent weights."""

    def __init__(self, x: NDArray[np.float32], how: Fit, generator: torch.Generator) -> None:
        super().__init__()
        _, steps, features = x.shape
        self.steps, self.hidden = steps, how.hidden
        fans = {
            "encoder": (features, how.hidden),
            "bottleneck": (steps * how.hidden, how.bottleneck),
            "expand": (how.bottleneck, steps * how.hidden),
            "decoder": (how.hidden, features),
        }
        for layer in LAYERS:
            fan_in, fan_out = fans[layer]
            bound = (3 / fan_in) ** 0.5
            initial = (torch.rand((fan_in, fan_out), generator=generator) * 2 - 1) * bound
            self.register_parameter(f"{layer}_weight", torch.nn.Parameter(initial))
            self.register_parameter(f"{layer}_bias", torch.nn.Parameter(torch.zeros(fan_out)))

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Reconstructions (b, S, F) of `x` (b, S, F) in units; `valid` (b, S, 1) is 1 where there is an event."""
        b = len(x)
        h = self._layer("encoder", x * valid).relu() * valid
        # (b, S, H) -> (b, S·H) -> (b, B) -> (b, S·H) -> (b, S, H)
        z = self._layer("bottleneck", h.reshape(b, self.steps * self.hidden))
        h = self._layer("expand", z).relu().reshape(b, self.steps, self.hidden)
        return self._layer("decoder", h)

    def _layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = x @ snap(self.get_parameter(f"{name}_weight"), 2.0**_SHIFT)
        y = y + snap(self.get_parameter(f"{name}_bias"), GRID * 2.0**_SHIFT, _BIAS_MAX)
        return snap(y, GRID)

    def export(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of the layers."""
        arrays: dict[str, NDArray[np.generic]] = {"shifts": np.full(len(LAYERS), _SHIFT, np.int8)}
        with torch.no_grad():
            for name in LAYERS:
                weight = snap(self.get_parameter(f"{name}_weight"), 2.0**_SHIFT) * 2.0**_SHIFT
                bias = snap(self.get_parameter(f"{name}_bias"), GRID * 2.0**_SHIFT, _BIAS_MAX) * GRID * 2.0**_SHIFT
                arrays[f"{name}.weight"] = weight.numpy().astype(np.int8)
                arrays[f"{name}.bias"] = bias.numpy().astype(np.int32)
        return arrays


def _train(
    network: _Network,
    x: torch.Tensor,
    lengths: torch.Tensor,
    weight: torch.Tensor,
    seed: int,
    how: Fit,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    n, steps, features = x.shape
    generator = torch.Generator().manual_seed(seed + 1)
    batches = ceil(n / how.batch)
    epochs = max(how.epochs, ceil(how.steps_min / batches))
    optimiser = Adam(list(network.parameters()))
    position = torch.ones(steps, 1)
    position[-1] = how.last_event
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator)
        lost = 0.0
        for step in range(batches):
            at = order[step * how.batch : (step + 1) * how.batch]
            rate = how.learning_rate * 0.5 * (1 + cos(pi * (epoch * batches + step) / (epochs * batches)))
            valid = valid_steps(lengths[at], steps)
            seen = x[at].clone()
            blank = torch.rand((len(at), features), generator=generator) < how.denoising
            seen[:, -1][blank] = 0
            loss = torch.nn.functional.huber_loss(network(seen, valid), x[at], reduction="none").mean(2, keepdim=True)
            share = weight[at, None, None] * position * valid
            loss = (loss * share).sum() / share.sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step(rate)
            lost += float(loss.detach())
        if progress is not None:
            progress(epoch + 1, epochs, lost / batches)


def _feature_weight(
    network: _Network, x: torch.Tensor, lengths: torch.Tensor, weight: NDArray[np.float32]
) -> NDArray[np.int8]:
    """Weights (F,) inverse to the mean squares of the last event's residuals.

    The squares are not winsorised: a feature that is rarely set, but then far off, would come to weigh most.
    """
    valid = valid_steps(lengths, x.shape[1])
    with torch.inference_mode():
        parts = [
            x[low : low + 4096, -1] - network(x[low : low + 4096], valid[low : low + 4096])[:, -1]
            for low in range(0, len(x), 4096)
        ]
    residual = torch.cat(parts).numpy().astype(np.float64)
    variance: NDArray[np.float64] = (residual**2 * weight[:, None]).sum(axis=0) / weight.sum() + _FLOOR**2
    precision: NDArray[np.float64] = 1 / variance
    scaled: NDArray[np.float64] = np.rint(CODE_MAX * precision / precision.max())
    return np.maximum(scaled, 1).astype(np.int8)


def _distinct(
    windows: NDArray[np.int8], lengths: NDArray[np.integer]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Distinct windows in units, their lengths, and the root of how often each occurs."""
    n, steps, features = windows.shape
    held = np.maximum(windows, -CODE_MAX)
    held[np.arange(steps) < steps - lengths[:, None]] = 0
    flat = np.concatenate([lengths.astype(np.int8)[:, None], held.reshape(n, -1)], axis=1)
    rows, counts = np.unique(flat, axis=0, return_counts=True)
    x = rows[:, 1:].reshape(-1, steps, features).astype(np.float32) / np.float32(GRID)
    return x, rows[:, 0].astype(np.int64), np.sqrt(counts.astype(np.float32))
