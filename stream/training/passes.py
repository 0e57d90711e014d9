"""Runs of the core over training events: to collect windows, to score what was held out, to leave warm rows behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.calibration import Calibration
from models.tail import Tail
from stream.config import Settings
from stream.core import Core
from stream.errors import StateError
from stream.inputs import InputBatch
from stream.record import OutRecord, Record
from stream.release import Release
from stream.state.schema import FEATURE_SCHEMA, FEATURES, KINDS, STATE_SCHEMA, WINDOW
from stream.steps.content import Embeds

_AT_ONCE = 2000


class _Recorder(SequenceBank):
    """Keeps the windows that it is asked about, and finds nothing strange in them."""

    def __init__(self) -> None:
        self.windows: list[NDArray[np.int8]] = []
        self.lengths: list[NDArray[np.integer[Any]]] = []

    def score(
        self, windows: NDArray[np.int8], lengths: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.windows.append(windows.copy())
        self.lengths.append(lengths.copy())
        return np.zeros(len(windows), np.float32), np.zeros((len(windows), windows.shape[2]), np.float32)


def unnamed_release(
    space_id: str,
    bank: SequenceBank,
    calibration: Calibration,
    tenants: Sequence[str] = (),
    warm: dict[str, NDArray[Any]] | None = None,
    adapted: Sequence[str] | None = None,
) -> Release:
    """A release of this version's schemas.

    `tenants` are the rows of `warm`, and of the bank's adapters if it has any, unless `adapted` names those.
    """
    rows = {tenant: row for row, tenant in enumerate(tenants)}
    adapters = {}
    if not isinstance(bank, _Recorder) and bank.shape.tenants:
        adapters = rows if adapted is None else {tenant: row for row, tenant in enumerate(adapted)}
    return Release("", space_id, FEATURE_SCHEMA, STATE_SCHEMA, bank, calibration, adapters, warm or {}, rows)


def silent_calibration() -> Calibration:
    """Finds nothing anomalous, so that whatever is heard is learned."""
    k = len(KINDS)
    tail = Tail(np.array([0.0, 1e12]), np.array([0.0, 1e-9]))
    everything = dict.fromkeys(range(1, 1 << k), tail)
    return Calibration(KINDS, ("tenant",) * k, np.zeros(k), np.ones(k), (tail,) * k, everything)


def collect_windows(
    records: Sequence[Record], settings: Settings, embedder: Embeds, space_id: str
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Windows (n, WINDOW, F) of the events and how many events each holds (n,): what the sequence bank is fitted on."""
    recorder = _Recorder()
    run(Core(settings, unnamed_release(space_id, recorder, silent_calibration()), embedder), records)
    windows = np.concatenate([np.zeros((0, WINDOW, len(FEATURES)), np.int8), *recorder.windows])
    return windows, np.concatenate([np.zeros(0, np.int64), *recorder.lengths])


def held_out_scores(
    heard: Sequence[Record],
    held_out: Sequence[Record],
    bank: SequenceBank,
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
    learner = Core(settings, unnamed_release(space_id, bank, silent), embedder)
    run(learner, heard)
    tenants, warm = learner.export_tenants()
    release = unnamed_release(space_id, bank, silent, tenants, warm, adapted)
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
