"""What a score record says of an event, by what was scored of it."""

from __future__ import annotations

import numpy as np
import orjson

from stream.core import Core
from stream.inputs import Outcome
from stream.state.schema import KINDS
from stream.steps.score_record import score_record
from stream.steps.scored import Scored
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, cut, run, stream


def seen() -> Scored:
    """A batch with events that lack some signals."""
    batches: list[Scored] = []

    def watch(scored: Scored, _: Outcome) -> None:
        batches.append(scored)

    records = stream(seed=3, n=120)
    run(Core(SETTINGS, release(reading=True), WordEmbedder(), watch=watch), cut(records, len(records)))
    return batches[0]


def test_only_signals_that_an_event_has_are_told_and_rounded() -> None:
    scored = seen()
    some = 0
    for at, event in enumerate(scored.placed.live.tolist()):
        record, decision = score_record(scored.placed.batch, event, at, False, 7, scored.scores, None, None, "r-1")
        told, x = orjson.loads(record.value), scored.scores.x[at]
        present = [kind for kind, value in zip(KINDS, x.tolist(), strict=True) if not np.isnan(value)]
        assert sorted(told["signals"]) == sorted(told["p"]) == sorted(present)
        assert all(told["signals"][kind] == round(float(x[KINDS.index(kind)]), 6) for kind in present)
        assert told["p_combined"] == float(f"{scored.scores.p_combined[at]:.6g}")
        assert (told["ordinal"], told["release"], told["decision"]) == (7, "r-1", decision)
        assert decision == ("warmup" if scored.scores.warmup[at] else "none")
        some += 0 < len(present) < len(KINDS)
    assert some > 10


def test_a_duplicate_says_where_it_lies_and_nothing_of_its_content() -> None:
    scored = seen()
    record, decision = score_record(scored.placed.batch, 0, -1, True, 3, scored.scores, None, None, "r-1")
    told = orjson.loads(record.value)
    assert decision == told["decision"] == "duplicate"
    assert (told["signals"], told["p"], told["p_combined"], told["learned"]) == ({}, {}, None, "no")
    assert (told["late"], told["ordinal"]) == (True, 3)


def test_what_was_decided_and_the_finding_are_told() -> None:
    scored = seen()
    event = int(scored.placed.live[0])
    record, decision = score_record(scored.placed.batch, event, 0, False, 1, scored.scores, "finding", "f-1", "r-1")
    told = orjson.loads(record.value)
    assert (decision, told["decision"], told["finding_uid"]) == ("finding", "finding", "f-1")
