"""Runs of the core over training events: to collect windows, to score what was held out, to leave warm rows behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.bank_arrays import SHIFTS
from models.calibration import Calibration
from models.tail import Tail
from models.text_models import TextModels
from models.volume import Baseline, Volume
from stream.config import Settings
from stream.core import Core
from stream.errors import StateError
from stream.inputs import InputBatch, Outcome
from stream.record import OutRecord, Record
from stream.release import Release
from stream.state.schema import FEATURE_SCHEMA, FEATURES, KINDS, STATE_SCHEMA, WINDOW
from stream.steps.content import Embeds
from stream.steps.scored import Scored

_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass over training events (n) has seen of them."""

    windows: NDArray[np.int8]
    """(n, WINDOW, F)"""
    lengths: NDArray[np.int64]
    """(n,) how many events each window holds."""
    volume: NDArray[np.float32]
    """(n, J) sub-features of the volume signal, times its units."""
    baseline: Baseline
    """What tenants (t) have learned of their volume."""


def unnamed_release(
    space_id: str,
    bank: SequenceBank,
    texts: TextModels,
    volume: Volume,
    calibration: Calibration,
    tenants: Sequence[str] = (),
    warm: dict[str, NDArray[Any]] | None = None,
    *,
    adapted: Sequence[str] | None = None,
    sessions_per_day: dict[str, float] | None = None,
) -> Release:
    """A release of this version's schemas.

    `tenants` are the rows of `warm`, and `adapted` those of the bank's adapters, if it has any; the same where it is
    None.
    """
    rows = {tenant: row for row, tenant in enumerate(tenants)}
    adapters = {}
    if bank.shape.tenants:
        adapters = rows if adapted is None else {tenant: row for row, tenant in enumerate(adapted)}
    return Release(
        name="",
        space_id=space_id,
        feature_schema=FEATURE_SCHEMA,
        state_schema=STATE_SCHEMA,
        bank=bank,
        texts=texts,
        volume=volume,
        calibration=calibration,
        adapters=adapters,
        warm=warm or {},
        warm_rows=rows,
        sessions_per_day=sessions_per_day or {},
    )


def silent_calibration() -> Calibration:
    """Finds nothing anomalous, so that whatever is heard is learned."""
    k = len(KINDS)
    tail = Tail(np.array([0.0, 1e12]), np.array([0.0, 1e-9]))
    everything = dict.fromkeys(range(1, 1 << k), tail)
    alone = np.arange(k)
    return Calibration(
        KINDS, ("tenant",) * k, np.zeros(k), np.ones(k), (tail,) * k, everything, np.ones(k), np.full(k, np.inf), alone
    )


def collect(records: Sequence[Record], settings: Settings, embedder: Embeds, space_id: str) -> Seen:
    """What models are fitted on, as the scorer sees it."""
    shown: list[tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float32]]] = []

    def watch(scored: Scored, _: Outcome) -> None:
        shown.append((scored.given.windows, scored.given.lengths, scored.scores.volume))

    volume = Volume()
    release = unnamed_release(space_id, _blank_bank(), TextModels.silent(), volume, silent_calibration())
    core = Core(settings, release, embedder, watch=watch)
    run(core, records)
    tenants = core.export_tenants()[1]
    windows, lengths, features = (np.concatenate(parts) for parts in zip(*shown, strict=True))
    baseline = Baseline(tenants["volume_gauges"], tenants["volume_counters"], tenants["volume_hours"])
    return Seen(windows, lengths, (features * volume.unit).astype(np.float32), baseline)


def _blank_bank() -> SequenceBank:
    """The least bank there is: nothing is strange to it."""
    sizes = {
        "encoder": (len(FEATURES), 1),
        "bottleneck": (WINDOW, 1),
        "expand": (1, WINDOW),
        "decoder": (1, len(FEATURES)),
    }
    arrays: dict[str, NDArray[Any]] = {
        "shifts": np.full(len(sizes), SHIFTS[0], np.int8),
        "feature_weight": np.ones(len(FEATURES), np.int8),
    }
    for name, shape in sizes.items():
        arrays[f"{name}.weight"] = np.zeros(shape, np.int8)
        arrays[f"{name}.bias"] = np.zeros(shape[1], np.int32)
    return SequenceBank(arrays)


def held_out_scores(
    heard: Sequence[Record],
    held_out: Sequence[Record],
    bank: SequenceBank,
    texts: TextModels,
    volume: Volume,
    settings: Settings,
    embedder: Embeds,
    space_id: str,
    adapted: Sequence[str] = (),
) -> NDArray[np.float64]:
    """Signals (m, kinds) of the events `held_out` for tenants who know what they `heard`, NaN where there is none.

    What is scored teaches nothing: each session is met as if it were the first after those heard. `adapted` are the
    tenants of the bank's adapters.
    """
    silent = silent_calibration()
    learner = Core(settings, unnamed_release(space_id, bank, texts, volume, silent), embedder)
    run(learner, heard)
    tenants, warm = learner.export_tenants()
    release = unnamed_release(space_id, bank, texts, volume, silent, tenants, warm, adapted=adapted)
    judge = Core(settings, release, embedder, learning=False)
    return _signals(run(judge, held_out), len(held_out))


def warm_rows(
    records: Sequence[Record], release: Release, settings: Settings, embedder: Embeds
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Tenants (t), sorted, and the columns of their rows after all `records`."""
    core = Core(settings, release, embedder)
    run(core, records)
    return core.export_tenants()


def run(core: Core, records: Sequence[Record]) -> list[OutRecord]:
    """Scores of `records`, in their order."""
    scores: list[OutRecord] = []
    for low in range(0, len(records), _AT_ONCE):
        scores += core.step(InputBatch(records[low : low + _AT_ONCE])).scores
    return scores


def _signals(scores: Sequence[OutRecord], events: int) -> NDArray[np.float64]:
    if len(scores) != events:
        raise StateError(f"every training event must be scored; got {len(scores)} scores of {events}. This is a bug.")
    said = [orjson.loads(score.value)["signals"] for score in scores]
    rows = [[signals.get(kind, np.nan) for kind in KINDS] for signals in said]
    return np.array(rows, np.float64).reshape(events, len(KINDS))
