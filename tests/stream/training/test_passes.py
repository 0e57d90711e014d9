"""What the core says of training events is collected without touching what it would say later."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import orjson
import pytest

from models.autoencoder import SequenceBank
from models.text_models import TextModels
from models.volume import SUB_FEATURES, Volume
from stream.core import Core
from stream.errors import StateError
from stream.record import Record
from stream.state.schema import FEATURES, KINDS, WINDOW
from stream.training.events import TrainingEvents, arrange
from stream.training.gather import Tally, gather_files
from stream.training.passes import (
    collect,
    held_out_scores,
    run,
    silent_calibration,
    unnamed_release,
    warm_rows,
)
from tests.doubles import WordEmbedder
from tests.stream.releases import random_bank, release
from tests.stream.training.captures import SETTINGS, corpus, write_lines

BANK = random_bank(tenants=0)
TEXTS = TextModels.silent()
VOLUME = Volume()
EMBEDDER = WordEmbedder()
SPACE = EMBEDDER.space_id


@pytest.fixture
def events(tmp_path: Path) -> TrainingEvents:
    path = write_lines(tmp_path / "c.jsonl", corpus(30))
    return arrange(gather_files([path], "corpus", SETTINGS, Tally()), SETTINGS.core.future_ms)


def test_windows_are_those_that_the_scorer_shows_its_bank(events: TrainingEvents) -> None:
    seen = collect(events.records, SETTINGS, EMBEDDER, SPACE)
    windows, lengths = seen.windows, seen.lengths
    assert windows.shape == (60, WINDOW, len(FEATURES))
    # Sessions do not overlap here: two calls each, the second seen with the first.
    assert lengths.tolist() == [1, 2] * 30
    assert np.array_equal(windows[1::2, -2], windows[::2, -1])


def test_volume_is_seen_in_natural_units_with_what_its_tenants_have_taught(events: TrainingEvents) -> None:
    seen = collect(events.records, SETTINGS, EMBEDDER, SPACE)
    assert seen.volume.dtype == np.float32
    assert seen.volume.shape == (60, len(SUB_FEATURES))
    shown: list[np.ndarray] = []
    judge = unnamed_release(SPACE, BANK, TEXTS, VOLUME, silent_calibration())
    core = Core(SETTINGS, judge, EMBEDDER, watch=lambda scored, _: shown.append(scored.scores.volume * VOLUME.unit))
    run(core, events.records)
    assert np.allclose(seen.volume, np.concatenate(shown), rtol=1e-6)
    rows = core.export_tenants()[1]
    for name in ("gauges", "counters", "hours"):
        assert np.array_equal(getattr(seen.baseline, name), rows[f"volume_{name}"])


def test_what_is_held_out_teaches_nothing(events: TrainingEvents) -> None:
    heard, unheard = events.records[:40], events.records[40:]
    scores = held_out_scores(heard, unheard, BANK, TEXTS, VOLUME, SETTINGS, EMBEDDER, SPACE)
    assert scores.shape == (20, len(KINDS))
    again = held_out_scores(
        heard, [*unheard, *_as_other_sessions(unheard)], BANK, TEXTS, VOLUME, SETTINGS, EMBEDDER, SPACE
    )
    assert np.array_equal(again[:20], scores, equal_nan=True)
    # But that a tenant calls more often is seen as it happens.
    volume = KINDS.index("volume")
    taught = np.delete(again[20:], volume, axis=1)
    assert np.array_equal(taught, np.delete(scores, volume, axis=1), equal_nan=True)
    assert (again[20:, volume] >= scores[:, volume]).all()


def test_what_was_heard_before_is_less_new_than_what_was_not(events: TrainingEvents) -> None:
    kinds = slice(0, 2)
    heard = events.records
    known = held_out_scores(heard, _as_other_sessions(heard), BANK, TEXTS, VOLUME, SETTINGS, EMBEDDER, SPACE)[:, kinds]
    unknown = held_out_scores(heard[:6], heard[6:], BANK, TEXTS, VOLUME, SETTINGS, EMBEDDER, SPACE)[:, kinds]
    assert np.nanmean(known) < np.nanmean(unknown)


def test_held_out_events_are_judged_with_their_tenants_own_adapters(events: TrainingEvents) -> None:
    heard, unheard = events.records[:40], events.records[40:]
    sequence = KINDS.index("sequence")

    def judged(bank: SequenceBank, adapted: tuple[str, ...] = ()) -> np.ndarray:
        return held_out_scores(heard, unheard, bank, TEXTS, VOLUME, SETTINGS, EMBEDDER, SPACE, adapted)[:, sequence]

    # Rows are in the order that `adapted` has: team-1 is the first, team-0 is not there.
    scores = judged(random_bank(tenants=2), ("team-1", "team-2"))
    mine = np.array([orjson.loads(record.value or b"")["tenant"] for record in unheard])
    as_population = scores == judged(BANK)
    assert as_population[mine == "team-0"].all()
    # Random adapters may leave a saturated activation where it was.
    assert as_population[mine != "team-0"].mean() < 0.5
    swapped = judged(random_bank(tenants=2), ("team-2", "team-1"))
    assert (swapped != scores)[mine == "team-1"].any()


def test_nothing_is_anomalous_to_a_silent_calibration(events: TrainingEvents) -> None:
    core = Core(SETTINGS, unnamed_release(SPACE, BANK, TEXTS, VOLUME, silent_calibration()), EMBEDDER)
    assert all(b'"decision":"none"' in score.value for score in run(core, events.records))


def test_warm_rows_are_the_tenants_of_the_input_after_all_of_it(events: TrainingEvents) -> None:
    judge = unnamed_release(SPACE, BANK, TEXTS, VOLUME, silent_calibration())
    names, rows = warm_rows(events.records, judge, SETTINGS, EMBEDDER)
    assert names == ["team-0", "team-1", "team-2"]
    assert rows["ordinal"].tolist() == [20, 20, 20]
    assert rows["sessions"].tolist() == [10, 10, 10]
    assert (rows["learned_at"] == 16).all()
    assert (rows["used"] > 0).all()


def test_a_tenant_split_over_partitions_is_the_part_that_heard_most(events: TrainingEvents) -> None:
    mine = [record for record in events.records if b'"tenant":"team-0"' in (record.value or b"")]
    split = [Record(r.topic, 0 if i < 14 else 1, r.offset, r.timestamp_ms, r.key, r.value) for i, r in enumerate(mine)]
    names, rows = warm_rows(
        split, unnamed_release(SPACE, BANK, TEXTS, VOLUME, silent_calibration()), SETTINGS, EMBEDDER
    )
    assert (names, rows["ordinal"].tolist()) == (["team-0"], [14])


def test_an_event_without_a_score_is_told(events: TrainingEvents) -> None:
    broken = Record("t", 0, 0, 0, None, b"{")
    with pytest.raises(StateError, match=r"every training event must be scored; got 2 scores of 3"):
        held_out_scores(
            events.records[:4], [*events.records[4:6], broken], BANK, TEXTS, VOLUME, SETTINGS, EMBEDDER, SPACE
        )


def test_exported_rows_start_a_core_where_the_other_ended(events: TrainingEvents) -> None:
    first = Core(SETTINGS, unnamed_release(SPACE, BANK, TEXTS, VOLUME, release().calibration), EMBEDDER)
    run(first, events.records[:40])
    names, rows = first.export_tenants()
    warm = unnamed_release(SPACE, BANK, TEXTS, VOLUME, release().calibration, names, rows)
    second = Core(SETTINGS, warm, EMBEDDER)
    run(second, events.records[40:])
    assert second.export_tenants()[1]["ordinal"].tolist() == [20, 20, 20]


def _as_other_sessions(records: list[Record]) -> list[Record]:
    """The same, said in sessions of another name."""
    out = []
    for record in records:
        event = orjson.loads(record.value or b"")
        event["session"] = "other " + event["session"]
        event["event_id"] = sha256(event["event_id"].encode()).hexdigest()
        body = orjson.dumps(event)
        out.append(Record(record.topic, record.partition, record.offset, record.timestamp_ms, record.key, body))
    return out
