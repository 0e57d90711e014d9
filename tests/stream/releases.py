"""Releases for tests: a bank of random weights, a calibration fitted on drawn maxima."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import AttackClassifier
from models.autoencoder import SequenceBank
from models.calibration import Calibration
from models.delegation import Delegation
from models.ngrams import COLUMNS, NGrams
from models.novelty import Novelty
from models.role_surprise import RoleSurprise
from models.text_models import TextModels
from models.training.calibration import fit_population
from models.volume import PER_CALL, Volume, unfitted
from schemas.manifest import TrainingInput
from stream.config import Settings
from stream.release import Release
from stream.runtime.release_store import write_release
from stream.state.schema import (
    ATOMS,
    FEATURE_SCHEMA,
    FEATURES,
    GROUP_OF,
    SCALE_OF,
    STATE_SCHEMA,
    WEIGHTS,
    WINDOW,
    tenant_table,
    warm_columns,
)

HIDDEN, BOTTLENECK, RANK = 8, 4, 2


def random_bank(seed: int = 5, tenants: int = 2) -> SequenceBank:
    """A bank that has learned nothing, but is one."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> NDArray[np.int8]:
        return rng.integers(-40, 41, shape).astype(np.int8)

    f, flat = len(FEATURES), WINDOW * HIDDEN
    sizes = {
        "encoder": (f, HIDDEN),
        "bottleneck": (flat, BOTTLENECK),
        "expand": (BOTTLENECK, flat),
        "decoder": (HIDDEN, f),
    }
    arrays: dict[str, NDArray[np.generic]] = {
        "shifts": np.array([7, 7, 7, 7], np.int8),
        "feature_weight": np.ones(f, np.int8),
    }
    for name, shape in sizes.items():
        arrays[f"{name}.weight"] = weights(*shape)
        arrays[f"{name}.bias"] = rng.integers(-500, 500, shape[1]).astype(np.int32)
    for name in ("encoder", "bottleneck") if tenants else ():
        fan_in, fan_out = sizes[name]
        arrays[f"adapter.{name}.down"] = weights(tenants, fan_in, RANK)
        arrays[f"adapter.{name}.up"] = weights(tenants, RANK, fan_out)
    return SequenceBank(arrays)


def texts(seed: int = 5) -> TextModels:
    """Text models that have learned nothing, but are some: what they say of a text is the same every time."""
    rng = np.random.default_rng(seed)
    size = 1 << 15
    weights = rng.integers(-40, 41, (6, COLUMNS)).astype(np.int8)
    role: dict[str, NDArray[np.generic]] = {
        "weights": weights[0],
        "scales": np.array([0.25, 0.25]),
        "constant": np.array(1.0),
    }
    return TextModels(
        NGrams(np.arange(size).astype(np.uint16)),
        RoleSurprise(role),
        AttackClassifier({"weights": weights[1:], "units": np.full((5, 2), 0.25), "constants": np.zeros(5)}),
        delegation=delegation(seed),
    )


def delegation(seed: int) -> Delegation:
    """One to which some requests hand over and others do not, whatever they say."""
    weights = np.random.default_rng([seed, 1]).integers(-40, 41, COLUMNS).astype(np.int8)
    return Delegation({"weights": weights, "scales": np.array([0.02, 0.02]), "constant": np.array(-0.5)})


def calibration(reading: bool = False) -> Calibration:
    """Fitted on maxima drawn around what the streams of `tests.stream.streams` bring."""
    rng = np.random.default_rng(3)
    sessions = np.repeat(np.arange(400), 5)
    n = len(sessions)
    # What a release that does not read never says is calibrated as training does: it stays silent.
    silent = np.where(np.arange(n) == 0, 1.0, np.nan)
    scores = {
        "novelty": 0.5 * rng.beta(2, 2, n),
        "tool_novelty": 0.5 * rng.beta(2, 2, n),
        "sequence": rng.gamma(8.0, 0.8, n),
        "role_surprise": rng.normal(20.0, 30.0, n) if reading else silent,
        "provenance": np.maximum(rng.normal(-10.0, 20.0, n), 0) if reading else silent,
        "volume": rng.gamma(2.0, 0.4, n) if reading else silent,
        "known_attack": rng.normal(30.0, 30.0, n) if reading else silent,
        "tool_known_attack": rng.normal(30.0, 30.0, n) if reading else silent,
    }
    # Novelty has no limit here: it is what the tests' anomalies are found by.
    return fit_population(
        scores, sessions % 8, sessions, scales=SCALE_OF, atoms=ATOMS, weights=WEIGHTS, groups=GROUP_OF
    )


def volume() -> Volume:
    """One that knows what any tenant's calls are like: larger than those of the streams."""
    return Volume(unfitted() | {"anyone": np.array([[120.0, 40.0]] * PER_CALL)})


@cache
def release(name: str = "r-test", seed: int = 5, space_id: str = "words-32", reading: bool = False) -> Release:
    """A release that knows `team-0` and `team-1`, the first also by a warm row.

    Its text models say nothing unless it is `reading`.
    """
    return Release(
        name=name,
        space_id=space_id,
        feature_schema=FEATURE_SCHEMA,
        state_schema=STATE_SCHEMA,
        bank=random_bank(seed),
        texts=texts(seed) if reading else TextModels.silent(),
        volume=volume(),
        calibration=calibration(reading),
        adapters={"team-0": 0, "team-1": 1},
        warm={"sessions": np.array([5]), "ordinal": np.array([40]), "learned_at": np.array([40])},
        warm_rows={"team-0": 0},
        sessions_per_day={"team-0": 30.0, "team-1": 10.0},
    )


def write(out: Path, space_id: str, *, seed: int = 5) -> str:
    """Write a release that no tenant is known to into directory `out`; its name."""
    columns = tenant_table(Novelty(dim=256))
    made = replace(
        release(space_id=space_id),
        bank=random_bank(seed, tenants=0),
        adapters={},
        warm={name: np.asarray(columns[name][:0]) for name in warm_columns(columns)},
        warm_rows={},
        sessions_per_day={},
    )
    data = TrainingInput(
        events=0, sessions=0, tenants=0, left_out=0, dead_letters=0, first_event_ms=0, last_event_ms=0,
        events_sha256="0" * 64,
    )  # fmt: skip
    manifest = write_release(
        out, made, data=data, metrics={}, parent=None, seed=seed, git_revision=None, settings=Settings()
    )
    return manifest.name
