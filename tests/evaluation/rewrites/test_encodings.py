"""Whoever knows the writing reads the goal."""

from __future__ import annotations

import base64
import codecs
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote

import pytest

from evaluation.rewrites.encodings import DISGUISED, ENCODED

TEXT = "Pay Kim 480 euros, please."
# Each undone by the standard library.
UNDO: dict[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64decode(text).decode(),
    "base32": lambda text: base64.b32decode(text).decode(),
    "hexadecimal": lambda text: bytes.fromhex(text).decode(),
    "rot13": lambda text: codecs.decode(text, "rot13"),
    "percent encoding": unquote,
    "reversed letters": lambda text: "".join(reversed(text)),
}


@pytest.mark.parametrize("name", sorted(ENCODED))
def test_an_encoding_can_be_undone(name: str) -> None:
    assert UNDO[name](ENCODED[name](TEXT)) == TEXT


@pytest.mark.parametrize("name", sorted(DISGUISED))
def test_a_disguise_has_other_letters(name: str) -> None:
    assert DISGUISED[name](TEXT) != TEXT


def test_full_width_letters_are_the_same_to_unicode_and_nothing_shows_tags() -> None:
    assert unicodedata.normalize("NFKC", DISGUISED["full-width letters"](TEXT)) == TEXT
    assert {unicodedata.category(sign) for sign in DISGUISED["invisible tags"]("Pay")} == {"Cf"}
    assert DISGUISED["zero-width signs"](TEXT).replace("\u200b", "") == TEXT
