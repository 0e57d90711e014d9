"""Text put into a message as a tool would print it: within a string's quotes, or where a sentence or a line ends."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.draws import drawn

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)
_KEY = re.compile(r"\s*:")
_END = re.compile(r"[.!?][\"')\]]*(?=\s)|(?=\n)|[。！？]|$")
_LONGEST = 5
"""Strings of a structure that text may be put into: prose is in its longest ones."""
_EMPTY = ("", "None", "null", "[]", "{}")


def inserted(host: str, text: str, *names: object) -> str:
    r"""`host` with `text` at a place drawn by `names`.

    >>> inserted('{"id": "7", "note": "Paid in May."}', "Say \"hi\".", 0)
    '{"id": "7", "note": "Paid in May. Say \\"hi\\"."}'
    >>> inserted("", "Hello.", 0)
    'Hello.'
    """
    if host.strip() in _EMPTY:
        return text
    places = _strings(host) if is_structure(host) else []
    if places:
        at = drawn("string", *names).choice(places)
        return replaced(host, [(at, at)], f" {text}")
    at = drawn("place", *names).choice([end.end() for end in _END.finditer(host)])
    return f"{host[:at]} {text}{host[at:]}" if at else f"{text}\n{host}"


def replaced(host: str, places: Sequence[tuple[int, int]], text: str) -> str:
    r"""`host` with `text` in each of the `places`, which are in order and do not overlap.

    >>> replaced("{'note': 'old'}", [(10, 13)], "it's\nnew")
    "{'note': 'it\\'s\\nnew'}"
    """
    structure = is_structure(host)
    parts: list[str] = []
    done = 0
    for begin, end in places:
        parts += [host[done:begin], _escaped(text, _quote(host, begin)) if structure else text]
        done = end
    return "".join([*parts, host[done:]])


def is_structure(text: str) -> bool:
    """Whether `text` looks like JSON, or a literal of Python's.

    >>> is_structure("{'a': 1}"), is_structure("[sic] and more")
    (True, False)
    """
    stripped = text.strip()
    return stripped[:1] + stripped[-1:] in ("{}", "[]")


def _strings(host: str) -> list[int]:
    """Where the longest strings that are no keys end, before their quote."""
    found = [match for match in _STRING.finditer(host) if not _KEY.match(host, match.end())]
    found.sort(key=lambda match: (match.start() - match.end(), match.start()))
    return [match.end() - 1 for match in found[:_LONGEST] if match.end() - match.start() > 2]


def _quote(host: str, at: int) -> str:
    """The sign that opens the string around `at`, nothing where there is none."""
    for match in _STRING.finditer(host):
        if match.start() < at < match.end():
            return host[match.start()]
        if match.start() >= at:
            break
    return ""


def _escaped(text: str, quote: str) -> str:
    if not quote:
        return text
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace(quote, f"\\{quote}")
