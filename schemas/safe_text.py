"""Text from outside made safe to show: nothing in it steers a terminal, forges a log line or hides its direction."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI sequences: colours, cursor moves (ECMA-48, 5.4)
    "|(?:\x1b[PX^_\\]]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"  # strings: titles, hyperlinks
    "|\x1b[ -/]*[0-~]?"
)
_SPACES = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 and C1 controls
    "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible and bidirectional
    "\ud800-\udfff"  # lone surrogates, which no UTF-8 can hold
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef]"  # tags and variation selectors: text that nobody sees
)
_CUT = "…"


def safe_text(text: str, length: int) -> str:
    r"""`text` on one line, without control, ANSI and bidirectional characters, at most `length` characters.

    A longer text is cut and ends in `…`.

    >>> safe_text("a\x1b[31mred\x1b[0m\nb\u202e", 80)
    'ared b'
    >>> safe_text("too long", 5)
    'too …'
    """
    # Cut before cleaning too, so that a text of megabytes costs no more than its excerpt.
    head = text[: 4 * length]
    if not head.isprintable():
        head = _UNSAFE.sub("", _SPACES.sub(" ", _ESCAPES.sub("", head)))
    if len(head) > length or len(text) > 4 * length:
        head = head[: length - 1] + _CUT
    return head
