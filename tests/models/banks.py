"""Banks and windows that several tests use."""

import numpy as np
from numpy.typing import NDArray

FEATURES, STEPS, HIDDEN, BOTTLENECK, RANK = 10, 4, 12, 5, 2


def random_bank(seed: int, tenants: int = 0) -> dict[str, NDArray[np.generic]]:
    """Arrays of a bank whose activations spread over the grid."""
    rng = np.random.default_rng(seed)
    fans = {
        "encoder": (FEATURES, HIDDEN),
        "bottleneck": (STEPS * HIDDEN, BOTTLENECK),
        "expand": (BOTTLENECK, STEPS * HIDDEN),
        "decoder": (HIDDEN, FEATURES),
    }
    arrays: dict[str, NDArray[np.generic]] = {
        "shifts": np.array([6, 7, 6, 7], np.int8),
        "feature_weight": rng.integers(1, 128, FEATURES).astype(np.int8),
    }
    for layer, fan in fans.items():
        arrays[f"{layer}.weight"] = _codes(rng, fan)
        arrays[f"{layer}.bias"] = rng.integers(-3000, 3001, fan[1]).astype(np.int32)
    if tenants:
        for layer in ("encoder", "bottleneck"):
            fan_in, fan_out = fans[layer]
            arrays[f"adapter.{layer}.down"] = _codes(rng, (tenants, fan_in, RANK))
            arrays[f"adapter.{layer}.up"] = _codes(rng, (tenants, RANK, fan_out))
    return arrays


def random_windows(seed: int, n: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Windows (n, S, F) over all of int8, and lengths (n,)."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(-128, 128, (n, STEPS, FEATURES)).astype(np.int8)
    return windows, rng.integers(1, STEPS + 1, n)


def cycling_windows(seed: int, n: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Windows of sessions that go round three tools, with sizes that depend on the tool."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, STEPS + 1, n)
    tool = (rng.integers(3, size=n)[:, None] + np.arange(STEPS)) % 3
    x = np.zeros((n, STEPS, FEATURES))
    x[..., :3] = 2 * (tool[..., None] == np.arange(3))
    size = 1 + tool + rng.normal(0, 0.2, (n, STEPS))
    x[..., 3:] = size[..., None] * np.linspace(0.5, 1.5, FEATURES - 3) + rng.normal(0, 0.1, (n, STEPS, FEATURES - 3))
    windows = np.clip(np.rint(16 * x), -127, 127).astype(np.int8)
    windows[np.arange(STEPS) < STEPS - lengths[:, None]] = 0
    return windows, lengths


def _codes(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    return rng.integers(-60, 61, shape).astype(np.int8)
