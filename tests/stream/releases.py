"""Releases for tests: a bank of random weights, a calibration fitted on drawn maxima."""

from __future__ import annotations

from functools import cache

import numpy as np

from models.autoencoder import SequenceBank
from models.calibration import Calibration
from models.training.calibration import fit_population
from stream.release import Release
from stream.state.schema import FEATURE_SCHEMA, FEATURES, STATE_SCHEMA, WINDOW

HIDDEN, BOTTLENECK, RANK = 8, 4, 2


def random_bank(seed: int = 5, tenants: int = 2) -> SequenceBank:
    """A bank that has learned nothing, but is one."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
        return rng.integers(-40, 41, shape).astype(np.int8)

    f, flat = len(FEATURES), WINDOW * HIDDEN
    sizes = {
        "encoder": (f, HIDDEN),
        "bottleneck": (flat, BOTTLENECK),
        "expand": (BOTTLENECK, flat),
        "decoder": (HIDDEN, f),
    }
    arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
        "shifts": np.array([7, 7, 7, 7], np.int8),
        "feature_weight": np.ones(f, np.int8),
    }
    for name, shape in sizes.items():
        arrays[f"{name}.weight"] = weights(*shape)
        arrays[f"{name}.bias"] = rng.integers(-500, 500, shape[1]).astype(np.int32)
    for name in ("encoder", "bottleneck"):
        fan_in, fan_out = sizes[name]
        arrays[f"adapter.{name}.down"] = weights(tenants, fan_in, RANK)
        arrays[f"adapter.{name}.up"] = weights(tenants, RANK, fan_out)
    return SequenceBank(arrays)


def calibration() -> Calibration:
    """Fitted on maxima drawn around what the streams of `tests.stream.streams` bring."""
    rng = np.random.default_rng(3)
    sessions = np.repeat(np.arange(400), 5)
    scores = {
        "novelty": 0.5 * rng.beta(2, 2, len(sessions)),
        "tool_novelty": 0.5 * rng.beta(2, 2, len(sessions)),
        "sequence": rng.gamma(8.0, 0.8, len(sessions)),
    }
    return fit_population(scores, sessions % 8, sessions)


@cache
def release(name: str = "r-test", seed: int = 5, space_id: str = "words-32") -> Release:
    """A release that knows `team-0` and `team-1`, the first also by a warm row."""
    return Release(
        name=name,
        space_id=space_id,
        feature_schema=FEATURE_SCHEMA,
        state_schema=STATE_SCHEMA,
        bank=random_bank(seed),
        calibration=calibration(),
        adapters={"team-0": 0, "team-1": 1},
        warm={"sessions": np.array([5]), "ordinal": np.array([40]), "learned_at": np.array([40])},
        warm_rows={"team-0": 0},
    )
