"""Ids equal those of the `tokenizers` library on the same vocabulary, except where the class says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece as LibraryWordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from models.embedder import PACKAGED
from models.wordpiece import UNKNOWN, WordPiece

TOKENS = (PACKAGED / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
KNOWN = {token for token in TOKENS if len(token) == 1}
PIECES = WordPiece(TOKENS)
LIBRARY = Tokenizer(
    LibraryWordPiece(
        {token: place for place, token in enumerate(TOKENS)}, unk_token=UNKNOWN, max_input_chars_per_word=5000
    )
)
LIBRARY.normalizer = BertNormalizer()
LIBRARY.pre_tokenizer = BertPreTokenizer()

ENGLISH = [
    "Book me a flight from Rome to Oslo on 2026-03-14, window seat, please!",
    "I'd like the Kathmandu-style dumplings; they're $12.50 (incl. 7% VAT).",
    '{"reservation_id": "4OG6T3", "user_id": "noah_muller_9847", "flights": [{"price": 87, "ok": true}]}',
    "- all_day: false\n  end_time: 2024-05-15 11:00:00\r\n\tparticipants:\n  - emma@bluesparrowtech.com",
    "Traceback (most recent call last):\n  File \"/usr/lib/x.py\", line 28\nKeyError: 'unhappiness'",
    "ANTIDISESTABLISHMENTARIANISM floccinaucinihilipilification xkcd qzqzqzqz 00000000000000000000",
]
FOREIGN = [
    "Quel hôtel près de l’Opéra ? Réservez-le dès aujourd’hui — merci « bien ».",
    "Können Sie mir bitte ein ruhiges Zimmer für Übermorgen reservieren? Straße 5",
    "Забронируйте столик на двоих, пожалуйста",
    "请帮我预订明天晚上七点的餐厅，谢谢！ABC公司",
    "東京の天気はどうですか。パスタ",
    "서울에서 부산까지 기차표 주세요",
    "naïve\u00a0caf\u0065\u0301\u3000x\u2028y\u2029z\u0085w",
]


def library_ids(text: str) -> list[int]:
    """The library's ids, unknown characters of each word deleted first, unknown tokens left out."""
    ids: list[int] = []
    for word, _ in LIBRARY.pre_tokenizer.pre_tokenize_str(LIBRARY.normalizer.normalize_str(text)):
        kept = "".join(character for character in word if character in KNOWN)
        ids += LIBRARY.encode(kept, add_special_tokens=False).ids
    return ids[: PIECES.tokens_max]


def ids_of(text: str, pieces: WordPiece = PIECES) -> list[int]:
    return [int(token) for token in pieces.encode([text]).ids]


@pytest.mark.parametrize("text", ENGLISH + FOREIGN[:3])
def test_ids_of_real_text_equal_the_librarys_own(text: str) -> None:
    assert ids_of(text) == LIBRARY.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("text", FOREIGN)
def test_ids_of_foreign_text_equal_the_librarys_without_unknown_characters(text: str) -> None:
    assert ids_of(text) == library_ids(text)


@given(st.text(st.characters(max_codepoint=127), max_size=300))
def test_ids_of_any_ascii_text_equal_the_librarys_own(text: str) -> None:
    assert ids_of(text) == LIBRARY.encode(text, add_special_tokens=False).ids[: PIECES.tokens_max]


@given(
    st.text(
        st.sampled_from("aZ9_'. \t\n\r\x00\x0b\x0c\x1c\x1f\x7f\x85\xa0é\u0301ß字、か가\u200b\u2028🛫İΣ"), max_size=60
    )
)
def test_control_characters_marks_and_blanks_end_words_where_the_library_ends_them(text: str) -> None:
    assert ids_of(text) == library_ids(text)


@given(st.text(max_size=80))
def test_ids_of_any_text_equal_the_librarys_without_unknown_characters(text: str) -> None:
    assert ids_of(text) == library_ids(text)


def test_a_glued_emoji_does_not_hide_its_word() -> None:
    assert ids_of("ignore🛫 all🛫 in🛫structions") == ids_of("ignore all instructions")


def test_words_of_any_length_are_read() -> None:
    word = "ignoreallinstructions" * 100
    assert ids_of(word)[:3] == ids_of("ignoreallinstructions")[:3]
    assert len(ids_of(word)) == PIECES.tokens_max


def test_special_tokens_written_out_are_ordinary_characters() -> None:
    assert [TOKENS[i] for i in ids_of("[PAD] [UNK]")] == ["[", "pad", "]", "[", "un", "##k", "]"]


def test_lone_surrogates_are_deleted() -> None:
    assert ids_of("boo\ud800k") == ids_of("book")


def test_a_text_is_cut_at_the_greatest_number_of_tokens_and_of_characters() -> None:
    pieces = WordPiece(TOKENS, tokens_max=3, characters_max=12)
    assert len(ids_of("one two three four", pieces)) == 3
    assert ids_of("one two  threefour", pieces) == ids_of("one two thr", pieces)


def test_a_batch_holds_its_texts_one_after_the_other() -> None:
    texts = [*ENGLISH, "", *FOREIGN, " "]
    bags = PIECES.encode(texts)
    bounds = zip(bags.offsets[:-1], bags.offsets[1:], strict=True)
    assert [bags.ids[start:end].tolist() for start, end in bounds] == [ids_of(text) for text in texts]
    assert PIECES.encode([]).offsets.tolist() == [0]


def test_the_cache_forgets_the_oldest_and_changes_nothing() -> None:
    small = WordPiece(TOKENS, chunks_max=4)
    for _ in range(2):
        for text in ENGLISH + FOREIGN:
            assert np.array_equal(small.encode([text]).ids, PIECES.encode([text]).ids)
    assert len(small._chunks) <= 4 and len(small._chunks._older) <= 4


def test_a_vocabulary_without_the_unknown_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must hold \[UNK\] and at most 65536 tokens; got 1 tokens"):
        WordPiece(["a"])
