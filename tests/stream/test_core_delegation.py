"""What a user has handed over takes so much from how like an order or attack a tool's text is, and nothing else."""

from __future__ import annotations

from binascii import a2b_base64
from dataclasses import replace

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from models.delegation import FROM, SLOPE, Delegation
from models.ngrams import COLUMNS
from models.text_models import TextModels
from stream.core import Core
from stream.inputs import Outcome
from stream.state.schema import PROVENANCE, ROLE_SURPRISE, TOOL_KNOWN_ATTACK
from stream.steps.content import TOOL
from stream.steps.explain import anomaly
from stream.steps.scored import Scored
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, Said, cut, run, stream

RECORDS = stream(seed=4, n=400)
COVERED = 0.75
"""Log-odds that every request covers below, a whole number of the steps in which they are held."""


def handing_over(texts: TextModels) -> TextModels:
    """The same models, to which every request hands over alike."""
    constant = np.array(FROM + COVERED / SLOPE)
    arrays: dict[str, NDArray[np.generic]] = {
        "weights": np.zeros(COLUMNS, np.int8),
        "scales": np.zeros(2),
        "constant": constant,
    }
    return replace_delegation(texts, Delegation(arrays))


def replace_delegation(texts: TextModels, delegation: Delegation) -> TextModels:
    return TextModels(texts.ngrams, texts.role_surprise, texts.attacks, delegation=delegation)


def without(texts: TextModels) -> TextModels:
    """The same models, to which none does."""
    return TextModels(texts.ngrams, texts.role_surprise, texts.attacks)


def scored(texts: TextModels) -> list[Scored]:
    seen: list[Scored] = []

    def watch(each: Scored, _: Outcome) -> None:
        seen.append(each)

    run(Core(SETTINGS, replace(release(reading=True), texts=texts), WordEmbedder(), watch=watch), cut(RECORDS, 50))
    return seen


@pytest.fixture(scope="module")
def before() -> list[Scored]:
    return scored(without(release(reading=True).texts))


@pytest.fixture(scope="module")
def after() -> list[Scored]:
    return scored(handing_over(release(reading=True).texts))


def of_segments(batches: list[Scored]) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Role, log-odds, and what is covered in its event, of all segments."""
    roles = np.concatenate([each.given.segment_role for each in batches])
    judged = np.concatenate([each.given.segment_judged for each in batches])
    covered = np.concatenate([each.given.segment_covered for each in batches])
    return roles, judged, covered


def test_tools_texts_say_less_by_what_is_covered_and_no_others(before: list[Scored], after: list[Scored]) -> None:
    roles, judged, nothing = of_segments(before)
    _, now, covered = of_segments(after)
    assert not nothing.any()
    assert {0.0, COVERED} >= set(np.unique(covered).tolist())
    tool = roles == TOOL
    assert (tool & (covered > 0)).any()
    np.testing.assert_array_equal(now[tool], (judged - covered[:, None])[tool])
    np.testing.assert_array_equal(now[~tool], judged[~tool])
    assert not covered[~tool].any()


def test_only_what_tools_ask_for_and_its_being_done_hear_of_it(before: list[Scored], after: list[Scored]) -> None:
    x, now = (np.concatenate([each.scores.x for each in batches]) for batches in (before, after))
    changed = {kind for kind in range(x.shape[1]) if not np.array_equal(x[:, kind], now[:, kind], equal_nan=True)}
    assert changed == {ROLE_SURPRISE, PROVENANCE, TOOL_KNOWN_ATTACK}


def test_who_reads_a_finding_is_told_what_was_taken_off(after: list[Scored]) -> None:
    told = set()
    for each in after:
        for at, event in enumerate(each.placed.live.tolist()):
            signals = {signal.name: signal.pattern or "" for signal in anomaly(each, event, at).signals}
            off = "less 0.75 for what the user has handed over" in signals.get("role_surprise", "")
            taken = each.given.segment_covered[each.given.segment_event == at]
            assert off == (taken.any() and "role_surprise" in signals)
            assert "less" not in signals.get("novelty", "")
            told.add(off)
    assert told == {True, False}


def test_what_was_handed_over_outlasts_a_restart() -> None:
    def core() -> Core:
        return Core(SETTINGS, release(reading=True), WordEmbedder())

    batches = list(cut(RECORDS, 20))
    whole, halves = run(core(), batches), Said()
    run(core(), batches[: len(batches) // 2], halves)
    rows = [row for part in halves.rows.values() for row in part if orjson.loads(row[0])[0] == "session" and row[1]]
    # The first column of a session's row (`stream.state.schema`).
    held = [int.from_bytes(a2b_base64(orjson.loads(value)["row"])[:2], "little") for _, value in rows if value]
    assert {0} < set(held)
    second = core()
    for partition, kept in halves.rows.items():
        second.restore(partition, kept)
    assert run(second, batches[len(batches) // 2 :], halves).results() == whole.results()
