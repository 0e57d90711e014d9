"""What systems other than the product read of events, against counts made by hand."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.events import SAMPLE_CHARS, events_of
from evaluation.features import COLUMNS, FeatureReader, Features, read_features, whole_vectors
from schemas.corpus import CorpusSession, ToolCall, Turn
from stream.config import Settings
from stream.steps.content import ASSISTANT, CALL, SYSTEM, TOOL, USER
from tests.doubles import WordEmbedder

START_MS = int(datetime(2026, 11, 18, 11, 6, 40, tzinfo=UTC).timestamp() * 1000)


def conversation(name: str, start_ms: int = START_MS, task: str | None = None) -> CorpusSession:
    turns = (
        Turn("system", "be kind"),
        Turn("user", "book a flight"),
        Turn("assistant", "", (ToolCall("search", '{"to":"rome"}'),)),
        Turn("tool", "three offers"),
        Turn("assistant", "done"),
    )
    return CorpusSession(
        session=name,
        tenant="team",
        turns=turns,
        start_ms=start_ms,
        calls_ms=(start_ms, start_ms + 4_000),
        task=task,
        tools={"search": ("to",)},
    )


def read(*sessions: CorpusSession) -> Features:
    return read_features(events_of(sessions, Settings()), WordEmbedder(), folds=2)


def column(features: Features, name: str) -> NDArray[np.float32]:
    return features.numeric[:, COLUMNS.index(name)]


def test_an_event_brings_what_its_session_has_not_sent_before() -> None:
    features = read(conversation("a"))
    assert features.chars[:, [SYSTEM, USER, TOOL]].tolist() == [[7, 13, 0], [0, 0, 12]]
    assert features.chars[:, ASSISTANT].tolist() == [0, 4]
    assert features.chars[:, CALL].tolist() == [len('search {"to":"rome"}'), 0]
    assert np.expm1(column(features, "messages")) == pytest.approx([2, 4])
    assert np.expm1(column(features, "new_messages")) == pytest.approx([3, 2])
    assert np.expm1(column(features, "tool_calls")) == pytest.approx([1, 0])
    assert np.expm1(column(features, "tools_offered")) == pytest.approx([1, 1])
    assert np.expm1(column(features, "gap_s")) == pytest.approx([0, 4])
    assert [features.texts[text] for text in features.message_text[features.message_event == 1]] == [
        "three offers",
        "done",
    ]


def test_the_hour_is_a_place_on_a_circle() -> None:
    features = read(conversation("a"))
    angle = np.arctan2(column(features, "hour_sin"), column(features, "hour_cos")) * 24 / (2 * np.pi)
    assert angle[0] == pytest.approx(11 + 6 / 60 + 40 / 3600, abs=1e-4)


def test_a_mean_embedding_is_of_what_arrives() -> None:
    features = read(conversation("a"))
    arriving = whole_vectors(["book a flight", "three offers"], WordEmbedder())
    assert features.embedding == pytest.approx(arriving)


def test_an_event_with_too_much_text_is_cut_and_still_counted_in_full() -> None:
    long = CorpusSession(
        session="l", tenant="team", turns=(Turn("user", "a " * SAMPLE_CHARS), Turn("user", "b")), start_ms=START_MS
    )
    features = read(long)
    assert features.chars[0, USER] == 2 * SAMPLE_CHARS + 1
    assert [len(text) for text in features.texts] == [SAMPLE_CHARS, 0]


def test_sessions_of_a_task_lie_in_one_fold() -> None:
    sessions = [conversation(f"s{i}", START_MS + 60_000 * i, f"t{i % 4}") for i in range(12)]
    fold = read(*sessions).fold
    assert set(fold.tolist()) == {0, 1}
    assert all(len(set(fold[task::4].tolist())) == 1 for task in range(4))


def test_some_of_the_events_keep_their_messages() -> None:
    features = read(conversation("a"), conversation("b", START_MS + 60_000))
    later = features.take(np.flatnonzero(features.session == 1))
    assert len(later) == 2
    assert later.embedding == pytest.approx(features.embedding[features.session == 1])
    assert later.message_event.tolist() == [0, 0, 0, 1, 1]


def test_a_long_text_is_read_to_its_end() -> None:
    """By the sum of its parts' vectors, each as heavy as it is long."""
    first, second = "book " * 1000, "rome " * 600
    parts = [(first + second)[:4096], (first + second)[4096:]]
    embedder = WordEmbedder()
    vectors = embedder.embed_int8(parts).astype(np.float64) * [[len(part)] for part in parts]
    total = vectors.sum(axis=0)
    found = whole_vectors([first + second, ""], embedder)
    assert found[0] == pytest.approx(total / np.linalg.norm(total), abs=1e-6)
    assert not found[1].any()


def test_events_are_read_once() -> None:
    learn, probes = (events_of([conversation(name)], Settings()) for name in "ab")
    reader = FeatureReader(WordEmbedder())
    features = reader(learn), reader(probes)
    assert (reader(learn) is features[0], reader(probes) is features[1]) == (True, True)
    reader(events_of([conversation("c")], Settings()))
    assert reader(learn) is not features[0]
