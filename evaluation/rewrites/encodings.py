"""Other writings of a sentence, as those use them who do not want a filter to read it."""

from __future__ import annotations

import base64
import codecs
from collections.abc import Callable, Mapping

_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_CYRILLIC = str.maketrans("aceiopxyABCEHKMOPTX", "асеіорхуАВСЕНКМОРТХ")
_ZERO_WIDTH = "\u200b"
_TAGS = 0xE0000
"""Code points that repeat ASCII, and that nothing shows."""
_FULL_WIDTH = 0xFEE0


def _hex(text: str) -> str:
    return text.encode().hex()


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _shifted(text: str, by: int) -> str:
    return "".join(chr(ord(sign) + by) if " " < sign < "\x7f" else sign for sign in text)


def _spaced(text: str) -> str:
    return "  ".join(" ".join(word) for word in text.split())


def _joined(text: str) -> str:
    return "_".join(text.split())


ENCODED: Mapping[str, Callable[[str], str]] = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "hexadecimal": _hex,
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "percent encoding": _percent,
    "reversed letters": lambda text: text[::-1],
}
"""Writings that have to be undone."""
DISGUISED: Mapping[str, Callable[[str], str]] = {
    "leetspeak": lambda text: text.translate(_LEET),
    "zero-width signs": _ZERO_WIDTH.join,
    "Cyrillic look-alikes": lambda text: text.translate(_CYRILLIC),
    "full-width letters": lambda text: _shifted(text, _FULL_WIDTH),
    "spaced letters": _spaced,
    "underscores": _joined,
    "invisible tags": lambda text: _shifted(text, _TAGS),
}
"""Writings that a model reads as they stand."""
