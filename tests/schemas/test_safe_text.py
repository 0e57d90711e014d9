"""What strangers wrote cannot steer the terminal that shows it."""

import time

import pytest

from schemas.safe_text import safe_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümlaut, 日本語, 🙂", "plain text, ümlaut, 日本語, 🙂"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1b]8;;https://evil.example\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x1b\\after", "after"),
        ("\x1bPdcs\x9cafter", "after"),
        ("\x1b", ""),
        ("a\x00b\x08c\x7fd", "abcd"),
        ("line\r\nforged: line", "line forged: line"),
        ("a\u2028b\u0085c", "a b c"),
        ("\u202egpj.exe", "gpj.exe"),
        ("\u2066a\u2069\u200fb\u061c", "ab"),
        ("hid\u200bden\ufeff\u00ad", "hidden"),
        ("tag\U000e0041\U000e0042", "tag"),
        ("half\ud800", "half"),
    ],
)
def test_only_what_can_be_seen_stays(text: str, shown: str) -> None:
    assert safe_text(text, 80) == shown


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert safe_text("x" * 100, 10) == "x" * 9 + "…"
    assert safe_text("x" * 10, 10) == "x" * 10


def test_cleaning_is_idempotent() -> None:
    once = safe_text("\x1b\x1b[[31m31mred \u202e", 80)
    assert safe_text(once, 80) == once


def test_a_megabyte_of_escapes_is_cheap() -> None:
    start = time.process_time()
    for opener in ("\x1b]", "\x1b[", "\x9b", "\n", "\x1b"):
        safe_text(opener * 1_000_000, 400)
    assert time.process_time() - start < 0.5
