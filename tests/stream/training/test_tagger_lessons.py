"""What the packaged tagger learns from."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from models.embedder import StaticEmbedder
from stream.training.lists import languages
from stream.training.tagger_lessons import SEGMENT_TOKENS_MIN, tagger_lessons
from stream.training.voices import teaches_tagger


def test_users_are_requests_and_tools_what_is_returned_and_no_segment_is_both() -> None:
    sides = tagger_lessons(StaticEmbedder.load(None, "cpu"), "standard", seed=1, chats=0.3)
    assert not ((sides.user > 0) & (sides.tool > 0)).any()
    assert (sides.tool[sides.host > 0] > 0).all()
    # Nothing is placed into a formula, which is a line or two.
    assert ((sides.tool > 0) & (sides.host == 0)).any()
    for share in (sides.user, sides.tool, sides.host):
        assert share.sum() == pytest.approx(1)
        assert (np.diff(sides.bags.offsets)[share > 0] >= SEGMENT_TOKENS_MIN).all()


def test_of_five_written_texts_one_is_kept_from_it() -> None:
    texts = [text for lists in languages().values() for text in (*lists.texts, *lists.formulas)]
    kept = [text for text in texts if not teaches_tagger(text)]
    assert 0.17 < len(kept) / len(texts) < 0.23
    sides = tagger_lessons(StaticEmbedder.load(None, "cpu"), "none", seed=1, chats=0.3)
    learned = {tuple(each) for each in _bags(sides.bags.ids, sides.bags.offsets)}
    embedder = StaticEmbedder.load(None, "cpu")
    short = [text for text in kept if len(text) < 100]
    assert len(short) > 50
    bags = embedder.encode(short)
    assert not {tuple(each) for each in _bags(bags.ids, bags.offsets)} & learned


def _bags(ids: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    return [ids[low:high].tolist() for low, high in pairwise(offsets)]
